"""How fast `talk3d evaluate` is, measure by measure, and whether its memory stays flat however long a film is.

python benchmarks/evaluate_speed.py RESULT TRUTH            frames a second of each measure
python benchmarks/evaluate_speed.py RESULT TRUTH --hour N   peak memory for the films looped N times, beside once
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from talk3d.capture.mask import PersonSegmenter
from talk3d.capture.track import FaceTracker
from talk3d.evaluate import guests, image, scores
from talk3d.evaluate.person import Flicker, likeness, new_edges
from talk3d.evaluate.report import evaluate
from talk3d.video.clock import AUDIO_RATE, FPS
from talk3d.video.look import require_video
from talk3d.video.read import read_audio, read_frames
from talk3d.video.write import VideoWriter

FRAMES, ROUNDS = 16, 3


def speeds(result: Path, truth: Path) -> dict[str, float]:
    """Frames a second of each measure, medians over rounds."""
    mine, true = (np.stack(list(read_frames(path, stop=FRAMES))) for path in (result, truth))
    tracker, segment, flicker = FaceTracker(), PersonSegmenter(), Flicker()
    points = np.stack([tracker(frame).landmarks for frame in true]).astype(np.float32)
    masks = [scores._masks(frame, face, segment) for frame, face in zip(true, points, strict=True)]
    a, b = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 for x in (mine, true))
    face = torch.from_numpy(np.stack([mask["face"] for mask in masks]))
    pairs = list(zip(mine, true, strict=True))
    works: dict[str, Callable[[], object]] = {
        "reading": lambda: list(read_frames(result, stop=FRAMES)),
        "tracking the face": lambda: [tracker(frame) for frame in true],
        "regions (face, mouth, torso, neck)": lambda: [scores._masks(f, p, segment) for f, p in zip(true, points, strict=True)],
        "squared and absolute error, one region": lambda: (image.squared_error(a, b, face), image.absolute_error(a, b, face)),
        "SSIM, all regions": lambda: image.ssim_map(a, b),
        "MS-SSIM": lambda: image.ms_ssim(a, b),
        "as published, one region": lambda: image.ssim_published(image.greyed(a, face), image.greyed(b, face)),
        "HeadNet distance and identity": lambda: likeness(pairs, points, points),
        "flicker": lambda: [flicker.add(*pair) for pair in pairs],
        "new edges at the neck": lambda: [new_edges(*p, m["neck"] > 0) for p, m in zip(pairs, masks, strict=True)],
    }
    for name, make in (("FLIP", guests.flip), ("dlib identity", guests.dlib_identity)):
        try:
            judge = make()
        except Exception as error:
            print(f"{name}: {error}")
            continue
        works[name] = lambda judge=judge: judge(guests.Look(mine, true, points, points))
    found = {}
    with torch.no_grad():
        for name, work in works.items():
            work()
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                work()
                times.append(time.perf_counter() - start)
            found[name] = FRAMES / statistics.median(times)
    return found


def looped(path: Path, times: int, to: Path) -> None:
    """The film and its sound, so many times."""
    info = require_video(path)
    sound = read_audio(path)
    with VideoWriter(to, (info.width, info.height), audio_rate=AUDIO_RATE, crf=18, preset="ultrafast") as writer:
        for _ in range(times):
            count = 0
            for frame in read_frames(path):
                writer.write(frame)
                count += 1
            samples = count * AUDIO_RATE // FPS
            writer.write_audio(np.pad(sound[:samples], (0, max(0, samples - len(sound)))))


def peak(result: Path, truth: Path) -> dict[str, float]:
    """Seconds and peak memory of one whole evaluation, in a process of its own."""
    script = "import sys; from benchmarks.evaluate_speed import run; run(*sys.argv[1:])"
    line = subprocess.run(
        [sys.executable, "-c", script, str(result), str(truth)], check=True, capture_output=True, text=True,
        cwd=Path(__file__).parents[1],
    ).stdout.splitlines()[-1]  # fmt: skip
    return json.loads(line)


def run(result: str, truth: str) -> None:
    """Evaluate, and print what it took."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = evaluate(Path(result), Path(truth), Path(folder) / "report", baselines=False)
        page = (Path(folder) / "report" / "report.html").stat().st_size
    spent = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    frames = report.frames[1] - report.frames[0]
    print(json.dumps({"frames": frames, "seconds": spent, "peak_mib": memory, "page_mib": page / 2**20}))


def main() -> None:
    """Print one table or the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--hour", type=int, metavar="N")
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    if given.hour is None:
        for name, speed in speeds(given.result, given.truth).items():
            print(f"{name:42}{speed:10.1f} frames/s")
        return
    with tempfile.TemporaryDirectory() as folder:
        once = peak(given.result, given.truth)
        print(once)
        films = []
        for path in (given.result, given.truth):
            films.append(Path(folder) / f"long-{path.name}")
            looped(path, given.hour, films[-1])
        many = peak(*films)
        print(many)
    print(f"{many['frames'] / once['frames']:.1f} times the frames, {many['peak_mib'] / once['peak_mib']:.2f} times the memory")


if __name__ == "__main__":
    main()
