"""How fast `talk3d prepare` is, stage by stage, how much memory it takes, and whether a long film survives being killed.

    python benchmarks/capture_speed.py FILM [--audio FILE] [--loops N] [--kill PART ...] [--work DIR]

The film is encoded again without a look ahead and joined to itself N times, sound and all. It is prepared in a process of its
own, which is killed (signal 9) whenever its progress reaches one of the PARTs (of a stage's frames, as `cutting:0.5`), and
started again. The table gives, per frame and stage, the time on the clock, processor time of the program and of the processes
that decode for it, and the peak memory of all processes that worked on it.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from talk3d.capture.artifact import Capture
from talk3d.capture.build import prepare
from talk3d.prior.generator import load_prior
from talk3d.video.clock import AUDIO_RATE, FPS
from talk3d.video.look import require_video
from talk3d.video.read import read_audio, read_frames
from talk3d.video.write import VideoWriter, join_films

PRIOR = Path(__file__).parents[1] / "src" / "talk3d" / "assets" / "prior"


def looped(film: Path, audio: Path, loops: int, folder: Path) -> tuple[Path, Path]:
    """The film and its sound, `loops` times one after the other."""
    once, long, sound = folder / "once.mp4", folder / f"times-{loops}.mp4", folder / f"times-{loops}.flac"
    if not long.exists():
        info, count = require_video(film), 0
        with VideoWriter(once, (info.width, info.height), FPS, preset="veryfast", causal=True, overwrite=True) as writer:
            for frame in read_frames(film):
                writer.write(frame)
                count += 1
        samples = np.resize(read_audio(audio), count * AUDIO_RATE // FPS)
        with soundfile.SoundFile(sound, "w", AUDIO_RATE, 1, subtype="PCM_16") as sink:
            for _ in range(loops):
                sink.write(samples)
        join_films(loops * [once], long)
    return long, sound


def decoders() -> tuple[float, float]:
    """Of the children that still live: seconds of processor time of all, and the largest peak of memory, MiB."""
    ticks, peak = 0, 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            values = (process / "stat").read_text().rpartition(")")[2].split()
            status = (process / "status").read_text()
        except OSError:
            continue
        if int(values[1]) == os.getpid():
            ticks += int(values[11]) + int(values[12])
            peak = max([peak, *(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))])
    return ticks / os.sysconf("SC_CLK_TCK"), peak


def work(film: Path, audio: Path, output: Path) -> None:
    """Prepare, and print a line of JSON at each step and stage; runs in a process of its own."""
    prior = load_prior(PRIOR)
    spent: dict[str, np.ndarray] = {}
    state: dict[str, object] = {"stage": None, "since": np.zeros(3), "said": 0.0}

    def clocks() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time(), decoders()[0]])

    def say(stage: str, part: float) -> None:
        if stage != state["stage"]:
            now = clocks()
            if state["stage"] is not None:
                name = str(state["stage"])
                spent[name] = spent.get(name, np.zeros(3)) + now - state["since"]
            state.update(stage=stage, since=now, said=0.0)
        if time.perf_counter() - float(state["said"]) > 0.2:  # type: ignore[arg-type]
            state["said"] = time.perf_counter()
            print(json.dumps({"stage": stage, "part": part}), flush=True)

    prepare(
        film, output, canonical=prior.canonical_landmarks, orbit=prior.profile.orbit,
        resolution=prior.profile.image_resolution, prior_hash=prior.hash, consent="permission", audio=audio, progress=say,
        overwrite=True,
    )  # fmt: skip
    peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, decoders()[1]]
    print(json.dumps({"spent": {name: values.tolist() for name, values in spent.items()}, "peak_mib": peaks}), flush=True)


def run(film: Path, audio: Path, output: Path, kill: list[tuple[str, float]]) -> dict[str, object]:
    """Prepare in a process of its own, killed wherever asked and started again; what the last one said."""
    waiting, start, kills = list(kill), time.perf_counter(), []
    while True:
        command = [sys.executable, __file__, "--work-on", str(film), str(audio), str(output)]
        last: dict[str, object] = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            first = None
            for line in child.stdout:
                last = json.loads(line)
                first = first or last
                if waiting and (last.get("stage"), True) == (waiting[0][0], float(last.get("part", 0)) >= waiting[0][1]):
                    child.send_signal(signal.SIGKILL)
                    break
        if "spent" in last:
            last["wall"], last["kills"] = time.perf_counter() - start, kills
            return last
        if not waiting or last.get("stage") != waiting[0][0]:
            raise SystemExit(f"the work ended unexpectedly: {last}")
        kills.append({"killed": last, "had_begun": first})
        print(f"killed at {last}, had begun at {first}", flush=True)
        waiting.pop(0)


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--work-on"]:
        work(*map(Path, sys.argv[2:5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--loops", type=int, default=1)
    parser.add_argument("--kill", nargs="*", default=[], metavar="STAGE:PART")
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    film, sound = looped(given.film, given.audio or given.film, given.loops, given.work)
    output = given.work / "capture"
    shutil.rmtree(output, ignore_errors=True)
    kill = [(stage, float(part)) for stage, part in (text.split(":") for text in given.kill)]
    found = run(film, sound, output, kill)
    frames = Capture.open(output).count
    print(f"{'ms a frame, last run':24}{'clock':>10}{'program':>10}{'decoders':>10}")
    for name, values in dict(found["spent"]).items():  # type: ignore[call-overload]
        print(f"{name:24}" + "".join(f"{1000 * value / frames:10.2f}" for value in values))
    print(f"{frames} frames in {found['wall']:.1f} s: {frames / float(found['wall']):.1f} frames/s, {len(kill)} kills")  # type: ignore[arg-type]
    print("peak memory: program {:.0f} MiB, a decoder {:.0f} MiB".format(*found["peak_mib"]))  # type: ignore[misc]


if __name__ == "__main__":
    main()
