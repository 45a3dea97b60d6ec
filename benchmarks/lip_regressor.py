"""How much of a person's lips their sound tells: `python benchmarks/lip_regressor.py CAPTURE [...] [--json FILE]`.

Kernel ridge regression from 0.4 s of audio features to the tracked lip opening, nothing drawn: what an avatar's lips should
come close to. It learns on a capture's training part, where its one parameter is chosen by cross-validation over six
contiguous parts (15 frames left out at the seams), and is scored on the test part; the correlation over the training part is
the cross-validated one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from talk3d.capture.artifact import Capture
from talk3d.talker.audio import AudioConfig
from talk3d.talker.clip import capture_windows

COLUMNS = 40
PARTS, SEAM = 6, 15
RIDGES = tuple(10.0 ** np.arange(-3, 3))
FEATURES = {"bands": ("bands",), "phones": ("phones",), "bands and phones": ("bands", "phones"), "ear": ("ear",),
            "all": ("bands", "phones", "ear")}  # fmt: skip


def features(capture: Capture) -> dict[str, np.ndarray]:
    """[F, numbers] of each kind, standardised by the training part."""
    config = AudioConfig(columns=COLUMNS)
    train = slice(*capture.train)
    windows = capture_windows(capture, capture.train, config)[: capture.count].numpy()
    phones = AudioConfig(columns=COLUMNS, ear=False).channels
    kinds = {"bands": windows[:, : config.bands], "phones": windows[:, config.bands : phones], "ear": windows[:, phones:]}
    made = {}
    for name, window in kinds.items():
        # Steps of 40 ms: neighbouring columns say nearly the same.
        flat = window.reshape(len(window), window.shape[1], -1, 4).mean(-1).reshape(len(window), -1).astype(np.float64)
        made[name] = (flat - flat[train].mean(0)) / (flat[train].std(0) + 1e-3) / np.sqrt(flat.shape[1])
    return made


def predict(learnt: np.ndarray, target: np.ndarray, asked: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge regression in its dual form: there are more numbers than frames."""
    gram = learnt @ learnt.T
    weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), target - target.mean())
    return asked @ learnt.T @ weights + target.mean()


def score(numbers: np.ndarray, opening: np.ndarray, train: slice, test: slice) -> tuple[float, float]:
    """Correlation over the training part, cross-validated, and over the test part."""
    learnt, target = numbers[train], opening[train]
    frames = np.arange(len(learnt))
    best = (-2.0, RIDGES[0])
    for ridge in RIDGES:
        guess = np.zeros(len(learnt))
        for part in np.array_split(frames, PARTS):
            kept = (frames < part[0] - SEAM) | (frames > part[-1] + SEAM)
            guess[part] = predict(learnt[kept], target[kept], learnt[part], ridge)
        best = max(best, (float(np.corrcoef(guess, target)[0, 1]), ridge))
    guess = predict(learnt, target, numbers[test], best[1])
    return best[0], float(np.corrcoef(guess, opening[test])[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for path in arguments.captures:
        capture = Capture.open(path)
        train, test = slice(*capture.train), slice(*capture.test)
        opening, kinds = capture.lip_gap.astype(np.float64), features(capture)
        print(f"{path}: {train.stop - train.start} frames to learn from, {test.stop - test.start} to be scored on")
        rows = {}
        for name, parts in FEATURES.items():
            rows[name] = score(np.concatenate([kinds[part] for part in parts], 1), opening, train, test)
            print(f"  {name:18s} cross-validated {rows[name][0]:.3f}, test {rows[name][1]:.3f}", flush=True)
        results[str(path)] = rows
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
