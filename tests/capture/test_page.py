"""The page of a recording: it says the verdict, shows what it complains about, and needs nothing else."""

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from talk3d.capture.checks import Recording
from talk3d.capture.page import render
from talk3d.capture.report import Found, all_checks
from talk3d.pages import COLOURS
from talk3d.video.write import VideoWriter

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
LOST = (240, 20, 200)
"""A colour that only frames have that were not used."""
FRAMES = 1750


class Tags(HTMLParser):
    """All tags with their attributes, and whether they are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "line", "rect", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film whose second half was not used, and the crops of the first."""
    folder = tmp_path_factory.mktemp("films")
    grey, lost = np.full((64, 96, 3), 90, np.uint8), np.full((64, 96, 3), LOST, np.uint8)
    with (
        VideoWriter(folder / "film.mp4", (96, 64), full_colour=True) as film,
        VideoWriter(folder / "frames.mp4", (64, 64)) as crops,
    ):
        for index in range(2 * FRAMES):
            film.write(grey if index < FRAMES else lost)
            if index < FRAMES:
                crops.write(grey[:, :64])
    return folder


@pytest.fixture
def shown(make_recording: Callable[..., Recording], films: Path) -> Callable[..., str]:
    def shown(name: str = "film.mp4", **changes: object) -> str:
        recording = make_recording(**changes)
        config = {"takes": [[0, FRAMES]], "source": {"name": name, "width": 96, "height": 64, "fps": 25.0}}
        return render(recording, all_checks(recording), config, films, films / "film.mp4")

    return shown


def bad(make_recording: Callable[..., Recording]) -> dict[str, object]:
    """Half of it was lost, another person speaks, and it is soft."""
    time = np.arange(FRAMES) / 25
    rest = (time > 20) & (time < 26)
    gap = np.where(rest, 0.06, make_recording().track["lip_gap"])
    return {
        "decoded": 2 * FRAMES, "lost": [(FRAMES, 2 * FRAMES)], "lip_gap": gap, "lip_width": np.full(FRAMES, 0.45),
        "voiced": np.full(FRAMES, 0.9), "sharpness": np.full(FRAMES, 3.0),
    }  # fmt: skip


def test_the_page_is_whole_and_asks_for_nothing_else(shown: Callable[..., str]) -> None:
    text = shown()
    read = Tags(text)
    assert read.open == []
    sources = [str(value) for _, attrs in read.tags for name, value in attrs.items() if name in ("src", "href")]
    assert len(sources) == 3  # the best frame, the softest, and the hardest to track
    assert all(source.startswith("data:image/jpeg") for source in sources)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in read.tags}
    assert "Good: 70 s of one person" in text
    assert "What to do" not in text
    assert text.count("class='mark pass'") == 28
    assert shown() == text


def test_complaints_come_first_with_advice_and_pictures(
    shown: Callable[..., str], make_recording: Callable[..., Recording]
) -> None:
    text = shown(**bad(make_recording))
    assert "Record again: the picture is soft" in text
    assert text.index("What to do") < text.index("Checks")
    advice = re.findall(r"<li>(.*?)</li>", text)
    assert "Clean the lens" in advice[0]  # what fails before what could be better
    assert any("0:20" in line and "0:26" in line and "without an interviewer" in line for line in advice)
    assert any("1750 of 3500 frames were left out" in line for line in advice)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert any(caption.startswith("1:45.0, 50% of the film had to be left out") for caption in captions)
    assert len(captions) == len(set(captions)) <= 10
    assert "class='bad'" in text


def test_what_is_said_of_the_film_stands_on_the_page(shown: Callable[..., str]) -> None:
    assert "About the film" not in shown()
    text = shown(notes=["It is HDR <PQ>; colours were mapped."])
    assert Tags(text).open == []
    assert "It is HDR &lt;PQ&gt;; colours were mapped." in text


def test_curves_lie_at_the_films_own_times(shown: Callable[..., str], make_recording: Callable[..., Recording]) -> None:
    """What was left out is a gap: curves of the first half of a film end in the middle of the chart."""
    lines = re.findall(r"<polyline points='([^']*)'", shown(**bad(make_recording)))
    ends = [float(line.split()[-1].split(",")[0]) for line in lines]
    assert max(ends) == pytest.approx((58 + 720) / 2, abs=2)
    assert max(float(line.split()[-1].split(",")[0]) for line in re.findall(r"<polyline points='([^']*)'", shown())) > 715


def test_names_are_text_and_never_markup(shown: Callable[..., str]) -> None:
    assert "script" not in [tag for tag, _ in Tags(shown(name="<script>alert('x')</script>.mp4")).tags]


def test_what_was_chosen_and_what_was_mended_is_said(shown: Callable[..., str]) -> None:
    from talk3d.capture.sound import Lateness

    text = shown(fit=4000, decoded=4000, lateness=Lateness(6.0, 0.5, 6.0))
    assert "the best of 160.0 s that could be used" in text
    assert "moved into step with the lips" in text


def test_what_could_not_be_used_lies_between_and_around_the_takes() -> None:
    assert Found(100, [[0, 100]], None).lost == []
    assert Found(100, [[5, 40], [40, 60], [70, 100]], None).lost == [(0, 5), (60, 70)]
    assert Found(100, [[0, 50]], None).lost == [(50, 100)]


def test_a_browser_draws_the_page(shown: Callable[..., str], make_recording: Callable[..., Recording], tmp_path: Path) -> None:
    if BROWSER is None:
        pytest.skip("no Chromium was found; with one, this test opens a report in it")
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    page.write_text(shown(**bad(make_recording)), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--hide-scrollbars", "--window-size=1000,4200", f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run([*command, f"--screenshot={shot}", page.as_uri()], capture_output=True, check=True, timeout=240)
    picture = cv2.imread(str(shot))[..., ::-1].astype(int)

    def near(colour: tuple[int, ...], off: int = 24) -> np.ndarray:
        return (np.abs(picture - np.array(colour)) <= off).all(axis=-1)

    for colour in COLOURS[:2]:
        curve = near(tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)))
        assert curve.sum() > 300, colour
    assert near(LOST).sum() > 10_000  # a frame that was left out is shown
    red = near((220, 38, 38))
    assert red[:200].sum() > 100  # the verdict's border
