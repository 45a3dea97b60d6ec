"""Lip scores: planted lags, distances known by construction, and laws."""

import numpy as np
import pytest

from talk3d.evaluate.lips import (
    FACE,
    MOUTH,
    Aperture,
    best_lag,
    closure_recall,
    correlation,
    distances,
    jitter,
    mean_interval,
    moves,
    silent_aperture,
    wrongly_closed,
)


@pytest.fixture
def speech() -> np.ndarray:
    """A curve that moves like lips do, 200 frames."""
    rng = np.random.default_rng(0)
    return np.convolve(rng.normal(size=220), [0.2, 0.6, 0.8, 0.6, 0.2], "same")[:200]


@pytest.fixture
def faces() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 256, (12, 468, 2))


@pytest.mark.parametrize("planted", [-10, -3, 0, 1, 7, 10])
def test_a_planted_lag_is_found(speech: np.ndarray, planted: int) -> None:
    """Late by `planted` frames: what the truth does now, the result does then."""
    noise = 0.2 * np.random.default_rng(2).normal(size=200)
    found = best_lag(np.roll(speech, planted) + noise, speech)
    assert found.frames == planted
    assert found.correlation.value is not None
    assert found.correlation.value > 0.9
    assert found.correlation.frames == 180


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Curves that drift slowly, as lips do: an interval that took frames for independent would be far too narrow."""
    rng = np.random.default_rng(7)
    kernel, true, hits, widths = np.ones(12) / np.sqrt(12), 0.6, 0, []
    for _ in range(100):
        shared, own = (np.convolve(rng.normal(size=411), kernel, "valid") for _ in range(2))
        score = correlation(true * shared + np.sqrt(1 - true**2) * own, shared)
        assert score.interval is not None
        hits += score.interval[0] <= true <= score.interval[1]
        widths.append(score.interval[1] - score.interval[0])
    assert 85 <= hits <= 99
    # Fisher's interval for 400 independent frames is 0.125 wide.
    assert np.median(widths) > 0.2


def test_short_films_have_no_interval(speech: np.ndarray) -> None:
    assert correlation(speech[:99], speech[:99] ** 3).interval is None
    low, high = correlation(speech, speech).interval or (0.0, 0.0)
    assert low == pytest.approx(1)
    assert high == pytest.approx(1)


def test_correlation_ignores_scale_and_offset(speech: np.ndarray) -> None:
    assert correlation(3 * speech + 5, speech).value == pytest.approx(1)
    assert correlation(-speech, speech).value == pytest.approx(-1)
    unrelated = correlation(np.random.default_rng(3).normal(size=200), speech).value
    assert unrelated is not None
    assert abs(unrelated) < 0.25


def test_correlation_agrees_with_numpy_on_known_frames(speech: np.ndarray) -> None:
    other = speech + np.random.default_rng(4).normal(size=200)
    holes = other.copy()
    holes[50:80] = np.nan
    kept = np.r_[0:50, 80:200]
    score = correlation(holes, speech)
    assert score.frames == 170
    assert score.value == pytest.approx(np.corrcoef(other[kept], speech[kept])[0, 1])


def test_what_never_moves_has_no_correlation(speech: np.ndarray) -> None:
    assert correlation(np.ones(200), speech).value is None
    assert correlation(speech[:5], speech[:5]).value is None
    trembling = 0.01 * speech.std() * np.random.default_rng(8).normal(size=200)  # what a tracker sees of a still picture
    assert correlation(trembling, speech).value is None
    assert best_lag(trembling + 0.001 * np.roll(speech, 4), speech).frames is None
    assert not moves(trembling, speech)
    assert moves(0.1 * speech, speech)
    assert not moves(np.full(200, np.nan), speech)
    still = best_lag(np.ones(200), speech)
    assert (still.frames, still.correlation.value) == (None, None)
    assert best_lag(speech[:25], speech[:25]).frames is None


def landmark_distance(mine: np.ndarray, true: np.ndarray, points: tuple[int, ...] = MOUTH, relative: bool = False) -> float:
    return float(np.nanmean(distances(mine, true, points, relative=relative)))


def test_equal_faces_have_no_distance(faces: np.ndarray) -> None:
    for points in (MOUTH, FACE):
        assert landmark_distance(faces, faces, points) == 0


def test_head_position_does_not_count_but_shape_does(faces: np.ndarray) -> None:
    moved = landmark_distance(faces + np.array([30.0, -20.0]), faces)
    assert moved == pytest.approx(0, abs=1e-9)
    grown = faces * 1.1
    centred = faces[:, list(MOUTH)] - faces[:, list(MOUTH)].mean(axis=1, keepdims=True)
    expected = 0.1 * np.linalg.norm(centred, axis=-1).mean()
    assert landmark_distance(grown, faces) == pytest.approx(expected)


def test_the_relative_distance_does_not_depend_on_the_picture_size(faces: np.ndarray) -> None:
    noisy = faces + np.random.default_rng(5).normal(0, 2, faces.shape)
    one, two = (landmark_distance(k * noisy, k * faces, relative=True) for k in (1, 2))
    assert one == pytest.approx(two)
    assert landmark_distance(2 * noisy, 2 * faces) == pytest.approx(2 * landmark_distance(noisy, faces))


def test_frames_without_a_face_are_left_out_and_counted(faces: np.ndarray) -> None:
    lost = faces + 1.0
    lost[3:6] = np.nan
    assert np.array_equal(np.flatnonzero(np.isnan(distances(lost, faces))), [3, 4, 5])
    assert landmark_distance(lost, faces) == pytest.approx(0, abs=1e-9)


def test_more_noise_is_always_worse(faces: np.ndarray) -> None:
    noise = np.random.default_rng(6).normal(size=faces.shape)
    values = [landmark_distance(faces + level * noise, faces) for level in (0.5, 1, 2, 4)]
    assert values == sorted(values)


# ------------------------------------------------------------------------------------------- closures, pauses, tremor


def test_the_lag_has_an_interval_that_holds_it(speech: np.ndarray) -> None:
    noise = np.random.default_rng(2).normal(size=200)
    sure = best_lag(np.roll(speech, 3) + 0.1 * noise, speech)
    assert sure.interval == (3, 3)
    slow = np.convolve(np.random.default_rng(4).normal(size=230), np.hanning(31), "valid")
    unsure = best_lag(np.roll(slow, 3) + slow.std() * noise, slow)
    assert unsure.interval is not None
    assert unsure.interval[0] <= 3 <= unsure.interval[1]
    assert unsure.interval != (3, 3)
    assert best_lag(np.roll(speech, 3) + 30 * noise, speech).frames is None  # curves that agree nowhere have no lag
    assert best_lag(speech[:110], speech[:110]).interval is None


def test_closures_that_the_truth_makes_are_counted_by_hand() -> None:
    truth = np.full(60, 0.2)
    truth[[10, 30, 50]] = 0.01  # three closures; the tracker reports shut lips as 0.01
    truth[20] = 0.05  # at 21 % of the range: no closure, though a b was heard
    truth[55:] = 0.21
    events = np.array([[9, 12], [19, 22], [29, 32], [49, 52]])
    closed_once = np.full(60, 0.2)
    closed_once[31] = 0.02  # at 5 %: closed; late by a frame, inside the window
    score = closure_recall(closed_once, truth, events)
    assert (score.value, score.frames) == (pytest.approx(1 / 3), 3)
    assert closure_recall(truth, truth, events).value == 1
    assert closure_recall(np.full(60, np.nan), truth, events).value is None
    assert closure_recall(truth, np.full(60, 0.1), events).value is None
    assert closure_recall(truth, truth, events[:0]).frames == 0


def test_the_interval_of_a_mean_holds_it_about_as_often_as_it_says() -> None:
    """Errors that stay alike for half a second; frame by frame, the interval would be three times too narrow."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        interval = mean_interval(2.0 + np.convolve(rng.normal(size=611), np.ones(12), "valid"))
        assert interval is not None
        hits += interval[0] < 2.0 < interval[1]
    assert 174 <= hits <= 197
    steady = np.full(120, 0.5)
    steady[7] = np.nan
    assert mean_interval(steady) == pytest.approx((0.5, 0.5))
    assert mean_interval(steady[:99]) is None


def test_a_mouth_that_is_always_shut_has_all_closures_and_is_found_out() -> None:
    rng = np.random.default_rng(0)
    truth = np.abs(np.sin(np.arange(200) / 5)) + 0.02 * rng.normal(size=200)
    events = np.array([[i, i + 3] for i in np.flatnonzero(truth < 0.05) if i < 197])
    shut = np.zeros(200)
    assert closure_recall(shut, truth, events).value == 1
    assert wrongly_closed(shut, truth).value == 1
    assert wrongly_closed(truth, truth).value == 0
    # Smaller and smaller movements around the middle lose ever more closures.
    recalls = [closure_recall(0.5 + part * (truth - 0.5), truth, events).value for part in (1.0, 0.9, 0.7, 0.0)]
    assert recalls[0] == 1
    assert recalls == sorted(recalls, reverse=True)
    assert recalls[-1] == 0


def test_the_opening_in_pauses_is_a_part_of_the_truths_range() -> None:
    truth = np.r_[np.full(100, 0.02), np.linspace(0.02, 0.22, 100)]
    silent = np.arange(200) < 80
    aperture = Aperture.of(truth)
    assert aperture is not None
    assert aperture.shut == pytest.approx(0.02)
    assert aperture.wide == pytest.approx(np.quantile(truth, 0.99))
    for opened in (0.0, 0.02, 0.1):
        score = silent_aperture(truth + opened, truth, silent)
        assert score.value == pytest.approx(100 * opened / (aperture.wide - 0.02), abs=1e-6)
        assert score.frames == 80
    assert silent_aperture(truth, truth, silent & False).value is None


def test_tremor_is_the_second_difference_and_steady_motion_has_none() -> None:
    steady = np.arange(30)[:, None] * np.linspace(0.1, 1, 80)
    assert np.nanmax(jitter(steady)) == pytest.approx(0, abs=1e-12)
    spike = np.zeros((9, 80))
    spike[4] = 0.5
    assert jitter(spike)[3:6] == pytest.approx([0.5, 1.0, 0.5])
    assert np.isnan(jitter(spike)[[0, -1]]).all()
    noise = np.random.default_rng(0).normal(size=(400, 80))
    levels = [np.nanmean(jitter(steady[:1] + level * noise)) for level in (0.1, 0.2, 0.4)]
    assert levels == pytest.approx([0.1 * 6**0.5, 0.2 * 6**0.5, 0.4 * 6**0.5], rel=0.02)  # 1 + 4 + 1 variances
