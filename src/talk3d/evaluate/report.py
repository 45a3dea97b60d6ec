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
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ..capture.artifact import Capture
from ..errors import ArtifactError, ScoringError
from ..partials import refuse_existing, writing_folder
from ..pictures import write_png
from ..video.clock import FPS
from . import drawings, guests, page, scores
from .claims import PROTOCOLS, read_claims
from .film import Film, open_capture, open_video
from .measures import MEASURES
from .placing import (
    Desk,
    Say,
    base_of,
    common_frames,
    common_window,
    face_warnings,
    notes_on,
    place_warnings,
    require_face,
    share_warning,
)
from .scores import Curves, Entry, Row
from .speech import listen
from .summary import summarise

MOST_EMBEDDED = 8_000_000
"""Larger films stay beside the page, bytes: in it, each byte takes several of memory while it is written."""
REPORT = "report.json"


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
    placed_by: dict[str, str]
    """What says so; empty where nothing does, and it was taken for granted."""
    rows: dict[str, Row]
    """Scores by film and measure, results first."""
    truth_row: Row
    """What the true film has of its own."""
    closures: int
    """Times that /p/, /b/ or /m/ is heard."""
    pauses: int
    summary: dict[str, list[str]]
    """What the scores of each result say, in plain sentences."""
    warnings: list[str]
    """What makes numbers mean less than they seem to; stands above them."""
    notes: list[str]
    """What else a reader must know before believing the numbers."""
    missing: list[str]
    """What was not measured, and why."""

    @property
    def scores(self) -> Row:
        """Of the first result."""
        return self.rows[self.results[0]]

    @property
    def adrift(self) -> set[str]:
        """The results of which it is not known that they show the frames that they are compared with."""
        return {name for name, by in self.placed_by.items() if not by}


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
        NoFaceError: the truth shows no face, so that there is nothing to compare with.
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
    if predictor is not None:
        guests.mouth_distance_68(predictor)  # one that cannot be used is refused before the long work

    with tempfile.TemporaryDirectory(prefix="talk3d-") as scratch:
        desk = Desk(Path(scratch), say)
        base = base_of(frames, capture, true_film, list(claims.values()))
        true = desk.followed(true_film.part(*base), true_film.sound, base[0])
        require_face(true, 0, true.film.count, base[0])
        placed = {name: desk.placed(film, claims[name], true, base, frames is not None) for name, film in films.items()}
        span = common_frames(placed, true, base)
        require_face(true, *span, base[0])
        truth_entry = true.entry(span[0], span[1])
        entries = {name: one.entry(true, *span) for name, one in placed.items()}
        warnings = [
            *share_warning(placed, claims, base, span, partial(base_of, frames, capture, true_film)),
            *place_warnings(placed, base),
            *face_warnings(entries, truth_entry),
        ]
        notes = notes_on(placed, claims, true, capture, base)
        rows_of = dict(entries)
        if baselines:
            for film in _baselines(capture, truth_entry.film, (base[0] + span[0], base[0] + span[1])):
                rows_of[film.name] = desk.followed(film, None, 0).entry(0, film.count, truth_entry.sound)
        window = common_window([one.covered(true.film.size) for one in placed.values()])
        if window != (0, 0, *true.film.size):
            notes.append(
                "Not every film shows all of the true picture, so that all were compared in the part that they share: columns "
                f"{window[0]} to {window[2] - 1}, rows {window[1]} to {window[3] - 1}."
            )
            truth_entry, entries, rows_of = (
                truth_entry.cut(window),
                *({name: entry.cut(window) for name, entry in some.items()} for some in (entries, rows_of)),
            )
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
            placed_by={name: one.place.by for name, one in placed.items()},
            rows=rows,
            truth_row=scores.own_row(truth_entry, truth_entry, speech),
            closures=0 if speech is None else len(speech.closures),
            pauses=0 if speech is None else speech.pauses,
            summary={
                name: summarise(
                    name,
                    rows,
                    [other for other in rows if other not in names],
                    curves,
                    shown[0],
                    adrift=not one.place.by,
                    other_sound=one.other_sound(true),
                )
                for name, one in placed.items()
            },
            warnings=warnings,
            notes=notes,
            missing=missing,
        )
        say("drawing", 0.0)
        command = shlex.join(
            ["talk3d", "evaluate", str(paths[0]), "--truth", str(truth), "--output", str(output)]
            + (["--compare", *map(str, paths[1:])] if compare else [])
            + (["--frames", *map(str, frames)] if frames else [])
            + (["--shape-predictor", str(predictor)] if predictor else [])
            + (["--overwrite"] if overwrite else [])
        )
        with writing_folder(output) as staging:
            _write(staging, report, entries, rows_of, truth_entry, curves, command)
    say("drawing", 1.0)
    return report


def _names(paths: Sequence[Path]) -> list[str]:
    """File names; of those that clash, the whole path as it was given."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise ScoringError("One of the videos was given twice.")
    names = [path.name for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]


def _open_capture(truth: Path) -> Capture | None:
    """The capture at `truth`, or None if that is a media file."""
    if not truth.is_dir():
        return None
    try:
        return Capture.open(truth)
    except ArtifactError as error:
        raise ScoringError(f"`{truth}` is neither a video nor a readable Capture: {error}") from error


def _baselines(capture: Capture | None, truth: Film, span: tuple[int, int]) -> list[Film]:
    """Films that know nothing of speech, as long as the truth."""
    if capture is not None and (capture.train[1] <= span[0] or span[1] <= capture.train[0]):
        return [_mean_frame(capture, truth.count), _nearest_pose(capture, span)]
    still = truth.at(0)
    return [Film("first frame, still", truth.size, truth.count, lambda a, b: (still for _ in range(a, b)), None)]


def _mean_frame(capture: Capture, count: int) -> Film:
    total, number = np.zeros((capture.resolution, capture.resolution, 3)), 0
    for frame in capture.frames(*capture.train):
        total += frame
        number += 1
    mean = np.rint(total / max(1, number)).astype(np.uint8)
    return Film("mean training frame", (capture.resolution,) * 2, count, lambda a, b: (mean for _ in range(a, b)), None)


def _nearest_pose(capture: Capture, span: tuple[int, int]) -> Film:
    start, stop = capture.train
    poses = np.stack([capture.yaw, capture.pitch], axis=-1)
    nearest = [start + int(np.linalg.norm(poses[start:stop] - pose, axis=1).argmin()) for pose in poses[slice(*span)]]

    def frames(first: int, last: int) -> Iterator[np.ndarray]:
        # Each is sought in the film again: to keep them all would take as much memory as the film is long.
        number, frame = -1, np.zeros(0)
        for index in nearest[first:last]:
            if index != number:
                number, frame = index, next(capture.frames(index, index + 1))
            yield frame

    return Film("nearest training pose", (capture.resolution,) * 2, len(nearest), frames, None)


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
    write_png(folder / "sheet.png", drawings.sheet(truth.film, [entry.film for entry in entries.values()]))
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
        summary=report.summary,
        rows=report.rows,
        adrift=report.adrift,
        truth=report.truth_row,
        charts=drawings.charts(truth, curves),
        moments=moments,
        film=film.read_bytes() if film.stat().st_size <= MOST_EMBEDDED else film.name,
        facts=facts,
        warnings=report.warnings,
        notes=report.notes,
        missing=report.missing,
    )
    (folder / "report.html").write_text(page.render(shown), encoding="utf-8")


def as_table(report: Report) -> Any:
    """The report for a terminal: warnings, what each film's scores say, and a table; print it with `rich.print`."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    count = report.frames[1] - report.frames[0]
    title = f"against {escape(report.truth)}, frames {report.frames[0]}..{report.frames[1] - 1} ({count})"
    table = Table(title=title, caption=escape("\n".join(report.notes)), box=SIMPLE_HEAD, padding=(0, 1), caption_justify="left")
    table.add_column("", no_wrap=True)
    everything = {page.TRUTH: report.truth_row, **report.rows}
    for name in everything:
        mark = f"\n[bold red]{page.ADRIFT}[/]" if name in report.adrift else ""
        table.add_column(escape(name) + mark, justify="right", overflow="fold", style="dim" if mark else "")
    for key, measure in MEASURES.items():
        if any(key in row for row in everything.values()):
            table.add_row(
                f"{measure.title} {measure.unit}".strip(), *(_cell(row.get(key), count) for row in everything.values())
            )
    above = [Text(f"WARNING: {warning}", "bold") for warning in report.warnings]
    for name, sentences in report.summary.items():
        above += [Text(f"\n{name}", "bold"), *(Text(f"- {sentence}") for sentence in sentences)]
    return Group(*above, table)


def _cell(score: scores.Score | None, count: int) -> str:
    if score is None:
        return ""
    text = "-" if score.value is None else f"{score.value:.3f}"
    return text if score.frames == count else f"{text} [{score.frames}]"
