"""The page of a report: whole in itself, honest about what is best and what is missing, safe against names."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from talk3d.evaluate.lips import Lag, Score
from talk3d.evaluate.page import MEASURES, Chart, Moment, best_of, render
from talk3d.evaluate.scores import Scores


class Page(HTMLParser):
    """Tags with their attributes, and the table as text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.cells and self.open and self.open[-1] in ("td", "th", "small"):
            self.cells[-1][-1] += data


def row(value: float, lag: int | None = 0, **more: Score) -> dict[str, Score | Lag]:
    scores: dict[str, Score | Lag] = {name: Score(value, 50) for name in MEASURES}
    return scores | {"mouth_lag": Lag(lag, Score(0.5, 50))} | more


def page(rows: dict[str, dict[str, Score | Lag]], **changed: object) -> str:
    curve = np.r_[np.linspace(0, 1, 20), np.nan, np.linspace(1, 0, 29)]
    picture = np.full((8, 24, 3), 90, np.uint8)
    given: dict = {
        "title": "a against b", "charts": [Chart("Lips", {"truth": curve, "result": curve**2})],
        "moments": [Moment("frame 7", picture)], "film": b"film", "facts": {"Machine": "one"}, "notes": ["mind this"],
    }  # fmt: skip
    return render(rows=rows, **(given | changed))


def test_every_score_has_its_line() -> None:
    assert list(MEASURES) == [field.name for field in dataclasses.fields(Scores)]


def test_the_page_is_whole_and_asks_for_nothing_else() -> None:
    read = Page(page({"result": row(0.5), "baseline": row(0.25)}))
    assert read.open == []
    sources = [value for _, attrs in read.tags for name, value in attrs.items() if name in ("src", "href")]
    assert len(sources) == 2
    assert all(str(source).startswith("data:") for source in sources)
    assert "link" not in [tag for tag, _ in read.tags]
    assert "script" not in [tag for tag, _ in read.tags]
    assert len(read.cells) == 1 + len(MEASURES)
    assert all(len(cells) == 3 for cells in read.cells)


@pytest.mark.parametrize(("best", "winner"), [("high", {"c"}), ("low", {"a"}), ("one", {"b"}), ("zero", {"a"})])
def test_the_best_is_the_best_for_its_measure(best: str, winner: set[str]) -> None:
    assert best_of({"a": 0.5, "b": 1.5, "c": 4.0}, best) == winner  # type: ignore[arg-type]
    assert best_of({"a": -1.0, "b": 3.0}, "zero") == {"a"}
    assert best_of({"a": 0.12341, "b": 0.12339, "c": 0.3}, "low") == {"a", "b"}  # what is printed alike is alike
    assert best_of({"a": 1.0, "b": 1.0}, "high") == set()
    assert best_of({"a": 1.0}, "high") == set()


def test_bold_marks_the_winner_and_unknown_values_never_win() -> None:
    text = page({"result": row(0.5, psnr=Score(None, 0)), "baseline": row(0.25)})
    marked = re.findall(r"<tr><th>([^<]*).*?</th>(.*?)</tr>", text)
    cells = {title: re.findall(r"<td class='(best)?'>(.*?)</td>", rest) for title, rest in marked[1:]}
    assert cells["PSNR, whole "][0] == ("", "–")
    assert cells["PSNR, whole "][1][0] == ""  # alone, it beats no one
    assert [mark for mark, _ in cells["PSNR, face "]] == ["best", ""]
    assert [mark for mark, _ in cells["Lip distance "]] == ["", "best"]


def test_intervals_and_missing_frames_are_said() -> None:
    text = page({"result": row(0.5, mouth_opening=Score(0.4, 50, (0.1, 0.7)), flicker=Score(1.2, 48))})
    lines = {cells[0].split(",")[0]: cells[1] for cells in Page(text).cells[1:]}
    assert lines["Lip opening"] != lines["Flicker"]
    assert "0.400 (0.10 to 0.70)" in text.replace("<small>", "").replace("</small>", "")
    assert "[48]" in lines["Flicker"]


def test_gaps_in_curves_stay_gaps() -> None:
    lines = re.findall(r"<polyline points='([^']*)'", page({"result": row(0.5)}))
    assert [len(line.split()) for line in lines] == [20, 29, 20, 29]
    first = [tuple(map(float, point.split(","))) for point in lines[0].split()]
    assert all(b[0] > a[0] and b[1] < a[1] for a, b in zip(first, first[1:], strict=False))  # to the right and up
    empty = Chart("Nothing", {"result": np.full(10, np.nan)})
    assert "Nothing" not in page({"result": row(0.5)}, charts=[empty])


def test_names_are_text_and_never_markup() -> None:
    name = "<script>alert('x')</script>"
    read = Page(page({name: row(0.5)}, title=name, notes=[name], facts={name: name}))
    assert "script" not in [tag for tag, _ in read.tags]
    assert read.cells[0][1] == name


def test_a_large_film_stays_beside_the_page() -> None:
    videos = [attrs for tag, attrs in Page(page({"result": row(0.5)}, film="side-by-side.mp4")).tags if tag == "video"]
    assert [attrs["src"] for attrs in videos] == ["side-by-side.mp4"]
