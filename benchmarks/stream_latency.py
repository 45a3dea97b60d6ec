"""How late a live frame is: the sound that it waits for, and the time from the chunk that completes it to the drawn frame.

    python benchmarks/stream_latency.py AVATAR [--sound FILE] [--seconds 20] [--chunk 0.04] [--minutes 30] [--json FILE]

Sound is given in chunks of one length, each when the frames of the one before are drawn; a chunk's time ends with its last
frame. A stream keeps up with speech if that is less than the chunk. Hearing is the same without drawing. On a machine that does
other things too, the processor's time (CPU) says more than the clock's. Then memory: the sound again and again for `--minutes`,
heard but not drawn (drawing keeps nothing). OMP_NUM_THREADS sets the number of threads.
"""

import argparse
import json
import os
import platform
import resource
import time
from itertools import chain, cycle
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

import talk3d
from talk3d.talker.live import LiveConfig
from talk3d.talker.speak import SpeakConfig, Speaker
from talk3d.talker.stream import Stream
from talk3d.video.clock import AUDIO_RATE
from talk3d.video.read import read_audio

DRIVE = Path(talk3d.__file__).parent / "assets" / "drive.flac"


def chunks_of(sound: np.ndarray, size: int) -> list[np.ndarray]:
    return [sound[i : i + size] for i in range(0, len(sound), size)]


def delays(stream: Stream, chunks: list[np.ndarray]) -> np.ndarray:
    """Milliseconds that each chunk takes that completes a frame, by the clock and of the processor [chunks, 2].

    The first two frames warm up.
    """
    found, drawn = [], 0
    for chunk in chunks:
        begin = np.array([time.perf_counter(), time.process_time()])
        frames = sum(1 for _ in stream.push(chunk))
        if frames and drawn >= 2:
            found.append(1000 * (np.array([time.perf_counter(), time.process_time()]) - begin))
        drawn += frames
    return np.array(found)


def memory() -> float:
    """MiB of this process at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--sound", type=Path, default=DRIVE)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--chunk", type=float, default=0.04)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--plain", action="store_true", help="draw with the plain modules")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    speaker = Speaker(options.avatar, options.plain)
    sound = np.resize(read_audio(options.sound), round(options.seconds * AUDIO_RATE)).astype(np.float32)
    chunks = chunks_of(sound, round(options.chunk * AUDIO_RATE))
    blank = np.zeros((1, speaker.size, speaker.size, 3), np.uint8)
    rows = []
    for name, look_ahead in (("full", None), ("0.32 s", 0.32), ("0.16 s", 0.16), ("none", 0.0)):
        stream = Stream(speaker, SpeakConfig(), LiveConfig(look_ahead))
        whole = delays(stream, chunks)
        with patch.object(speaker, "draw", lambda *_: blank):
            hearing = delays(Stream(speaker, SpeakConfig(), LiveConfig(look_ahead)), chunks)
        row: dict[str, str | float] = {"look-ahead": name, "stated ms": stream.latency * 1000}
        for part, times in (("all", whole), ("hearing", hearing)):
            for clock, column in (("", 0), (" CPU", 1)):
                row |= {f"{part}{clock} median": float(np.median(times[:, column]))}
                row |= {f"{part}{clock} 95 %": float(np.quantile(times[:, column], 0.95))}
        rows.append(row)
        if len(rows) == 1:
            print("  ".join(f"{key:>18}" for key in row))
        print(
            "  ".join(f"{value:>18.1f}" if isinstance(value, float) else f"{value:>18}" for value in row.values()), flush=True
        )

    held = []
    if options.minutes:
        stream = Stream(speaker, SpeakConfig())
        count = round(options.minutes * 60 / options.chunk)
        with patch.object(speaker, "draw", lambda *_: blank):
            for number, chunk in enumerate(chain.from_iterable(cycle([chunks]))):
                if number % (count // 6) == 0:
                    held.append(memory())
                if number >= count:
                    break
                for _ in stream.push(chunk):
                    pass
        print(f"memory over {options.minutes:g} minutes, heard but not drawn, MiB: " + ", ".join(f"{m:.0f}" for m in held))
    where = {"machine": platform.machine(), "threads": torch.get_num_threads(), "load": os.getloadavg()}
    print(where)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "memory": held, "where": where}, indent=1))


if __name__ == "__main__":
    main()
