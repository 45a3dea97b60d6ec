"""How fast does an avatar learn? Minutes of training against what it looks like, on frames it never sees.

    python benchmarks/learning_curve.py SUBJECT -o FOLDER [--steps 1000] [--marks 10 25 50 ...]

Trains as `talk3d train` does, and keeps the avatar as it is after each of the marked numbers of steps. Each of them
speaks the test part of the capture (the paper's protocol) and is scored by `talk3d evaluate`. Then the table says how many
minutes of training it takes to go 95 % of the way from the mean training frame, which knows nothing, to the last mark: of the
landmarks of the mouth, and of HeadNet's distance. Time spent on keeping and scoring is not counted as training.

An interrupted bench goes on at the last stage that was complete; its training goes on from the last state, which is later than
a mark that was just passed, so interrupt it in its other stages.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch

from talk3d.capture.artifact import Capture
from talk3d.evaluate.report import evaluate
from talk3d.partials import write_whole
from talk3d.prior.subject import load_subject
from talk3d.runs import Workers
from talk3d.talker.config import TrainConfig
from talk3d.talker.speak import SpeakConfig, Speaker, save_avatar, speak
from talk3d.talker.train import Training

MARKS = (10, 25, 50, 100, 200, 400, 700)
JUDGED = {"mouth_distance": "mouth, px", "headnet_distance": "HeadNet", "psnr_face": "face, dB", "mouth_opening": "opening"}
"""Measures of `talk3d evaluate` in the table."""
WAY = ("mouth_distance", "headnet_distance")
"""Those of which 95 % of the way is asked."""
MEAN = "mean training frame"


def train(subject_at: Path, output: Path, config: TrainConfig, marks: list[int]) -> None:
    """Train once, keeping an avatar at each mark, and write down what it took."""
    if (output / "training.json").exists():
        return
    subject = load_subject(subject_at)
    capture = Capture.open(subject.capture_path)
    training = Training(subject, capture, output / "run", config, lambda part, text: None, Workers())
    seconds: dict[int, float] = {}
    spent = 0.0
    while training.part < 1:
        training.advance()
        if training.step in marks:
            seconds[training.step] = training.elapsed - spent
            begun = time.monotonic()
            save_avatar(output / f"{training.step}.talk3d", subject, capture, training.average, config, overwrite=True)
            spent += time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts = {"seconds": seconds, "steps_per_second": training.step / (training.elapsed - spent), "peak_mib": peak}
    write_whole(output / "training.json", (json.dumps(facts, indent=1) + "\n").encode())


def speak_test_part(avatar: Path, capture: Path, result: Path) -> None:
    """Let an avatar re-enact the test part, unless it did."""
    if not result.exists():
        speak(Speaker(avatar), capture, result, SpeakConfig(mark=False), False, lambda done, total: None, Capture.open(capture))


def reached(seconds: dict[int, float], values: dict[int, float], start: float, part: float = 0.95) -> float:
    """Minutes until a measure has first gone this part of the way from `start` to its last value, between marks on a line."""
    last = values[max(values)]
    gone = {mark: (start - value) / (start - last) for mark, value in sorted(values.items())}
    before, at = 0.0, 0.0
    for mark, now in gone.items():
        if now >= part:
            return (at + (seconds[mark] - at) * (part - before) / (now - before)) / 60
        before, at = now, seconds[mark]
    raise AssertionError("the last mark has gone all the way")


def main() -> None:
    """Train, speak, score, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--marks", type=int, nargs="*", default=list(MARKS))
    options = parser.parse_args()
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    marks = sorted({mark for mark in options.marks if mark < options.steps} | {options.steps})
    train(options.subject, output, TrainConfig(steps=options.steps, minutes=None), marks)
    facts = json.loads((output / "training.json").read_text())
    seconds = {int(mark): value for mark, value in facts["seconds"].items()}
    capture = load_subject(options.subject).capture_path
    results = [output / f"{mark}.mp4" for mark in marks]
    for mark, result in zip(marks, results, strict=True):
        speak_test_part(output / f"{mark}.talk3d", capture, result)
    if not (output / "report").exists():
        evaluate(results[-1], capture, output / "report", compare=results[:-1])
    rows = json.loads((output / "report" / "report.json").read_text())["rows"]

    print(f"{'':22}{'minutes':>9}" + "".join(f"{title:>12}" for title in JUDGED.values()))
    print(f"{MEAN:22}{'':>9}" + "".join(f"{rows[MEAN][key]['value'] or 0:12.4f}" for key in JUDGED))
    for mark in marks:
        row = rows[f"{mark}.mp4"]
        print(f"{f'{mark} steps':22}{seconds[mark] / 60:9.2f}" + "".join(f"{row[key]['value']:12.4f}" for key in JUDGED))
    for key in WAY:
        values = {mark: rows[f"{mark}.mp4"][key]["value"] for mark in marks}
        minutes = reached(seconds, values, rows[MEAN][key]["value"])
        print(f"95 % of the way of {JUDGED[key]}: {minutes:.1f} minutes")
    print(f"{facts['steps_per_second']:.2f} steps/s, peak {facts['peak_mib']:.0f} MiB, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
