"""What the door costs: frames through the decoding process (talk3d.video.read) beside the same decoder in this process.

    python benchmarks/media_speed.py [FILM ...] [--repeat N] [--json FILE]

Without a film, one of 500 frames of 512x512 is made. Decoding alone, and decoding beside work of this process (`--work`
milliseconds per frame, none by default), which the other process can do meanwhile. Also how long a worker takes to start, and a
look at a file while one is idle. Medians and, in brackets, the lowest and highest of the runs; the ratio is door / in process.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from talk3d.video import door
from talk3d.video.jobs import frames as frames_in_process
from talk3d.video.look import probe
from talk3d.video.read import read_frames
from talk3d.video.source import described
from talk3d.video.write import VideoWriter


def moving(path: Path, size: int = 512, count: int = 500) -> Path:
    """Coloured blocks that drift, which an encoder finds neither trivial nor impossible."""
    blocks = np.random.default_rng(0).integers(0, 256, (size // 16 + 2, size // 16 + 2, 3), dtype=np.uint8)
    large = blocks.repeat(16, axis=0).repeat(16, axis=1)
    with VideoWriter(path, (size, size), preset="veryfast", crf=20) as writer:
        for k in range(count):
            writer.write(large[k % 16 : k % 16 + size, 2 * k % 16 : 2 * k % 16 + size])
    return path


def in_process(path: Path) -> Iterator[np.ndarray]:
    """As `read_frames`, without the door. For files that one trusts, and only here."""
    found = frames_in_process(described(path), fps=25, start=0, stop=None, gray=False)
    return (frame for frame in found if frame is not None)


def rate(read: Callable[[Path], Iterator[np.ndarray]], path: Path, work: float) -> float:
    """Frames per second."""
    begin, count = time.perf_counter(), 0
    for _ in read(path):
        count += 1
        until = time.perf_counter() + work
        while time.perf_counter() < until:
            pass
    return count / (time.perf_counter() - begin)


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what decoding in another process costs and gains.")
    parser.add_argument("films", type=Path, nargs="*", help="films to read instead of one that is made")
    parser.add_argument("--repeat", type=int, default=5, help="runs, alternating")
    parser.add_argument("--work", type=float, default=0.0, help="milliseconds that this process computes per frame")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    options = parser.parse_args()
    numbers: dict[str, object] = {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()}
    with TemporaryDirectory() as folder:
        print(f"{'frames per second':32}{'in process':>24}{'door':>24}{'ratio':>8}")
        for film in options.films or [moving(Path(folder) / "512.mp4")]:
            next(read_frames(film, stop=1))
            ways, work = (in_process, read_frames), options.work / 1000
            runs = [[rate(read, film, work) for read in ways] for _ in range(options.repeat)]
            columns = list(zip(*runs, strict=True))
            middle = [statistics.median(column) for column in columns]
            shown = [f"{m:.0f} [{min(c):.0f} {max(c):.0f}]" for m, c in zip(middle, columns, strict=True)]
            print(f"{film.name[:30]:32}{shown[0]:>24}{shown[1]:>24}{middle[1] / middle[0]:8.2f}")
            numbers[film.name] = {"in process": columns[0], "door": columns[1]}
            looks = [seconds(lambda film=film: probe(film)) for _ in range(20)]
            numbers[f"look at {film.name}"] = looks
            print(f"{'  a look at it, ms':32}{'':24}{1000 * statistics.median(looks):24.1f}")

    def start() -> None:
        door._Worker().end()

    starts = [seconds(start) for _ in range(options.repeat)]
    print(f"start of a worker, s            {statistics.median(starts):.2f} [{min(starts):.2f} {max(starts):.2f}]")
    numbers["start"] = starts
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
