"""The report as one page that needs nothing else: table, curves over time and angle, worst frames, the films side by side."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .lips import Score
from .measures import MEASURES, Best
from .published import SOURCE, TABLES, WARNING, Table

COLOURS = ("#2563eb", "#c2410c", "#15803d", "#7e22ce", "#b45309", "#0e7490")
"""Of the films in the curves; the truth is grey."""
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 180, 58, 22
"""Of a chart and its margins, pixels."""
MOST_POINTS = 1500
"""Of a curve in a chart; of longer ones, neighbours are averaged."""
TRUTH = "truth"
SPARED = 0.95
"""Part of the frames of others that a film's score must rest on to be set bold."""


@dataclass(frozen=True)
class Chart:
    """Curves over the same evenly spaced places, one for each film; NaN where nothing is known."""

    title: str
    curves: Mapping[str, np.ndarray]
    low: float
    """Where the first place begins."""
    high: float
    """Where the last one ends."""
    unit: str


@dataclass(frozen=True)
class Moment:
    """A frame worth looking at: truth, result and error beside each other, RGB."""

    title: str
    picture: np.ndarray


@dataclass(frozen=True)
class Page:
    """What a page shows."""

    title: str
    rows: Mapping[str, Mapping[str, Score]]
    """Scores by film and measure."""
    truth: Mapping[str, Score]
    """What the true film has of its own."""
    charts: Sequence[Chart]
    moments: Sequence[Moment]
    """The worst frames, the worst first."""
    film: bytes | str
    """An MP4 with the films side by side, or the name of its file beside the page if it is large."""
    facts: Mapping[str, str]
    """What was run, on what."""
    notes: Sequence[str]
    """What a reader must know before believing the numbers."""
    missing: Sequence[str]
    """What was not measured, and why."""


def render(page: Page) -> str:
    """The page as HTML text."""
    described = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in page.facts.items())
    figure = "<figure><img src='{}' alt=''><figcaption>{}</figcaption></figure>"
    worst = "".join(figure.format(jpeg(moment.picture), text(moment.title)) for moment in page.moments)
    film = page.film
    source = film if isinstance(film, str) else f"data:video/mp4;base64,{base64.b64encode(film).decode()}"
    used = {key for row in (page.truth, *page.rows.values()) for key in row}
    glossary = "".join(f"<dt>{text(m.title)}</dt><dd>{text(m.about)}</dd>" for key, m in MEASURES.items() if key in used)
    return document(
        page.title,
        f"""{bullets(page.notes, "notes")}
<p>Bold is best. In brackets: where 95 % of such films would lie; and on how many frames or events a number rests, where it
is not on all frames. The column “truth” is what the true film has of its own.</p>
{_table(page.rows, page.truth)}
<h2>Side by side</h2>
<video controls loop playsinline src="{text(source)}"></video>
<h2>Curves</h2>{"".join(_chart(chart) for chart in page.charts)}
<h2>Worst frames</h2><p>By the error of the face: truth, result, and where they differ.</p>{worst}
<h2>What the measures are</h2><details><summary>Definitions</summary><dl>{glossary}</dl></details>
{"<h3>Not measured</h3>" + bullets(page.missing, "missing") if page.missing else ""}
<h2>Published numbers</h2><p class='warning'>{text(WARNING)}</p>
<details><summary>{text(SOURCE)}</summary>{"".join(_published(table) for table in TABLES)}</details>
<h2>How it was made</h2><dl>{described}</dl>""",
    )


def document(title: str, body: str) -> str:
    """A whole page in the look of all reports.

    Args:
        title: plain text.
        body: HTML below the title.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{text(title)}</title><style>{_STYLE}</style></head><body><main>
<h1>{text(title)}</h1>
{body}
</main></body></html>
"""


def best_of(values: Mapping[str, float], best: Best, truth: float | None = None) -> set[str]:
    """The films with the best value, as it is printed; none if all are equal or there is but one.

    Args:
        values: by film.
        best: which value is.
        truth: the true film's own, for measures in which that is best; without it none is.
    """
    if len(values) < 2 or (best == "truth" and truth is None):
        return set()
    away = {
        "high": lambda value: -value,
        "low": lambda value: value,
        "one": lambda value: abs(math.log(max(value, 1e-6))),
        "zero": abs,
        "truth": lambda value: abs(value - (truth or 0.0)),
    }[best]
    distances = {name: f"{away(round(value, 3)):.6f}" for name, value in values.items()}
    least = min(values, key=lambda name: float(distances[name]))
    winners = {name for name in values if distances[name] == distances[least]}
    return winners if len(winners) < len(values) else set()


def _table(rows: Mapping[str, Mapping[str, Score]], truth: Mapping[str, Score]) -> str:
    names = [TRUTH, *rows]
    lines = ["<tr><th></th>" + "".join(f"<th>{text(name)}</th>" for name in names) + "</tr>"]
    everything = (truth, *rows.values())
    most = max((score.frames for row in everything for score in row.values()), default=0)
    group = ""
    for key, measure in MEASURES.items():
        if not any(key in row for row in everything):
            continue
        if measure.group != group:
            group = measure.group
            lines.append(f"<tr class='group'><th colspan='{len(names) + 1}'>{text(group)}</th></tr>")
        known = {
            name: row[key].value for name, row in rows.items() if key in row and _rests_on_enough(row[key], rows, key, most)
        }
        reference = truth[key].value if key in truth else None
        winners = best_of({name: value for name, value in known.items() if value is not None}, measure.best, reference)
        cells = [f"<td class='own'>{_cell(truth.get(key), most)}</td>"]
        cells += [f"<td class='{'best' if name in winners else ''}'>{_cell(rows[name].get(key), most)}</td>" for name in rows]
        unit = f" <small>{text(measure.unit)}</small>" if measure.unit else ""
        arrow = {"high": "↑", "low": "↓", "one": "→ 1", "zero": "→ 0", "truth": "→ truth"}[measure.best]
        title = f"<th title='{text(measure.about)}'>{text(measure.title)}{unit} {arrow}</th>"
        lines.append(f"<tr>{title}{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _rests_on_enough(score: Score, rows: Mapping[str, Mapping[str, Score]], key: str, most: int) -> bool:
    """Whether a film may be best: not if it lost the face where others kept it, and so was spared those frames."""
    widest = max(row[key].frames for row in rows.values() if key in row)
    return widest < most / 2 or score.frames >= SPARED * widest  # few are events, and not frames


def _cell(score: Score | None, most: int) -> str:
    if score is None:
        return ""
    if score.value is None:
        return "–"
    interval = f" <small>({score.interval[0]:.3g} to {score.interval[1]:.3g})</small>" if score.interval else ""
    return f"{score.value:.3f}{interval}" + (f" <small>[{score.frames}]</small>" if score.frames != most else "")


def _published(table: Table) -> str:
    lines = ["<tr><th></th>" + "".join(f"<th>{text(column)}</th>" for column in table.columns) + "</tr>"]
    for name, values in table.rows.items():
        cells = "".join(f"<td>{'–' if value is None else f'{value:g}'}</td>" for value in values)
        lines.append(f"<tr><th>{text(name)}</th>{cells}</tr>")
    return f"<h3>{text(table.title)}</h3><table>{''.join(lines)}</table>"


def bullets(lines: Sequence[str], kind: str) -> str:
    """Lines of plain text as a list of a class (`notes` and `missing` have a look of their own); nothing if there are none."""
    return f"<ul class='{kind}'>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>" if lines else ""


def _chart(chart: Chart) -> str:
    """Curves as SVG, with gaps where nothing is known."""
    curves = {name: _thinned(curve) for name, curve in chart.curves.items()}
    known = np.concatenate([curve[np.isfinite(curve)] for curve in curves.values()])
    if not len(known):
        return ""
    low, high = float(known.min()), float(known.max())
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    count = max(len(curve) for curve in curves.values())
    parts = []
    for part in (0.0, 0.5, 1.0):
        y = (HEIGHT - BOTTOM) - part * (HEIGHT - BOTTOM - 10)
        parts.append(f"<line x1='{LEFT}' x2='{WIDTH}' y1='{y:.1f}' y2='{y:.1f}' class='grid'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{low + part * (high - low):.3g}</text>")
        x = LEFT + part * (WIDTH - LEFT)
        anchor = "start" if part == 0 else "middle" if part < 1 else "end"
        place = f"{chart.low + part * (chart.high - chart.low):.1f}{chart.unit}"
        parts.append(f"<text x='{x:.1f}' y='{HEIGHT - 4}' text-anchor='{anchor}'>{text(place)}</text>")
    legend, number = [], 0
    for name, curve in curves.items():
        colour = "#8a8a8a" if name == TRUTH else COLOURS[number % len(COLOURS)]
        number += name != TRUTH
        legend.append(f"<span><i style='background:{colour}'></i>{text(name)}</span>")
        xs = LEFT + (np.arange(len(curve)) + 0.5) / count * (WIDTH - LEFT)
        ys = (HEIGHT - BOTTOM) - (curve - low) / (high - low) * (HEIGHT - BOTTOM - 10)
        for run in np.split(np.arange(len(curve)), np.flatnonzero(np.diff(np.isfinite(curve))) + 1):
            if np.isfinite(curve[run[0]]):
                points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs[run], ys[run], strict=True))
                parts.append(f"<polyline points='{points}' stroke='{colour}'/>")
    drawing = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>{''.join(parts)}</svg>"
    return f"<h3>{text(chart.title)}</h3><p class='legend'>{''.join(legend)}</p>{drawing}"


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
.warning, .notes { border-left: 3px solid #c2410c; padding: 4px 28px; }
.missing { opacity: .75; }
dt { opacity: .65; } dd { margin: 0 0 6px; overflow-wrap: anywhere; }
"""
