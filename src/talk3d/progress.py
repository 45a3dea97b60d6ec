"""How far a command is: a bar for who watches, lines for a log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 10.0
"""From one line of a stage to the next, at least."""


@contextmanager
def bar(title: str) -> Iterator[Callable[..., None]]:
    """A progress bar with the time left; the function it yields takes (part done 0..1, text) or (stage, part done).

    Where nobody watches, as in a log, a line says when a stage begins, and one each tenth of it how long it still takes.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    # Of several processes that torchrun starts, one reports.
    quiet = os.environ.get("RANK", "0") != "0"
    console = Console()
    if quiet or not console.is_terminal:
        yield (lambda first, second="": None) if quiet else _lines(title)
        return
    times = (TimeElapsedColumn(), TextColumn("done,"), TimeRemainingColumn(), TextColumn("left"))
    columns = (TextColumn("{task.description}"), BarColumn(), *times, TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=console) as shown:
        task = shown.add_task(title, total=1.0, text="")
        stage = title

        def report(first: float | str, second: str | float = "") -> None:
            nonlocal task, stage
            name, part, text = _said(title, first, second)
            if name != stage:
                # A new stage takes its own time: estimates of the last one say nothing about it.
                stage = name
                shown.stop_task(task)
                task = shown.add_task(name, total=1.0, text="")
            shown.update(task, completed=part, text=text)

        yield report
        shown.update(task, completed=1.0)


def _lines(title: str) -> Callable[..., None]:
    """What `bar` yields where lines are read afterwards."""
    stage, begun, told, said = "", 0.0, 0.0, 0

    def report(first: float | str, second: str | float = "") -> None:
        nonlocal stage, begun, told, said
        name, part, text = _said(title, first, second)
        now = time.monotonic()
        if name != stage:
            stage, begun, told, said = name, now, now, 0
            print(name, flush=True)
        elif int(10 * part) > said and part < 1 and now - told >= SECONDS:
            told, said = now, int(10 * part)
            taken = now - begun
            print(f"{name}: {10 * said} %, {taken:.0f} s done, {taken / part - taken:.0f} s left {text}".rstrip(), flush=True)

    return report


def _said(title: str, first: float | str, second: str | float) -> tuple[str, float, str]:
    """Stage, part done and text of what was reported in either way; see `bar`."""
    if isinstance(first, str):
        return f"{title}: {first}", float(second or 0.0), ""
    return title, first, str(second)
