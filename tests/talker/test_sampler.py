"""Where training looks, and whose sound goes with it."""

import numpy as np
import pytest
import torch

from talk3d.talker.sampler import WindowSampler, draw_outlines

FRAMES, SIZE = 50, 64


@pytest.fixture
def sampler() -> WindowSampler:
    """Of faces whose eyes lie so near to the lips that a window around them would show both."""
    mouths = np.tile([0.5, 0.7], (FRAMES, 1))
    firsts = np.minimum(np.arange(FRAMES), FRAMES - 2)
    return WindowSampler(mouths, mouths - [0.0, 0.2], np.full(FRAMES, 1 / FRAMES), np.linspace(0.6, 0.66, FRAMES), firsts)


def bottoms(windows) -> np.ndarray:
    return (windows.top + windows.side) / windows.size


@pytest.mark.parametrize("pairs", [False, True])
def test_only_windows_above_the_lips_hear_strangers(sampler: WindowSampler, pairs: bool) -> None:
    exchanged = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        index, windows = sampler.choose(8, SIZE, rng, pairs)
        heard = sampler.strangers(index, windows, 1.0, rng, pairs)
        below = bottoms(windows) > sampler.lips_top[index]
        assert (heard[below] == index[below]).all()
        assert ((heard >= 0) & (heard < FRAMES)).all()
        if pairs:
            assert (heard[1::2] == heard[::2] + 1).all()
        exchanged += int((heard != index).sum())
    assert exchanged > 0.15 * 800  # of each step, the quarter that looks at the eyes at least, but for chance


def test_pairs_do_not_reach_over_frames_that_are_left_out(sampler: WindowSampler) -> None:
    rows = np.concatenate([np.arange(12), [17], np.arange(20, 33), [40, 45]])
    gappy = sampler.among(rows)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        index, windows = gappy.choose(8, SIZE, rng, pairs=True)
        heard = gappy.strangers(index, windows, 1.0, rng, pairs=True)
        for pair in (rows[index], rows[heard]):
            assert (pair[1::2] == pair[::2] + 1).all()


def test_nobody_hears_strangers_if_none_are_wanted(sampler: WindowSampler) -> None:
    rng = np.random.default_rng(0)
    index, windows = sampler.choose(64, SIZE, rng)
    assert (sampler.strangers(index, windows, 0.0, rng) == index).all()


def test_half_of_the_windows_show_the_mouth_and_a_quarter_the_eyes_without_it(sampler: WindowSampler) -> None:
    index, windows = sampler.choose(64, SIZE, np.random.default_rng(0))
    corner, side = np.stack([windows.left, windows.top], 1) / SIZE, windows.side / SIZE
    mouths, eyes = (
        ((corner < place) & (place < corner + side)).all(1) for place in (sampler.mouths[index], sampler.eyes[index])
    )
    assert mouths.sum() >= 32
    assert (eyes & ~mouths & (bottoms(windows) <= sampler.lips_top[index])).sum() >= 16


def test_a_pixel_is_inside_an_outline_if_its_middle_is() -> None:
    square = np.array([[[2.1, 3.1], [5.9, 3.1], [5.9, 4.9], [2.1, 4.9]]]) / 8
    expected = torch.zeros(8, 8)
    expected[3:5, 2:6] = 1
    found = draw_outlines(square, 8)[0, 0]
    assert torch.equal(found, expected)
