"""Remake the clip and the driving speech that ship with the package.

The voice is espeak-ng's (called as a library for its phoneme timings; Debian: `apt-get install libespeak-ng1`), the face is
a synthetic head. Run: `python tools/make_demo_clip.py --heads DIR`.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
from espeak import MNEMONICS, Synthesiser

from talk3d.camera import Orbit
from talk3d.heads.model import HeadPack, HeadParameters, Light
from talk3d.heads.subject import Phone, perform, write_script
from talk3d.video.write import VideoWriter

ASSETS = Path(__file__).parents[1] / "src" / "talk3d" / "assets"
SIZE, FPS, RATE = 320, 25, 16000

# Rich in closures, open vowels and rounded lips, with pauses in which the mouth closes.
TEACH = (
    "My name is Paul, and nobody ever filmed me. A program made my face, my voice, and every move of my mouth. "
    "Maybe you would rather film your own. Blue moons, five warm apples, a big brown fox: "
    "these words open and close my lips in many ways. Thank you for watching."
)
DRIVE = "Hello! This voice was never heard before. The portrait moves its lips to new words, and looks at you from any side."

# espeak-ng's phoneme names to visemes, longest first.
VISEMES = {
    "tS": "CH", "dZ": "CH", "S": "CH", "Z": "CH", "p": "PP", "b": "PP", "m": "PP", "f": "FF", "v": "FF", "T": "TH", "D": "TH",
    "t": "DD", "d": "DD", "*": "DD", "k": "kk", "g": "kk", "h": "kk", "N": "kk", "s": "SS", "z": "SS", "n": "nn", "l": "nn",
    "r": "RR", "w": "U", "j": "I", "aI": "aa", "aU": "aa", "eI": "E", "OI": "O", "oU": "O", "i": "I", "I": "I", "E": "E",
    "a": "aa", "A": "aa", "0": "aa", "V": "aa", "@": "E", "3": "RR", "O": "O", "o": "O", "U": "U", "u": "U", "e": "E",
}  # fmt: skip


def synthesise(text: str, voice: str, speed: int) -> tuple[np.ndarray, list[Phone]]:
    """Speech at 16 kHz and its phones."""
    sound, events = Synthesiser(MNEMONICS)(text, voice, speed)
    phones = []
    for (start, name), (stop, _) in zip(events, [*events[1:], (len(sound) / RATE, "")], strict=True):
        # Stress marks and length do not change the lips.
        plain = name.strip("',%=_:|;")
        viseme = next((v for n, v in VISEMES.items() if plain.startswith(n)), None)
        # A long phone's shape is held for 0.25 s at most: the rest is a pause.
        if viseme:
            phones.append(Phone(start, min(stop, start + 0.25), viseme))
    return sound, phones


def background(size: int) -> np.ndarray:
    """A soft gradient with a few blurred shapes: plain, but not so plain that errors hide."""
    y, x = np.mgrid[0:size, 0:size] / size
    base = np.array([96, 112, 124]) + 40 * (1 - y)[..., None] + 20 * x[..., None]
    for cx, cy, radius, tint in (
        (0.12, 0.3, 0.1, (30, 10, -20)),
        (0.86, 0.42, 0.13, (-20, 5, 25)),
        (0.9, 0.1, 0.07, (20, 20, 0)),
    ):
        base += np.exp(-((((x - cx) ** 2 + (y - cy) ** 2) / radius**2) ** 2))[..., None] * np.array(tint)
    return np.clip(base, 0, 255).astype(np.uint8)


def main() -> None:
    """Write `demo.mp4` and `drive.flac` into the package's assets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", default=None)
    pack = HeadPack(parser.parse_args().heads)
    sound, phones = synthesise(TEACH, "en-us+m3", 150)
    quiet = np.zeros(RATE // 2, np.float32)
    sound = np.concatenate([quiet, sound, quiet]) * 0.8
    phones = [Phone(p.start + 0.5, p.stop + 0.5, p.viseme) for p in phones]
    frames = int(len(sound) / RATE * FPS)
    print(f"{frames / FPS:.1f} s, {len(phones)} phones")
    rng = np.random.default_rng(24)
    # A face, skin, brows and eyes that the prior was never trained on.
    paul = HeadParameters(
        identity=(rng.standard_normal(57) * 0.45).astype(np.float32),
        skin="young_lightskinned_female3",
        melanin=0.15,
        lip_tint=0.5,
        hair="short02",
        hair_colour=(0.25, 0.15, 0.09),
        brow="eyebrow008",
        eye="green",
        shirt=(0.55, 0.15, 0.2),
        light=Light(azimuth=0.45, elevation=0.5),
    )
    script = write_script(phones, frames, FPS, pack, seed=4)
    with VideoWriter(ASSETS / "demo.mp4", (SIZE, SIZE), FPS, RATE, crf=17, overwrite=True) as writer:
        writer.write_audio(sound)
        for frame in perform(paul, script, pack, Orbit(pivot=(0.0, 0.0, 0.15), focal=2.75), background(SIZE)):
            writer.write(frame.rgb)
    drive, _ = synthesise(DRIVE, "en-us+f3", 150)
    soundfile.write(ASSETS / "drive.flac", np.concatenate([quiet, drive, quiet]) * 0.8, RATE)


if __name__ == "__main__":
    main()
