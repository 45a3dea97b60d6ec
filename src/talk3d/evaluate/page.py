"""The report as one page that needs nothing else: table, curves over time and angle, worst frames, the films side by side."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from ..pages import Chart, bullets, chart, document, jpeg, text
from .lips import Score
from .measures import MEASURES, Best
from .published import SOURCE, TABLES, WARNING, Table

TRUTH = "truth"
ADRIFT = "place in time not known"
"""Stands under the name of a film that may show other frames than those that it is compared with."""
SPARED = 0.95
"""Part of the frames of others that a film's score must rest on to be set bold."""


@dataclass(frozen=True)
class Moment:
    """A frame worth looking at: truth, result and error beside each other, RGB."""

    title: str
    picture: np.ndarray


@dataclass(frozen=True)
class Page:
    """What a page shows."""

    title: str
    summary: Mapping[str, Sequence[str]]
    """What the scores of each film say, in plain sentences."""
    rows: Mapping[str, Mapping[str, Score]]
    """Scores by film and measure."""
    adrift: Set[str]
    """Films that may show other frames than those that they are compared with; they are marked, and never best."""
    truth: Mapping[str, Score]
    """What the true film has of its own."""
    charts: Sequence[Chart]
    moments: Sequence[Moment]
    """The worst frames, the worst first."""
    film: bytes | str
    """An MP4 with the films side by side, or the name of its file beside the page if it is large."""
    facts: Mapping[str, str]
    """What was run, on what."""
    warnings: Sequence[str]
    """What makes numbers mean less than they seem to."""
    notes: Sequence[str]
    """What else a reader must know before believing the numbers."""
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
        f"""{bullets(page.warnings, "warning")}
{"".join(f"<h2>{text(name)}</h2>{bullets(lines, 'summary')}" for name, lines in page.summary.items())}
<h2>Numbers</h2>
{bullets(page.notes, "notes")}
<p>Bold is best. In brackets: where 95 % of such films would lie; and on how many frames or events a number rests, where it
is not on all frames. The column “truth” is what the true film has of its own.</p>
{_table(page)}
<h2>Side by side</h2>
<video controls loop playsinline src="{text(source)}"></video>
<h2>Curves</h2>{"".join(chart(curves, grey=TRUTH) for curves in page.charts)}
<h2>Worst frames</h2><p>By the error of the face: truth, result, and where they differ.</p>{worst}
<h2>What the measures are</h2><details><summary>Definitions</summary><dl>{glossary}</dl></details>
{"<h3>Not measured</h3>" + bullets(page.missing, "missing") if page.missing else ""}
<h2>Published numbers</h2><p class='warning'>{text(WARNING)}</p>
<details><summary>{text(SOURCE)}</summary>{"".join(_published(table) for table in TABLES)}</details>
<h2>How it was made</h2><dl>{described}</dl>""",
        _STYLE,
    )


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


def _table(page: Page) -> str:
    rows, truth, names = page.rows, page.truth, [TRUTH, *page.rows]
    marks = {name: f"<br><strong>{ADRIFT}</strong>" if name in page.adrift else "" for name in names}
    styles = {name: "adrift" if name in page.adrift else "" for name in names}
    heads = "".join(f"<th class='{styles[name]}'>{text(name)}{marks[name]}</th>" for name in names)
    lines = [f"<tr><th></th>{heads}</tr>"]
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
            name: row[key].value
            for name, row in rows.items()
            if key in row and name not in page.adrift and _rests_on_enough(row[key], rows, key, most)
        }
        reference = truth[key].value if key in truth else None
        winners = best_of({name: value for name, value in known.items() if value is not None}, measure.best, reference)
        cells = [f"<td class='own'>{_cell(truth.get(key), most)}</td>"]
        kinds = {name: "best" if name in winners else styles[name] for name in rows}
        cells += [f"<td class='{kinds[name]}'>{_cell(rows[name].get(key), most)}</td>" for name in rows]
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


_STYLE = """
th.adrift strong { color: #c2410c; } td.adrift { opacity: .5; font-style: italic; }
"""
