"""What `talk3d speak` takes of memory while a film gets long: resident megabytes over the film, and how they grow.

    python benchmarks/speak_memory.py AVATAR [MINUTES]

The sound is the package's own, again and again for MINUTES (30 by default). It is spoken in a process of its own, whose
resident memory is looked at once a second; the film is removed afterwards. A film of 30 minutes takes about half an hour of two
cores. OMP_NUM_THREADS sets the number of threads that draw.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import soundfile

import talk3d

DRIVE = Path(talk3d.__file__).parent / "assets" / "drive.flac"
SPEAK = """
import sys
from pathlib import Path
from talk3d.talker.speak import SpeakConfig, Speaker, speak
avatar, sound, film = map(Path, sys.argv[1:])
speak(Speaker(avatar), sound, film, SpeakConfig(), False, lambda done, total: print(done, total, flush=True))
"""


def make_sound(path: Path, minutes: float) -> None:
    """The package's sound, again and again."""
    sound, rate = soundfile.read(DRIVE, dtype="int16")
    left = round(60 * minutes * rate)
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        while left > 0:
            file.write(sound[:left])
            left -= len(sound)


def resident(process: int) -> float:
    """Megabytes that a running process has in memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def watch(avatar: Path, sound: Path, film: Path) -> np.ndarray:
    """(part of the film that is drawn, minutes of it, megabytes), once a second until it is done: [samples, 3]."""
    progress = (0, 1)
    with subprocess.Popen([sys.executable, "-c", SPEAK, avatar, sound, film], stdout=subprocess.PIPE, text=True) as child:

        def follow() -> None:
            nonlocal progress
            assert child.stdout is not None
            for line in child.stdout:
                done, total = line.split()
                progress = int(done), int(total)

        follower = threading.Thread(target=follow)
        follower.start()
        samples = []
        while child.poll() is None:
            megabytes = resident(child.pid)
            if megabytes:  # none is left of a process that has ended
                done, total = progress
                samples.append((done / total, done / 25 / 60, megabytes))
            time.sleep(1)
        follower.join()
    if child.returncode:
        raise SystemExit(f"speaking failed: it ended with {child.returncode}")
    return np.array(samples)


def main(avatar: Path, minutes: float = 30.0) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sound, film = Path(folder) / "sound.flac", Path(folder) / "film.mp4"
        make_sound(sound, minutes)
        start = time.perf_counter()
        samples = watch(avatar, sound, film)
        taken, size = time.perf_counter() - start, film.stat().st_size / 1e6
    part, at, megabytes = samples.T
    frames, rate = round(at[-1] * 60 * 25), at[-1] * 60 * 25 / taken
    print(f"{minutes:g} minutes of sound, {frames} frames in {taken / 60:.1f} minutes ({rate:.1f}/s), {size:.0f} MB of film")
    print(f"peak {megabytes.max():.0f} MB")
    for some in (0.1, 0.25, 0.5, 0.75, 1.0):
        print(f"{some:4.0%} of the film: {megabytes[np.argmin(abs(part - some))]:.0f} MB")
    later = part >= 0.5
    slope = np.polyfit(at[later], megabytes[later], 1)[0] if later.sum() > 2 else float("nan")
    print(f"second half: {slope:+.2f} MB a minute of film")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
