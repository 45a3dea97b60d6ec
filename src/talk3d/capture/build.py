"""`prepare`: from a video of one person to a `Capture`, in three passes over the file.

The first pass follows the face. From its landmarks come the usable takes, the train/test split, and, for each part of
the clip on its own, rough head poses; from sampled training frames comes the background. The second pass follows the skin to
steady the poses, the third cuts the aligned crops and masks the person. Frames stream through all of them; what grows with the
clip is only its landmarks.

Nothing that describes training frames depends on test frames: poses are smoothed within each part, key pictures, statistics
and the background come from training frames, and the crops are encoded causally.

Letters: F usable frames at 25 per second, S the side of the crops in pixels, L = 468 landmarks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float

from ..artifacts import creating, refuse_existing
from ..camera import Orbit
from ..errors import ConfigError, MediaError, NoFaceError
from ..frozen import MODELS, model_path
from ..video.clock import FPS, frames_in
from ..video.look import check_complete, require_video
from ..video.read import read_frames
from ..video.source import Pictures
from .artifact import Capture
from .choose import choose, require_seconds
from .covers import find_covers
from .cut import Progress, cut_crops
from .detect import apply
from .mask import PersonSegmenter, background_plate
from .palette import learn_from
from .people import LOOKS, Person, choose_person, find_people, portraits
from .pose import Poses, solve_clip, upright_brows
from .report import Found, review
from .sound import Heard, hear, write_in_step
from .steady import Follower, firm_points, refine
from .takes import MIN_TAKE, bridge, find_takes, frames_of, parts_of, select, split_of
from .track import OUTER_EYE_CORNERS, Track, brow_height, eye_opening, gaze, lip_gap, lip_width, track
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
        ConfigError: bad `consent`, `resolution`, `seconds` or `face`.
        ModelMissingError: the face models or the voice detector are not installed.
        MediaError: the video cannot be read, is cut off or too short. Before any long work where that can be known.
        NoAudioError: no sound, only silence, or sound for less than half of the video.
        NoFaceError: no face, or none for long enough.
    """
    video, output = video if isinstance(video, Pictures) else Path(video), Path(output)
    say = progress or (lambda stage, part: None)
    refuse_existing(output, overwrite)
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
    sound, people = _check_input(video, sound_file)
    chosen = choose_person(people, face)

    info = require_video(video)
    expected = frames_in(info.duration)
    thumbnails: list[np.ndarray] = []

    def watched() -> Iterator[np.ndarray]:
        for number, frame in enumerate(read_frames(video)):
            thumbnails.append(cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA))
            say("tracking", min(1.0, (number + 1) / expected))
            yield frame

    tracked = track(watched(), people[chosen].embedding)
    takes = find_takes(tracked, np.stack(thumbnails))
    if not takes:
        found = float(np.mean(tracked.confidence > 0)) if len(tracked.confidence) else 0.0
        raise NoFaceError(
            f"`{video}` shows a face in {found:.0%} of its frames, but never for {MIN_TAKE / FPS:.0f} s without a "
            "break. Record one person who looks at the camera, without cuts."
        )
    frame_numbers = np.concatenate([np.arange(*take) for take in takes])
    split = split_of(len(frame_numbers))
    material = Found(len(tracked.confidence), takes, seconds, len(people), chosen, tuple(info.notes))
    if seconds is not None:
        say("choosing", 0.0)
        takes = choose(takes, seconds, video, sound_file, tracked, canonical, orbit)
        frame_numbers = np.concatenate([np.arange(*take) for take in takes])
        split = split_of(len(frame_numbers))
    parts = parts_of(takes, split)
    observed = bridge(select(tracked, frame_numbers), parts)
    del tracked  # of a long film it is a third of what memory holds

    say("posing", 0.0)
    poses = _solve(observed, parts, canonical, orbit)
    trained = np.arange(len(frame_numbers)) < split["train"][1]
    most = max(8, min(48, SAMPLE_BYTES // (info.width * info.height * 3)))
    sampled = set(np.linspace(0, split["train"][1] - 1, most).astype(int).tolist())
    samples = []
    follower = Follower(poses, observed.landmarks, observed.found, trained, firm_points(canonical))
    for index, frame in enumerate(frames_of(video, frame_numbers)):
        follower(index, frame)
        if index in sampled:
            samples.append(frame)
        say("steadying", (index + 1) / len(frame_numbers))
    poses = refine(follower, canonical, orbit, parts)
    say("finding the background", 0.0)
    segment = PersonSegmenter()
    plate = background_plate(samples, segment)
    samples.clear()

    crops = poses.crop_from_source(resolution)
    curves = _curves(observed, poses, split["train"], canonical, orbit)
    crop_landmarks = (apply(crops.astype(np.float32), observed.landmarks) / resolution).astype(np.float32)
    with creating(Capture, output, overwrite=overwrite) as draft:
        looks = cut_crops(draft.folder, video, frame_numbers, crops, crop_landmarks, plate, segment, resolution, say)
        say("learning colours", 0.0)
        palette = learn_from(draft.folder, crop_landmarks[slice(*split["train"])])
        if palette is not None:
            draft.write_tensors(
                "palette.safetensors", {name: torch.from_numpy(values) for name, values in palette.tensors().items()}
            )
        say("looking for covers", 0.0)
        moved = {"landmarks": crop_landmarks, "yaw": poses.yaw, "pitch": poses.pitch, **curves}
        occluded = find_covers(draft.folder, moved, canonical, orbit, slice(*split["train"]), parts)
        say("writing sound", 0.0)
        seen = slice(*split["train"])
        learnt = [part for part in parts if part.stop <= seen.stop]
        lateness, drift = write_in_step(
            draft.folder / "audio.flac", sound_file, takes, crop_landmarks[seen], frame_numbers[seen], learnt, sync
        )
        cv2.imwrite(str(draft.folder / "plate.png"), plate.image[..., ::-1])
        cv2.imwrite(str(draft.folder / "plate_seen.png"), plate.seen.astype(np.uint8) * 255)
        arrays = {
            "landmarks": crop_landmarks,
            "landmarks_source": observed.landmarks,
            "yaw": poses.yaw,
            "pitch": poses.pitch,
            "crop_from_source": crops,
            "confidence": observed.confidence,
            "residual": poses.residual,
            "occluded": occluded,
            **curves,
        }
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


def _check_input(video: Path | Pictures, sound_file: Path) -> tuple[Heard, list[Person]]:
    """Everything that can be known to be wrong before the long work; what was heard, and who was seen."""
    info = require_video(video)
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
    return heard, people


def _solve(observed: Track, parts: list[slice], canonical: np.ndarray, orbit: Orbit) -> Poses:
    solved = [solve_clip(observed.landmarks[part], canonical, orbit, observed.confidence[part]) for part in parts]
    return Poses.joined(solved)


def _curves(observed: Track, poses: Poses, train: Sequence[int], canonical: np.ndarray, orbit: Orbit) -> dict[str, np.ndarray]:
    """Blink, lip gap, lip width, brow height and gaze of each frame; lengths in distances between the outer eye corners."""
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
    }
