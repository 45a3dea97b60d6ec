"""Pictures that are not plain ones: half pictures (interlaced), and light beyond what a screen shows (HDR).

Letters: n points on each axis of a colour cube. Light is in units of diffuse white, 203 cd/m2 (ITU-R BT.2408).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

TRANSFERS = {16: "pq", 18: "hlg"}
"""Of ITU-T H.273; all others are taken for ordinary ones."""

WHITE = 203.0
PEAK = 1000.0
"""cd/m2 of diffuse white, and of the brightest light that is told from brighter ones."""

LEVEL = 8
"""The colour cube has n = 64 points on each axis."""


class Light:
    """What has to be done to a film's frames before they are RGB."""

    def __init__(self, interlaced: bool = False, transfer: str = "sdr") -> None:
        self.interlaced, self.transfer = interlaced, transfer
        self._tone: Any = None
        self._shape: tuple[int, int, str] | None = None
        self._count = 0

    @property
    def notes(self) -> list[str]:
        notes = []
        if self.interlaced:
            notes.append(
                "The film is interlaced; whole pictures were made of its half ones. Progressive recordings are sharper."
            )
        if self.transfer != "sdr":
            notes.append(
                f"The film is HDR ({self.transfer.upper()}); its light was brought into the range of an ordinary screen, "
                "where very bright places lose contrast. Record in SDR if you can."
            )
        return notes

    def mended(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """The same frames, whole if they were interlaced. FFmpeg's bwdif keeps their times and looks one frame ahead."""
        if not self.interlaced:
            yield from frames
            return
        graph = None
        for frame in frames:
            if graph is None:
                graph = av.filter.Graph()
                last = graph.add("buffersink")
                weave = graph.add("bwdif", "mode=send_frame:deint=interlaced")
                _buffer(graph, frame).link_to(weave)
                weave.link_to(last)
                graph.configure()
            graph.push(frame)
            yield from _pulled(graph)
        if graph is not None:
            graph.push(None)
            yield from _pulled(graph)

    def to_sdr(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame that an ordinary screen can show: itself, or RGB through `tone_cube`, which takes the frame's times away."""
        if self.transfer == "sdr":
            return frame
        if self._shape != (frame.width, frame.height, frame.format.name):
            self._shape = (frame.width, frame.height, frame.format.name)
            self._tone = self._tone_graph(frame)
        source, sink = self._tone
        # The filter pairs its two inputs by their times, and a film's own need not rise.
        frame.pts, frame.time_base = self._count, Fraction(1, 1000)
        self._count += 1
        source.push(frame)
        return sink.pull()

    def _tone_graph(self, frame: av.VideoFrame) -> tuple[Any, Any]:
        cube = av.VideoFrame.from_ndarray(tone_cube(self.transfer), format="rgb48le")
        cube.pts, cube.time_base = 0, Fraction(1, 1000)
        frame.time_base = cube.time_base
        graph = av.filter.Graph()
        source, colours = _buffer(graph, frame), _buffer(graph, cube)
        tone = graph.add("haldclut", "interp=tetrahedral")
        rgb, sink = graph.add("format", "rgb24"), graph.add("buffersink")
        source.link_to(tone, 0, 0)
        colours.link_to(tone, 0, 1)
        tone.link_to(rgb)
        rgb.link_to(sink)
        graph.configure()
        colours.push(cube)
        colours.push(None)
        self._graph = graph  # its parts do not keep it alive
        return source, sink


def light_of(frame: av.VideoFrame) -> Light:
    """From a film's first frame."""
    return Light(bool(frame.interlaced_frame), TRANSFERS.get(int(frame.color_trc), "sdr"))


def tone_cube(transfer: str) -> np.ndarray:
    """What becomes of each HDR colour, as a Hald image: uint16 RGB [n * LEVEL, n * LEVEL, 3], red running fastest.

    Signal to light (SMPTE ST 2084, or ARIB STD-B67 as seen on a screen of PEAK), BT.2020 to BT.709 colours, then Reinhard's
    curve on the largest component m, m (1 + m / p^2) / (1 + m) with p = PEAK / WHITE, and sRGB's transfer. Grey stays grey,
    hues stay what they are, diffuse white becomes 3/4 of full scale, and PEAK full scale.
    """
    signal = np.linspace(0, 1, LEVEL * LEVEL)
    if transfer == "pq":
        root = signal ** (1 / 78.84375)
        light = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    else:
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    blue, green, red = np.meshgrid(light, light, light, indexing="ij")
    rgb = np.stack([red, green, blue], axis=-1)
    if transfer == "hlg":
        rgb = PEAK * rgb * np.maximum(rgb @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None] ** 0.2
    rgb = rgb @ np.array([[1.6605, -0.1246, -0.0182], [-0.5876, 1.1329, -0.1006], [-0.0728, -0.0083, 1.1187]]) / WHITE
    rgb, top = np.maximum(rgb, 0), PEAK / WHITE
    most = rgb.max(axis=-1, keepdims=True)
    shown = np.minimum(most, top)
    rgb *= shown * (1 + shown / top**2) / (1 + shown) / np.maximum(most, 1e-9)
    rgb = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * np.maximum(rgb, 1e-9) ** (1 / 2.4) - 0.055)
    return np.round(rgb.reshape(LEVEL**3, LEVEL**3, 3).clip(0, 1) * 65535).astype(np.uint16)


def _buffer(graph: av.filter.Graph, frame: av.VideoFrame) -> Any:
    return graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)


def _pulled(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    try:
        while True:
            yield graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):
        return
