"""Films whose frames spell out their own time, and sound whose clicks do."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 12


def coded_frame(number: int, size: int = 96) -> np.ndarray:
    """A picture whose top row of blocks is `number` in binary; the rest is a gradient."""
    picture = np.zeros((size, size, 3), np.uint8)
    picture[..., 1] = np.linspace(0, 200, size)[None]
    block = size // BITS
    for bit in range(BITS):
        picture[:block, bit * block : (bit + 1) * block] = 255 * (number >> bit & 1)
    return picture


def number_in(picture: np.ndarray) -> int:
    block = picture.shape[1] // BITS
    row = picture[block // 2, block // 2 :: block].astype(int).mean(axis=-1)
    return sum(int(value > 127) << bit for bit, value in enumerate(row[:BITS]))


def make_film(
    path: Path,
    milliseconds: list[int],
    *,
    rate: float = 25,
    offset: int = 0,
    sound: np.ndarray | None = None,
    sound_rate: int = 16000,
) -> Path:
    """A film whose frames carry their own time in milliseconds (modulo 4096), at any spacing, starting at `offset`.

    `sound` is float32 [channels, N]; its first sample is at file time zero.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(rate), options={"crf": "20", "g": "12"})
        video.width = video.height = 96
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = None
        if sound is not None:
            layout = "mono" if len(sound) == 1 else "stereo"
            audio = container.add_stream("aac", rate=sound_rate, layout=layout)
            audio.bit_rate = 192_000 if sound_rate > 16000 else 64_000
        for stamp in milliseconds:
            frame = av.VideoFrame.from_ndarray(coded_frame(stamp % 4096), format="rgb24")
            frame.pts, frame.time_base = stamp + offset, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = sound_rate, 0, Fraction(1, sound_rate)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def clicks(rate: int, seconds: float, times: list[float]) -> np.ndarray:
    samples = np.zeros(round(rate * seconds), np.float32)
    for moment in times:
        samples[round(moment * rate)] = 0.9
    return samples


def click_times(samples: np.ndarray, rate: int, count: int) -> list[float]:
    found, samples = [], np.abs(samples)
    for _ in range(count):
        peak = int(samples.argmax())
        found.append(peak / rate)
        samples = samples.copy()
        samples[max(0, peak - rate // 20) : peak + rate // 20] = 0
    return sorted(found)


def set_rotation(source: Path, target: Path, degrees: int) -> Path:
    """Patch the display matrix of the video track header; there is no writer for it in PyAV."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 36  # version+flags, then the fields before the matrix
    cosine, sine = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}[degrees]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join((value & 0xFFFFFFFF).to_bytes(4, "big") for value in matrix)
    target.write_bytes(data)
    return target
