"""A person that was trained with Talk3D, as an avatar of ours (method 4.3, 6.5 and 9).

Letters: F frames of the person's film.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..artifacts import Avatar, creating
from ..camera import Orbit, eg3d_elevation
from ..errors import CheckpointError
from ..prior.convert import Talk3DCheckpoint, read_eg3d, read_talk3d, read_tensor
from ..prior.generator import Generator, load_weights
from ..render.reference import PlaneAxes
from .delta import DeltaNetwork
from .drive import Motion
from .official import load_official
from .speak import write_weights

ORBIT = Orbit(radius=2.7, pivot=(0.0, 0.05, 0.2), focal=3.6)
"""Talk3D's camera. Its crops show more than those of FFHQ, which generators know."""
TOLD = (0, 2, 3)
"""Of the six landmarks, those that the landmark token is told: nose tip and outer eye corners."""
LICENCE = (
    "unknown: the terms of the imported checkpoints apply. Talk3D's are CC BY-NC 4.0, and generators tuned from NVIDIA's EG3D "
    "weights are for non-commercial research and evaluation only."
)


@dataclass(frozen=True)
class Talk3DFiles:
    """What Talk3D and its preparation wrote about one person."""

    talker: Path
    """`.pt`: the networks that were trained; with a tuned super-resolution if its name ends in `_tune.pt`."""
    generator: Path
    """`G_tune.pkl`: the personalised generator."""
    latent: Path
    """`inversion_w_person.pt`, [1, 512]."""
    cameras: Path
    """`inversion_0-0_angles.pt`, [F, 2]: yaw and EG3D's pitch, radians."""
    angles: Path
    """`angles.pt`, [F, 3]: what the rotation token was told."""
    landmarks: Path
    """`landmarks.pt`, [F, 6, 2]."""


def import_talker(
    files: Talk3DFiles,
    output: Path,
    extractor: str,
    consent: str,
    plane_axes: PlaneAxes | None = None,
    overwrite: bool = False,
) -> None:
    """The story of `talk3d import-talker`: read the files, find what must fit, write the Avatar.

    Args:
        files: all of one person.
        output: the Avatar.
        extractor: the recogniser that the talker hears through, `hf:MODEL`.
        consent: who agreed to be portrayed.
        plane_axes: for generators that do not say how their planes lie.
        overwrite: replace an existing Avatar.

    Raises:
        CheckpointError: a file cannot be read, or does not fit the others.
        ConfigError: there is no such extractor.
        OutputExistsError: `output` is taken.
    """
    checkpoint = read_talk3d(files.talker)
    network = load_official(checkpoint, extractor)
    generator = talk3d_generator(files.generator, checkpoint, network, plane_axes)
    ws = _latent(files.latent, generator)
    with torch.inference_mode():
        planes = generator.planes(ws)
    provenance = {
        field.name: {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for field in dataclasses.fields(files)
        for path in [getattr(files, field.name)]
    }
    save_imported(output, generator, network, ws, planes, read_motion(files), consent, provenance, overwrite)


def talk3d_generator(
    path: Path, checkpoint: Talk3DCheckpoint, network: DeltaNetwork, plane_axes: PlaneAxes | None
) -> Generator:
    """The person's generator as Talk3D renders with it: its own camera, rays as super-resolution wants them, and
    super-resolution as it was tuned.

    Raises:
        CheckpointError: the talker was trained for other planes, or with a super-resolution that is not EG3D's.
    """
    found = read_eg3d(path, plane_axes).generator
    profile = dataclasses.replace(
        found.profile, name="talk3d", orbit=ORBIT, neural_resolution=found.profile.superres.input_resolution
    )
    sizes, wanted = (profile.plane_channels, profile.plane_resolution), network.config.unet
    talker = checkpoint.provenance["file"]
    if sizes != (wanted.plane_channels, wanted.plane_size):
        raise CheckpointError(
            f"The talker `{talker}` moves planes of {wanted.plane_channels} channels and {wanted.plane_size} texels, but those "
            f"of `{path.name}` have {sizes[0]} and {sizes[1]}. Give the generator that it was trained with."
        )
    state = found.state_dict()
    tuned = {f"superresolution.{name}": value for name, value in checkpoint.states.get("superresolution", {}).items()}
    if unknown := sorted(tuned.keys() - state.keys()):
        raise CheckpointError(
            f"`{talker}` was tuned with another super-resolution than EG3D's (it has `{unknown[0]}`), as Talk3D's own script "
            "does with GFPGAN. That is not supported: it restores faces in general, not this person's, and has terms of its "
            "own. Import the checkpoint from before the tuning."
        )
    if tuned:
        state = {name: value for name, value in state.items() if not name.startswith("superresolution.")} | tuned
    generator = Generator(profile)
    load_weights(generator, state, talker)
    return generator.eval().requires_grad_(False)


def read_motion(files: Talk3DFiles) -> Motion:
    """How the person moved in their film, with the camera's pitch as true elevation.

    Raises:
        CheckpointError: a track has another shape than Talk3D's, or another length than the others.
    """
    cameras = _track(files.cameras, 2)
    angles = _track(files.angles, 3)
    landmarks = _track(files.landmarks, 6, 2)
    paths = (files.cameras, files.angles, files.landmarks)
    lengths = {path.name: len(track) for path, track in zip(paths, (cameras, angles, landmarks), strict=True)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{count} in `{name}`" for name, count in lengths.items())
        raise CheckpointError(f"The tracks are not of the same film: there are {found} frames. Give those of one person.")
    count = len(cameras)
    return Motion(
        yaw=cameras[:, 0],
        pitch=eg3d_elevation(cameras[:, 1]),
        blink=torch.zeros(count),
        crop_from_source=torch.eye(2, 3).expand(count, 2, 3),  # there is no more of the source than the crop
        rotation=angles,
        landmark=landmarks[:, TOLD].flatten(1),
    )


def save_imported(
    output: Path,
    generator: Generator,
    network: DeltaNetwork,
    ws: Float[Tensor, "1 layers w"],
    planes: Float[Tensor, "1 3 channels side side"],
    motion: Motion,
    consent: str,
    provenance: dict[str, dict[str, str]],
    overwrite: bool = False,
) -> None:
    """Write an Avatar that has neither Capture nor Subject.

    Args:
        output: the file.
        generator: decoder and super-resolution are kept.
        network: the talker.
        ws: the person.
        planes: the person's.
        motion: of the person's film.
        consent: who agreed to be portrayed.
        provenance: of each file, its name and SHA-256.
        overwrite: replace an existing Avatar.

    Raises:
        OutputExistsError: `output` is taken.
    """
    with creating(Avatar, output, overwrite=overwrite, zipped=True) as draft:
        draft.consent, draft.licence = consent, LICENCE
        draft.config = {
            "profile": generator.profile.to_json(),
            "network": dataclasses.asdict(network.config),
            "imported": provenance,
        }
        write_weights(draft, generator, network)
        tracks = {field.name: getattr(motion, field.name) for field in dataclasses.fields(motion)}
        draft.write_tensors("person.safetensors", {"planes": planes, "ws": ws, **tracks})


def _latent(path: Path, generator: Generator) -> Float[Tensor, "1 layers w"]:
    """One style vector for all layers."""
    latent, width = read_tensor(path).float(), generator.profile.w_dim
    if latent.numel() != width or not latent.isfinite().all():
        raise CheckpointError(
            f"`{path.name}` holds {tuple(latent.shape)} numbers, but a person is one vector of {width}. Give "
            "`inversion_w_person.pt`."
        )
    return latent.reshape(1, 1, width).expand(1, generator.profile.num_ws, width)


def _track(path: Path, *sizes: int) -> Tensor:
    """[F, *sizes]."""
    track = read_tensor(path).float()
    if track.shape[1:] != sizes or not len(track) or not track.isfinite().all():
        wanted = " x ".join(map(str, sizes))
        raise CheckpointError(
            f"`{path.name}` holds {tuple(track.shape)} numbers, but {wanted} finite ones a frame are needed. Give the file "
            "that Talk3D's preparation wrote."
        )
    return track
