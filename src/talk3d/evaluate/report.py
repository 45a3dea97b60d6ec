"""Score a film of a talking face against the true one, next to two baselines that know nothing of speech.

The baselines are scored by the same code: the mean training frame, held still, and for each frame the training frame
whose head pose is nearest. A method that does not beat them at the mouth has not learnt to speak.

Nothing here knows any generator: the result is a file, and its metadata says which frames it claims to show.
"""

import csv
import json
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ..capture.build import Capture
from ..capture.track import track
from ..errors import ArtifactError, ScoringError
from ..partials import refuse_existing, writing_folder
from ..pictures import write_png
from ..video import AUDIO_RATE, FPS, VideoWriter, frames_in, probe, read_audio, read_frames, require_video
from . import page
from .lips import Lag
from .scores import TRUE_OPENING, Frames, Scores, score

SHOWN = 320
"""Widest picture in the film of a report, pixels."""
MOST_EMBEDDED = 30_000_000
"""Larger films stay beside the page, bytes."""
WORST = 4
PROTOCOLS = {"paper": "camera, blinks and head motion of these frames", "audio-only": "nothing"}
"""What the protocols of `talk3d speak` mean."""


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
    """Score the film `result` and write a report into the folder `output`.

    The report is `report.html`, a page that needs nothing else, with its data in `report.json` and, frame by frame, in
    `frames.csv`; `side-by-side.mp4` and `sheet.png` show what was compared.

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
        rows, curves = {}, {}
        sound = None if probe(result).audio is None else read_audio(result)[: count * AUDIO_RATE // FPS]
        for number, (name, film) in enumerate(films.items()):
            say("scoring", number / len(films))
            rows[name], curves[name] = score(film, true_frames, true_track, sound)
        say("drawing", 0.0)
        sheet = draw_sheet(true_frames, films, count)
    protocol = str(claims.get("protocol", "unknown"))
    report = Report(result.name, truth.name, protocol, span, checked, resized, rows, notes)
    with writing_folder(output) as staging:
        write_png(staging / "sheet.png", sheet)
        (staging / "report.json").write_text(json.dumps({**asdict(report), "fps": FPS}, indent=1))
        _write_curves(staging / "frames.csv", span[0], curves)
        _film_side_by_side(staging / "side-by-side.mp4", result_frames, true_frames, size)
        moments = _worst(result_frames, true_frames, curves["result"]["face PSNR"], span[0])
        text = _page(report, curves, moments, staging / "side-by-side.mp4")
        (staging / "report.html").write_text(text, encoding="utf-8")
    say("drawing", 1.0)
    return report


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
                text = "-" if value.value is None else f"{value.value:.3f}"
                text += f" [{value.frames}]" if value.frames != count else ""
                cells.append(text + (f" ({value.interval[0]:.2f}..{value.interval[1]:.2f})" if value.interval else ""))
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


def draw_sheet(true_frames: Frames, films: dict[str, Frames], count: int, columns: int = 6) -> np.ndarray:
    """A contact sheet: the truth, each film, and the result's error four times enlarged, at a few moments."""
    moments = np.unique(np.linspace(0, count - 1, columns).astype(int)).tolist()

    def pick(film: Frames) -> list[np.ndarray]:
        return [frame for number, frame in enumerate(film()) if number in moments]

    truth = pick(true_frames)
    rows = [truth, *(pick(film) for film in films.values())]
    rows.append([cv2.convertScaleAbs(cv2.absdiff(a, b), alpha=4) for a, b in zip(truth, rows[1], strict=True)])
    return np.vstack([np.hstack(row) for row in rows])


def _page(report: Report, curves: dict[str, dict[str, np.ndarray]], moments: list[page.Moment], film: Path) -> str:
    opening = {name: own["lip opening"] for name, own in curves.items()}
    charts = [
        page.Chart("Lip opening, in eye distances", {"truth": curves["result"][TRUE_OPENING], **opening}),
        page.Chart("Lip distance, px", {name: own["lip distance"] for name, own in curves.items()}),
        page.Chart("PSNR of the face, dB", {name: own["face PSNR"] for name, own in curves.items()}),
        page.Chart("HeadNet distance", {name: own["HeadNet distance"] for name, own in curves.items()}),
    ]
    first, last = report.frames[0], report.frames[1] - 1
    facts = {
        "Result": report.result,
        "Truth": report.truth,
        "Frames": f"{first} to {last} ({last - first + 1} of them, {FPS} a second)",
        "Given to the result besides sound": PROTOCOLS.get(report.protocol, "not known"),
        "Known not to be trained on": "yes" if report.checked else "no",
        "talk3d": version("talk3d"),
        "Machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}",
        "Command": f"talk3d evaluate {report.result} --truth {report.truth}",
    }
    rows = {name: {key: getattr(row, key) for key in page.MEASURES} for name, row in report.rows.items()}
    shown = film.read_bytes() if film.stat().st_size <= MOST_EMBEDDED else film.name
    return page.render(f"{report.result} against {report.truth}", rows, charts, moments, shown, facts, report.notes)


def _write_curves(path: Path, first: int, curves: dict[str, dict[str, np.ndarray]]) -> None:
    """One line a frame; empty where nothing is known."""
    truth = curves["result"][TRUE_OPENING]
    columns = {TRUE_OPENING: truth}
    columns |= {f"{name}: {curve}": v for name, own in curves.items() for curve, v in own.items() if curve != TRUE_OPENING}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", *columns])
        for number, values in enumerate(zip(*columns.values(), strict=True), first):
            writer.writerow([number, *(f"{value:.5g}" if np.isfinite(value) else "" for value in values)])


def _film_side_by_side(path: Path, film: Frames, true_frames: Frames, size: tuple[int, int]) -> None:
    """Truth, result and their difference four times enlarged, each at most 320 pixels wide."""
    scale = min(1.0, SHOWN / size[0])
    width, height = (2 * max(1, round(side * scale / 2)) for side in size)
    with VideoWriter(path, (3 * width, height), crf=23, metadata={"talk3d": {"ai_generated": True}}) as writer:
        for frame, truth in zip(film(), true_frames(), strict=True):
            shown = [truth, frame, cv2.convertScaleAbs(cv2.absdiff(frame, truth), alpha=4)]
            writer.write(np.hstack([cv2.resize(x, (width, height), interpolation=cv2.INTER_AREA) for x in shown]))


def _worst(film: Frames, true_frames: Frames, quality: np.ndarray, first: int) -> list[page.Moment]:
    """The worst frames that lie at least half a second apart, the worst first."""
    chosen: list[int] = []
    for index in np.argsort(quality)[: np.isfinite(quality).sum()].tolist():
        if len(chosen) < WORST and all(abs(index - other) >= FPS // 2 for other in chosen):
            chosen.append(index)
    pictures = {}
    for index, (frame, truth) in enumerate(zip(film(), true_frames(), strict=True)):
        if index in chosen:
            error = np.clip(cv2.absdiff(frame, truth).mean(axis=-1) * 4, 0, 255).astype(np.uint8)
            pictures[index] = np.hstack([truth, frame, cv2.applyColorMap(error, cv2.COLORMAP_INFERNO)[..., ::-1]])
    return [page.Moment(f"frame {first + i}, face {quality[i]:.1f} dB", pictures[i]) for i in chosen]
