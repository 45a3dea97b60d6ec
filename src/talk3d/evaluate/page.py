"""The report as one page that needs nothing else: table, curves over time, worst frames, the films side by side."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ..video import FPS
from .lips import Lag, Score

Best = Literal["high", "low", "one", "zero"]
COLOURS = ("#2563eb", "#c2410c", "#15803d", "#7e22ce")
"""Of the films in the curves; the truth is grey."""
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 180, 58, 22
"""Of a chart and its margins, pixels."""


@dataclass(frozen=True)
class Measure:
    """How a score is called, and which value is best."""

    title: str
    unit: str
    best: Best


MEASURES: dict[str, Measure] = {
    "psnr": Measure("PSNR, whole", "dB", "high"),
    "psnr_face": Measure("PSNR, face", "dB", "high"),
    "psnr_mouth": Measure("PSNR, mouth", "dB", "high"),
    "mae": Measure("Mean absolute error, whole", "of 255", "low"),
    "mae_face": Measure("Mean absolute error, face", "of 255", "low"),
    "mae_mouth": Measure("Mean absolute error, mouth", "of 255", "low"),
    "ssim": Measure("SSIM, whole", "", "high"),
    "ssim_face": Measure("SSIM, face", "", "high"),
    "ssim_mouth": Measure("SSIM, mouth", "", "high"),
    "ms_ssim": Measure("MS-SSIM, whole", "", "high"),
    "headnet_distance": Measure("HeadNet distance", "", "low"),
    "headnet_identity": Measure("HeadNet identity", "cosine", "high"),
    "mouth_distance": Measure("Lip distance", "px", "low"),
    "mouth_distance_percent": Measure("Lip distance", "% of the eye distance", "low"),
    "face_distance": Measure("Face landmark distance", "px", "low"),
    "mouth_opening": Measure("Lip opening, correlation", "", "high"),
    "mouth_lag": Measure("Lip opening, lag of the best", "frames", "zero"),
    "eye_opening": Measure("Eye opening, correlation", "", "high"),
    "sync_offset": Measure("talk3d sync expert, offset", "frames", "zero"),
    "sync_confidence": Measure("talk3d sync expert, confidence", "", "high"),
    "sharpness": Measure("Sharpness, of the truth's", "", "one"),
    "flicker": Measure("Flicker, of the truth's", "", "one"),
    "face_found": Measure("Frames with a face", "", "high"),
}
"""In the order of the table; one for each field of `scores.Scores`."""


@dataclass(frozen=True)
class Chart:
    """Curves over the same frames, one for each film; NaN where nothing is known."""

    title: str
    curves: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Moment:
    """A frame worth looking at: truth, result and error beside each other, RGB."""

    title: str
    picture: np.ndarray


def render(
    title: str,
    rows: Mapping[str, Mapping[str, Score | Lag]],
    charts: Sequence[Chart],
    moments: Sequence[Moment],
    film: bytes | str,
    facts: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    """The page as HTML text.

    Args:
        title: headline.
        rows: {film: {name of a measure: its value}}.
        charts: curves over time.
        moments: the worst frames, the worst first.
        film: an MP4 with the films side by side, or the name of its file beside the page if it is large.
        facts: what was run, on what.
        notes: what a reader must know before believing the numbers.
    """
    described = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    said = "".join(f"<li>{_text(note)}</li>" for note in notes)
    figure = "<figure><img src='{}'><figcaption>{}</figcaption></figure>"
    worst = "".join(figure.format(_jpeg(moment.picture), _text(moment.title)) for moment in moments)
    source = film if isinstance(film, str) else f"data:video/mp4;base64,{base64.b64encode(film).decode()}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{_text(title)}</title><style>{_STYLE}</style></head><body><main>
<h1>{_text(title)}</h1>
{f"<ul class='notes'>{said}</ul>" if notes else ""}
<p>Bold is best. In brackets: 95 % of such films would lie there; and the number of frames, where it is not all.</p>
{_table(rows)}
<h2>Side by side</h2>
<p>Truth, result, and the difference four times enlarged.</p>
<video controls loop muted playsinline src="{source}"></video>
<h2>Over time</h2>{"".join(_chart(chart) for chart in charts)}
<h2>Worst frames of the result</h2><p>By the error of the face: truth, result, and where they differ.</p>{worst}
<h2>How it was made</h2><dl>{described}</dl>
</main></body></html>
"""


def best_of(values: Mapping[str, float], best: Best) -> set[str]:
    """The films with the best value, as it is printed; none if all are equal or there is but one."""
    if len(values) < 2:
        return set()
    ranks = {
        name: {"high": -value, "low": value, "one": abs(math.log(max(value, 1e-6))), "zero": abs(value)}[best]
        for name, value in values.items()
    }
    winner = f"{values[min(ranks, key=ranks.__getitem__)]:.3f}"
    winners = {name for name, value in values.items() if f"{value:.3f}" == winner}
    return winners if len(winners) < len(values) else set()


def _table(rows: Mapping[str, Mapping[str, Score | Lag]]) -> str:
    lines = ["<tr><th></th>" + "".join(f"<th>{_text(name)}</th>" for name in rows) + "</tr>"]
    most = max((score.frames for row in rows.values() for score in row.values() if isinstance(score, Score)), default=0)
    for key, measure in MEASURES.items():
        values = {name: value for name, row in rows.items() if (value := _number(row[key])) is not None}
        winners = best_of(values, measure.best)
        cells = [f"<td class='{'best' if name in winners else ''}'>{_cell(row[key], most)}</td>" for name, row in rows.items()]
        unit = f" <small>{_text(measure.unit)}</small>" if measure.unit else ""
        arrow = {"high": "↑", "low": "↓", "one": "→ 1", "zero": "→ 0"}[measure.best]
        lines.append(f"<tr><th>{_text(measure.title)}{unit} {arrow}</th>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _number(score: Score | Lag) -> float | None:
    value = score.frames if isinstance(score, Lag) else score.value
    return None if value is None else float(value)


def _cell(score: Score | Lag, most: int) -> str:
    if isinstance(score, Lag):
        known = score.frames is not None and score.correlation.value is not None
        return f"{score.frames:+d} <small>r {score.correlation.value:.3f}</small>" if known else "–"
    if score.value is None:
        return "–"
    interval = f" <small>({score.interval[0]:.2f} to {score.interval[1]:.2f})</small>" if score.interval else ""
    return f"{score.value:.3f}{interval}" + (f" <small>[{score.frames}]</small>" if score.frames != most else "")


def _chart(chart: Chart) -> str:
    """Curves as SVG: seconds to the right, gaps where nothing is known."""
    known = np.concatenate([curve[np.isfinite(curve)] for curve in chart.curves.values()])
    if not len(known):
        return ""
    low, high = float(known.min()), float(known.max())
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    count = max(len(curve) for curve in chart.curves.values())
    parts = []
    for part in (0.0, 0.5, 1.0):
        y = (HEIGHT - BOTTOM) - part * (HEIGHT - BOTTOM - 10)
        parts.append(f"<line x1='{LEFT}' x2='{WIDTH}' y1='{y:.1f}' y2='{y:.1f}' class='grid'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{low + part * (high - low):.3g}</text>")
        x = LEFT + part * (WIDTH - LEFT)
        anchor = "start" if part == 0 else "middle" if part < 1 else "end"
        parts.append(f"<text x='{x:.1f}' y='{HEIGHT - 4}' text-anchor='{anchor}'>{part * count / FPS:.1f} s</text>")
    legend, number = [], 0
    for name, curve in chart.curves.items():
        colour = "#8a8a8a" if name == "truth" else COLOURS[number % len(COLOURS)]
        number += name != "truth"
        legend.append(f"<span><i style='background:{colour}'></i>{_text(name)}</span>")
        xs = LEFT + (np.arange(len(curve)) + 0.5) / count * (WIDTH - LEFT)
        ys = (HEIGHT - BOTTOM) - (curve - low) / (high - low) * (HEIGHT - BOTTOM - 10)
        for run in np.split(np.arange(len(curve)), np.flatnonzero(np.diff(np.isfinite(curve))) + 1):
            if np.isfinite(curve[run[0]]):
                points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs[run], ys[run], strict=True))
                parts.append(f"<polyline points='{points}' stroke='{colour}'/>")
    drawing = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>{''.join(parts)}</svg>"
    return f"<h3>{_text(chart.title)}</h3><p class='legend'>{''.join(legend)}</p>{drawing}"


def _jpeg(picture: np.ndarray) -> str:
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done, "OpenCV encodes every 8-bit image"
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _text(value: str) -> str:
    return html.escape(value, quote=True)


_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 960px; margin: 0 auto; padding: 24px; }
h1 { font-size: 22px; } h2 { font-size: 18px; margin-top: 36px; } h3 { font-size: 15px; margin-bottom: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: right; font-weight: normal; }
th:first-child { text-align: left; } tr:first-child th { font-weight: 600; }
td.best { font-weight: 700; } small { opacity: .65; }
video, svg, figure img { width: 100%; height: auto; } figure { margin: 0 0 16px; }
svg text { font-size: 11px; fill: currentColor; opacity: .7; } .grid { stroke: var(--line); }
polyline { fill: none; stroke-width: 1.4; }
.legend { margin: 0; } .legend span { margin-right: 16px; } .legend i { display: inline-block; width: 12px; height: 3px;
  margin-right: 5px; vertical-align: middle; }
.notes { border-left: 3px solid #c2410c; padding: 4px 28px; }
dt { opacity: .65; } dd { margin: 0 0 6px; overflow-wrap: anywhere; }
"""
