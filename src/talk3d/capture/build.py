"""`prepare`: from a video of one person to a `Capture`, in three passes over the file, each of which survives being killed.

The first pass follows the face. From its landmarks come the usable takes, the train/test split, and, for each part of
the clip on its own, rough head poses; from sampled training frames comes the background. The second pass follows the skin to
steady the poses, the third cuts the aligned crops and masks the person. Frames stream through all of them; what grows with the
clip is only its landmarks.

Nothing that describes training frames depends on test frames: poses are smoothed within each part, key pictures, statistics
and the background come from training frames, and the crops are encoded causally.

Letters: F usable frames at 25 per second, S the side of the crops in pixels, L = 468 landmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float

from ..artifacts import creating, refuse_other
from ..camera import Orbit
from ..errors import ConfigError, MediaError, NoFaceError
from ..frozen import MODELS, model_path
from ..video.clock import FPS, frames_in
from ..video.look import VideoInfo, check_complete, probe, require_video
from ..video.provenance import consent_carried
from ..video.read import read_frames
from ..video.source import Pictures
from .artifact import Capture
from .choose import choose, require_seconds
from .covers import find_covers
from .cut import CUT, cut_crops
from .detect import apply
from .mask import PersonSegmenter, Plate, background_plate
from .palette import learn_from
from .passes import Progress, follow_face, follow_skin
from .people import LOOKS, Person, choose_person, find_people, portraits
from .pose import CHUNK, Poses, upright_brows
from .report import Found, review
from .sound import Heard, hear, write_in_step
from .steady import Follower, firm_points, refine
from .stretches import Stretches, identity_of, keeping
from .takes import MIN_TAKE, bridge, find_takes, parts_of, select, solve_parts, split_of
from .track import FACE_OVAL, OUTER_EYE_CORNERS, Track, brow_height, eye_opening, gaze, lip_gap, lip_width
from .voice import load_voice

CONSENTS = ("self", "permission", "synthetic")
SAMPLE_BYTES = 48_000_000
"""Memory for the frames that the background is made from."""


def prepare(
    video: Path | Pictures,
    output: Path,
    *,
    canonical: Float[np.ndarray, "468 3"],
    orbit: Orbit,
    resolution: int,
    prior_hash: str,
    consent: str,
    progress: Progress | None = None,
    audio: Path | None = None,
    sync: float | None = None,
    seconds: float | None = None,
    face: int | None = None,
    overwrite: bool = False,
) -> Capture:
    """Make a Capture of a video.

    Args:
        video: one person talking to a camera that stands still; any container, frame rate and rotation, or a folder of
            pictures, which needs `audio`.
        output: folder to write; appears only when complete.
        canonical: the prior's landmarks, scene units.
        orbit: the prior's camera.
        resolution: side of the aligned crops in pixels, even.
        prior_hash: names the prior in the manifest.
        consent: who agreed to be portrayed: `self`, `permission` (of the person) or `synthetic` (no real person).
        progress: called with a stage's name and the part of it that is done, 0..1.
        audio: a sound file to use instead of the video's own sound, beginning with the first frame.
        sync: frames by which the sound is late, 0 to leave it; None lets the lip-sync expert find out, and mends it.
        seconds: keep only the best so many seconds; None for all.
        face: which of several people to portray, as numbered in `faces.png` of an earlier Capture; None for the one who is
            largest, longest in the picture, and moves the lips most.
        overwrite: replace an existing Capture.

    Raises:
        OutputExistsError: `output` exists; nothing was done.
        ConfigError: bad `consent`, `resolution`, `seconds` or `face`; or the film was made here, of somebody who agreed
            otherwise.
        ModelMissingError: the face models or the voice detector are not installed.
        MediaError: the video cannot be read, is cut off or too short. Before any long work where that can be known.
        NoAudioError: no sound, only silence, or sound for less than half of the video.
        NoFaceError: no face, or none for long enough.
    """
    video, output = video if isinstance(video, Pictures) else Path(video), Path(output)
    say = progress or (lambda stage, part: None)
    refuse_other(Capture, output, overwrite)
    if consent not in CONSENTS:
        raise ConfigError(
            f"consent must be one of {', '.join(CONSENTS)}, not {consent!r}. Say who agreed to be portrayed: you "
            "yourself, a person who gave you permission, or nobody because the person is synthetic."
        )
    if resolution % 2 or resolution < 32:
        raise ConfigError(f"resolution must be even and at least 32, not {resolution}.")
    require_seconds(seconds)
    for name in MODELS:
        model_path(name)
    load_voice()
    sound_file = Path(str(video)) if audio is None else Path(audio)
    info, sound, people = _check_input(video, sound_file, consent)
    chosen = choose_person(people, face)
    about = {
        "film": identity_of(video), "sound": identity_of(sound_file) if audio else None, "prior": prior_hash,
        "canonical": canonical.tolist(), "orbit": asdict(orbit), "resolution": resolution, "seconds": seconds, "face": face,
    }  # fmt: skip
    with keeping(output, about) as kept:
        tracked, scenes = follow_face(video, np.stack(people[chosen].looks), frames_in(info.duration), kept, say)
        takes = find_takes(tracked, scenes)
        if not takes:
            found = float(np.mean(tracked.confidence > 0)) if len(tracked.confidence) else 0.0
            raise NoFaceError(
                f"`{video}` shows a face in {found:.0%} of its frames, but never for {MIN_TAKE / FPS:.0f} s without a "
                "break. Record one person who looks at the camera, without cuts."
            )
        material = Found(len(tracked.confidence), takes, seconds, len(people), chosen, tuple(info.notes))
        if seconds is not None:
            say("choosing", 0.0)
            takes = choose(takes, seconds, video, sound_file, tracked, canonical, orbit)
        frame_numbers = np.concatenate([np.arange(*take) for take in takes])
        split = split_of(len(frame_numbers))
        parts = parts_of(takes, split)
        observed = bridge(select(tracked, frame_numbers), parts)
        del tracked, scenes  # of a long film they are half of what memory holds

        say("posing", 0.0)
        segment = PersonSegmenter()
        poses, plate = _pose(video, info, frame_numbers, observed, parts, split["train"], canonical, orbit, segment, kept, say)
        crops = poses.crop_from_source(resolution)
        arrays = {
            "yaw": poses.yaw,
            "pitch": poses.pitch,
            "crop_from_source": crops,
            "confidence": observed.confidence,
            "residual": poses.residual,
            **_curves(observed, poses, split["train"], canonical, orbit),
            "landmarks": _into_crops(observed.landmarks, crops, resolution),
        }
        with creating(Capture, output, overwrite=overwrite) as draft:
            looks = cut_crops(
                draft.folder, video, frame_numbers, crops, arrays["landmarks"], plate, segment, resolution, kept, say
            )
            seen = slice(*split["train"])
            say("learning colours", 0.0)
            palette = learn_from(draft.folder, arrays["landmarks"][seen])
            if palette is not None:
                draft.write_tensors(
                    "palette.safetensors", {name: torch.from_numpy(values) for name, values in palette.tensors().items()}
                )
            say("looking for covers", 0.0)
            arrays["occluded"] = find_covers(lambda: kept.pieces(CUT, "marks"), arrays, canonical, orbit, seen, parts)
            say("writing sound", 0.0)
            learnt = [part for part in parts if part.stop <= seen.stop]
            lateness, drift = write_in_step(
                draft.folder / "audio.flac", sound_file, takes, arrays["landmarks"][seen], frame_numbers[seen], learnt, sync
            )
            cv2.imwrite(str(draft.folder / "plate.png"), plate.image[..., ::-1])
            cv2.imwrite(str(draft.folder / "plate_seen.png"), plate.seen.astype(np.uint8) * 255)
            draft.write_tensors(
                "track.safetensors", {k: torch.from_numpy(v.astype(np.float32, copy=False)) for k, v in arrays.items()}
            )
            draft.config = {
                "fps": FPS,
                "frames": len(frame_numbers),
                "resolution": resolution,
                "source": {"name": video.name, "width": info.width, "height": info.height, "fps": info.fps},
                "orbit": asdict(orbit),
                "prior_hash": prior_hash,
                "consent": consent,
                "split": split,
                "takes": takes,
            }
            draft.parents = {"Prior": prior_hash}
            draft.consent = consent
            if len(people) > 1:
                cv2.imwrite(str(draft.folder / "faces.png"), portraits(people, chosen)[..., ::-1])
            review(draft.folder, video, draft.config, arrays, looks, parts, plate, sound, lateness, drift, material)
            say("done", 1.0)
    return Capture.open(output)


def _check_input(video: Path | Pictures, sound_file: Path, consent: str) -> tuple[VideoInfo, Heard, list[Person]]:
    """Everything that can be known to be wrong before the long work; what the film is, what was heard, and who was seen."""
    info = require_video(video)
    carried = consent_carried(probe(video).metadata) if isinstance(video, Path) else None
    if carried is not None and carried != consent:
        raise ConfigError(
            f"`{video}` says of itself that talk3d made it, of a person with consent `{carried}`: it is no recording, and who "
            f"agreed does not change on the way. Pass `--consent {carried}`, or give the recording of the person."
        )
    check_complete(video)
    seconds = info.duration
    if 0 < seconds < MIN_TAKE / FPS:
        raise MediaError(
            f"`{video}` lasts {seconds:.1f} s. At least {MIN_TAKE / FPS:.0f} s are needed, and one to five minutes are good."
        )
    heard = hear(sound_file, seconds)
    count = frames_in(seconds) if seconds else 1
    looks = np.unique(np.linspace(0, count - 1, LOOKS).astype(int)).tolist()
    people = find_people(frame for k in looks for frame in read_frames(video, start=k, stop=k + 1))
    if not people:
        raise NoFaceError(
            f"No face was found in `{video}` (looked at {len(looks)} frames spread over it). Record one person from "
            "the front, with the face at least a tenth of the picture's height."
        )
    return info, heard, people


def _pose(
    video: Path | Pictures,
    info: VideoInfo,
    frame_numbers: np.ndarray,
    observed: Track,
    parts: list[slice],
    train: Sequence[int],
    canonical: np.ndarray,
    orbit: Orbit,
    segment: PersonSegmenter,
    kept: Stretches,
    say: Progress,
) -> tuple[Poses, Plate]:
    """Steady poses of all frames, and the background: what the second pass over the film is for."""
    frames = len(frame_numbers)
    rough = solve_parts(observed, parts, canonical, orbit)
    most = max(8, min(48, SAMPLE_BYTES // (info.width * info.height * 3)))
    sampled = np.linspace(0, train[1] - 1, most).astype(int).tolist()
    follower = Follower(rough, observed.landmarks, observed.found, np.arange(frames) < train[1], firm_points(canonical))
    samples = follow_skin(video, frame_numbers, follower, set(sampled), kept, say)
    poses = refine(follower, canonical, orbit, parts)
    say("finding the background", 0.0)
    return poses, background_plate(list(samples), segment)


def _into_crops(landmarks: np.ndarray, crops: np.ndarray, resolution: int) -> np.ndarray:
    """Landmarks in source pixels as positions in the crops, 0..1: in place, for there is no room for two of them."""
    for start in range(0, len(landmarks), CHUNK):
        part = slice(start, start + CHUNK)
        landmarks[part] = apply(crops[part], landmarks[part].astype(np.float64)) / resolution
    return landmarks


def _curves(observed: Track, poses: Poses, train: Sequence[int], canonical: np.ndarray, orbit: Orbit) -> dict[str, np.ndarray]:
    """Blink, lip gap, lip width, brow height, gaze and height of the face in each frame.

    Lips and brows are in distances between the outer eye corners, the face in source pixels.
    """
    frontal = orbit.project(torch.from_numpy(canonical[list(OUTER_EYE_CORNERS)]).double(), *torch.zeros(2, 1).double())
    corners = float(torch.linalg.norm(frontal[0, 0] - frontal[0, 1]))  # in crop widths, so free of the yaw's shortening
    unit = corners * np.sqrt(np.abs(np.linalg.det(poses.source_from_crop[..., :2])))
    opening = eye_opening(observed.lids)
    seen = opening[train[0] : train[1]]
    # Open is what the eyes mostly are. A clip without blinks must not have its noise stretched into some.
    opened = float(np.median(seen))
    closed = min(float(np.quantile(seen, 0.005)), 0.65 * opened)
    return {
        "blink": np.clip((opened - opening) / (opened - closed), 0, 1),
        "lip_gap": lip_gap(observed.landmarks) / unit,
        "lip_width": lip_width(observed.landmarks) / unit,
        "brow_height": upright_brows(brow_height(observed.landmarks) / unit, poses, canonical, orbit),
        "gaze": gaze(observed.lids, observed.irises),
        "face_height": np.linalg.norm(observed.landmarks[:, FACE_OVAL[0]] - observed.landmarks[:, FACE_OVAL[18]], axis=-1),
    }
