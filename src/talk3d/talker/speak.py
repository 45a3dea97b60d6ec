"""Speaking: an avatar and sound to a video, in chunks of constant memory.

Letters: B frames drawn together, T frames of the capture's training part, S side of the pictures.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..artifacts import Avatar as AvatarArtifact
from ..artifacts import Draft, creating
from ..camera import ViewCone
from ..capture.ahead import ahead, alone, spread, use_threads
from ..capture.artifact import Capture
from ..capture.frames import warp_plate
from ..errors import ConfigError, NoAudioError
from ..prior import fast
from ..prior.folded import CPU
from ..prior.generator import Generator, Picture, Profile, composite
from ..prior.subject import Subject
from ..video.clock import AUDIO_RATE, FPS, SAMPLES_PER_FRAME
from ..video.provenance import provenance
from ..video.read import read_audio_chunks
from ..video.write import VideoWriter
from . import folded
from .audio import Loudness, frame_windows, silent_window
from .clip import audio_neighbourhood, capture_windows, place_token
from .config import TrainConfig
from .delta import DeltaConfig, DeltaNetwork
from .draw import Talker
from .drive import ORBIT_SECONDS, SOURCE, Blinks, Camera, Drive, Motion
from .live import LiveConfig
from .tokens import Conditions
from .unet import Trunk
from .wayback import WayBack

BATCH = 8
"""Frames drawn together."""
GROUP = 4
"""Of them, those that the fast code takes at a time: planes of more no longer wait in a cache until they are looked at."""
WORKERS = 8
"""Threads that draw a film, at most: more draw faster than one thread encodes, and each takes some 90 MB."""
MARK = "AI-generated"
LIGHT = 240.0
"""Of the mark's letters, 0..255."""
LARGE = ("modes.planes", "unet.constant")
"""Weights that are stored in half precision: they are most of an avatar, and pictures do not show it."""


def save_avatar(path: Path, subject: Subject, capture: Capture, talker: Talker, config: TrainConfig, overwrite: bool) -> None:
    """Write everything that speaking needs into one file; neither video nor capture is needed after that."""
    start, stop = capture.train
    generator = talker.generator
    with creating(AvatarArtifact, path, overwrite=overwrite, zipped=True) as draft:
        draft.consent = subject.consent
        draft.parents = {"Subject": subject.hash, "Capture": subject.capture_hash, "Prior": subject.prior_hash}
        draft.config = {
            "profile": generator.profile.to_json(),
            "network": dataclasses.asdict(talker.network.config),
            "train": dataclasses.asdict(config),
            "train_frames": [start, stop],
        }
        write_weights(draft, generator, talker.network)
        draft.write_tensors(
            "person.safetensors",
            {
                "planes": subject.planes,
                "ws": subject.ws,
                "landmark_scale": talker.landmark_scale,
                "yaw": subject.yaw[start:stop],
                "pitch": subject.pitch[start:stop],
                "blink": torch.from_numpy(capture.blink[start:stop]).float(),
                "crop_from_source": torch.from_numpy(capture.crop_from_source[start:stop]).float(),
                # What the person's shape adds to the tracked pose of any frame of this capture.
                "pose_offset": torch.stack(
                    [
                        subject.yaw[start:stop].mean() - float(capture.yaw[start:stop].mean()),
                        subject.pitch[start:stop].mean() - float(capture.pitch[start:stop].mean()),
                    ]
                ),
            },
        )
        cv2.imwrite(str(draft.folder / "plate.png"), capture.plate()[..., ::-1])


def write_weights(draft: Draft, generator: Generator, network: DeltaNetwork) -> None:
    """The networks that an avatar needs. The generator's backbone is not among them: its planes are."""
    modules = {"decoder": generator.decoder, "superresolution": generator.superresolution, "network": network}
    draft.write_tensors(
        "weights.safetensors",
        {
            f"{name}.{key}": value.half() if key in LARGE else value
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        },
    )


class Speaker:
    """An avatar in memory.

    Args:
        path: the avatar file.
        plain: draw with the plain modules that everything was trained with, not with their fast twins.
        device: what draws. What it is told, and the frames that come back, are on the CPU.

    Raises:
        ArtifactError: it is missing, damaged, or something else.
    """

    slow: str | None
    """Why the fast twins do not draw this avatar, other than that it was asked for."""

    def __init__(self, path: Path, plain: bool = False, device: torch.device = CPU):
        artifact = AvatarArtifact.open(path)
        self.artifact, self.device = artifact, device
        config = artifact.config
        profile = Profile.from_json(config["profile"])
        self.profile = profile
        self.network = DeltaNetwork(DeltaConfig.from_json(config["network"]))
        self.audio = self.network.config.audio
        self.generator = Generator(profile)
        weights = artifact.tensors("weights.safetensors")
        for name, module in (
            ("decoder", self.generator.decoder),
            ("superresolution", self.generator.superresolution),
            ("network", self.network),
        ):
            prefix = name + "."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
            module.eval().requires_grad_(False).to(device)
        self.generator.eval()
        person = artifact.tensors("person.safetensors")
        self.planes, self.ws = person["planes"].to(device), person["ws"].to(device)
        # Only of our own captures: what an imported avatar's tokens are told is stored as it is.
        self.landmark_scale, self.pose_offset = person.get("landmark_scale"), person.get("pose_offset")
        tracks = [person[name] for name in ("yaw", "pitch", "blink", "crop_from_source")]
        told = [person[name] for name in ("rotation", "landmark") if name in person]
        self.motion = Motion(*tracks, *told) if told else self._motion_in_crops(*tracks)
        self.plate = _plate(artifact) if profile.alpha else None
        with alone(), torch.inference_mode():  # so that frames do not depend on the number of threads
            self.trunk: Trunk = self.network.unet.trunk(self.planes)
        self.slow = fast.why_not(self.generator) if device == CPU else None
        self.painter: fast.FastPainter | fast.DevicePainter | None = None
        self.mover: folded.FoldedDelta | None = None
        self.way_back = None if device == CPU else WayBack()
        if not plain and device != CPU:
            self.painter = fast.DevicePainter(self.generator, self.ws)
        elif not plain and self.slow is None:
            self.painter = fast.FastPainter(self.generator, self.ws)
            if folded.why_not(self.network.config.unet) is None:
                self.mover = folded.FoldedDelta(self.network, self.planes, self.trunk, self.painter.dtype)

    @property
    def size(self) -> int:
        return self.profile.image_resolution

    @property
    def group(self) -> int:
        """Frames drawn in one go. Planes are rounded a little differently in other groups."""
        return GROUP if self.painter else BATCH

    @property
    def workers(self) -> int:
        """Threads that draw a film. The plain modules take four times the memory, and have enough to do for all of torch's."""
        return min(torch.get_num_threads(), WORKERS) if self.mover else 1

    def motion_of(self, capture: Capture, start: int, stop: int) -> Motion:
        """The head motion and blinks of frames of a capture of the same person.

        Raises:
            ConfigError: the avatar was imported, or the capture's poses and crops are not of the kind it was trained with.
        """
        if self.pose_offset is None:
            raise ConfigError(
                "This avatar was imported: what its tokens are told about the head was measured by other programs than "
                "`talk3d prepare`, so a Capture cannot move it. Give a sound file instead; it moves as in its own film."
            )
        if capture.prior_hash != self.artifact.parents["Prior"] or capture.resolution != self.size:
            raise ConfigError(
                f"`{capture.root}` was prepared for another prior than this avatar's, so its head poses mean something else. "
                "Prepare the film again, with the prior of the avatar's own capture."
            )
        return self._motion_in_crops(
            torch.from_numpy(capture.yaw[start:stop]).float() + self.pose_offset[0],
            torch.from_numpy(capture.pitch[start:stop]).float() + self.pose_offset[1],
            torch.from_numpy(capture.blink[start:stop]).float(),
            torch.from_numpy(capture.crop_from_source[start:stop]).float(),
        )

    def _motion_in_crops(self, yaw: Tensor, pitch: Tensor, blink: Tensor, crop_from_source: Tensor) -> Motion:
        """Of a capture: tokens are told the pose, and where the crop lies in units of the training frames' deviation."""
        assert self.landmark_scale is not None
        landmark = place_token(crop_from_source.double().numpy(), self.size, self.landmark_scale)
        return Motion(yaw, pitch, blink, crop_from_source, torch.stack([yaw, pitch], -1), landmark)

    @torch.inference_mode()
    def move(
        self, audio: Float[Tensor, "batch windows channels columns"], motion: Motion, lips: float = 1.0
    ) -> Float[Tensor, "batch 3 features side side"]:
        """The planes of a speaking head.

        Args:
            audio: windows of audio features around each frame.
            motion: the head's pose, blink and place in the source picture.
            lips: how far the mouth moves, of what the sound asks for.
        """
        conditions = self.conditions(audio, motion, lips)
        return self.mover(conditions) if self.mover else self.planes + self.network(self.trunk, conditions)

    @torch.inference_mode()
    def conditions(
        self, audio: Float[Tensor, "batch windows channels columns"], motion: Motion, lips: float = 1.0
    ) -> Conditions:
        """What the network is told; see `move`.

        Raises:
            ConfigError: the avatar was imported, and `lips` is not 1.
        """
        self.require_scalable(lips)
        code = self.network.encoder.hear(audio.to(self.device))
        if lips != 1:
            code = self.network.encoder.exaggerate(code, lips)
        told = (value.to(self.device) for value in (motion.blink, motion.rotation, motion.landmark))
        return Conditions(code, *told)

    def require_scalable(self, lips: float) -> None:
        """Raises:
        ConfigError: the avatar was imported, and `lips` is not 1.
        """
        if lips != 1 and self.pose_offset is None:
            raise ConfigError(
                "This avatar was imported, and how far its sounds spread is not known: its lips cannot be scaled."
            )

    @torch.inference_mode()
    def look(
        self,
        planes: Float[Tensor, "batch 3 features side side"],
        yaw: Float[Tensor, " batch"],
        pitch: Float[Tensor, " batch"],
    ) -> Picture:
        """The head alone, from the given angles (radians)."""
        orbit, count = self.profile.orbit, len(planes)
        camera = orbit.pose(yaw, pitch).to(self.device), orbit.intrinsics().to(self.device).expand(count, 3, 3)
        if self.painter:
            return self.painter(planes, *camera)
        raw = self.generator.render(planes, *camera, deterministic=True)
        return Picture(self.generator.superresolve(raw.features, raw.rgb, raw.alpha, self.ws.expand(count, -1, -1)), raw)

    @torch.inference_mode()
    def draw(
        self,
        audio: Float[Tensor, "batch windows channels columns"],
        motion: Motion,
        camera: Float[Tensor, "batch 2"] | None = None,
        lips: float = 1.0,
    ) -> np.ndarray:
        """Frames [B, S, S, 3] uint8.

        Args:
            audio: windows of audio features around each frame.
            motion: the head's pose, blink and place in the source picture.
            camera: yaw and pitch (radians) to look from; None looks from the source camera.
            lips: how far the mouth moves, of what the sound asks for.
        """
        yaw, pitch = (motion.yaw, motion.pitch) if camera is None else camera.unbind(-1)
        groups = torch.arange(len(audio)).split(self.group)
        drawn = (
            self._finished(self.look(self.move(audio[some], motion[some], lips), yaw[some], pitch[some]), motion[some])
            for some in groups
        )
        return np.concatenate(list(self.way_back.bring(drawn)) if self.way_back else [some.numpy() for some in drawn])

    def provenance(self, config: SpeakConfig, motion: Motion | None = None) -> dict[str, Any]:
        """What a film of this avatar says of itself: metadata for `VideoWriter`.

        Args:
            config: how it speaks.
            motion: how its head moves, if not as in its own film.
        """
        parents = self.artifact.parents
        facts: dict[str, Any] = {
            "avatar": self.artifact.hash,
            "capture": parents.get("Capture"),
            "camera": config.camera.kind,
            "protocol": "audio-only",
        }
        # A film that was made livelier or calmer on purpose says so: whoever scores it should know.
        facts |= {name: getattr(config, name) for name in ("lips", "blinks", "motion") if getattr(config, name) != 1}
        if outside_trusted_views(self, config.camera, motion or self.motion):
            facts["outside_trusted_views"] = True
        return provenance(self.artifact.consent, facts)

    def stream(
        self, chunks: Iterable[np.ndarray], config: SpeakConfig | None = None, live: LiveConfig | None = None
    ) -> Iterator[np.ndarray]:
        """Frames [S, S, 3] uint8 of sound that is still being spoken, each as soon as it can be drawn; see `stream.Stream`.

        Args:
            chunks: float32 in -1..1, mono at 16 kHz, of any lengths.
            config: camera, mark, blinks and how much moves, as for `speak`.
            live: how it listens, and how long it waits.

        Raises:
            ConfigError: the avatar was imported, and hears whole recordings only.
            MediaError: a chunk is no such sound.
        """
        from .stream import Stream  # which is made of what is here

        stream = Stream(self, config, live)
        for chunk in chunks:
            yield from stream.push(chunk)
        yield from stream.finish()

    @torch.inference_mode()
    def finish(self, picture: Picture, motion: Motion) -> np.ndarray:
        """Frames [B, S, S, 3] uint8 of heads that were looked at, over the plate where the head has alpha."""
        return self._finished(picture, motion).cpu().numpy()

    def _finished(self, picture: Picture, motion: Motion) -> UInt8[Tensor, "batch size size 3"]:
        """See `finish`; where they were drawn."""
        image = picture.image
        if self.plate is not None:
            plates = np.stack([warp_plate(self.plate, c.double().numpy(), self.size) for c in motion.crop_from_source])
            # Premultiplied colour is no more than alpha. Super-resolution leaves a trace of it where nothing is, and what is
            # behind a head must not breathe with its lips.
            alpha = image[:, 3:].clamp(-1, 1)
            head = torch.cat([torch.minimum(image[:, :3].clamp(min=-1), alpha), alpha], 1)
            behind = torch.from_numpy(plates).to(self.device)
            image = composite(head, behind.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous()


def _plate(artifact: AvatarArtifact) -> np.ndarray:
    """The background, which a head with alpha is put over: RGB."""
    plate = cv2.imdecode(np.frombuffer(artifact.read("plate.png"), np.uint8), cv2.IMREAD_COLOR)
    assert plate is not None
    return np.ascontiguousarray(plate[..., ::-1])


def outside_trusted_views(speaker: Speaker, camera: Camera, motion: Motion) -> str | None:
    """A warning if the camera leaves the angles that `talk3d bench views` found the avatar to hold up from.

    Args:
        speaker: the avatar; one that was never measured gets no warning.
        camera: where to look from.
        motion: of the source camera, of which the mean pose counts.
    """
    note = speaker.artifact.notes.get("views")
    if note is None:
        return None
    rest = motion.still()
    seen = camera.at(torch.arange(round(ORBIT_SECONDS * FPS)))  # one round of an orbit
    angles = torch.stack([rest.yaw, rest.pitch], -1) if seen is None else seen
    cone = None if note["cone"] is None else ViewCone(*(tuple(note["cone"][axis]) for axis in ("yaw", "pitch")))
    if cone is not None and all(cone.contains(yaw, pitch) for yaw, pitch in angles.rad2deg().tolist()):
        return None
    failed = ", ".join(note["failing"]) + " failed" if note["failing"] else "nobody looked"
    if cone is None:
        return f"This avatar does not hold up even from the front: {failed} when it was measured. Train it longer."
    least, most = angles.rad2deg().aminmax(dim=0)
    ways = (
        f"{f'from {low:+.0f} to' if round(low) != round(high) else 'to'} {high:+.0f} degrees of {name}"
        for name, low, high in zip(("yaw", "pitch"), least.tolist(), most.tolist(), strict=True)
    )
    return (
        f"The camera goes {' and '.join(ways)}, but this avatar holds up for {cone} only. "
        f"Its pictures were measured; beyond that {failed}. Stay within, or expect flaws."
    )


@dataclass(frozen=True)
class SpeakConfig:
    """Settings of `speak`."""

    camera: Camera = SOURCE
    mark: bool = True
    """Write a small visible mark into the picture."""
    seed: int = 0
    """Of the generated blinks."""
    protocol: Literal["paper", "audio-only"] = "paper"
    """What is taken of a capture's frames: `paper` takes sound, head motion and blinks, `audio-only` the sound alone."""
    lips: float = 1.0
    """How far the mouth moves, of what the sound asks for."""
    blinks: float = 1.0
    """How far blinks close the eyes, of what they do by themselves; 0 keeps them open."""
    motion: float = 1.0
    """How far the head moves about its mean pose, of what it did in the film; 0 holds it still."""

    def __post_init__(self) -> None:
        for name, most in (("lips", 2.0), ("blinks", 1.0), ("motion", 2.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(
                    f"{name} is {getattr(self, name):g}; it can be anything from 0 to {most:g}, and 1 is as it is."
                )


def speak(
    speaker: Speaker,
    sound: Path,
    output: Path,
    config: SpeakConfig,
    overwrite: bool,
    progress: Callable[[int, int], None],
    drive: Capture | None = None,
) -> int:
    """Write the talking video, and return its number of frames.

    Args:
        speaker: the avatar.
        sound: any file with sound; or, with `drive`, ignored.
        output: the .mp4 file.
        config: all other choices.
        overwrite: replace an existing output.
        progress: called with (frames done, frames in all).
        drive: re-enact frames of this capture that were not trained on: the test part of the one that the avatar was
            trained on, or all of another film of the same person by the same camera. By default with their own sound,
            blinks and head motion (self-driven reconstruction, the paper's protocol).

    Raises:
        ConfigError: the other film has another picture size than the one that was trained on or was prepared for another
            prior, or an imported avatar's lips are to move more or less.
        NoAudioError: there is no sound, or not even one frame of it.
        MediaError: the sound cannot be read.
        OutputExistsError: the output exists.
    """
    speaker.require_scalable(config.lips)
    said = _from_sound(speaker, sound) if drive is None else _from_capture(speaker, drive, config.protocol)
    metadata = speaker.provenance(config, said.motion)
    metadata["talk3d"] |= said.claims
    moves = Drive(speaker.motion, config.camera, Blinks(config.seed, said.frames), config.blinks, config.motion, said.motion)

    def parts() -> Iterator[tuple[Tensor, Motion, Tensor | None]]:
        use_threads(1)  # what is heard does not depend on their number, and the others draw meanwhile
        first = 0
        for block in said.heard:
            # One thread alone takes all groups of a block: what a device has drawn comes back while it draws the next.
            for group in block.split(speaker.group if speaker.workers > 1 else BATCH):
                frames = torch.arange(first, first + len(group))
                yield group, moves.at(frames), config.camera.at(frames)
                first += len(group)

    def draw(part: tuple[Tensor, Motion, Tensor | None]) -> np.ndarray:
        return speaker.draw(*part, config.lips)

    done = 0
    size = (speaker.size, speaker.size)
    with (
        VideoWriter(output, size, audio_rate=AUDIO_RATE, metadata=metadata, overwrite=overwrite) as writer,
        # Sound is heard in one thread, frames are drawn in some, and encoded in this one, all at the same time.
        closing(ahead(parts())) as heard,
        closing(spread(heard, draw, speaker.workers)) as blocks,
    ):
        written = 0
        for pictures in blocks:
            # Sound runs just ahead of its frames, so that little of it waits in memory.
            while written < (done + len(pictures)) * SAMPLES_PER_FRAME:
                piece = next(said.sound, None)
                if piece is None:
                    break
                writer.write_audio(piece)
                written += len(piece)
            for picture in pictures:
                writer.write(marked(picture) if config.mark else picture)
            done += len(pictures)
            progress(done, said.frames)
    return done


@dataclass(frozen=True)
class _Said:
    """What an avatar is to say, and how its head moves meanwhile."""

    frames: int
    heard: Iterator[Float[Tensor, "batch windows channels columns"]]
    """The sound around each frame, in blocks of up to `BATCH`."""
    sound: Iterator[np.ndarray]
    """What the film sounds like."""
    motion: Motion | None = None
    """Of each frame; None if the avatar moves as in its own film."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What the film's metadata says of it."""


def _from_sound(speaker: Speaker, sound: Path) -> _Said:
    """A file's sound, in constant memory."""
    loudness = Loudness.of(read_audio_chunks(sound))
    if loudness.samples < SAMPLES_PER_FRAME:
        raise NoAudioError(
            f"`{sound}` holds only {loudness.samples / AUDIO_RATE:.3f} s of sound; at least one frame (0.04 s) is needed."
        )
    windows = frame_windows(read_audio_chunks(sound), loudness.gain, speaker.audio)
    heard = _audio_blocks(windows, speaker.network.config.tokens.windows, silent_window(speaker.audio))
    return _Said(-(-loudness.samples // SAMPLES_PER_FRAME), heard, iter(read_audio_chunks(sound)))


def _from_capture(speaker: Speaker, drive: Capture, protocol: str) -> _Said:
    """The sound of frames that were not trained on, and their head motion if the protocol takes it."""
    start, stop = reenacted(speaker, drive)
    motion = speaker.motion_of(drive, start, stop) if protocol == "paper" else None
    if motion is not None and speaker.plate is not None and speaker.plate.shape != drive.plate().shape:
        raise ConfigError(
            f"`{drive.root}` has another picture size than the film the avatar was trained on, so its head motion means "
            "nothing here. Use a film by the same camera, or `--protocol audio-only`."
        )
    windows = capture_windows(drive, drive.train if _is_own(speaker, drive) else (start, stop), speaker.audio)
    around, silence = speaker.network.config.tokens.windows, silent_window(speaker.audio)
    heard = (audio_neighbourhood(windows, some, around, silence) for some in torch.arange(start, stop).split(BATCH))
    sound = iter([drive.audio()[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]])
    claims = {"protocol": protocol, "shows": drive.hash, "frames": [start, stop], "split": "test"}
    return _Said(stop - start, heard, sound, motion, claims)


def reenacted(speaker: Speaker, drive: Capture) -> tuple[int, int]:
    """Which frames of a capture are re-enacted (half-open): the test part of the avatar's own, all of another film."""
    return drive.test if _is_own(speaker, drive) else (0, drive.count)


def _is_own(speaker: Speaker, drive: Capture) -> bool:
    return drive.hash == speaker.artifact.parents.get("Capture")


def _audio_blocks(
    windows: Iterator[Tensor], around: int, silence: Float[Tensor, "channels columns"]
) -> Iterator[Float[Tensor, "batch windows channels columns"]]:
    """Neighbourhoods of consecutive frames, in blocks of up to `BATCH`, from a stream of windows."""
    before, after = around // 2, around - around // 2 - 1
    buffer: Tensor | None = None
    ended = False
    while True:
        while not ended and (buffer is None or len(buffer) < before + BATCH + after):
            piece = next(windows, None)
            if piece is None:
                ended = True
                if buffer is None:
                    return
                buffer = torch.cat([buffer, silence.expand(after, -1, -1)])
            elif buffer is None:
                buffer = torch.cat([silence.expand(before, -1, -1), piece])
            else:
                buffer = torch.cat([buffer, piece])
        assert buffer is not None
        count = min(BATCH, len(buffer) - before - after)
        if count <= 0:
            return
        yield torch.stack([buffer[i : i + around] for i in range(count)])
        buffer = buffer[count:]


def marked(picture: UInt8[np.ndarray, "size size 3"]) -> UInt8[np.ndarray, "size size 3"]:
    """The picture with a small note in the lower right corner: light letters with a dark seam."""
    size = picture.shape[0]
    letters, seam = _mark(size)
    height, width = letters.shape[:2]
    edge = size - size // 64
    marked = picture.copy()
    corner = marked[edge - height : edge, edge - width : edge]
    corner[:] = np.round(corner * (1 - seam) + LIGHT * letters)
    return marked


@functools.cache
def _mark(size: int) -> tuple[Float[np.ndarray, "height width 1"], Float[np.ndarray, "height width 1"]]:
    """How much of the note's light, and how little of the picture behind it, each pixel shows, for pictures of a size."""
    drawn = np.zeros((size, 2 * size), np.uint8)
    cv2.putText(drawn, MARK, (size // 8, size // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.36 * size / 256, 255, 1, cv2.LINE_AA)
    # A font's own thick letters are wider than its thin ones, and would stand beside them.
    seam = cv2.dilate(drawn, np.ones((3, 3), np.uint8))
    rows, columns = (np.flatnonzero(seam.any(axis)) for axis in (1, 0))
    letters, behind = (x[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, None] / 255 for x in (drawn, seam))
    return letters, np.maximum(letters, 0.7 * behind)
