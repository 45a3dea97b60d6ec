"""Score a film of a talking face against the true one, next to two baselines that know nothing of speech.

The baselines are scored by the same code: the mean training frame, held still, and for each frame the training frame
whose head pose is nearest. A method that does not beat them at the mouth has not learnt to speak.

Nothing here knows any generator: the result is a file, and its metadata says which frames it claims to show.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ..capture.build import Capture
from ..capture.mask import hull_mask
from ..capture.track import OUTER_LIPS, FaceTracker, Track, eye_opening, interocular, lip_gap, track
from ..errors import ArtifactError, ScoringError
from ..partials import partial_path, refuse_existing, remove_stale_partials
from ..video import FPS, frames_in, probe, read_frames, require_video
from .image import decibels, inner, masked_mean, ssim_map
from .lips import FACE, MOUTH, Lag, Score, best_lag, correlation, landmark_distance

BATCH = 8
Frames = Callable[[], Iterator[np.ndarray]]
"""Opens a stream of uint8 RGB [H, W, 3] frames from its start."""


@dataclass(frozen=True)
class Scores:
    """All scores of one film. Image scores pool the squared error over all frames, as the published protocol does."""

    psnr: Score
    """Decibels, whole picture."""
    psnr_face: Score
    """Within the hull of the true frame's landmarks."""
    psnr_mouth: Score
    """Within the hull of the true frame's lips, half as large again."""
    ssim: Score
    ssim_face: Score
    ssim_mouth: Score
    mouth_distance: Score
    """Centred landmark distance of the lips, pixels of the true film."""
    mouth_distance_percent: Score
    """The same in percent of the distance between the outer eye corners."""
    face_distance: Score
    """Centred landmark distance of all 468 points, pixels."""
    mouth_opening: Score
    """Correlation of the lip gap over time, in eye-corner distances, at no lag."""
    mouth_lag: Lag
    """Where that correlation is highest; positive means that the result is late."""
    eye_opening: Score
    """Correlation of the eyes' opening over time."""
    sharpness: Score
    """Fine detail of the face relative to the true film: 1 is as sharp, less is blurred."""
    face_found: Score
    """Part of the frames in which the tracker sees a face."""


@dataclass(frozen=True)
class Report:
    """What `evaluate` writes to `report.json`."""

    result: str
    truth: str
    protocol: str
    """What the result was given besides sound, as its metadata says: `paper`, `audio-only`, or `unknown`."""
    frames: tuple[int, int]
    """Half-open range of the true film's (or capture's) frames that were compared."""
    checked: bool
    """Whether these frames are known not to have been trained on."""
    resized: bool
    """Whether the result had to be resized to the truth."""
    rows: dict[str, Scores]
    """`result` first, then the baselines."""
    notes: list[str]


def evaluate(
    result: Path,
    truth: Path,
    output: Path,
    *,
    frames: tuple[int, int] | None = None,
    baselines: bool = True,
    overwrite: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Report:
    """Score the film `result`; writes `report.json` and `sheet.png` into the folder `output`.

    Args:
        result: a video, made by `talk3d speak` or by anyone. Its first frame shows the first frame of the range.
        truth: a Capture folder, or a video that shows the same from its first frame.
        output: folder to write; appears only when complete.
        frames: which frames of the truth the result shows (half-open), if its metadata does not say. By default the
            test part of a Capture, or all of a video.
        baselines: also score the baselines, if `truth` is a Capture.
        overwrite: replace an existing folder of an earlier report.
        progress: called with a stage's name and the part of it that is done, 0..1.

    Raises:
        OutputExistsError: `output` exists.
        MediaError: a file cannot be read.
        ScoringError: the result shows frames that were trained on, belongs to another capture, or its claims contradict
            the request; a score would mean nothing.
    """
    result, truth, output = Path(result), Path(truth), Path(output)
    say = progress or (lambda stage, part: None)
    refuse_existing(output, overwrite)
    if output.exists() and not (output / "report.json").is_file():
        raise ScoringError(f"`{output}` exists and holds no report, so it is not replaced. Choose another folder.")
    shown = require_video(result)
    claims = probe(result).metadata.get("talk3d", {})
    if not isinstance(claims, dict):
        claims = {}
    capture = _open_capture(truth)
    span, checked, notes = _span(claims, capture, truth, frames)
    available = frames_in(shown.duration)
    if abs(available - (span[1] - span[0])) > 1:
        notes.append(f"The result has {available} frames and the truth {span[1] - span[0]}; the shorter one counts.")
    count = min(available, span[1] - span[0])
    span = (span[0], span[0] + count)

    if capture is None:
        info = require_video(truth)
        size = (info.width, info.height)
    else:
        size = (capture.resolution, capture.resolution)
    resized = (shown.width, shown.height) != size
    if resized:
        notes.append(f"The result is {shown.width}x{shown.height} and was resized to {size[0]}x{size[1]}.")

    def true_frames() -> Iterator[np.ndarray]:
        return read_frames(truth, start=span[0], stop=span[1]) if capture is None else capture.frames(*span)

    def result_frames() -> Iterator[np.ndarray]:
        for frame in read_frames(result, stop=count):
            yield cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if resized else frame

    say("tracking the truth", 0.0)
    true_track = track(true_frames())
    films: dict[str, Frames] = {"result": result_frames}
    with tempfile.TemporaryDirectory(prefix="talk3d-") as scratch:
        if capture is not None and baselines:
            say("making the baselines", 0.0)
            films["mean training frame"] = _mean_frame(capture, count)
            films["nearest training pose"] = _nearest_pose(capture, span, Path(scratch))
        rows = {}
        for number, (name, film) in enumerate(films.items()):
            say("scoring", number / len(films))
            rows[name] = score(film, true_frames, true_track)
        sheet = draw_sheet(true_frames, films, count)
    protocol = str(claims.get("protocol", "unknown"))
    report = Report(result.name, truth.name, protocol, span, checked, resized, rows, notes)
    _write(output, report, sheet)
    say("scoring", 1.0)
    return report


def score(film: Frames, true_frames: Frames, true_track: Track) -> Scores:
    """Compare a film with the true one, frame by frame, holding a few frames at a time.

    Args:
        film: the frames to score, as many as the truth has and of its size.
        true_frames: the true ones.
        true_track: the face in the true ones.
    """
    tracker = FaceTracker()
    columns: dict[str, list[np.ndarray]] = {}
    landmarks = np.full_like(true_track.landmarks, np.nan)
    lids = np.full_like(true_track.lids, np.nan)
    found, done = np.zeros(len(landmarks)), 0
    for pairs in _batches(zip(film(), true_frames(), strict=True)):
        for offset, (frame, _) in enumerate(pairs):
            face = tracker(frame)
            if face is not None:
                landmarks[done + offset], lids[done + offset], found[done + offset] = face.landmarks, face.lids, 1
        part = slice(done, done + len(pairs))
        for name, values in _image_scores(pairs, true_track.landmarks[part]).items():
            columns.setdefault(name, []).append(values)
        done += len(pairs)
    image = {name: np.concatenate(values) for name, values in columns.items()}

    def pooled(name: str) -> Score:
        mean = _mean(image[name])
        if mean.value is None:
            return mean
        return Score(float(decibels(torch.tensor(mean.value, dtype=torch.float64))), mean.frames)

    gaps = [lip_gap(x) / interocular(x) for x in (landmarks, true_track.landmarks)]
    return Scores(
        psnr=pooled("error"),
        psnr_face=pooled("error_face"),
        psnr_mouth=pooled("error_mouth"),
        ssim=_mean(image["ssim"]),
        ssim_face=_mean(image["ssim_face"]),
        ssim_mouth=_mean(image["ssim_mouth"]),
        mouth_distance=landmark_distance(landmarks, true_track.landmarks, MOUTH),
        mouth_distance_percent=landmark_distance(landmarks, true_track.landmarks, MOUTH, relative=True),
        face_distance=landmark_distance(landmarks, true_track.landmarks, FACE),
        mouth_opening=correlation(gaps[0], gaps[1]),
        mouth_lag=best_lag(gaps[0], gaps[1]),
        eye_opening=correlation(eye_opening(lids), eye_opening(true_track.lids)),
        sharpness=_mean(image["sharpness"]),
        face_found=Score(float(found.mean()), len(found)),
    )


def as_table(report: Report) -> Any:
    """The report as a rich table; print it with `rich.print`."""
    from rich.table import Table

    count = report.frames[1] - report.frames[0]
    title = f"{report.result} against {report.truth}, frames {report.frames[0]}..{report.frames[1] - 1} ({count})"
    table = Table(title=title, caption="; ".join([f"protocol: {report.protocol}", *report.notes]))
    table.add_column("")
    for name in report.rows:
        table.add_column(name, justify="right")
    for key in Scores.__dataclass_fields__:
        cells = []
        for row in report.rows.values():
            value = getattr(row, key)
            if isinstance(value, Lag):
                known = value.frames is not None and value.correlation.value is not None
                cells.append(f"{value.frames:+d} (r {value.correlation.value:.3f})" if known else "-")
            else:
                short = f" [{value.frames}]" if value.frames != count else ""
                cells.append(("-" if value.value is None else f"{value.value:.3f}") + short)
        table.add_row(key.replace("_", " "), *cells)
    return table


def _open_capture(truth: Path) -> Capture | None:
    """The capture at `truth`, or None if that is a media file."""
    if not truth.is_dir():
        return None
    try:
        return Capture.open(truth)
    except ArtifactError as error:
        raise ScoringError(f"`{truth}` is neither a video nor a readable Capture: {error}") from error


def _span(
    claims: dict[str, Any], capture: Capture | None, truth: Path, frames: tuple[int, int] | None
) -> tuple[tuple[int, int], bool, list[str]]:
    """The frames to compare, whether they are known to be unseen, and notes."""
    notes: list[str] = []
    claimed = tuple(int(number) for number in claims["frames"]) if claims.get("frames") else None
    if claimed is not None and frames is not None and claimed != tuple(frames):
        raise ScoringError(
            f"The result says that it shows frames {claimed[0]}..{claimed[1] - 1}, but {frames[0]}..{frames[1] - 1} "
            "were asked for. Leave the range out; it is known from the file."
        )
    if claims.get("split") == "train":
        raise ScoringError(
            "The result shows frames that its avatar was trained on; such scores say nothing about new speech. "
            "Make it again from the test part."
        )
    if capture is None:
        whole = (0, frames_in(require_video(truth).duration))
        span = frames or whole
        notes.append("The truth is a plain video, so it is not known whether its frames were trained on.")
        return (max(0, span[0]), min(whole[1], span[1])), claims.get("split") == "test", notes
    if claims.get("capture") not in (None, capture.hash):
        raise ScoringError(
            f"The result belongs to capture {str(claims['capture'])[:12]}, but `{truth}` is {capture.hash[:12]}. "
            "Score it against the capture that it was made from."
        )
    start, stop = claimed or frames or capture.test
    if not 0 <= start < stop <= capture.count:
        raise ScoringError(f"Frames {start}..{stop - 1} do not exist in `{truth}`, which has {capture.count}.")
    train = capture.train
    if max(start, train[0]) < min(stop, train[1]):
        raise ScoringError(
            f"Frames {start}..{stop - 1} overlap the training frames {train[0]}..{train[1] - 1} of `{truth}`; such "
            f"scores say nothing about new speech. Make the result from the test part, frames {capture.test[0]}.."
            f"{capture.test[1] - 1}."
        )
    if claimed is None:
        notes.append("The result does not say which frames it shows; it was taken to show these.")
    return (start, stop), claimed is not None, notes


def _mean_frame(capture: Capture, count: int) -> Frames:
    total, number = np.zeros((capture.resolution, capture.resolution, 3)), 0
    for frame in capture.frames(*capture.train):
        total += frame
        number += 1
    mean = np.rint(total / max(1, number)).astype(np.uint8)
    return lambda: (mean for _ in range(count))


def _nearest_pose(capture: Capture, span: tuple[int, int], folder: Path) -> Frames:
    """The frames wait in a file in `folder`, so that the training part is read once and memory stays small."""
    start, stop = capture.train
    poses = np.stack([capture.yaw, capture.pitch], axis=-1)
    nearest = [start + int(np.linalg.norm(poses[start:stop] - pose, axis=1).argmin()) for pose in poses[slice(*span)]]
    places: dict[int, list[int]] = {}
    for place, index in enumerate(nearest):
        places.setdefault(index, []).append(place)
    shape = (len(nearest), capture.resolution, capture.resolution, 3)
    store = np.lib.format.open_memmap(folder / "nearest.npy", "w+", np.uint8, shape)
    for index, frame in enumerate(capture.frames(start, stop), start):
        store[places.get(index, [])] = frame
    return lambda: iter(store)


def _batches(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    batch = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _image_scores(pairs: list[tuple[np.ndarray, np.ndarray]], landmarks: np.ndarray) -> dict[str, np.ndarray]:
    mine, true = (
        torch.from_numpy(np.stack([pair[side] for pair in pairs])).permute(0, 3, 1, 2).float() / 255 for side in (0, 1)
    )
    face, mouth = (torch.from_numpy(np.stack([_hull(x, true.shape[-2:], kind) for x in landmarks])) for kind in (0, 1))
    sharp = [
        _detail(frame, inside) / max(_detail(other, inside), 1e-6) if inside.any() else np.nan
        for (frame, other), inside in zip(pairs, face.numpy() > 0, strict=True)
    ]
    error, similar = (mine - true).square().mean(dim=1), ssim_map(mine, true)
    columns = {"error": masked_mean(error, None), "ssim": masked_mean(similar, None)}
    for name, mask in (("face", face), ("mouth", mouth)):
        columns[f"error_{name}"], columns[f"ssim_{name}"] = masked_mean(error, mask), masked_mean(similar, inner(mask))
    return {**{name: values.double().numpy() for name, values in columns.items()}, "sharpness": np.array(sharp)}


def _hull(landmarks: np.ndarray, size: tuple[int, ...], kind: int) -> np.ndarray:
    """Mask of the face (0) or the mouth (1); empty where there are no landmarks."""
    if not np.isfinite(landmarks).all():
        return np.zeros(tuple(size), np.float32)
    points = landmarks
    if kind == 1:
        lips = landmarks[list(OUTER_LIPS)]
        points = lips.mean(axis=0) + 1.5 * (lips - lips.mean(axis=0))
    return hull_mask(points, tuple(size)).astype(np.float32)


def _detail(frame: np.ndarray, inside: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F)[inside].std())


def _mean(values: np.ndarray) -> Score:
    valid = np.isfinite(values)
    return Score(float(values[valid].mean()) if valid.any() else None, int(valid.sum()))


def draw_sheet(true_frames: Frames, films: dict[str, Frames], count: int, columns: int = 6) -> np.ndarray:
    """A contact sheet: the truth, each film, and the result's error four times enlarged, at a few moments."""
    moments = np.unique(np.linspace(0, count - 1, columns).astype(int)).tolist()

    def pick(film: Frames) -> list[np.ndarray]:
        return [frame for number, frame in enumerate(film()) if number in moments]

    truth = pick(true_frames)
    rows = [truth, *(pick(film) for film in films.values())]
    rows.append([cv2.convertScaleAbs(cv2.absdiff(a, b), alpha=4) for a, b in zip(truth, rows[1], strict=True)])
    return np.vstack([np.hstack(row) for row in rows])


def _write(output: Path, report: Report, sheet: np.ndarray) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(output)
    staging = partial_path(output)
    staging.mkdir()
    try:
        cv2.imwrite(str(staging / "sheet.png"), sheet[..., ::-1])
        (staging / "report.json").write_text(json.dumps({**asdict(report), "fps": FPS}, indent=1))
        if output.exists():
            shutil.rmtree(output)
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
