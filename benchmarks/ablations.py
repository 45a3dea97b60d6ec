"""What each part of the talker is worth: trained without it, or with it, for equally many steps, and scored on unseen frames.

    python benchmarks/ablations.py --work DIR --synthetic CAPTURE SUBJECT --real CAPTURE SUBJECT [--only ROW ...] [--steps N]
    python benchmarks/ablations.py --work DIR --render

Each row of the table is trained on both clips, in a folder of its own below DIR. What is finished is not done again, what was
interrupted continues, and several processes with the same arguments share the rows. After each training the table is written
again, as --render does at any time: Markdown, and beside it JSON with all numbers.

The row `random-prior` needs a capture and a subject of each clip (`synthetic` or `real`) that were made with random weights,
`--random CLIP CAPTURE SUBJECT`, twice. This writes such a prior for the `--prior` of `talk3d prepare` and `talk3d personalize`:

    known = load_prior("src/talk3d/assets/prior")
    save_prior(Path("random"), Generator(known.profile), known.canonical_landmarks)
"""

import argparse
import fcntl
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from talk3d.capture.artifact import Capture
from talk3d.evaluate.measures import MEASURES, Best
from talk3d.evaluate.report import evaluate
from talk3d.partials import write_whole
from talk3d.prior.subject import Subject, load_subject
from talk3d.runs import LOG
from talk3d.talker.audio import AudioConfig
from talk3d.talker.config import TrainConfig
from talk3d.talker.speak import SpeakConfig, Speaker, save_avatar, speak
from talk3d.talker.tokens import NAMES, TokenConfig
from talk3d.talker.train import finish_run, train_talker
from talk3d.talker.validate import held_out

ROOT = Path(__file__).parents[1]
CLIPS = ("synthetic", "real")
SCORES, SETTINGS, COST = "scores.json", "settings.json", "cost.json"
TRAINED, SPOKEN = 0.75, 0.9
"""Part of a row's time after which it is trained, and after which its film is there."""
BASE = TrainConfig(steps=300, minutes=None, validation=0.2, preview_seconds=1e9)
"""Of clips of 40 seconds and more, the last eight seconds of the training part are withheld for the validation columns."""

# ------------------------------------------------------------------------------------------------------------ the rows

Change = Callable[[TrainConfig, Subject], tuple[TrainConfig, Subject]]


def unchanged(config: TrainConfig, subject: Subject) -> tuple[TrainConfig, Subject]:
    """As they are."""
    return config, subject


def training(**values: Any) -> Change:
    """Other settings of the training."""
    return lambda config, subject: (replace(config, **values), subject)


def weights(**values: float) -> Change:
    """Other weights of the losses."""
    return lambda config, subject: (replace(config, weights=replace(config.weights, **values)), subject)


def without(token: str) -> Change:
    """All tokens but one."""
    return training(tokens=TokenConfig(tokens=tuple(name for name in NAMES if name != token)))


@dataclass(frozen=True)
class Row:
    """One training, and what it differs in."""

    name: str
    question: str
    """What the row answers."""
    change: Change = unchanged
    alone: bool = False
    """Whether the U-Net draws speech alone: the prior's expressions are not known."""
    random: bool = False
    """Whether the subject comes from random weights."""

    def settings(self, config: TrainConfig, subject: Subject) -> tuple[TrainConfig, Subject]:
        """What the row is trained with, of what the baseline is."""
        return self.change(config, replace(subject, expressions={}) if self.alone else subject)


BASELINES = tuple(Row(f"baseline-{seed}", f"the defaults, seed {seed}", training(seed=seed)) for seed in range(3))
ALONE = tuple(
    Row(f"unet-alone-{seed}", f"the U-Net without the prior's expressions, seed {seed}", training(seed=seed), alone=True)
    for seed in range(2)
)
ROWS = (
    *BASELINES,
    *ALONE,
    Row("no-audio-token", "what does the sound tell the U-Net?", without("audio"), alone=True),
    Row("no-blink-token", "what does the blink tell it?", without("blink"), alone=True),
    Row("no-null-token", "does it need a token for what never changes?", without("null"), alone=True),
    Row("no-rotation-token", "does it need to know where the head turns?", without("rotation"), alone=True),
    Row("no-landmark-token", "does it need to know where the head is in the picture?", without("landmark"), alone=True),
    Row("rollout-off", "must planes see one another?", training(rollout="off"), alone=True),
    Row("rollout-official", "does mixing along Talk3D's axes harm? Some are wrong", training(rollout="official"), alone=True),
    Row("joint-convolution", "one convolution over all planes, not one for each", training(convolution="joint"), alone=True),
    Row("random-prior", "what is the prior worth? Random weights know no expressions", alone=True, random=True),
    Row("mel", "sound as mel bands only", training(audio=AudioConfig(phones=False, ear=False))),
    Row("mel-phones", "sound as mel bands and phones, without the ear", training(audio=AudioConfig(ear=False))),
    Row("no-structure-loss", "structure 0", weights(structure=0.0)),
    Row("no-mouth-loss", "mouth 0", weights(mouth=0.0)),
    Row("no-lips-loss", "lips 0: after it has learnt to listen, the audio code need not tell lip shapes", weights(lips=0.0)),
    Row("no-restraint", "cameras 0, delta 0: corrections and deltas may grow freely", weights(cameras=0.0, delta=0.0)),
    Row(
        "headnet-losses", "perceptual 0.4, mouth_perceptual 0.4, identity 0.1: HeadNet as a judge",
        weights(perceptual=0.4, mouth_perceptual=0.4, identity=0.1),
    ),
    Row("reading-losses", "mouth_shape 0.1, sync 0.1: a reader of drawn lips", weights(mouth_shape=0.1, sync=0.1)),
    Row("adversarial-loss", "adversarial 0.03: a discriminator", weights(adversarial=0.03)),
    Row("reprojection-loss", "reprojection 0.5: the surface seen from a second camera", weights(reprojection=0.5)),
    Row(
        "temporal-losses", "temporal 1, smoothness 1: pairs of neighbouring frames, of half as many moments",
        weights(temporal=1.0, smoothness=1.0),
    ),
)  # fmt: skip
"""Losses that share a judge, or the same extra work, share a row, or there would be five trainings more; phones without bands
are left out, as they cannot tell how loud anything is."""

# --------------------------------------------------------------------------------------------------------- one training


@dataclass(frozen=True)
class Clip:
    """What is trained on, twice."""

    name: str
    capture: Path
    subject: Path


def score_row(row: Row, clip: Clip, folder: Path, config: TrainConfig, say: Callable[[float, str], None]) -> dict[str, Any]:
    """Train, or continue to; re-enact the test part; score. Returns the content of the row's scores.json.

    Args:
        row: what differs.
        clip: where the capture and the subject are, from random weights if the row asks for such.
        folder: of this row and clip; holds the avatar, its film and its report afterwards.
        config: of the baseline.
        say: called with (part done 0..1, a line).
    """
    capture, subject = Capture.open(clip.capture), load_subject(clip.subject)
    capture.require_hash(subject.capture_hash, "Subject")
    config, subject = row.settings(config, subject)
    avatar, film, run = folder / "avatar.talk3d", folder / "speech.mp4", folder / "run"
    if not avatar.exists():
        times: list[float] = []

        def follow(part: float, text: str) -> None:
            if text.startswith("step "):
                times.append(time.process_time())
            say(TRAINED * part, text)

        talker = train_talker(subject, capture, run, config, follow)
        if len(times) > 1:  # the clock of the process: other processes at work do not count
            write_whole(folder / COST, json.dumps((times[-1] - times[0]) / (len(times) - 1)).encode())
        save_avatar(avatar, subject, capture, talker, config, overwrite=False)
    finish_run(run)
    speaker = Speaker(avatar)
    speak(
        speaker, capture.root, film, SpeakConfig(mark=False), True,
        lambda done, total: say(TRAINED + (SPOKEN - TRAINED) * done / total, "re-enacting"), drive=capture,
    )  # fmt: skip
    report = evaluate(
        film, clip.capture, folder / "report", baselines=False, overwrite=True, progress=lambda stage, part: say(SPOKEN, stage)
    )
    scores = report.scores
    values: dict[str, float | None] = {name: score.value for name, score in scores.items()}
    values |= validated(run / LOG)
    values["core_seconds"] = json.loads((folder / COST).read_text()) if (folder / COST).exists() else None
    values["parameters"] = sum(parameter.numel() for parameter in speaker.network.parameters())
    return {
        "row": row.name, "clip": clip.name, "capture": capture.hash, "subject": subject.hash, "train": asdict(config),
        "frames": report.frames, "values": values,
        "intervals": {name: score.interval for name, score in scores.items() if score.interval is not None},
    }  # fmt: skip


def validated(log: Path) -> dict[str, float]:
    """The validation scores of the state that was kept: the best one of the second half; none of a clip that is too short."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    second_half = [entry for entry in entries if "val_score" in entry and 2 * entry["step"] >= entries[-1]["step"]]
    best: dict[str, float] = min(second_half, key=lambda entry: entry["val_score"], default={})
    return {name: value for name, value in best.items() if name.startswith("val_")}


def commit() -> str:
    """Of the code that runs; with a plus, if it was changed since."""
    tell = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"]
    return subprocess.run(tell, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def machine() -> str:
    """What the row was made on."""
    threads = torch.get_num_threads()
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, of which a row uses {threads}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


# -------------------------------------------------------------------------------------------------------- book-keeping


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process has the folder for itself. The claim of a process that dies, dies with it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mine = False
        else:
            mine = True
        yield mine


def facts_of(clips: Sequence[Clip], steps: int) -> dict[str, Any]:
    """What all rows of one table share."""
    facts: dict[str, Any] = {"steps": steps}
    for clip in clips:
        capture = Capture.open(clip.capture)
        count = len(range(*capture.train))
        withheld = held_out(count, BASE.validation)
        facts[clip.name] = {
            "capture": capture.hash, "subject": load_subject(clip.subject).hash,
            "learnt": count - withheld, "withheld": withheld, "tested": len(range(*capture.test)),
        }  # fmt: skip
    return facts


def require_same(work: Path, facts: Mapping[str, Any]) -> None:
    """The first call says what the rows in `work` share; later ones must say the same."""
    path = work / SETTINGS
    if not path.exists():
        write_whole(path, (json.dumps(facts, indent=1) + "\n").encode())
    known = json.loads(path.read_text())
    if changed := [name for name in facts if facts[name] != known.get(name)]:
        raise SystemExit(
            f"The rows in `{work}` were made with another {' and '.join(changed)} (see `{path}`), and cannot stand in one "
            "table with these. Give the same, or another folder as --work."
        )


def work_off(
    todo: Sequence[tuple[Row, Clip]],
    work: Path,
    make: Callable[[Row, Clip, Path, Callable[[float, str], None]], dict[str, Any]],
    after: Callable[[], None],
) -> None:
    """Make what is neither finished nor in another process's hands.

    Args:
        todo: rows and clips, in order.
        work: folder of all rows.
        make: gives the content of a row's scores.json, made in the given folder; is given where to tell its progress.
        after: called after each.
    """
    folders = [work / row.name / clip.name for row, clip in todo]

    def finished() -> int:
        return sum((folder / SCORES).exists() for folder in folders)

    before, begun, shown = finished(), time.monotonic(), -60.0
    for (row, clip), folder in zip(todo, folders, strict=True):

        def say(part: float, text: str, title: str = f"{row.name}, {clip.name}") -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < 20:
                return
            shown, done = now, finished()
            left = time_left(now - begun, done - before + part, len(todo) - done - part)
            print(f"{title}: {part:.0%}, {text} | {done} of {len(todo)} done, {left}", flush=True)

        if (folder / SCORES).exists():
            continue
        with claimed(folder) as mine:
            # Another process may have finished it since.
            if not mine or (folder / SCORES).exists():
                continue
            made = make(row, clip, folder, say)
            write_whole(folder / SCORES, (json.dumps(made, indent=1) + "\n").encode())
        after()


def time_left(elapsed: float, made: float, missing: float) -> str:
    """In words, if `made` rows by all processes took so many seconds."""
    if made < 0.02:
        return "time left not known yet"
    minutes = round(elapsed / made * missing / 60)
    return f"about {minutes // 60} h {minutes % 60:02} min left"


# ----------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Column:
    """A number of the table."""

    title: str
    key: str
    digits: int
    best: Best | None = None
    """None for what is no quality."""


def measure(key: str, digits: int) -> Column:
    """A column of the scoring kit."""
    known = MEASURES[key]
    return Column(f"{known.title} {f'({known.unit})' if known.unit else ''}".strip(), key, digits, known.best)


COLUMNS = (
    Column("validation score", "val_score", 4, "low"), Column("validation, mouth", "val_mouth", 4, "low"),
    measure("psnr_face", 2), measure("psnr_mouth", 2), measure("ssim_face", 3), measure("mouth_distance", 2),
    measure("mouth_opening", 2), measure("sharpness", 2), measure("headnet_distance", 3), measure("flicker", 2),
    Column("core-seconds a step", "core_seconds", 2), Column("parameters", "parameters", 0),
)  # fmt: skip


def worth(best: Best, value: float) -> float:
    """More is better."""
    return {"high": value, "low": -value, "one": -abs(value - 1), "zero": -abs(value)}[best]


def verdict(column: Column, value: float, seeds: Sequence[float], others: Sequence[float]) -> str:
    """How a value stands to those that differ from it in one thing only.

    Args:
        column: which says what is better.
        value: of a row.
        seeds: of the same with nothing changed, one of each seed.
        others: the same of the other kind of rows. No difference counts that is less than the spread of either.
    """
    if column.best is None:
        return ""
    spreads = [max(worths) - min(worths) for worths in ([worth(column.best, one) for one in some] for some in (seeds, others))]
    difference = worth(column.best, value) - statistics.mean(worth(column.best, one) for one in seeds)
    if abs(difference) <= max(spreads):
        return " ≈"
    return " ▲" if difference > 0 else " ▼"


def load_scores(work: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """By clip and row, those that are there."""
    found: dict[str, dict[str, dict[str, Any]]] = {clip: {} for clip in CLIPS}
    for clip in CLIPS:
        for row in ROWS:
            path = work / row.name / clip / SCORES
            if path.exists():
                found[clip][row.name] = json.loads(path.read_text())
    return found


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Of one clip, in Markdown."""
    lines = ["| | " + " | ".join(column.title for column in COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for row in ROWS:
        # The rows of the U-Net by itself say, beside the baseline, what expressions are worth.
        kinds = (ALONE, BASELINES) if row.alone and row not in ALONE else (BASELINES, ALONE)
        seeds = [[rows[one.name]["values"] for one in kind if one.name in rows] for kind in kinds]
        judged = row not in BASELINES and [len(found) for found in seeds] == [len(kind) for kind in kinds]
        cells = (
            [cell(column, rows[row.name], seeds if judged else []) for column in COLUMNS] if row.name in rows else ["not run"]
        )
        lines.append(f"| {row.name} | " + " | ".join(cells + [""] * (len(COLUMNS) - len(cells))) + " |")
    return "\n".join(lines)


def cell(column: Column, scores: Mapping[str, Any], seeds: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """A number with its interval and how it stands to both kinds of seeds, if any; a dash for what could not be measured."""
    value = scores["values"].get(column.key)
    if value is None:
        return "-"
    text = f"{value:,.{column.digits}f}"
    if interval := scores["intervals"].get(column.key):
        text += " [{:.{d}f}, {:.{d}f}]".format(*interval, d=column.digits)
    known = [[one[column.key] for one in found if one.get(column.key) is not None] for found in seeds]
    return text + verdict(column, value, *known) if known and all(known) else text


def document(facts: Mapping[str, Any], scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The page.

    Args:
        facts: what all rows share.
        scores: by clip and row, those that are there.
    """
    every = [one for rows in scores.values() for one in rows.values()]
    commits, machines = (", ".join(sorted({one[what] for one in every})) or "-" for what in ("commit", "machine"))
    parts = [INTRODUCTION.format(steps=facts["steps"], frames=BASE.frames_per_step, commits=commits, machines=machines)]
    for clip, rows in scores.items():
        about = "{learnt} frames learnt from, {withheld} withheld, {tested} tested".format(**facts[clip])
        parts.append(f"## The {clip} clip\n\n{about}.\n\n{table(rows)}\n")
    questions = "\n".join(f"- `{row.name}`: {row.question}" for row in ROWS)
    return "\n".join([*parts, f"## The rows\n\n{questions}\n\n{LEFT_OUT}"])


def write_document(work: Path, output: Path) -> None:
    """The page, and its data beside it."""
    facts, scores = json.loads((work / SETTINGS).read_text()), load_scores(work)
    write_whole(output, document(facts, scores).encode())
    write_whole(output.with_suffix(".json"), (json.dumps({"facts": facts, "scores": scores}, indent=1) + "\n").encode())


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    for name in CLIPS:
        parser.add_argument(f"--{name}", type=Path, nargs=2, metavar=("CAPTURE", "SUBJECT"))
    parser.add_argument("--random", nargs=3, action="append", default=[], metavar=("CLIP", "CAPTURE", "SUBJECT"))
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], metavar="ROW")
    parser.add_argument("--steps", type=int, default=BASE.steps)
    parser.add_argument("--render", action="store_true", help="train nothing, write the table from what is there")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "ablations.md", metavar="FILE.md")
    options = parser.parse_args(words)
    if options.render:
        if not (options.work / SETTINGS).exists():
            parser.error(f"there are no rows in `{options.work}`; train some first")
        write_document(options.work, options.output)
        return
    if not (options.synthetic and options.real):
        parser.error("training needs both --synthetic CAPTURE SUBJECT and --real CAPTURE SUBJECT")
    torch.set_num_threads(1)
    clips = [Clip(name, *getattr(options, name)) for name in CLIPS]
    random = {name: Clip(name, Path(capture), Path(subject)) for name, capture, subject in options.random}
    wanted = [row for row in ROWS if options.only is None or row.name in options.only]
    todo = [(row, random.get(clip.name) if row.random else clip) for row in wanted for clip in clips]
    if any(clip is None for _, clip in todo):
        print("random-prior is left out where no --random CLIP CAPTURE SUBJECT is given")
    require_same(options.work, facts_of(clips, options.steps))
    config = replace(BASE, steps=options.steps)
    made_by = {"commit": commit(), "machine": machine()}  # as it is now: the code may be changed while rows are trained
    work_off(
        [(row, clip) for row, clip in todo if clip is not None],
        options.work,
        lambda row, clip, folder, say: score_row(row, clip, folder, config, say) | made_by,
        lambda: write_document(options.work, options.output),
    )


INTRODUCTION = """# Ablations

What each part of the talker is worth: each row is one training that differs from the defaults in one thing, for {steps}
steps of {frames} frames, on a synthetic and on a real clip. `benchmarks/ablations.py` wrote this page and says how to
remake it; the JSON file beside it holds all settings and numbers.

**How it was made.** The avatar of each row re-enacted the test part of its capture, with the sound, head motion and
blinks of those frames, and `talk3d evaluate` scored it. So all columns from the PSNR to the flicker rest on test frames,
and **nothing may be chosen by them**, neither a loss nor any other setting. For choices there are the two validation
columns (less is better). They rest on the end of the training part, which no row learns from, and come from the log of
the training: twelve frames of it are drawn four times, and the best state of the second half is kept and reported. That
makes them a little too good, for every row alike. A usual training of so short a clip withholds nothing. The weights of
losses that are off by default were fixed before any row was trained, by the size of the terms.

**How to read it.** The prior's expressions draw a mouth from the first step, and a U-Net beside them has little to say
in so few. So what the U-Net is made of is judged without them: the rows of tokens, roll-out, convolutions and the random
prior differ from `unet-alone` in one thing, all other rows from `baseline`. Three seeds of the one and two of the other
say how much chance does. ≈ is a difference from their mean within spread, that is no larger than the largest of the seeds
less the smallest, for either kind: it says nothing. ▲ is better and ▼ is worse by more than that. All other rows have one
seed, so few seeds make a rough spread, and there are many cells, so that some marks come by chance: a single one ranks
nothing. {steps} steps are few; what learns slowly may be worth more in a longer training. In brackets: where 95 of
100 such films would have the correlation.

**Made by** commit {commits} on {machines}. Core-seconds are of the process's own clock, validation included: other
processes beside it count little.
"""

LEFT_OUT = """Losses that share a judge or the same extra work share a row; one for each would take five trainings more.
Phones alone are left out, as they cannot tell how loud a sound is; bands, phones and the ear together are the baseline.
"""


if __name__ == "__main__":
    main()
