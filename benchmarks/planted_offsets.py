"""How well late or early sound is noticed: the sound of captures is moved by known amounts, and found again.

    python benchmarks/planted_offsets.py CAPTURE [CAPTURE ...]

Only training frames are looked at, as `talk3d prepare` does. What the expert finds in the capture as it is, which is printed
too, counts as in step; for synthetic films it should be 0. `believed` says how often it was sure enough to move the sound by
itself.
"""

import argparse
from pathlib import Path

import numpy as np

from talk3d.capture.artifact import Capture
from talk3d.capture.sound import measure_lateness, read_sound
from talk3d.video.clock import AUDIO_RATE, FPS

OFFSETS = (-400, -300, -200, -100, -40, 0, 40, 100, 200, 300, 400)
"""Milliseconds by which the sound is late."""


def moved(samples: np.ndarray, late: int) -> np.ndarray:
    """Sound that comes `late` milliseconds later, silence where there is none."""
    shift = late * AUDIO_RATE // 1000
    out = np.zeros_like(samples)
    if shift >= 0:
        out[shift:] = samples[: len(samples) - shift]
    else:
        out[:shift] = samples[-shift:]
    return out


def main() -> None:
    """Print a row for each capture and one for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", type=Path, nargs="+")
    errors, believed = [], []
    print(f"{'off by, ms':28}" + "".join(f"{late:>8}" for late in OFFSETS) + f"{'as it is':>10}{'frames':>9}{'believed':>10}")
    for path in parser.parse_args().captures:
        capture = Capture.open(path)
        start, stop = capture.train
        samples = read_sound(capture.path("audio.flac"), start, stop)
        lips = capture.track["landmarks"][start:stop]
        found = [measure_lateness(lips, moved(samples, late), None) for late in OFFSETS]
        frames = np.array([np.nan if one.frames is None else one.frames for one in found])
        off = (frames - frames[OFFSETS.index(0)]) * 1000 / FPS - OFFSETS
        sure = [one.moved != 0 for one, late in zip(found, OFFSETS, strict=True) if abs(late) >= 100]
        errors.append(off)
        believed.append(np.mean(sure))
        name, zero = "/".join(path.resolve().parts[-2:]), 1000 / FPS * frames[OFFSETS.index(0)]
        print(
            f"{name:28.28}" + "".join(f"{value:8.0f}" for value in off) + f"{zero:10.0f}{stop - start:9}{believed[-1]:10.0%}",
            flush=True,
        )
    worst = np.nanmax(np.abs(errors), axis=0)
    print(f"{'largest':28}" + "".join(f"{value:8.0f}" for value in worst) + f"{'':19}{np.mean(believed):10.0%}")


if __name__ == "__main__":
    main()
