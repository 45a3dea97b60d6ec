"""Score films of a talking face against the true one, next to baselines that know nothing of speech.

The baselines are scored by the same code. Of a Capture: the mean training frame, held still, and for each frame the training
frame whose head pose is nearest; of any other truth: its first frame, held still. A method that does not beat them at the
mouth has not learnt to speak.

Nothing here knows any generator: results are files, and their metadata says which frames they claim to show.
"""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ..capture.build import Capture
from ..capture.detect import warp
from ..errors import ArtifactError, ScoringError
from ..partials import partial_path, refuse_existing, remove_stale_partials
from ..pictures import write_png
from ..video import FPS
from . import align, drawings, guests, page, scores
from .claims import PROTOCOLS, Claims, read_claims
from .film import Film, Sound, open_capture, open_video
from .follow import follow
from .measures import MEASURES
from .scores import Curves, Entry, Row
from .speech import listen

MOST_EMBEDDED = 30_000_000
"""Larger films stay beside the page, bytes."""
FEWEST = 10
"""Frames below which nothing is scored."""
REPORT = "report.json"

Say = Callable[[str, float], None]


@dataclass(frozen=True)
class Report:
    """What `evaluate` writes to `report.json`."""

    truth: str
    frames: tuple[int, int]
    """Half-open range of the true film's (or capture's) frames that were compared."""
    results: list[str]
    """The films that were to be scored; the other rows are baselines."""
    protocols: dict[str, str]
    """What each result was given besides sound, as its metadata says: `paper`, `audio-only`, or `unknown`."""
    unseen: dict[str, bool]
    """Whether these frames are known not to have been trained on."""
    offsets: dict[str, int]
    """The true film's frame that each result's first frame shows."""
    rows: dict[str, Row]
    """Scores by film and measure, results first."""
    truth_row: Row
    """What the true film has of its own."""
    closures: int
    """Times that /p/, /b/ or /m/ is heard."""
    pauses: int
    notes: list[str]
    """What a reader must know before believing the numbers."""
    missing: list[str]
    """What was not measured, and why."""

    @property
    def scores(self) -> Row:
        """Of the first result."""
        return self.rows[self.results[0]]


def evaluate(
    result: Path,
    truth: Path,
    output: Path,
    *,
    compare: Sequence[Path] = (),
    frames: tuple[int, int] | None = None,
    baselines: bool = True,
    predictor: Path | None = None,
    overwrite: bool = False,
    progress: Say | None = None,
) -> Report:
    """Score the film `result`, and others beside it, and write a report into the folder `output`.

    The report is `report.html`, a page that needs nothing else, with its data in `report.json` and, frame by frame, in
    `frames.csv`; `side-by-side.mp4` and `sheet.png` show what was compared.

    Frame rates and sizes may differ. Where and when a film shows the truth is found out (`align.py`) and noted, unless its
    metadata says so; all films are scored on the frames that all of them show.

    Args:
        result: a video, made by `talk3d speak` or by anyone.
        truth: a Capture folder, or a video that shows the same.
        output: folder to write; appears only when complete.
        compare: more videos to score.
        frames: which frames of the truth the results show (half-open), if their metadata does not say. By default the
            test part of a Capture, or all of a video.
        baselines: also score the baselines.
        predictor: the user's shape predictor of dlib's, with 68 points, for the landmark distance that needs one.
        overwrite: replace an existing folder of an earlier report.
        progress: called with a stage's name and the part of it that is done, 0..1.

    Raises:
        OutputExistsError: `output` exists.
        MediaError: a file cannot be read.
        ConfigError: the shape predictor cannot be used.
        ScoringError: a film shows frames that were trained on, belongs to another capture, contradicts the request, or shows
            nothing that the truth shows; a score would mean nothing.
    """
    paths, truth, output = [Path(result), *map(Path, compare)], Path(truth), Path(output)
    say = progress or (lambda stage, part: None)
    refuse_existing(output, overwrite)
    if output.exists() and not (output / REPORT).is_file():
        raise ScoringError(f"`{output}` exists and holds no report, so it is not replaced. Choose another folder.")
    names = _names(paths)
    capture = _open_capture(truth)
    films = {name: open_video(path, name) for name, path in zip(names, paths, strict=True)}
    claims = {name: read_claims(path, truth, capture, frames) for name, path in zip(names, paths, strict=True)}
    true_film = open_video(truth, truth.name) if capture is None else open_capture(capture, truth.name)
    guests.invite(1, predictor)  # a predictor that cannot be used is refused before the long work

    with tempfile.TemporaryDirectory(prefix="talk3d-") as scratch:
        desk = _Desk(Path(scratch), say)
        base = _base(frames, capture, true_film, list(claims.values()))
        true = desk.followed(true_film.part(*base), true_film.sound, base[0])
        placed = {name: desk.placed(film, claims[name], true, base) for name, film in films.items()}
        span = _common(placed, true, base)
        truth_entry = true.entry(span[0], span[1])
        entries = {name: one.entry(true, *span) for name, one in placed.items()}
        notes = _notes(placed, claims, true, capture, base)
        rows_of = dict(entries)
        if baselines:
            for film in _baselines(capture, truth_entry.film, (base[0] + span[0], base[0] + span[1]), Path(scratch)):
                rows_of[film.name] = desk.followed(film, None, 0).entry(0, film.count, truth_entry.sound)
        speech = None
        if true.sound is not None:
            say("listening", 0.0)
            speech = listen(true.sound, true.sound_first + span[0], true.sound_first + span[1])
        invited, missing = guests.invite(span[1] - span[0], predictor)
        rows, curves = scores.score(rows_of, truth_entry, speech, invited, lambda part: say("scoring", part))
        shown = (base[0] + span[0], base[0] + span[1])
        report = Report(
            truth=truth.name,
            frames=shown,
            results=names,
            protocols={name: claims[name].protocol for name in names},
            unseen={name: claims[name].unseen for name in names},
            offsets={name: base[0] + one.place.offset for name, one in placed.items()},
            rows=rows,
            truth_row=scores.own_row(truth_entry, truth_entry, speech),
            closures=0 if speech is None else len(speech.closures),
            pauses=0 if speech is None else speech.pauses,
            notes=notes,
            missing=missing,
        )
        say("drawing", 0.0)
        command = shlex.join(
            ["talk3d", "evaluate", paths[0].name, "--truth", truth.name]
            + (["--compare", *(path.name for path in paths[1:])] if compare else [])
        )
        with _folder(output) as staging:
            _write(staging, report, entries, rows_of, truth_entry, curves, command)
    say("drawing", 1.0)
    return report


@dataclass(frozen=True)
class _Followed:
    """A film whose face was followed, from one of its frames on."""

    film: Film
    landmarks: Any
    motion: Any
    sound: Sound | None
    sound_first: int
    """Frame of the sound that belongs to the film's first frame."""

    def entry(self, start: int, stop: int, sound: Callable[[int, int], np.ndarray] | None = None) -> Entry:
        """A half-open range of its frames, as it is."""
        heard = None
        if self.sound is not None:
            whole, first = self.sound, self.sound_first + start
            heard = lambda a, b: whole(first + a, first + b)  # noqa: E731
        nothing = np.array([[1.0, 0, 0], [0, 1, 0]])
        landmarks = self.landmarks.placed(nothing, start)
        return Entry(self.film.part(start, stop), landmarks, self.motion.part(start, stop), heard or sound)


@dataclass(frozen=True)
class _Placed:
    """A result, and how it lies on the truth's frames from the beginning of the range."""

    followed: _Followed
    place: align.Place
    by_sound: float | None
    """Frames of the range at which its sound begins; None if it has not the truth's sound."""

    def entry(self, true: _Followed, start: int, stop: int) -> Entry:
        """On the truth's frames of a half-open range."""
        first = start - self.place.offset
        plain = self.followed.entry(first, stop - self.place.offset)
        size = true.film.size
        film = plain.film.placed(None if self.place.resize else self.place.matrix, size)
        covered = None
        if not self.place.resize:
            width, height = self.followed.film.size
            whole = warp(np.full((height, width), 255, np.uint8), self.place.matrix, size)
            covered = (whole == 255).astype(np.float32)
        return Entry(film, self.followed.landmarks.placed(self.place.matrix, first), plain.motion, plain.sound, covered)


class _Desk:
    """Where films are followed and laid on the truth; its scratch folder holds what is too long for memory."""

    def __init__(self, scratch: Path, say: Say):
        self._scratch, self._say, self._number = scratch, say, 0

    def followed(self, film: Film, sound: Path | None, first: int) -> _Followed:
        """Follow the face in a film, whose first frame belongs to frame `first` of a sound."""
        self._number += 1
        landmarks_at = self._scratch / f"{self._number}.landmarks"
        say = self._say
        count, landmarks, motion = follow(film, landmarks_at, lambda part: say(f"tracking {film.name}", part))
        heard = None if sound is None else Sound(sound, self._scratch / f"{self._number}.sound")
        return _Followed(Film(film.name, film.size, count, film.frames, None), landmarks, motion, heard, first)

    def placed(self, film: Film, claims: Claims, true: _Followed, base: tuple[int, int]) -> _Placed:
        """Follow a result, and find out where and when it shows the truth."""
        own = self.followed(film, film.sound, 0)
        heard = None
        if own.sound is not None and true.sound is not None:
            seconds = align.by_sound(align.loudness(own.sound), align.loudness(true.sound))
            heard = None if seconds is None else FPS * seconds - true.sound_first
        if claims.frames is not None:
            offset, by = claims.frames[0] - base[0], "its metadata"
        elif heard is not None:
            offset, by = round(heard), "its sound"
        else:
            moved = align.by_motion(own.motion, true.motion)
            offset, by = (0, "") if moved is None else (moved, "how the head moves")
        common = range(max(0, offset), min(true.film.count, own.film.count + offset))
        sizes = own.film.size, true.film.size
        if claims.frames is not None or not len(common):
            matrix, resize = align.resizing(*sizes), True
        else:
            matrix, resize = align.fit(own.landmarks, true.landmarks, offset, common, sizes)
        return _Placed(own, align.Place(offset, by, matrix, resize), heard)


def _base(frames: tuple[int, int] | None, capture: Capture | None, film: Film, claims: Sequence[Claims]) -> tuple[int, int]:
    """The range of true frames within which films are compared."""
    claimed = [one.frames for one in claims if one.frames]
    if claimed:
        start, stop = max(a for a, _ in claimed), min(b for _, b in claimed)
        if start >= stop:
            raise ScoringError("The films show different frames, as their metadata says; there is nothing to compare.")
        return start, stop
    if frames is not None:
        return max(0, frames[0]), min(film.count, frames[1])
    return (0, film.count) if capture is None else capture.test


def _common(placed: Mapping[str, _Placed], true: _Followed, base: tuple[int, int]) -> tuple[int, int]:
    """The frames that all films show, counted from the range's beginning."""
    start = max(0, *(one.place.offset for one in placed.values()))
    stop = min(true.film.count, *(one.place.offset + one.followed.film.count for one in placed.values()))
    if stop - start < FEWEST:
        raise ScoringError(
            f"Only {max(0, stop - start)} frames are shown by all films and lie between frames {base[0]} and {base[1] - 1} of "
            f"the truth; at least {FEWEST} are needed. Check that all of them show the same part of the same performance."
        )
    return start, stop


def _notes(
    placed: Mapping[str, _Placed], claims: Mapping[str, Claims], true: _Followed, capture: Capture | None, base: tuple[int, int]
) -> list[str]:
    """What a reader must know before believing the numbers."""
    notes = []
    for name, one in placed.items():
        place, film = one.place, one.followed.film
        if claims[name].frames is None:
            first = base[0] + place.offset
            said = f"found from {place.by}" if place.by else "taken for granted, as neither its sound nor its motion says"
            notes.append(f"{name}: its first frame shows frame {first} of the truth ({said}).")
        elif one.by_sound is not None and abs(one.by_sound - place.offset) > 1:
            late = place.offset - one.by_sound
            notes.append(f"{name}: against what its metadata says, its sound begins {late:+.1f} frames off.")
        if true.sound is not None and one.followed.sound is not None and one.by_sound is None:
            notes.append(f"{name}: its sound is not the truth's, so that comparing lips frame by frame means little.")
        if not place.resize:
            scale, turn = np.hypot(*place.matrix[:, 0]), np.degrees(np.arctan2(place.matrix[1, 0], place.matrix[0, 0]))
            notes.append(
                f"{name}: laid on the truth by its face: enlarged {scale:.3f} times, turned {turn:+.1f} degrees, moved by "
                f"({place.matrix[0, 2]:+.0f}, {place.matrix[1, 2]:+.0f}) pixels. Where it shows nothing, nothing is compared."
            )
        elif film.size != true.film.size:
            (width, height), (w, h) = film.size, true.film.size
            notes.append(f"{name}: {width}x{height}, was resized to {w}x{h}.")
        there = film.count + min(0, place.offset)
        if there < true.film.count - max(0, place.offset) - 1:
            notes.append(f"{name}: shows {there} of the truth's {true.film.count} frames.")
    if capture is None:
        notes.append("The truth is a plain video, so it is not known whether its frames were trained on.")
    return notes


def _names(paths: Sequence[Path]) -> list[str]:
    """File names, with as much of their folders as tells them apart."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    if len(set(paths)) < len(paths):
        raise ScoringError("One of the videos was given twice.")
    return [str(path) for path in paths]


def _open_capture(truth: Path) -> Capture | None:
    """The capture at `truth`, or None if that is a media file."""
    if not truth.is_dir():
        return None
    try:
        return Capture.open(truth)
    except ArtifactError as error:
        raise ScoringError(f"`{truth}` is neither a video nor a readable Capture: {error}") from error


def _baselines(capture: Capture | None, truth: Film, span: tuple[int, int], folder: Path) -> list[Film]:
    """Films that know nothing of speech, as long as the truth."""
    if capture is not None and (capture.train[1] <= span[0] or span[1] <= capture.train[0]):
        return [_mean_frame(capture, truth.count), _nearest_pose(capture, span, folder)]
    still = truth.at(0)
    return [Film("first frame, still", truth.size, truth.count, lambda a, b: (still for _ in range(a, b)), None)]


def _mean_frame(capture: Capture, count: int) -> Film:
    total, number = np.zeros((capture.resolution, capture.resolution, 3)), 0
    for frame in capture.frames(*capture.train):
        total += frame
        number += 1
    mean = np.rint(total / max(1, number)).astype(np.uint8)
    return Film("mean training frame", (capture.resolution,) * 2, count, lambda a, b: (mean for _ in range(a, b)), None)


def _nearest_pose(capture: Capture, span: tuple[int, int], folder: Path) -> Film:
    """The frames wait in a file in `folder`, so that the training part is read once and memory stays small."""
    start, stop = capture.train
    poses = np.stack([capture.yaw, capture.pitch], axis=-1)
    nearest = [start + int(np.linalg.norm(poses[start:stop] - pose, axis=1).argmin()) for pose in poses[slice(*span)]]
    places: dict[int, list[int]] = {}
    for place, index in enumerate(nearest):
        places.setdefault(index, []).append(place)
    side = capture.resolution
    store = np.lib.format.open_memmap(folder / "nearest.npy", "w+", np.uint8, (len(nearest), side, side, 3))
    for index, frame in enumerate(capture.frames(start, stop), start):
        store[places.get(index, [])] = frame
    return Film("nearest training pose", (side, side), len(nearest), lambda a, b: iter(store[a:b]), None)


def _write(
    folder: Path,
    report: Report,
    results: Mapping[str, Entry],
    entries: Mapping[str, Entry],
    truth: Entry,
    curves: Mapping[str, Curves],
    command: str,
) -> None:
    """All files of a report."""
    write_png(folder / "sheet.png", drawings.sheet(truth, entries))
    facts = {
        "Truth": report.truth,
        "Frames": f"{report.frames[0]} to {report.frames[1] - 1} ({truth.film.count} of them, {FPS} a second)",
        "Speech": f"{report.closures} sounds p, b, m; {report.pauses} pauses",
    }
    for name in report.results:
        given = PROTOCOLS.get(report.protocols[name], "not known")
        unseen = "known not to be trained on" if report.unseen[name] else "not known whether trained on"
        facts[name] = f"given besides sound: {given}; frames {unseen}"
    facts |= {
        "talk3d": version("talk3d"),
        "Machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}, OpenCV {cv2.__version__}",
        "Command": command,
    }
    (folder / REPORT).write_text(json.dumps({**asdict(report), "fps": FPS, "facts": facts}, indent=1))
    drawings.write_curves(folder / "frames.csv", report.frames[0], truth, curves)
    film = folder / "side-by-side.mp4"
    drawings.side_by_side(film, truth, results)
    moments = []
    for name in report.results:
        moments += drawings.worst(name, results[name], truth, curves[name].face_psnr, report.frames[0])
    shown = page.Page(
        title=f"{', '.join(report.results)} against {report.truth}",
        rows=report.rows,
        truth=report.truth_row,
        charts=drawings.charts(truth, curves),
        moments=moments,
        film=film.read_bytes() if film.stat().st_size <= MOST_EMBEDDED else film.name,
        facts=facts,
        notes=report.notes,
        missing=report.missing,
    )
    (folder / "report.html").write_text(page.render(shown), encoding="utf-8")


def as_table(report: Report) -> Any:
    """The report as a rich table; print it with `rich.print`."""
    from rich.table import Table

    count = report.frames[1] - report.frames[0]
    title = f"against {report.truth}, frames {report.frames[0]}..{report.frames[1] - 1} ({count})"
    table = Table(title=title, caption="; ".join(report.notes))
    table.add_column("")
    everything = {page.TRUTH: report.truth_row, **report.rows}
    for name in everything:
        table.add_column(name, justify="right")
    for key, measure in MEASURES.items():
        if any(key in row for row in everything.values()):
            table.add_row(
                f"{measure.title} {measure.unit}".strip(), *(_cell(row.get(key), count) for row in everything.values())
            )
    return table


def _cell(score: scores.Score | None, count: int) -> str:
    if score is None:
        return ""
    text = "-" if score.value is None else f"{score.value:.3f}"
    text += f" [{score.frames}]" if score.frames != count else ""
    return text + (f" ({score.interval[0]:.3g}..{score.interval[1]:.3g})" if score.interval else "")


@contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `output` when all of it is there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(output)
    staging = partial_path(output)
    staging.mkdir()
    try:
        yield staging
        if output.exists():
            shutil.rmtree(output)
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
