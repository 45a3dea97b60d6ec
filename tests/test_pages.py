"""What all reports share: charts lie where their numbers say, and plain text never becomes markup."""

import re

import numpy as np
import pytest

from talk3d.pages import COLOURS, HEIGHT, LEFT, MOST_POINTS, WIDTH, Chart, Cloud, bullets, chart, cloud, document, jpeg, text

LINE = np.linspace(0.0, 1.0, 100)


def heights(svg: str) -> list[float]:
    return [float(point.split(",")[1]) for line in re.findall(r"points='([^']*)'", svg) for point in line.split()]


def test_a_chart_fills_its_frame_or_keeps_its_bounds() -> None:
    free = heights(chart(Chart("c", {"a": LINE}, 0.0, 4.0, " s")))
    bound = heights(chart(Chart("c", {"a": LINE}, 0.0, 4.0, " s", bounds=(-1.0, 3.0))))
    assert np.ptp(bound) == pytest.approx(np.ptp(free) / 4, abs=0.1)
    assert max(bound) < max(free)  # the lowest value lies above the frame's lower edge
    assert min(free) >= 0
    assert max(free) <= HEIGHT


def test_spans_lie_at_their_places() -> None:
    spans = ((1.0, 3.0, "bad"), (4.0, 4.0, "seam"))
    drawn = chart(Chart("c", {"a": LINE}, 0.0, 4.0, " s", spans))
    (x, width, kind), (last, thin, other) = re.findall(
        r"<rect x='([\d.]+)' y='10' width='([\d.]+)' height='\d+' class='(\w+)'", drawn
    )
    assert (kind, other) == ("bad", "seam")
    assert float(x) == pytest.approx(LEFT + (WIDTH - LEFT) / 4, abs=0.1)
    assert float(width) == pytest.approx((WIDTH - LEFT) / 2, abs=0.1)
    assert (float(last), float(thin)) == pytest.approx((WIDTH, 1.0), abs=0.1)


def test_one_curve_may_be_grey() -> None:
    curves = {"truth": LINE, "a": LINE**2, "b": LINE**3}
    colours = re.findall(r"stroke='(#\w+)'", chart(Chart("c", curves, 0.0, 1.0, ""), grey="truth"))
    assert colours == ["#8a8a8a", *COLOURS[:2]]
    assert re.findall(r"stroke='(#\w+)'", chart(Chart("c", curves, 0.0, 1.0, ""))) == list(COLOURS[:3])


def test_nothing_known_is_nothing_drawn() -> None:
    assert chart(Chart("c", {"a": np.full(10, np.nan)}, 0.0, 1.0, "")) == ""
    assert bullets([], "notes") == ""


def test_points_lie_where_they_should() -> None:
    drawn = cloud(Cloud("A < B", {"one": np.array([[0.0, 0.0], [10.0, 20.0]]), "two": np.zeros((0, 2))}, "x", "y"))
    assert "A &lt; B" in drawn
    (x0, y0), (x1, y1) = (map(float, place) for place in re.findall(r"cx='([\d.]+)' cy='([\d.]+)'", drawn))
    assert x1 > x0
    assert y1 < y0  # up is small in a picture
    many = Cloud("many", {"one": np.random.default_rng(0).random((50_000, 2))}, "x", "y")
    assert cloud(many).count("<circle") <= MOST_POINTS


def test_a_page_has_its_own_style_and_its_title_is_text() -> None:
    page = document("<b>title</b>", "<p>body</p>", ".own { color: red; }")
    assert page.count("&lt;b&gt;title&lt;/b&gt;") == 2
    assert "<p>body</p>" in page
    assert ".own { color: red; }" in page
    assert text("<i a='b'>") == "&lt;i a=&#x27;b&#x27;&gt;"
    assert "&lt;li&gt;" in bullets(["<li>"], "notes")
    assert jpeg(np.zeros((4, 4, 3), np.uint8)).startswith("data:image/jpeg;base64,")
