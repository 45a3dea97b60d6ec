"""Validation: how much is held out, when, and what the scores see."""

import numpy as np
import pytest
import torch

from talk3d.capture.frames import Views
from talk3d.talker.validate import Validation, held_out, is_due, spread_over


def test_a_slice_is_held_out_of_what_can_spare_it():
    assert held_out(2499, 0.08) == 0
    assert held_out(2500, 0.08) == 200
    assert held_out(90_000, 0.08) == 200
    assert held_out(90_000, 0.0) == 0


def test_drawn_frames_are_spread_over_the_slice():
    assert spread_over(100, 160).tolist() == list(range(102, 160, 5))
    assert spread_over(7, 10).tolist() == [7, 8, 9]
    assert spread_over(9, 9).tolist() == []


def test_each_quarter_of_a_training_is_validated_once():
    parts = np.arange(0, 38) / 37
    assert sum(is_due(before, now) for before, now in zip(parts[:-1], parts[1:], strict=True)) == 4
    assert is_due(0.97, 1.0)
    assert not is_due(1.0, 1.0)


def test_scores_grow_with_what_is_wrong_where_something_is_known():
    torch.manual_seed(0)
    target = torch.rand(2, 4, 32, 32) * 0.5
    known = torch.ones(2, 1, 32, 32)
    known[..., :8] = 0
    mouth = torch.zeros(2, 1, 32, 32)
    mouth[:, :, 20:24, 12:20] = 1
    validation = Validation(torch.tensor([3, 5]), Views(target, torch.zeros(2, 3, 32, 32), known), mouth)
    perfect = validation.scores(target)
    assert perfect["val_score"] == pytest.approx(0, abs=1e-5)
    unknown, elsewhere, lips = target.clone(), target.clone(), target.clone()
    unknown[..., :8] = -1
    elsewhere[:, :, 2:6, 12:20] += 0.2
    lips[:, :, 20:24, 12:20] += 0.2
    assert validation.scores(unknown) == perfect
    assert validation.scores(elsewhere)["val_mouth"] == 0
    assert validation.scores(lips)["val_mouth"] == pytest.approx(0.04, rel=1e-4)
    assert 0 < validation.scores(elsewhere)["val_score"] < validation.scores(lips)["val_score"]
