"""How long `talk3d --help` takes: processor seconds of a new process, and the time on the wall, median of some calls.

    python benchmarks/startup.py [CALLS]

The command line promises help within 0.3 s; what it may import is tested, the time depends on the machine.
"""

import resource
import statistics
import subprocess
import sys
import time

COMMANDS = ("", "prepare", "personalize", "train", "speak", "evaluate", "demo", "models list", "prior train", "prior import")
RUN = "from talk3d.cli import main; main()"


def measure(words: list[str]) -> tuple[float, float]:
    """(processor seconds, seconds on the wall) of one call."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", RUN, *words, "--help"], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return busy, time.perf_counter() - start


def main(calls: int = 9) -> None:
    print(f"{'command':24}{'busy s':>8}{'wall s':>8}   median of {calls}")
    for command in COMMANDS:
        busy, wall = zip(*(measure(command.split()) for _ in range(calls)), strict=True)
        print(f"talk3d {command:17}{statistics.median(busy):8.2f}{statistics.median(wall):8.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
