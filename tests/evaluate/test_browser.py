"""A report in a real browser: it draws what it says, and asks the network for nothing."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from talk3d.evaluate.lips import Score
from talk3d.evaluate.measures import MEASURES
from talk3d.evaluate.page import Moment, Page, render
from talk3d.pages import COLOURS, Chart
from talk3d.video.write import VideoWriter

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
WORST = (37, 201, 143)
"""A colour that nothing else on the page has."""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    film = tmp_path / "film.mp4"
    with VideoWriter(film, (96, 32)) as writer:
        for level in range(0, 250, 10):
            writer.write(np.full((32, 96, 3), (level, 20, 20), np.uint8))
    curve = np.sin(np.linspace(0, 9, 200))
    rows = {name: {key: Score(value, 100) for key in MEASURES} for name, value in (("a.mp4", 0.25), ("b.mp4", 0.75))}
    page = Page(
        title="a against b",
        rows=rows,
        truth={"blink_rate": Score(12.0, 100)},
        charts=[Chart("Lips", {"truth": curve, "a.mp4": curve**2, "b.mp4": -curve}, 0.0, 8.0, " s")],
        moments=[Moment("frame 7", np.full((64, 192, 3), WORST, np.uint8))],
        film=film.read_bytes(),
        facts={"Machine": "one"},
        summary={"a.mp4": ["Rests on 200 frames."]},
        warnings=["look twice"],
        adrift=set(),
        notes=["mind this"],
        missing=["LPIPS"],
    )
    path = tmp_path / "report.html"
    path.write_text(render(page), encoding="utf-8")
    return path


def browse(report: Path, *what: str) -> bytes:
    """Run the browser without a window and without a network."""
    if BROWSER is None:
        pytest.skip("no Chromium was found; with one, this test opens a report in it")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--hide-scrollbars", "--window-size=1000,3600", f"--user-data-dir={report.parent / 'profile'}", *what]
    return subprocess.run([*command, report.as_uri()], capture_output=True, check=True, timeout=120).stdout


def near(picture: np.ndarray, colour: tuple[int, ...], off: int = 12) -> np.ndarray:
    return (np.abs(picture.astype(int) - np.array(colour)) <= off).all(axis=-1)


def test_a_browser_draws_the_whole_page(report: Path) -> None:
    shot = report.parent / "shot.png"
    browse(report, f"--screenshot={shot}")
    picture = cv2.imread(str(shot))[..., ::-1]
    assert picture.shape[:2] == (3600, 1000)
    for colour in COLOURS[:2]:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        curve = near(picture, (red, green, blue))
        assert curve.sum() > 300, colour
        assert np.ptp(np.flatnonzero(curve.any(axis=0))) > 500  # from side to side
    worst = near(picture, WORST)
    assert worst.sum() > 100_000
    table = picture[: np.flatnonzero(near(picture, (37, 99, 235)).any(axis=1))[0]]
    assert (table.mean(axis=-1) < 100).mean() > 0.005  # there is text above the curves


def test_a_browser_reads_what_was_written(report: Path) -> None:
    """The page after parsing has all rows, none of the text was swallowed by a tag."""
    shown = browse(report, "--dump-dom").decode()
    assert shown.count("<tr>") >= len(MEASURES)
    assert shown.count('</td><td class="best">') + shown.count("</td><td class='best'>") >= 20
    for text in ("mind this", "LPIPS", "Lip opening, best lag", "none of them compares", "frame 7"):
        assert text in shown
