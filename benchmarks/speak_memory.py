"""What `talk3d speak` takes of memory while a film gets long: resident megabytes over the film, and how they grow.

    python benchmarks/speak_memory.py AVATAR [MINUTES]

The sound is the package's own, again and again for MINUTES (30 by default). It is spoken in a process of its own, whose
resident memory, and that of the process which decodes sound for it, is looked at once a second; the film is removed afterwards.
30 minutes of film take about half an hour of two cores. OMP_NUM_THREADS sets the number of threads that draw.
"""

import contextlib
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
from talk3d.video.clock import FPS

DRIVE = Path(talk3d.__file__).parent / "assets" / "drive.flac"
MARKS = (0.1, 0.25, 0.5, 0.75, 0.99)
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
    """Megabytes that a running process and those that it started have in memory."""
    folder = Path(f"/proc/{process}")
    pages = int((folder / "statm").read_text().split()[1])
    children = {int(child) for task in folder.glob("task/*/children") for child in task.read_text().split()}
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 + sum(map(resident, children))


def watch(avatar: Path, sound: Path, film: Path) -> np.ndarray:
    """(minutes of film that are drawn, megabytes), once a second: [samples, 2]. Says what it sees meanwhile."""
    progress, marks = (0, 1), list(MARKS)
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
            done, total = progress
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                samples.append((done / FPS / 60, resident(child.pid)))
            while marks and done >= marks[0] * total:
                print(f"{marks.pop(0):4.0%} of the film: {samples[-1][1]:.0f} MB", flush=True)
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
        spoken, megabytes = watch(avatar, sound, film).T
        taken, size = time.perf_counter() - start, film.stat().st_size / 1e6
    later = (spoken >= minutes / 2) & (spoken < minutes)  # and then it gives all of it back
    slope = np.polyfit(spoken[later], megabytes[later], 1)[0] if later.sum() > 2 else float("nan")
    print(f"{minutes:g} minutes of film in {taken / 60:.1f} ({60 * FPS * minutes / taken:.1f} frames/s), {size:.0f} MB of it")
    print(f"peak {megabytes.max():.0f} MB; second half: {slope:+.2f} MB a minute of film")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
