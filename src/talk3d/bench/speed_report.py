"""What `bench.speed` finds: numbers of stages, films and memory, as a table for people and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .budget import Ceilings


@dataclass(frozen=True)
class Timing:
    """One stage of one path."""

    profile: str
    stage: str
    path: str
    """`plain`, or what the fast twin computes in."""
    milliseconds: float
    """Median, processor time a frame."""
    spread: float
    """Half of the distance between the quartiles, as a part of the median."""
    operations: float | None
    """See `Work`; None where only the clock is known."""
    bytes: float | None
    floor: float | None
    """Milliseconds that the machine's ceilings allow; see `Ceilings`."""
    psnr: float | None
    """Of the finished picture against the plain one, dB; None where none is finished."""
    ratio: float
    """The plain path's time over this one's."""


@dataclass(frozen=True)
class Film:
    """Speaking from a file to a file: hearing, drawing, encoding."""

    path: str
    threads: int
    """Torch's, which the fast code draws whole frames with, and the plain code each frame with all of them."""
    frames: int
    rate: float
    """Frames a second by the clock on the wall, the median of some films; starting and reading the avatar not included."""
    milliseconds: float
    """Median, processor time a frame: what the rate would be on cores that nobody else uses is their number over it."""
    ratio: float
    """The plain path's processor time over this one's."""


@dataclass(frozen=True)
class Memory:
    """What drawing takes, in a process of its own."""

    profile: str
    path: str
    before: float
    """Megabytes resident at most until all is loaded."""
    peak: float
    """Megabytes resident at most after some frames."""
    ratio: float
    """The plain path's growth over this one's."""


@dataclass(frozen=True)
class SpeedReport:
    """Everything that one run measures."""

    machine: dict[str, str | int]
    ceilings: Ceilings
    timings: Sequence[Timing]
    films: Sequence[Film]
    memory: Sequence[Memory]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def this_machine() -> dict[str, str | int]:
    """What a report is of."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """Its name, and the instructions torch chose by."""
    known = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in known.read_text().splitlines() if line.startswith("model name")]
        if (known.exists())
        else []
    )
    return f"{names[0] if names else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def table(report: SpeedReport) -> str:
    """All numbers for people; the ratio to the plain path comes last."""
    c = report.ceilings
    lines = [
        f"{report.machine['processor']}, {report.machine['threads']} threads; at best {c.single / 1e9:.0f} GFLOP/s in single "
        f"precision, {c.half / 1e9:.0f} in bfloat16, {c.bytes / 1e9:.0f} GB/s",
        "",
        f"{'profile':18}{'stage':18}{'path':16}{'core-ms':>9}{'spread':>8}{'GFLOP':>8}{'MB':>7}{'floor':>8}{'reached':>9}{'dB':>6}"
        f"{'ratio':>7}",
    ]
    for t in report.timings:
        work = f"{t.operations / 1e9:8.2f}{t.bytes / 1e6:7.1f}" if t.operations and t.bytes else " " * 15
        floor = f"{t.floor:8.1f}{t.floor / t.milliseconds:9.0%}" if t.floor else " " * 17
        quality = f"{t.psnr:6.1f}" if t.psnr else " " * 6
        lines.append(
            f"{t.profile:18}{t.stage:18}{t.path:16}{t.milliseconds:9.1f}{t.spread:8.0%}{work}{floor}{quality}{t.ratio:7.2f}"
        )
    lines += ["", f"{'film':18}{'threads':>8}{'frames':>8}{'frames/s':>10}{'core-ms':>9}{'ratio':>7}"]
    lines += [f"{f.path:18}{f.threads:8}{f.frames:8}{f.rate:10.1f}{f.milliseconds:9.1f}{f.ratio:7.2f}" for f in report.films]
    lines += ["", f"{'memory':18}{'path':16}{'before, MB':>12}{'peak, MB':>10}{'growth':>8}{'ratio':>7}"]
    for m in report.memory:
        lines.append(f"{m.profile:18}{m.path:16}{m.before:12.0f}{m.peak:10.0f}{m.peak - m.before:8.0f}{m.ratio:7.2f}")
    return "\n".join(lines)
