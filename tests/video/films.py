"""Films whose frames spell out their own time, and sound whose clicks do."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 12
OPTIONS = {
    "libx264": {"crf": "20", "g": "12"},
    "libx265": {"crf": "16", "preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx-vp9": {"crf": "16", "b": "0", "deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"crf": "20", "preset": "12"},
    "mpeg4": {"qscale": "3"},
    "mjpeg": {"qscale": "3"},
}
"""Of encoders, for speed and for pictures that can be read."""


def coded_frame(number: int, width: int = 96, height: int = 96) -> np.ndarray:
    """A picture whose top row of blocks is `number` in binary, so that only its upright form can be read; else a gradient."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 1] = np.linspace(0, 200, width)[None]
    block = width // BITS
    for bit in range(BITS):
        picture[:block, bit * block : (bit + 1) * block] = 255 * (number >> bit & 1)
    return picture


def number_in(picture: np.ndarray) -> int:
    block = picture.shape[1] // BITS
    row = picture[min(block, picture.shape[0] // BITS) // 2, block // 2 :: block].astype(int).mean(axis=-1)
    return sum(int(value > 127) << bit for bit, value in enumerate(row[:BITS]))


def make_film(
    path: Path,
    milliseconds: list[int],
    *,
    rate: float | Fraction = 25,
    offset: int = 0,
    sound: np.ndarray | None = None,
    sound_rate: int = 16000,
    sound_codec: str = "aac",
    sound_tracks: int = 1,
    size: tuple[int, int] = (96, 96),
    turned: int = 0,
    aspect: Fraction | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """A film whose frames carry their own time in milliseconds (modulo 4096), at any spacing, starting at `offset`.

    `sound` is float32 [channels, N]; its first sample is at file time zero. Every track after the first is silent. `size` is
    what is stored; `turned` by how many degrees the stored picture is turned clockwise from the upright one.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=Fraction(rate), options=options or OPTIONS.get(codec, {}))
        video.width, video.height = size
        video.pix_fmt = pixels
        constant = path.suffix == ".avi" or codec in ("mjpeg", "libsvtav1")
        video.codec_context.time_base = 1 / Fraction(rate) if constant else Fraction(1, 1000)
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[1 if sound is None else len(sound)]
        tracks = []
        for _ in range(0 if sound is None else sound_tracks):
            audio = container.add_stream(sound_codec, rate=sound_rate, layout=layout)
            if sound_codec == "aac":
                audio.bit_rate = 192_000 if sound_rate > 16000 else 64_000
            tracks.append(audio)
        for index, stamp in enumerate(milliseconds):
            upright = size if turned % 180 == 0 else size[::-1]
            picture = np.rot90(coded_frame(stamp % 4096, *upright), -turned // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = stamp + offset, Fraction(1, 1000)
            if constant:
                frame.pts, frame.time_base = index, 1 / Fraction(rate)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for number, audio in enumerate(tracks):
            to_codec = av.AudioResampler(format=audio.format.name, layout=layout, rate=sound_rate, frame_size=audio.frame_size)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound * (number == 0)), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = sound_rate, 0, Fraction(1, sound_rate)
            for piece in [*to_codec.resample(frame), *to_codec.resample(None)]:
                container.mux(audio.encode(piece))
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
