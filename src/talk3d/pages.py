"""Pages for people: reports that need nothing else, no network and no other file, in one look, dark or light."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

COLOURS = ("#2563eb", "#c2410c", "#15803d", "#7e22ce", "#b45309", "#0e7490")
"""Of the curves, in their order."""
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 180, 58, 22
"""Of a chart and its margins, pixels."""
CLOUD = 400
"""Side of a cloud, pixels."""
MOST_POINTS = 1500
"""Of a curve in a chart; of longer ones, neighbours are averaged."""


@dataclass(frozen=True)
class Chart:
    """Curves over the same evenly spaced places; NaN where nothing is known."""

    title: str
    curves: Mapping[str, np.ndarray]
    low: float
    """Where the first place begins."""
    high: float
    """Where the last one ends."""
    unit: str
    spans: Sequence[tuple[float, float, str]] = ()
    """Stretches in the background, from and to, each of a class: `test`, `bad`, or `seam`, which is a line."""
    bounds: tuple[float, float] | None = None
    """Of the values shown; by default those that there are."""


@dataclass(frozen=True)
class Cloud:
    """Points in a plane, in groups."""

    title: str
    groups: Mapping[str, np.ndarray]
    """[N, 2] each: to the right, and up."""
    right: str
    """What lies along the horizontal axis, with its unit."""
    up: str


def document(title: str, body: str, style: str = "") -> str:
    """A whole page in the look of all reports.

    Args:
        title: plain text.
        body: HTML below the title.
        style: CSS of what only this page has.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{text(title)}</title><style>{_STYLE}{style}</style></head><body><main>
<h1>{text(title)}</h1>
{body}
</main></body></html>
"""


def bullets(lines: Sequence[str], kind: str) -> str:
    """Lines of plain text as a list of a class (`notes` and `missing` have a look of their own); nothing if there are none."""
    return f"<ul class='{kind}'>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>" if lines else ""


def chart(drawn: Chart, grey: str = "") -> str:
    """Curves as SVG, with gaps where nothing is known; nothing if nothing is.

    Args:
        drawn: the curves.
        grey: the name of the curve that the others are held against.
    """
    curves = {name: _thinned(curve) for name, curve in drawn.curves.items()}
    known = np.concatenate([curve[np.isfinite(curve)] for curve in curves.values()])
    if not len(known):
        return ""
    low, high = float(known.min()), float(known.max())
    low, high = drawn.bounds or ((low, high) if high > low else (low - 0.5, high + 0.5))
    count = max(len(curve) for curve in curves.values())
    parts = []
    for begin, end, kind in drawn.spans:
        left, right = (LEFT + (place - drawn.low) / (drawn.high - drawn.low) * (WIDTH - LEFT) for place in (begin, end))
        width = max(right - left, 1.0)
        parts.append(f"<rect x='{left:.1f}' y='10' width='{width:.1f}' height='{HEIGHT - BOTTOM - 10}' class='{kind}'/>")
    for part in (0.0, 0.5, 1.0):
        y = (HEIGHT - BOTTOM) - part * (HEIGHT - BOTTOM - 10)
        parts.append(f"<line x1='{LEFT}' x2='{WIDTH}' y1='{y:.1f}' y2='{y:.1f}' class='grid'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{low + part * (high - low):.3g}</text>")
        x = LEFT + part * (WIDTH - LEFT)
        anchor = "start" if part == 0 else "middle" if part < 1 else "end"
        place = f"{drawn.low + part * (drawn.high - drawn.low):.1f}{drawn.unit}"
        parts.append(f"<text x='{x:.1f}' y='{HEIGHT - 4}' text-anchor='{anchor}'>{text(place)}</text>")
    legend, number = [], 0
    for name, curve in curves.items():
        colour = "#8a8a8a" if name == grey else COLOURS[number % len(COLOURS)]
        number += name != grey
        legend.append(f"<span><i style='background:{colour}'></i>{text(name)}</span>")
        xs = LEFT + (np.arange(len(curve)) + 0.5) / count * (WIDTH - LEFT)
        ys = (HEIGHT - BOTTOM) - (curve - low) / (high - low) * (HEIGHT - BOTTOM - 10)
        for run in np.split(np.arange(len(curve)), np.flatnonzero(np.diff(np.isfinite(curve))) + 1):
            if np.isfinite(curve[run[0]]):
                points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs[run], ys[run], strict=True))
                parts.append(f"<polyline points='{points}' stroke='{colour}'/>")
    drawing = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>{''.join(parts)}</svg>"
    return f"<h3>{text(drawn.title)}</h3><p class='legend'>{''.join(legend)}</p>{drawing}"


def cloud(drawn: Cloud) -> str:
    """Points as SVG, one group over the other; of very many, evenly spread ones are shown."""
    points = np.concatenate(list(drawn.groups.values()))
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.05 * np.maximum(high - low, 1e-6)
    low, high = low - margin, high + margin
    inner = np.array([CLOUD - LEFT, CLOUD - 2 * BOTTOM])
    parts = []
    for part in (0.0, 0.5, 1.0):
        x, y = LEFT + part * inner[0], inner[1] * (1 - part) + 10
        parts.append(f"<line x1='{LEFT}' x2='{CLOUD}' y1='{y:.1f}' y2='{y:.1f}' class='grid'/>")
        parts.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='10' y2='{inner[1] + 10}' class='grid'/>")
        anchor = "start" if part == 0 else "middle" if part < 1 else "end"
        across, along = low + part * (high - low)
        parts.append(f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{along:.2g}</text>")
        parts.append(f"<text x='{x:.1f}' y='{inner[1] + 24}' text-anchor='{anchor}'>{across:.2g}</text>")
    parts.append(f"<text x='{(LEFT + CLOUD) / 2}' y='{CLOUD - 6}' text-anchor='middle'>{text(drawn.right)}</text>")
    legend = []
    for (name, group), colour in zip(drawn.groups.items(), COLOURS, strict=False):
        legend.append(f"<span><i style='background:{colour}'></i>{text(name)}</span>")
        shown = group[:: -(-len(group) // MOST_POINTS)] if len(group) else group
        places = np.array([LEFT, 10 + inner[1]]) + (shown - low) / (high - low) * inner * [1, -1]
        dots = "".join(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.2'/>" for x, y in places)
        parts.append(f"<g fill='{colour}' fill-opacity='0.45'>{dots}</g>")
    drawing = f"<svg viewBox='0 0 {CLOUD} {CLOUD}' role='img'>{''.join(parts)}</svg>"
    title = f"{text(drawn.title)} <small>{text(drawn.up)}, upwards</small>"
    return f"<div class='cloud'><h3>{title}</h3><p class='legend'>{''.join(legend)}</p>{drawing}</div>"


def _thinned(curve: np.ndarray) -> np.ndarray:
    """At most `MOST_POINTS` numbers; a mean with an unknown number in it is unknown."""
    step = -(-len(curve) // MOST_POINTS)
    padded = np.pad(curve.astype(np.float64), (0, -len(curve) % step), mode="edge") if len(curve) else curve
    return padded.reshape(-1, step).mean(axis=1) if len(curve) else curve


def jpeg(picture: np.ndarray) -> str:
    """A picture [H, W, 3] uint8 RGB as the source of an image inside a page."""
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done, "OpenCV encodes every 8-bit image"
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def text(value: str) -> str:
    """Plain text as HTML."""
    return html.escape(value, quote=True)


_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 960px; margin: 0 auto; padding: 24px; }
h1 { font-size: 22px; } h2 { font-size: 18px; margin-top: 36px; } h3 { font-size: 15px; margin-bottom: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: right; font-weight: normal; }
th:first-child { text-align: left; } tr:first-child th { font-weight: 600; }
td.best { font-weight: 700; } td.own { opacity: .7; }
tr.group th { font-weight: 600; padding-top: 16px; } small { opacity: .65; }
video, svg, figure img { width: 100%; height: auto; } figure { margin: 0 0 16px; }
svg text { font-size: 11px; fill: currentColor; opacity: .7; } .grid { stroke: var(--line); }
polyline { fill: none; stroke-width: 1.4; }
.legend { margin: 0; } .legend span { margin-right: 16px; } .legend i { display: inline-block; width: 12px; height: 3px;
  margin-right: 5px; vertical-align: middle; }
rect.test { fill: #8a8a8a; opacity: .16; } rect.bad { fill: #dc2626; opacity: .2; }
rect.seam { fill: currentColor; opacity: .5; }
.clouds { display: flex; flex-wrap: wrap; gap: 32px; } .cloud { flex: 1 1 320px; }
.warning, .notes { border-left: 3px solid #c2410c; padding: 4px 28px; }
.missing { opacity: .75; }
dt { opacity: .65; } dd { margin: 0 0 6px; overflow-wrap: anywhere; }
"""
