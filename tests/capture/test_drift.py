"""A line through windows of which some are wrong."""

import numpy as np
import pytest

from talk3d.capture.drift import FEWEST, MINUTE, Drift, fit_line


@pytest.mark.parametrize("per_minute", [-7.5, -0.2, 0.0, 3.0])
def test_a_planted_line_is_found_through_noise_and_outliers(per_minute: float) -> None:
    rng = np.random.default_rng(1)
    middles = 75.0 + 150 * np.arange(20)
    offsets = 1.5 + per_minute / MINUTE * middles + rng.normal(0, 0.15, 20)
    offsets[[3, 9, 15, 16]] = 14.0, -12.0, 9.0, -8.0
    drift = fit_line(middles, offsets)
    assert drift.windows == 20
    assert abs(drift.per_minute - per_minute) < 4 * drift.error
    assert drift.error < 0.2
    assert drift.start == pytest.approx(1.5, abs=0.3)


def test_the_error_is_that_of_least_squares_where_all_is_normal() -> None:
    """The scatter of many fits to the same line, with deviations of 0.4 frames, against what each one says of itself."""
    rng = np.random.default_rng(2)
    middles = 75.0 + 150 * np.arange(30)
    fits = [fit_line(middles, rng.normal(0, 0.4, 30)) for _ in range(300)]
    scatter = np.std([fit.per_minute for fit in fits])
    assert np.median([fit.error for fit in fits]) == pytest.approx(scatter, rel=0.2)


def test_few_windows_say_nothing() -> None:
    few = fit_line(np.arange(FEWEST - 1) * 150.0, np.zeros(FEWEST - 1))
    assert (few.per_minute, few.windows) == (None, FEWEST - 1)
    assert not few.certain(100_000)
    assert fit_line(np.arange(FEWEST) * 150.0, np.zeros(FEWEST)).per_minute == 0


@pytest.mark.parametrize(
    ("drift", "frames", "certain"),
    [
        (Drift(3.0, 0.2, 0.0, 0.1, 10), 1500, True),
        (Drift(-3.0, 0.2, 0.0, 0.1, 10), 1500, True),
        (Drift(3.0, 0.2, 0.0, 0.1, 10), 400, False),  # less than a frame in so short a film
        (Drift(3.0, 0.7, 0.0, 0.1, 10), 1500, False),  # within its error
        (Drift(3.0, 0.2, 0.0, 0.8, 10), 1500, False),  # no line: steps, or dropped frames
    ],
)
def test_what_is_certain(drift: Drift, frames: int, certain: bool) -> None:
    assert drift.certain(frames) == certain
