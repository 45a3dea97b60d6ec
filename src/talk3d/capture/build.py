"""`prepare`: from a video of one person to a `Capture`, in two passes over the file.

The first pass follows the face. From its landmarks come the usable takes, the train/test split, and, for each part of
the clip on its own, the head poses; from sampled training frames comes the background. The second pass cuts the aligned
crops and masks the person. Frames stream through both passes; what grows with the clip is only its landmarks.

Nothing that describes training frames depends on test frames: poses are smoothed within each part, statistics and the
background come from training frames, and the crops are encoded causally.

Letters: F usable frames at 25 per second, S the side of the crops in pixels, L = 468 landmarks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from .. import artifacts
from ..artifacts import creating, refuse_existing
from ..camera import Orbit
from ..errors import ArtifactError, ConfigError, MediaError, NoAudioError, NoFaceError
from ..frozen import MODELS, model_path
from ..video.clock import AUDIO_RATE, FPS, frames_in
from ..video.look import check_complete, probe, require_video
from ..video.read import read_audio_chunks, read_frames
from ..video.source import Pictures
from ..video.write import GrayWriter, VideoWriter
from .detect import FaceDetector, apply, invert, warp
from .mask import (
    FrameReservoir,
    PersonSegmenter,
    Plate,
    Regions,
    background_plate,
    certainty_of,
    mend_mask,
    region_masks,
)
from .pose import Poses, solve_clip
from .sound import SAMPLES_PER_FRAME, Lateness, measure_lateness, write_sound
from .track import FACE_OVAL, OUTER_EYE_CORNERS, Track, eye_opening, gaze, lip_gap, lip_width, track

CONSENTS = ("self", "permission", "synthetic")
TEST_PART = 11
"""The last 1/11 of the frames is for testing, as in the published protocol."""

MIN_TAKE = 2 * FPS
"""Shorter stretches are not worth a seam."""
MAX_GAP = 5
"""The face may be lost for this many frames; the track is bridged."""
SILENCE = 1e-3
"""Sound that never exceeds this amplitude (-60 dB) is no sound."""
SAMPLE_BYTES = 48_000_000
"""Memory for the frames that the background is made from."""

MAX_MOTION = 8.0
"""Levels of 255; a background that moves more is not used to mend the masks."""

CONTEXT = 1.6
"""Side of the window in which the person is masked, in crops."""

Progress = Callable[[str, float], None]


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
    overwrite: bool = False,
) -> "Capture":
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
        overwrite: replace an existing Capture.

    Raises:
        OutputExistsError: `output` exists; nothing was done.
        ConfigError: bad `consent` or `resolution`.
        ModelMissingError: the face models are not installed.
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
    for name in MODELS:
        model_path(name)
    sound_file = Path(str(video)) if audio is None else Path(audio)
    sound = _check_input(video, sound_file)

    info = require_video(video)
    expected = frames_in(info.duration)
    reservoir = FrameReservoir(max(8, min(48, SAMPLE_BYTES // (info.width * info.height * 3) * 2)))
    thumbnails: list[np.ndarray] = []

    def watched() -> Iterator[np.ndarray]:
        for number, frame in enumerate(read_frames(video)):
            reservoir.offer(number, frame)
            thumbnails.append(cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA))
            say("tracking", min(1.0, (number + 1) / expected))
            yield frame

    tracked = track(watched())
    takes = find_takes(tracked, np.stack(thumbnails))
    if not takes:
        found = float(np.mean(tracked.confidence > 0)) if len(tracked.confidence) else 0.0
        raise NoFaceError(
            f"`{video}` shows a face in {found:.0%} of its frames, but never for {MIN_TAKE / FPS:.0f} s without a "
            "break. Record one person who looks at the camera, without cuts."
        )
    frame_numbers = np.concatenate([np.arange(*take) for take in takes])
    split = split_of(len(frame_numbers))
    observed = _select(tracked, frame_numbers)
    parts = _parts(takes, split)
    observed = _bridge(observed, parts)

    say("posing", 0.0)
    poses = _solve(observed, parts, canonical, orbit)
    is_train = np.isin(np.array([n for n, _ in reservoir.kept]), frame_numbers[split["train"][0] : split["train"][1]])
    say("finding the background", 0.0)
    segment = PersonSegmenter()
    plate = background_plate([f for (_, f), use in zip(reservoir.kept, is_train, strict=True) if use], segment)
    reservoir.kept.clear()

    crops = poses.crop_from_source(resolution)
    curves = _curves(observed, poses, split["train"], canonical, orbit)
    crop_landmarks = apply(crops, observed.landmarks) / resolution
    with creating(Capture, output, overwrite=overwrite) as draft:
        sharpness = _write_pictures(draft.folder, video, frame_numbers, crops, crop_landmarks, plate, segment, resolution, say)
        say("writing sound", 0.0)
        write_sound(draft.folder / "audio.flac", sound_file, takes)
        lateness = _lateness(draft.folder / "audio.flac", crop_landmarks, split["train"], sync)
        if lateness.moved:
            write_sound(draft.folder / "audio.flac", sound_file, takes, lateness.moved)
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
            **curves,
        }
        draft.write_tensors("track.safetensors", {k: torch.from_numpy(v.astype(np.float32)) for k, v in arrays.items()})
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
        report = _report(arrays, draft.config, plate, sound, sharpness, lateness, len(tracked.confidence))
        report["warnings"] = [*info.notes, *report["warnings"]]
        draft.write_json("report.json", report)
        say("done", 1.0)
    return Capture.open(output)


def split_of(frames: int) -> dict[str, list[int]]:
    """The train/test split of `frames` usable frames, as half-open ranges."""
    border = frames * (TEST_PART - 1) // TEST_PART
    return {"train": [0, border], "test": [border, frames]}


def find_takes(tracked: Track, thumbnails: UInt8[np.ndarray, "frames 32 32"]) -> list[list[int]]:
    """Stretches of one scene with a face, as half-open ranges of frame numbers, in order of time.

    A cut in the film, a jump of the face, or a face lost for longer than `MAX_GAP` frames ends a stretch. The longest
    one is taken, and of the others those long enough that show the same scene at the same size.
    """
    found = tracked.found
    frames = len(found)
    if not found.any():
        return []
    small = thumbnails.astype(np.float32)
    change = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2))
    nose = tracked.landmarks[:, 1]
    size = np.linalg.norm(tracked.landmarks[:, FACE_OVAL[0]] - tracked.landmarks[:, FACE_OVAL[18]], axis=-1)
    with np.errstate(invalid="ignore"):
        jump = np.nan_to_num(np.linalg.norm(np.diff(nose, axis=0), axis=-1) / size[1:])
    cuts = _stands_out(change, 12.0) | _stands_out(jump, 0.25)  # levels of 255; face heights
    edges = [0, *(np.flatnonzero(cuts) + 1), frames]
    stretches: list[list[int]] = []
    for start, stop in pairwise(edges):
        seen = np.flatnonzero(found[start:stop]) + start
        if len(seen):
            for run in np.split(seen, np.flatnonzero(np.diff(seen) > MAX_GAP + 1) + 1):
                stretches.append([int(run[0]), int(run[-1]) + 1])
    stretches = [stretch for stretch in stretches if stretch[1] - stretch[0] >= MIN_TAKE]
    if not stretches:
        return []
    longest = max(stretches, key=lambda stretch: stretch[1] - stretch[0])

    def look(stretch: list[int]) -> tuple[np.ndarray, float]:
        rows = slice(*stretch)
        return np.median(small[rows], axis=0), float(np.nanmedian(size[rows]))

    scene, scale = look(longest)
    return [
        stretch
        for stretch in stretches
        if np.abs(look(stretch)[0] - scene).mean() < 12 and 2 / 3 < look(stretch)[1] / scale < 3 / 2
    ]


def _stands_out(change: np.ndarray, least: float) -> np.ndarray:
    """Where `change` exceeds `least` and four times what is usual around there."""
    usual = np.array([np.median(change[max(0, i - 12) : i + 13]) for i in range(len(change))])
    return (change > least) & (change > 4 * usual)


@dataclass(frozen=True)
class _Sound:
    seconds: float
    peak: float
    rate: int
    channels: int


def _check_input(video: Path | Pictures, sound_file: Path) -> _Sound:
    """Everything that can be known to be wrong before the long work."""
    info = require_video(video)
    check_complete(video)
    seconds = info.duration
    if 0 < seconds < MIN_TAKE / FPS:
        raise MediaError(
            f"`{video}` lasts {seconds:.1f} s. At least {MIN_TAKE / FPS:.0f} s are needed, and one to five minutes are good."
        )
    described = probe(sound_file).audio
    if described is None:
        raise NoAudioError(
            f"`{sound_file}` has no sound track. An avatar learns from sound and picture together: use a recording "
            "with sound, or give the sound file as well."
        )
    samples, peak = 0, 0.0
    for chunk in read_audio_chunks(sound_file):
        samples += len(chunk)
        peak = max(peak, float(np.abs(chunk).max()))
    heard = samples / AUDIO_RATE
    if peak < SILENCE:
        raise NoAudioError(
            f"The sound of `{sound_file}` is silent throughout (its peak is {peak:.4f} of full scale). "
            "Check the recording, or give the sound file as well."
        )
    if heard < seconds / 2:
        raise NoAudioError(
            f"`{sound_file}` has {heard:.1f} s of sound for {seconds:.1f} s of picture. Use a recording whose sound is "
            "whole, or give the sound file as well."
        )
    detect = FaceDetector()
    count = frames_in(seconds) if seconds else 1
    looks = np.unique(np.linspace(0, count - 1, 9).astype(int))
    if not any(detect(frame) for k in looks for frame in read_frames(video, start=int(k), stop=int(k) + 1)):
        raise NoFaceError(
            f"No face was found in `{video}` (looked at {len(looks)} frames spread over it). Record one person from "
            "the front, with the face at least a tenth of the picture's height."
        )
    return _Sound(heard, peak, described.rate, described.channels)


def _select(tracked: Track, index: np.ndarray) -> Track:
    return Track(tracked.landmarks[index], tracked.lids[index], tracked.irises[index], tracked.confidence[index])


def _parts(takes: Sequence[Sequence[int]], split: dict[str, list[int]]) -> list[slice]:
    """Runs of usable frames that follow each other in time and lie on one side of the split."""
    ends = np.cumsum([stop - start for start, stop in takes])
    edges = sorted({0, split["train"][1], *ends.tolist()})
    return [slice(a, b) for a, b in pairwise(edges)]


def _bridge(observed: Track, parts: list[slice]) -> Track:
    """Fill frames without a face from their neighbours in the same part, or, in an all-lost part, from the clip."""
    filled = []
    for values in (observed.landmarks, observed.lids, observed.irises):
        flat = values.reshape(len(values), -1).copy()
        for part in parts:
            known = np.flatnonzero(observed.found[part])
            rows = flat[part]
            if len(known) == 0:
                rows[:] = flat[np.flatnonzero(observed.found)[0]]
            elif len(known) < len(rows):
                for column in range(flat.shape[1]):
                    rows[:, column] = np.interp(np.arange(len(rows)), known, rows[known, column])
        filled.append(flat.reshape(values.shape))
    return Track(filled[0], filled[1], filled[2], observed.confidence)


def _solve(observed: Track, parts: list[slice], canonical: np.ndarray, orbit: Orbit) -> Poses:
    solved = [solve_clip(observed.landmarks[part], canonical, orbit, observed.confidence[part]) for part in parts]
    return Poses(*(np.concatenate([getattr(p, name) for p in solved]) for name in Poses.__dataclass_fields__))


def _curves(observed: Track, poses: Poses, train: Sequence[int], canonical: np.ndarray, orbit: Orbit) -> dict[str, np.ndarray]:
    """Blink, lip gap, lip width and gaze of each frame; lips in distances between the outer eye corners."""
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
        "gaze": gaze(observed.lids, observed.irises),
    }


def _write_pictures(
    folder: Path,
    video: Path | Pictures,
    frame_numbers: np.ndarray,
    crops: np.ndarray,
    landmarks: np.ndarray,
    plate: Plate,
    segment: PersonSegmenter,
    resolution: int,
    say: Progress,
) -> np.ndarray:
    """The second pass: aligned crops, masks and an overview. Returns each frame's sharpness."""
    size = (resolution, resolution)
    # By the training frames alone: test frames must leave no trace in them, not even the plate's resolution.
    behind = _Behind(plate, crops[slice(*split_of(len(crops))["train"])])
    shown = set(np.linspace(0, len(frame_numbers) - 1, 8).astype(int).tolist())
    tiles, sharpness = [], np.zeros(len(frame_numbers))
    with (
        VideoWriter(
            folder / "frames.mp4", size, FPS, crf=4, full_colour=True, preset="veryfast", causal=True, gop=FPS
        ) as pictures,
        GrayWriter(folder / "person.mkv", size) as masks,
    ):
        whole = np.full(plate.seen.shape, 255, np.uint8)
        usable = zip(frame_numbers.tolist(), crops, landmarks, strict=True)
        number, crop, points = next(usable)
        for count, frame in enumerate(read_frames(video, stop=int(frame_numbers[-1]) + 1)):
            if count < number:
                continue
            picture = warp(frame, crop, size, cubic=True, replicate=True)
            outside = warp(whole, crop, size) < 255
            background, certainty = behind(crop, size)
            picture[outside] = background[outside]
            mask = _person_in_crop(frame, crop, size, segment)
            if plate.motion < MAX_MOTION:
                mask = mend_mask(mask, picture, background, certainty)
            mask[outside] = 0
            pictures.write(picture)
            masks.write(mask)
            index = pictures.frames - 1
            sharpness[index] = _sharpness(picture, points * resolution)
            if index in shown:
                tiles.append(draw_overview(picture, mask, points * resolution))
            say("cutting", (index + 1) / len(frame_numbers))
            following = next(usable, None)
            if following is None:
                break
            number, crop, points = following
    rows = [np.hstack(tiles[i : i + 4]) for i in range(0, len(tiles), 4)]
    cv2.imwrite(str(folder / "overview.png"), np.vstack(rows)[..., ::-1])
    return sharpness


def _person_in_crop(frame: np.ndarray, crop: np.ndarray, size: tuple[int, int], segment: PersonSegmenter) -> np.ndarray:
    """The person's mask in a crop, found in a wider window: the network needs to see shoulders to be sure of ears."""
    height, width = frame.shape[:2]
    corners = apply(invert(crop), np.array([[0.0, 0.0], [size[0], 0.0], [0.0, size[1]], [size[0], size[1]]]))
    centre, reach = corners.mean(axis=0), CONTEXT / 2 * np.ptp(corners, axis=0)
    left, top = np.clip(np.floor(centre - reach), 0, [width - 2, height - 2]).astype(int)
    right, bottom = np.clip(np.ceil(centre + reach), [left + 2, top + 2], [width, height]).astype(int)
    mask = segment(np.ascontiguousarray(frame[top:bottom, left:right]))
    return warp(mask, np.column_stack([crop[:, :2], crop[:, 2] + crop[:, :2] @ [left, top]]), size)


class _Behind:
    """The background in a crop, quickly: the plate is brought near the crops' scale once."""

    def __init__(self, plate: Plate, crops: np.ndarray) -> None:
        scale = min(1.0, float(np.median(np.sqrt(np.abs(np.linalg.det(crops[..., :2]))))))
        height, width = plate.seen.shape
        size = max(1, round(width * scale)), max(1, round(height * scale))
        layers = np.dstack([plate.image, certainty_of(plate)])
        self._layers = cv2.resize(layers, size, interpolation=cv2.INTER_AREA)
        self._scale = np.array([[width / size[0], height / size[1], 1.0]])

    def __call__(self, crop: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Background of a crop and its certainty (see `certainty_of`), given the affine map from source pixels."""
        layers = warp(self._layers, crop * self._scale, size, replicate=True)
        return np.ascontiguousarray(layers[..., :3]), layers[..., 3]


def _sharpness(picture: np.ndarray, landmarks: np.ndarray) -> float:
    """Standard deviation of the Laplacian of brightness over the face, 0..255 levels."""
    low = np.clip(landmarks.min(axis=0).astype(int), 0, None)
    high = landmarks.max(axis=0).astype(int)
    face = picture[low[1] : high[1], low[0] : high[0]]
    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std()) if face.size else 0.0


def draw_overview(
    picture: UInt8[np.ndarray, "height width 3"],
    person: UInt8[np.ndarray, "height width"],
    landmarks: Float[np.ndarray, "468 2"],
) -> UInt8[np.ndarray, "height width 3"]:
    """A crop with the person's outline and the landmarks (pixels) drawn on it, for people to look at."""
    drawn = picture.copy()
    outline = cv2.findContours((person > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(drawn, outline, -1, (255, 60, 60), 1)
    for x, y in np.rint((landmarks - 0.5) * 16).astype(int):
        cv2.circle(drawn, (int(x), int(y)), 8, (0, 230, 90), -1, cv2.LINE_AA, shift=4)
    return drawn


def _lateness(sound: Path, landmarks: Float[np.ndarray, "frames 468 2"], train: Sequence[int], asked: float | None) -> Lateness:
    import soundfile

    start, stop = train
    samples = soundfile.read(sound, dtype="float32", start=start * SAMPLES_PER_FRAME, stop=stop * SAMPLES_PER_FRAME)[0]
    return measure_lateness(landmarks[start:stop], samples, asked)


def _report(
    arrays: dict[str, np.ndarray],
    config: dict[str, Any],
    plate: Plate,
    sound: _Sound,
    sharpness: np.ndarray,
    lateness: Lateness,
    decoded: int,
) -> dict[str, Any]:
    """What a person should know about the recording, with advice in `warnings`."""
    frames = config["frames"]
    oval = arrays["landmarks_source"][:, [FACE_OVAL[0], FACE_OVAL[18]]]
    face_height = float(np.median(np.linalg.norm(oval[:, 0] - oval[:, 1], axis=-1)))
    shrink = float(np.median(1 / np.sqrt(np.abs(np.linalg.det(arrays["crop_from_source"][..., :2])))))
    yaw, pitch = np.degrees(arrays["yaw"]), np.degrees(arrays["pitch"])
    closed_mouth = float((arrays["lip_gap"] < 0.03).mean())
    blinking = arrays["blink"] > 0.5
    blinks = int((np.diff(blinking.astype(int)) == 1).sum())
    warnings = []
    if frames < 60 * FPS:
        warnings.append(f"Only {frames / FPS:.0f} s are usable; one to five minutes give better lips.")
    if frames < 0.9 * decoded:
        warnings.append(f"{decoded - frames} of {decoded} frames were left out: cuts, no face, or another scene.")
    if shrink < 0.75:
        warnings.append(f"The face is small ({face_height:.0f} px high) and was enlarged {1 / shrink:.1f}x; record closer.")
    if closed_mouth < 0.03:
        warnings.append("The mouth is hardly ever closed; include pauses and the sounds m, b, p.")
    if blinks == 0:
        warnings.append("No blink was seen; blinks will be made up.")
    if np.ptp(np.quantile(yaw, [0.05, 0.95])) < 4:
        warnings.append("The head hardly turns; a little movement helps to find the shape of the face.")
    if plate.motion > MAX_MOTION:
        warnings.append("The background moves; its still picture will not match. Record in front of a still one.")
    if sound.seconds < 0.98 * decoded / FPS:
        warnings.append(f"The sound lasts {sound.seconds:.1f} s of {decoded / FPS:.1f} s; the rest is silence.")
    if lateness.moved:
        side = "late" if lateness.moved > 0 else "early"
        warnings.append(f"The sound came {abs(lateness.moved):.1f} frames {side} and was moved into step with the lips.")
    elif lateness.frames is not None and abs(lateness.frames) >= 4:
        side = "late" if lateness.frames > 0 else "early"
        warnings.append(
            f"The sound may come about {abs(lateness.frames):.0f} frames {side}; check it against the lips (--sync)."
        )
    if sound.peak < 0.03:
        warnings.append("The sound is very quiet; check the microphone.")

    def spread(values: np.ndarray) -> list[float]:
        return [round(float(value), 4) for value in np.quantile(values, [0.0, 0.05, 0.5, 0.95, 1.0])]

    return {
        "frames": {"decoded": decoded, "usable": frames, "seconds": frames / FPS, "takes": len(config["takes"])},
        "face_height_px": round(face_height, 1),
        "source_pixels_per_crop_pixel": round(shrink, 3),
        "yaw_degrees": spread(yaw),
        "pitch_degrees": spread(pitch),
        "lip_gap": spread(arrays["lip_gap"]),
        "closed_mouth_part": round(closed_mouth, 4),
        "blinks": blinks,
        "pose_residual": spread(arrays["residual"]),
        "sharpness": spread(sharpness),
        "background": {"seen_part": round(float(plate.seen.mean()), 4), "motion": round(plate.motion, 3)},
        "sound": {**asdict(sound), "late": asdict(lateness)},
        "quantiles": [0.0, 0.05, 0.5, 0.95, 1.0],
        "warnings": warnings,
    }


# ------------------------------------------------------------------------------------------------------ reading back


class Capture(artifacts.Capture):
    """A prepared video. Open one with `Capture.open(path)`; arrays are numpy, float64, all F frames long."""

    @property
    def count(self) -> int:
        """F, the number of usable frames."""
        return int(self.config["frames"])

    @property
    def resolution(self) -> int:
        """S, the side of the crops in pixels."""
        return int(self.config["resolution"])

    @property
    def prior_hash(self) -> str:
        return str(self.config["prior_hash"])

    @property
    def orbit(self) -> Orbit:
        """The camera that the poses belong to."""
        values = self.config["orbit"]
        return Orbit(values["radius"], tuple(values["pivot"]), values["focal"])

    @property
    def train(self) -> tuple[int, int]:
        """Half-open range of training frames."""
        start, stop = self.config["split"]["train"]
        return start, stop

    @property
    def test(self) -> tuple[int, int]:
        """Half-open range of test frames."""
        start, stop = self.config["split"]["test"]
        return start, stop

    @cached_property
    def track(self) -> dict[str, np.ndarray]:
        """All curves by name."""
        return {name: tensor.double().numpy() for name, tensor in self.tensors("track.safetensors").items()}

    @property
    def landmarks(self) -> Float[np.ndarray, "frames 468 2"]:
        """Positions in the crops, 0..1."""
        return self.track["landmarks"]

    @property
    def landmarks_source(self) -> Float[np.ndarray, "frames 468 2"]:
        """Positions in the source's frames, pixels."""
        return self.track["landmarks_source"]

    @property
    def yaw(self) -> Float[np.ndarray, "frames"]:
        """Radians; of the `orbit` camera."""
        return self.track["yaw"]

    @property
    def pitch(self) -> Float[np.ndarray, "frames"]:
        """Radians; of the `orbit` camera."""
        return self.track["pitch"]

    @property
    def crop_from_source(self) -> Float[np.ndarray, "frames 2 3"]:
        """Affine maps from source pixels to crop pixels."""
        return self.track["crop_from_source"]

    @property
    def blink(self) -> Float[np.ndarray, "frames"]:
        """0 open to 1 closed."""
        return self.track["blink"]

    @property
    def lip_gap(self) -> Float[np.ndarray, "frames"]:
        """Opening of the inner lips, in distances between the outer eye corners."""
        return self.track["lip_gap"]

    @property
    def lip_width(self) -> Float[np.ndarray, "frames"]:
        """Width of the inner mouth, in distances between the outer eye corners."""
        return self.track["lip_width"]

    @property
    def confidence(self) -> Float[np.ndarray, "frames"]:
        """The tracker's 0..1; 0 where a short loss of the face was bridged."""
        return self.track["confidence"]

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
        """The aligned crops of a range of frames, RGB; background where they reach beyond the source, see `inside`."""
        return read_frames(self.path("frames.mp4"), start=start, stop=self.count if stop is None else stop)

    def person(self, start: int = 0, stop: int | None = None) -> Iterator[UInt8[np.ndarray, "side side"]]:
        """The person's mask in the crops of a range of frames, 0..255."""
        return read_frames(self.path("person.mkv"), start=start, stop=self.count if stop is None else stop, gray=True)

    def region_masks(self, index: int, person: UInt8[np.ndarray, "side side"]) -> Regions:
        """Face, mouth, eyes, head, torso and background of crop `index`, given its mask."""
        return region_masks(self.landmarks[index] * self.resolution, person)

    def inside(self, index: int) -> Bool[np.ndarray, "side side"]:
        """Where crop `index` lies within the source's frame; elsewhere it shows the background and no person."""
        source = self.config["source"]
        whole = np.full((source["height"], source["width"]), 255, np.uint8)
        return warp(whole, self.crop_from_source[index], (self.resolution, self.resolution)) == 255

    def audio(self) -> Float[np.ndarray, "samples"]:
        """16 kHz mono float32, exactly F / 25 seconds."""
        import soundfile

        return soundfile.read(self.path("audio.flac"), dtype="float32")[0]

    def plate(self) -> UInt8[np.ndarray, "height width 3"]:
        """The background without the person, in the source's frame, RGB."""
        return _read_image(self.path("plate.png"), cv2.IMREAD_COLOR)[..., ::-1].copy()

    def plate_seen(self) -> Bool[np.ndarray, "height width"]:
        """Where the background was really seen."""
        return _read_image(self.path("plate_seen.png"), cv2.IMREAD_GRAYSCALE) > 127

    def background(self, index: int) -> UInt8[np.ndarray, "side side 3"]:
        """The background behind crop `index`."""
        return warp(self.plate(), self.crop_from_source[index], (self.resolution, self.resolution), replicate=True)

    @property
    def report(self) -> dict[str, Any]:
        """What `prepare` noticed; `warnings` holds advice for people."""
        return self.json("report.json")


def _read_image(path: Path, flag: int) -> np.ndarray:
    image = cv2.imread(str(path), flag)
    if image is None:
        raise ArtifactError(f"`{path}` cannot be read as a picture; the Capture is damaged. Prepare the video again.")
    return image
