"""The page of a report: whole in itself, honest about what is best and what is missing, safe against names."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from talk3d.evaluate.lips import Score
from talk3d.evaluate.measures import MEASURES
from talk3d.evaluate.page import ADRIFT, Moment, Page, best_of, render
from talk3d.evaluate.published import TABLES
from talk3d.pages import MOST_POINTS, Chart


class Read(HTMLParser):
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
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.cells and self.open and self.open[-1] in ("td", "th", "small", "strong"):
            self.cells[-1][-1] += data


def row(value: float, **more: Score) -> dict[str, Score]:
    return {name: Score(value, 50) for name in MEASURES} | more


def page(rows: dict[str, dict[str, Score]], **changed: object) -> str:
    curve = np.r_[np.linspace(0, 1, 20), np.nan, np.linspace(1, 0, 29)]
    picture = np.full((8, 24, 3), 90, np.uint8)
    given: dict = {
        "title": "a against b", "charts": [Chart("Lips", {"truth": curve, "result": curve**2}, 0.0, 2.0, " s")],
        "moments": [Moment("frame 7", picture)], "film": b"film", "facts": {"Machine": "one"}, "warnings": [], "adrift": set(),
        "summary": {"result": ["Rests on 50 frames."]},
        "notes": ["mind this"], "missing": ["LPIPS was not measured"], "truth": {"blink_rate": Score(0.4, 50)},
    }  # fmt: skip
    return render(Page(rows=rows, **(given | changed)))


def test_the_page_is_whole_and_asks_for_nothing_else() -> None:
    read = Read(page({"result": row(0.5), "baseline": row(0.25)}))
    assert read.open == []
    sources = [value for _, attrs in read.tags for name, value in attrs.items() if name in ("src", "href")]
    assert len(sources) == 2
    assert all(str(source).startswith("data:") for source in sources)
    assert "link" not in [tag for tag, _ in read.tags]
    assert "script" not in [tag for tag, _ in read.tags]
    ours = read.cells[: 4 + len(MEASURES)]  # a heading, and one for each of three groups
    assert [len(cells) for cells in ours].count(4) == 1 + len(MEASURES)
    assert [cells[0] for cells in ours if len(cells) == 1] == ["Picture", "Lips", "Person and motion"]
    assert len(read.cells) == len(ours) + sum(1 + len(table.rows) for table in TABLES)


def test_a_film_that_may_show_other_frames_is_marked_and_never_best() -> None:
    rows = {"known": row(0.5), "adrift": row(0.9), "baseline": row(0.25)}
    text = page(rows, adrift={"adrift"}, summary={"known": ["Rests on <50> frames."], "adrift": ["No verdict."]})
    heads = Read(text).cells[0]
    assert [ADRIFT in head for head in heads] == [False, False, False, True, False]
    line = re.findall(r"<th title='[^']*'>PSNR, whole.*?</tr>", text)[0]
    assert re.findall(r"<td class='([^']*)'>", line) == ["own", "best", "adrift", ""]
    assert text.index("Rests on &lt;50&gt; frames.") < text.index("No verdict.") < text.index("<table>")


def test_published_numbers_stand_apart_with_a_warning() -> None:
    text = page({"result": row(0.5)})
    assert text.index("none of them compares") > text.index("Worst frames")
    lines = {tuple(cells) for cells in Read(text).cells}
    assert ("Talk3D", "30.185", "0.895", "0.027", "8.626", "2.932", "1.92", "7.383", "0.944") in lines
    assert ("Talk3D", "8.144", "39.971", "0.797") in lines
    assert ("ground truth", "–", "–", "0", "0", "0", "0", "9.077", "1") in lines


@pytest.mark.parametrize(("best", "winner"), [("high", {"c"}), ("low", {"a"}), ("one", {"b"}), ("zero", {"a"})])
def test_the_best_is_the_best_for_its_measure(best: str, winner: set[str]) -> None:
    assert best_of({"a": 0.5, "b": 1.5, "c": 4.0}, best) == winner  # type: ignore[arg-type]
    assert best_of({"a": -1.0, "b": 3.0}, "zero") == {"a"}
    assert best_of({"a": 0.12341, "b": 0.12339, "c": 0.3}, "low") == {"a", "b"}  # what is printed alike is alike
    assert best_of({"a": 1.0, "b": 1.0}, "high") == set()
    assert best_of({"a": 1.0}, "high") == set()
    assert best_of({"a": 0.5, "b": 1.5, "c": 4.0}, "truth", 1.2) == {"b"}
    assert best_of({"a": 0.5, "b": 1.5}, "truth") == set()
    assert best_of({"a": -2.0, "b": 2.0, "c": 5.0}, "zero") == {"a", "b"} == best_of({"b": 2.0, "a": -2.0, "c": 5.0}, "zero")
    assert best_of({"a": 1.0, "b": 3.0, "c": 9.0}, "truth", 2.0) == {"a", "b"}


def test_bold_marks_the_winner_and_unknown_values_never_win() -> None:
    text = page({"result": row(0.5, psnr=Score(None, 0)), "baseline": row(0.25)})
    marked = re.findall(r"<tr><th title='[^']*'>([^<]*).*?</th>(.*?)</tr>", text)
    cells = {title: re.findall(r"<td class='(best)?'>(.*?)</td>", rest) for title, rest in marked}
    assert cells["PSNR, whole "][0] == ("", "–")
    assert cells["PSNR, whole "][1][0] == ""  # alone, it beats no one
    assert [mark for mark, _ in cells["PSNR, face "]] == ["best", ""]
    assert [mark for mark, _ in cells["Face distance (LMD-468) "]] == ["", "best"]
    assert [mark for mark, _ in cells["Blinks "]] == ["best", ""]  # the truth's own 0.4 is nearer to 0.5


def test_who_was_spared_the_hard_frames_is_not_best() -> None:
    spared = row(0.25, mouth_distance=Score(0.1, 40), blink_depth=Score(0.3, 2))
    text = page({"a": row(0.5, blink_depth=Score(0.9, 9)), "b": spared}, truth={"blink_depth": Score(0.35, 9)})
    marked = dict(re.findall(r"<tr><th title='[^']*'>([^<]*).*?</th>(.*?)</tr>", text))
    classes = {title: re.findall(r"<td class='(best)?'>", rest) for title, rest in marked.items()}
    assert classes["Face distance (LMD-468) "] == ["", "best"]
    assert classes["Blinks, completeness → truth"] == ["", "best"]  # these are events, of which one may have fewer
    assert "best" not in re.findall(r"<th title='40 lip[^>]*>.*?</tr>", text)[0].split("0.100")[1]


def test_intervals_and_missing_frames_are_said() -> None:
    text = page({"result": row(0.5, mouth_opening=Score(0.4, 50, (0.1, 0.7)), flicker=Score(1.2, 48))})
    lines = {cells[0].split(",")[0]: cells[2] for cells in Read(text).cells if len(cells) == 3}
    assert lines["Lip opening"] != lines["Flicker"]
    assert "0.400 (0.1 to 0.7)" in text.replace("<small>", "").replace("</small>", "")
    assert "[48]" in lines["Flicker"]


def test_gaps_in_curves_stay_gaps() -> None:
    lines = re.findall(r"<polyline points='([^']*)'", page({"result": row(0.5)}))
    assert [len(line.split()) for line in lines] == [20, 29, 20, 29]
    first = [tuple(map(float, point.split(","))) for point in lines[0].split()]
    assert all(b[0] > a[0] and b[1] < a[1] for a, b in zip(first, first[1:], strict=False))  # to the right and up
    empty = Chart("Nothing", {"result": np.full(10, np.nan)}, 0.0, 1.0, "")
    assert "Nothing" not in page({"result": row(0.5)}, charts=[empty])


def test_a_chart_of_hours_stays_small_and_keeps_its_shape() -> None:
    curve = np.sin(np.linspace(0, 6, 90_000))
    chart = Chart("Long", {"result": curve}, -30.0, 30.0, "°")
    (line,) = re.findall(r"<polyline points='([^']*)'", page({"result": row(0.5)}, charts=[chart]))
    points = np.array([point.split(",") for point in line.split()], float)
    assert len(points) <= MOST_POINTS
    expected = np.interp(np.linspace(0, 1, len(points)), np.linspace(0, 1, 90_000), curve)
    assert np.corrcoef(points[:, 1], expected)[0, 1] < -0.999  # up is small in a picture
    assert "-30.0°" in page({"result": row(0.5)}, charts=[chart])


def test_names_are_text_and_never_markup() -> None:
    name = "<script>alert('x')</script>"
    read = Read(page({name: row(0.5)}, title=name, notes=[name], facts={name: name}, missing=[name]))
    assert "script" not in [tag for tag, _ in read.tags]
    assert read.cells[0][2] == name


def test_a_large_film_stays_beside_the_page() -> None:
    videos = [attrs for tag, attrs in Read(page({"result": row(0.5)}, film="side-by-side.mp4")).tags if tag == "video"]
    assert [attrs["src"] for attrs in videos] == ["side-by-side.mp4"]
