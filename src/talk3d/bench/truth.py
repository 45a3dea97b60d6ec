"""How well does an avatar speak? Three shipped synthetic people are learnt from one film each and judged on new speech.

What their lips really did is known, so two questions can be told apart: whether the result looks like the film (`evaluate`
against the test film), and whether its lips move as the person's did (the tracked opening against the true gap in centimetres,
with what the tracker sees on the true film as the ceiling). Only `train.mp4` is ever trained on.

Letters: F frames of a film, T frames of a capture, E closures.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from .. import __version__
from ..capture.artifact import Capture
from ..capture.track import lip_opening, track
from ..errors import ConfigError
from ..evaluate.drawings import sheet
from ..evaluate.film import open_capture, open_video
from ..evaluate.lips import best_lag, closure_recall, correlation, wrongly_closed
from ..evaluate.report import evaluate
from ..personalize.subject import PersonalizeConfig
from ..pictures import write_png
from ..prior.generator import LoadedPrior
from ..talker.config import TrainConfig
from ..talker.speak import SpeakConfig, Speaker, speak
from ..video.clock import FPS
from ..video.read import read_frames
from . import chain
from .chain import Progress
from .prior import same_run, write_json

Protocol = Literal["paper", "audio-only"]
RUNS: tuple[tuple[str, Protocol], ...] = (("test", "paper"), ("test", "audio-only"), ("other", "audio-only"))
"""Film and protocol of what each avatar says: unseen words by its own voice, and another person's voice."""
BASELINES = ("test", "paper")
"""The run that is scored beside a still frame, which knows nothing of speech."""
CLOSED = "PP"
"""The lip shape of p, b and m."""
REACH = 2
"""Frames around the middle of a closure in which the lips may close."""

Scores = dict[str, float | None]


@dataclass(frozen=True)
class TruthBenchConfig:
    """The effort spent on each person."""

    personalize: PersonalizeConfig = field(default_factory=PersonalizeConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(minutes=5.0))


@dataclass(frozen=True)
class Lips:
    """What the lips of a film really did."""

    gap: Float[np.ndarray, " frames"]
    """Between the inner lips, cm."""
    closures: Float[np.ndarray, " closures"]
    """Middle of each p, b and m, in frames."""

    @classmethod
    def load(cls, path: Path) -> Lips:
        """Read a film's `.truth.npz`."""
        truth = np.load(path)
        middles = (truth["viseme_start"] + truth["viseme_stop"]) / 2
        return cls(truth["lip_gap_cm"].astype(np.float64), middles[truth["viseme"] == CLOSED].astype(np.float64) * FPS - 0.5)

    def shown_in(self, capture: Capture) -> Lips:
        """The same on the frames of a capture, which may have left some of the film out."""
        shown = np.concatenate([np.arange(*take) for take in capture.config["takes"]])
        nearest = np.abs(shown[None] - self.closures[:, None]).argmin(1) if len(self.closures) else np.zeros(0, int)
        kept = np.abs(shown[nearest] - self.closures) <= 1
        return Lips(self.gap[shown], nearest[kept].astype(np.float64))


def people_of(pack: Path) -> list[str]:
    """The people in a pack.

    Raises:
        ConfigError: there are none.
    """
    names = sorted(path.parent.name for path in pack.glob("*/manifest.json"))
    if not names:
        raise ConfigError(
            f"`{pack}` is no bench pack: it has no folder with a manifest.json. `tools/make_truth_pack.py` makes one."
        )
    return names


def bench_truth(
    prior: LoadedPrior, pack: Path, names: list[str], output: Path, config: TruthBenchConfig, report: Progress
) -> dict[str, Any]:
    """Learn each person from its film, let it speak, and score it.

    Stages whose result is already there are not repeated, so an interrupted bench continues.

    Args:
        prior: where every person starts.
        pack: folder with one folder for each person.
        names: whom to take.
        output: folder for everything; `truth.json` and `sheet.png` hold the results.
        config: the effort.
        report: called with (stage, part done 0..1).

    Returns:
        What `truth.json` holds.

    Raises:
        ConfigError: a person is not in the pack, or the folder was begun with another prior, pack or effort.
    """
    unknown = sorted(set(names) - set(people_of(pack)))
    if unknown:
        raise ConfigError(f"`{pack}` knows no {', '.join(unknown)}. It has {', '.join(people_of(pack))}.")
    people: dict[str, Any] = {}
    sheets = []
    for name in names:
        people[name], pictures = _bench_person(prior, pack / name, output / name, config, report)
        sheets.append(pictures)
    results = {
        "versions": {"talk3d": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "prior": prior.hash,
        "config": asdict(config),
        "people": people,
        "mean": _means([person["runs"] for person in people.values()]),
    }
    write_json(output / "truth.json", results)
    write_png(output / "sheet.png", np.concatenate(sheets))
    return results


def _bench_person(
    prior: LoadedPrior, films: Path, output: Path, config: TruthBenchConfig, report: Progress
) -> tuple[dict[str, Any], np.ndarray]:
    """One person's results, and rows of pictures: truth, both protocols, and the error of the first."""
    name, manifest = films.name, json.loads((films / "manifest.json").read_text())
    same_run(output, {"prior": prior.hash, "config": asdict(config), "films": manifest["sha256"]})
    clock = _Clock(output / "seconds.json")

    def say(stage: str, part: float = 0.0) -> None:
        report(f"{name}, {stage}", part)

    captures = {}
    for film in ("train", "test", "other"):
        with clock(f"prepare {film}", output / film):
            captures[film] = chain.prepare(films / f"{film}.mp4", output / film, prior, say)
    subject_at, avatar_at = output / "subject", output / "avatar.talk3d"
    with clock("personalize", subject_at):
        chain.make_subject(captures["train"], subject_at, prior, config.personalize, say)
    with clock("train", avatar_at):
        chain.make_avatar(captures["train"], subject_at, avatar_at, config.train, say)

    runs: dict[str, Any] = {}
    for film, protocol in RUNS:
        run, capture = f"{film} {protocol}", captures[film]
        result, scored = output / f"{film}-{protocol}.mp4", output / f"report-{film}-{protocol}"
        with clock(f"speak {run}", result):
            if not result.exists():
                settings = SpeakConfig(mark=False, protocol=protocol)
                speak(
                    Speaker(avatar_at), capture.root, result, settings, False,
                    lambda done, total, run=run: say(f"speaking {run}", done / total), capture,
                )  # fmt: skip
        with clock(f"score {run}", scored):
            if not scored.exists():
                evaluate(result, capture.root, scored, baselines=(film, protocol) == BASELINES, progress=say)
        lips = Lips.load(films / f"{film}.truth.npz").shown_in(capture)
        say(f"tracking {run}")
        seen = track(read_frames(result)).landmarks
        own, baselines = _rows(scored)
        runs[run] = {
            "likeness": own,
            "lips": score_lips(lip_opening(seen), lip_opening(capture.landmarks), lips),
            "ceiling": score_lips(lip_opening(capture.landmarks), lip_opening(capture.landmarks), lips),
            "baselines": baselines,
        }
    shown = [open_video(output / f"test-{protocol}.mp4", protocol) for _, protocol in RUNS[:2]]
    return {"seconds": clock.seconds, "runs": runs}, sheet(open_capture(captures["test"], "test"), shown)


def score_lips(opening: Float[np.ndarray, " frames"], film: Float[np.ndarray, " frames"], truth: Lips) -> Scores:
    """How tracked lips follow the true ones.

    Args:
        opening: tracked opening of a film that shows the true film's frames; NaN without a face.
        film: tracked opening of the true film itself, which says what the tracker calls closed.
        truth: what its lips really did in these frames.

    Returns:
        `correlation` with the true gap, `lag` in frames at which that is highest (positive: late) and `correlation_at_lag`;
        `closures`, the part of the true closures at which the lips close too, out of `judged`, at which the tracker sees the
        true ones closed; `false_closures`, the part of the frames with open lips in which they are closed. See `evaluate.lips`.
    """
    count = min(len(opening), len(film))
    opening, film = opening[:count], film[:count]
    # Brought to the tracker's unit, as what moves is told from what stands still by how much beside the truth it moves.
    gap = truth.gap[:count] * np.nanstd(film) / max(float(truth.gap[:count].std()), 1e-9)
    middles = [round(middle) for middle in truth.closures.tolist() if 0 <= round(middle) < count]
    events = np.array([(max(0, middle - REACH), middle + REACH + 1) for middle in middles], np.int64).reshape(-1, 2)
    lag, recall = best_lag(opening, gap), closure_recall(opening, film, events)
    return {
        "correlation": correlation(opening, gap, interval=False).value,
        "lag": None if lag.frames is None else float(lag.frames),
        "correlation_at_lag": lag.correlation.value,
        "closures": recall.value,
        "judged": float(recall.frames),
        "false_closures": wrongly_closed(opening, film).value,
    }


def _rows(path: Path) -> tuple[Scores, dict[str, Scores]]:
    """The measures in a report of `evaluate`: those of the result, and of each baseline."""
    report = json.loads((path / "report.json").read_text())
    rows = {name: {key: score["value"] for key, score in row.items()} for name, row in report["rows"].items()}
    (result,) = report["results"]
    return rows.pop(result), rows


class _Clock:
    """Seconds spent on each stage; they wait in a file, so that those of an interrupted run are not forgotten."""

    def __init__(self, path: Path):
        self._path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    @contextmanager
    def __call__(self, stage: str, result: Path) -> Iterator[None]:
        """Time a stage, unless its result is already there."""
        if result.exists():
            yield
            return
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - begin, 1)
            write_json(self._path, self.seconds)


def _means(runs: list[Any]) -> Any:
    """The same tree as that of one person, with means over the people; None if one of them lacks the number."""
    first = runs[0]
    if isinstance(first, dict):
        return {key: _means([run[key] for run in runs]) for key in first}
    return None if any(value is None for value in runs) else float(np.mean(runs))


COLUMNS: tuple[tuple[str, str, str, str], ...] = (
    ("face dB", "likeness", "psnr_face", ".2f"),
    ("mouth dB", "likeness", "psnr_mouth", ".2f"),
    ("HeadNet", "likeness", "headnet_distance", ".3f"),
    ("sharp", "likeness", "sharpness", ".2f"),
    ("lips", "likeness", "mouth_opening", ".3f"),
    ("true lips", "lips", "correlation", ".3f"),
    ("(best)", "ceiling", "correlation", ".3f"),
    ("late", "lips", "lag", "+.1f"),
    ("closed", "lips", "closures", ".0%"),
    ("of", "lips", "judged", ".0f"),
    ("false", "lips", "false_closures", ".0%"),
)
"""Of the table: title, part of the results, measure, format."""
LEGEND = (
    "lips: correlation of the tracked opening with that of the true film; true lips: with the exact opening; (best): what the "
    "tracker sees on the true film itself; closed: part of so many /p b m/ at which lips close too; false: of open frames."
)


def table(results: dict[str, Any]) -> str:
    """The results as text, a line for each person and protocol, and the means."""
    lines = [f"{'':30}" + "".join(f"{title:>10}" for title, *_ in COLUMNS)]
    rows = {name: person["runs"] for name, person in results["people"].items()} | {"mean": results["mean"]}
    for name, runs in rows.items():
        for run, parts in runs.items():
            lines.append(_line(f"{name}, {run}", parts))
            for baseline, scores in parts["baselines"].items():
                lines.append(_line(f"{name}, {baseline}", {"likeness": scores, "lips": {}, "ceiling": {}}))
    return "\n".join([*lines, LEGEND])


def _line(name: str, parts: dict[str, Any]) -> str:
    values = [(parts[part].get(key), style) for _, part, key, style in COLUMNS]
    return f"{name:30}" + "".join(f"{'-' if value is None else format(value, style):>10}" for value, style in values)
