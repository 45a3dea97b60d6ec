"""Feed the readers of films, sound and pictures (talk3d.video) with damaged files.

    python benchmarks/fuzz_media.py [--count N] [--seed K] [--start I] [--keep FOLDER]

Small files of many containers and codecs are made, and damaged: bits flipped, pieces cut out, doubled, moved within and
between files, lengths and counts overwritten, mostly near the ends. Input I of a seed is always the same, so a run can be
continued with `--start`. Each input goes through all readers, and must end in frames and sound of the announced form, or in
MediaError:

- whole files, the first inputs, must show their moving bar in every frame;
- no other exception may come out;
- no input may take longer than LIMIT seconds;
- nothing may lie beside the input afterwards, and no process but the idle workers may be left;
- this process may not grow by more than GROWTH.

The first violation ends the run with the input kept. Otherwise it prints what became of the readings, for each reader, and how
often the decoding process crashed, ran out of memory or had to be ended, which is allowed: that is what it is for.
"""

import argparse
import collections
import random
import re
import resource
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from talk3d.errors import MediaError, NoAudioError
from talk3d.video import door
from talk3d.video.look import check_complete, count_frames, probe, require_video
from talk3d.video.read import read_audio_chunks, read_frames

LIMIT = 120.0
"""Seconds that one input may take, on a busy machine."""

GROWTH = 1 << 30
"""Bytes; the largest frame that may be announced takes a fifth of it."""

FRAMES = 40
SOUND = 60
"""Frames, and pieces of sound, that are read of each input at most: damaged times make films of days out of one of a second."""

# --- Whole files -----------------------------------------------------------------------------------------------------------


def film(
    path: Path, codec: str, pixels: str = "yuv420p", sound: str = "", options: dict[str, str] | None = None, transfer: int = 0
) -> None:
    """Ten frames of 64x48 with a moving bar, and a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options=options or {})
        video.width, video.height, video.pix_fmt = 64, 48, pixels
        if transfer:
            context = video.codec_context
            context.color_trc, context.color_primaries, context.colorspace = transfer, 9, 9
        audio = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for k in range(10):
            picture = np.full((48, 64, 3), 50, np.uint8)
            picture[:, 6 * k : 6 * k + 6] = (250, 200, 100)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            tone(container, audio)


def tone(container: av.container.OutputContainer, audio: av.AudioStream) -> None:
    samples = np.sin(np.arange(19200) * 0.05).astype(np.float32)[None] / 2
    to_codec = av.AudioResampler(format=audio.format.name, layout="mono", rate=48000, frame_size=audio.frame_size)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    for piece in [*to_codec.resample(frame), *to_codec.resample(None)]:
        container.mux(audio.encode(piece))
    container.mux(audio.encode(None))


def whole_files(folder: Path) -> dict[str, bytes]:
    """By name."""
    fast = {"preset": "ultrafast"}
    quiet = {**fast, "x265-params": "log-level=none"}
    film(folder / "h264.mp4", "libx264", sound="aac", options=fast)
    film(folder / "fragments.mp4", "libx264", sound="aac", options={**fast, "g": "3"})
    film(folder / "interlaced.ts", "libx264", sound="aac", options={**fast, "x264-params": "tff=1:interlaced=1"})
    film(folder / "hevc.mp4", "libx265", options=quiet)
    film(folder / "hdr.mov", "libx265", "yuv420p10le", "pcm_s16le", quiet, transfer=16)
    film(folder / "av1.mp4", "libsvtav1", options={"preset": "12"})
    film(folder / "vp9.webm", "libvpx-vp9", sound="libopus", options={"deadline": "realtime", "cpu-used": "8"})
    film(folder / "h264.mkv", "libx264", sound="flac", options=fast)
    film(folder / "ffv1.mkv", "ffv1", "gray", "pcm_f32le")
    film(folder / "mpeg4.avi", "mpeg4", sound="pcm_s16le")
    film(folder / "mjpeg.avi", "mjpeg", "yuvj420p", "pcm_s16le")
    film(folder / "prores.mov", "prores_ks", "yuv422p10le", "pcm_s16le")
    film(folder / "mpeg2.mpg", "mpeg2video")
    for name, codec in {"wav": "pcm_s16le", "flac": "flac", "mp3": "mp3", "m4a": "aac", "ogg": "libopus"}.items():
        with av.open(str(folder / f"sound.{name}"), "w") as container:
            tone(container, container.add_stream(codec, rate=48000, layout="mono"))
    for name, codec, pixels in (("png", "png", "rgb24"), ("jpg", "mjpeg", "yuvj420p")):
        encoder = av.CodecContext.create(codec, "w")
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, pixels, Fraction(1, 25)
        picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        packets = encoder.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels))
        (folder / f"picture.{name}").write_bytes(b"".join(bytes(packet) for packet in packets + encoder.encode(None)))
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    for path in folder.iterdir():
        path.unlink()
    return files


# --- Damage --------------------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, 2, 3, 7, 127, 128, 255, 256, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]


def damaged(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One damaged version of a file; `other` gives pieces."""
    raw = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16, 64])):
        if not raw:
            break
        # Containers keep what matters at their ends.
        near = min(len(raw), 800)
        at = rng.choice([rng.randrange(near), len(raw) - 1 - rng.randrange(near), rng.randrange(len(raw))])
        choice = rng.randrange(9)
        if choice < 2:
            raw[at] ^= 1 << rng.randrange(8)
        elif choice == 2:
            raw[at] = rng.choice([0, 255, 0x80, rng.randrange(256)])
        elif choice in (3, 4):
            form = rng.choice(["B", ">H", ">I", ">Q", "<H", "<I", "<Q"])
            size = struct.calcsize(form)
            number = rng.choice([*NUMBERS, len(raw), rng.getrandbits(64)])
            raw[at : at + size] = struct.pack(form, number % 2 ** (8 * size))
        elif choice == 5:
            del raw[at : at + rng.choice([1, 2, 8, 64, 512, len(raw)])]
        elif choice == 6:
            place = rng.randrange(len(other))
            raw[at:at] = other[place : place + rng.choice([1, 8, 64, 512])]
        elif choice == 7:
            place, length = rng.randrange(len(raw)), rng.choice([4, 16, 128])
            raw[at : at + length] = raw[place : place + length]
        else:
            raw[at : at + rng.choice([4, 32, 256])] = bytes(rng.choice([4, 32, 256]))
    return bytes(raw)


def made(files: dict[str, bytes], seed: int, index: int) -> tuple[str, bytes]:
    """Input number `index`: a name and what is in the file. The first ones are whole."""
    names = list(files)
    if index < len(names):
        return names[index], files[names[index]]
    rng = random.Random(f"{seed} {index}")
    name = rng.choice(names)
    return name, damaged(rng, files[name], files[rng.choice(names)])


# --- Reading -------------------------------------------------------------------------------------------------------------


class Violation(BaseException):
    """Something happened that no file may cause. Not an Exception, so that no handler on the way can hide it."""


def _frames(path: Path) -> int:
    info = require_video(path)
    count = 0
    for frame in read_frames(path, stop=FRAMES):
        if frame.dtype != np.uint8 or frame.shape != (info.height, info.width, 3):
            raise Violation(f"a frame of {frame.dtype} {frame.shape} in a film of {info.width}x{info.height}")
        count += 1
    return count


def _later_frames(path: Path) -> int:
    return sum(1 for _ in read_frames(path, start=5, stop=9, gray=True))


def _sound(path: Path) -> int:
    count = 0
    for piece in islice(read_audio_chunks(path), SOUND):
        if piece.dtype != np.float32 or piece.ndim != 1 or not np.isfinite(piece).all():
            raise Violation("sound that is not finite")
        count += len(piece)
    return count


READERS: dict[str, Callable[[Path], object]] = {
    "probe": probe,
    "check_complete": check_complete,
    "count_frames": count_frames,
    "read_frames": _frames,
    "from frame 5": _later_frames,
    "read_audio": _sound,
}

ACCIDENTS = {
    "crash": "crashed",
    "killed": "was killed",
    "processor time": "computed for minutes",
    "silence": "for a long time",
    "memory": "more memory than",
}


@dataclass
class Outcomes:
    """Of a run."""

    inputs: int = 0
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)
    readings: dict[str, collections.Counter[str]] = field(default_factory=lambda: collections.defaultdict(collections.Counter))
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)


def read_all(path: Path, outcomes: Outcomes) -> None:
    """All readers on one input."""
    for name, reader in READERS.items():
        try:
            reader(path)
            outcome = "read"
        except NoAudioError:
            outcome = "no sound"
        except MediaError as error:
            text = str(error)
            outcome = next((kind for kind, words in ACCIDENTS.items() if words in text), "refused")
            outcomes.reasons[re.sub(r"`[^`]*`|[\d.]+", "#", text)] += 1
        outcomes.readings[name][outcome] += 1


def look_at_whole(path: Path, name: str) -> None:
    """What is not damaged is read as it was made."""
    if name.startswith("sound"):
        if not 19_000 / 3 < sum(map(len, read_audio_chunks(path))) < 25_000 / 3:
            raise Violation("sound of another length")
    elif name.startswith("picture"):
        if sum(1 for _ in read_frames(path)) != 2:
            raise Violation("two pictures were not two")
    else:
        places = [float(np.mean(np.nonzero(frame[..., 0] > 130)[1])) for frame in read_frames(path)]
        if len(places) != 10 or np.abs(np.array(places) - (6 * np.arange(10) + 2.5)).max() > 1.5:
            raise Violation(f"the bar is at {places}")


def run(
    count: int, seed: int = 0, start: int = 0, keep: Path | None = None, say: Callable[[Outcomes], None] | None = None
) -> Outcomes:
    """Read inputs `start` to `start + count`.

    Raises:
        Violation: see the top of this file; the input is then in `keep`.
    """
    outcomes = Outcomes()
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        files = whole_files(Path(folder))
        begin, before = time.perf_counter(), peak_memory()
        for index in range(start, start + count):
            name, data = made(files, seed, index)
            picture = name.startswith("picture")
            path = Path(folder) / ("pictures" if picture else name)
            if picture:
                path.mkdir()
                (path / f"1{Path(name).suffix}").write_bytes(data)
                (path / f"2{Path(name).suffix}").write_bytes(files[name])
            else:
                path.write_bytes(data)
            began = time.perf_counter()
            try:
                read_all(path, outcomes)
                if data == files[name]:
                    look_at_whole(path, name)
                took = time.perf_counter() - began
                if took > LIMIT:
                    raise Violation(f"took {took:.0f} s")
                if picture:
                    for entry in (path / f"1{Path(name).suffix}", path / f"2{Path(name).suffix}"):
                        entry.unlink()
                    path.rmdir()
                else:
                    path.unlink()
                if left := list(Path(folder).iterdir()):
                    raise Violation(f"left {left}")
                if peak_memory() - before > GROWTH:
                    raise Violation(f"this process grew by {(peak_memory() - before) / 2**20:.0f} MB")
                if len(door._idle) > door.IDLE:
                    raise Violation(f"{len(door._idle)} workers are left")
            except (Exception, Violation) as error:
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}-{index}-{name}").write_bytes(data)
                raise Violation(f"input {index} of seed {seed} ({name}): {type(error).__name__}: {error}") from error
            outcomes.slowest = max(outcomes.slowest, (took, index))
            outcomes.inputs += 1
            outcomes.seconds = time.perf_counter() - begin
            if say is not None and outcomes.inputs % 500 == 0:
                say(outcomes)
    return outcomes


def peak_memory() -> int:
    """Of this process so far, bytes (Linux counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(outcomes: Outcomes) -> str:
    """Readers down, outcomes across."""
    kinds = ["read", "refused", "no sound", *ACCIDENTS]
    lines = [f"{'':16}" + "".join(f"{kind:>16}" for kind in kinds)]
    for name, counts in outcomes.readings.items():
        lines.append(f"{name:16}" + "".join(f"{counts[kind]:16,}" for kind in kinds))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the readers of films, sound and pictures.")
    parser.add_argument("--count", type=int, default=10_000, help="how many inputs")
    parser.add_argument("--seed", type=int, default=0, help="which inputs")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-media"), help="where an input that violates a rule is kept")
    options = parser.parse_args()
    before = peak_memory()

    def say(outcomes: Outcomes) -> None:
        rate = outcomes.inputs / outcomes.seconds
        print(f"{outcomes.inputs:9,} inputs, {rate:.1f} per second, slowest {outcomes.slowest[0]:.1f} s", flush=True)

    outcomes = run(options.count, options.seed, options.start, options.keep, say)
    print(f"inputs         {outcomes.inputs:,} from {options.start:,} of seed {options.seed}, in {outcomes.seconds:.0f} s")
    print(f"slowest        {outcomes.slowest[0]:.1f} s, input {outcomes.slowest[1]:,}")
    print(f"peak memory    {peak_memory() / 2**20:.0f} MB of this process, {before / 2**20:.0f} MB before the first input")
    print(f"different refusals {len(outcomes.reasons)}")
    print(table(outcomes))
    for reason, times in outcomes.reasons.most_common(40):
        print(f"{times:9,}  {reason[:120]}")


if __name__ == "__main__":
    main()
