"""The sheet of a training."""

import numpy as np
import torch

from talk3d.capture.frames import Views
from talk3d.talker.preview import closed_and_open, sheet


def test_the_frames_with_the_smallest_and_largest_gap_are_shown():
    gap = np.array([0.5, 0.1, 0.9, 0.3, 0.0])
    assert closed_and_open(gap, np.arange(4)).tolist() == [1, 2]
    assert closed_and_open(gap, np.array([3, 4])).tolist() == [4, 3]
    assert closed_and_open(gap, np.arange(0)).tolist() == []


def test_a_row_shows_filmed_drawn_error_and_side():
    size = 32
    opaque = torch.ones(2, 4, size, size)
    filmed, drawn = opaque.clone(), opaque.clone()
    filmed[:, :3], drawn[:, :3] = 0.0, 0.1
    views = Views(filmed, torch.zeros(2, 3, size, size), torch.ones(2, 1, size, size))
    picture = sheet(views, drawn, -opaque, "caption")
    assert picture.shape == (2 * size + 20, 4 * size, 3)
    cells = picture[: 2 * size].reshape(2, size, 4, size, 3)
    # Mid grey, a little brighter, four times the difference, and nothing but the grey behind the side view.
    assert [int(cells[1, 5, column, 5, 0]) for column in range(4)] == [128, 140, 51, 153]
