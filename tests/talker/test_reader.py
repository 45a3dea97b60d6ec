"""Reading lips: the space of their shapes, the squares that are cut, a reader that learns, and the expert on single frames."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from talk3d.judges.sync import load_sync, mouth_features, sound_features
from talk3d.talker.reader import (
    AROUND,
    REACH,
    SIDE,
    LipSpace,
    SyncJudge,
    cut_mouths,
    filmed_mouths,
    learn_to_read,
    shrink,
)


def test_shapes_describe_lips_that_move_in_few_ways() -> None:
    """Lips made of two directions come back whole; the first shape has unit deviation."""
    rng = np.random.default_rng(0)
    ways = np.linalg.qr(rng.standard_normal((80, 2)))[0].T * [[3.0], [1.0]]
    lips = rng.standard_normal(80) + rng.standard_normal((400, 2)) @ ways
    space = LipSpace.of(lips, 2)
    shapes = space.shapes(torch.from_numpy(lips).float())
    torch.testing.assert_close(space.lips(shapes), torch.from_numpy(lips).float(), atol=1e-4, rtol=0)
    assert float(shapes.std(0)[0]) == pytest.approx(1, abs=0.01)
    assert float(shapes.std(0)[1]) == pytest.approx(1 / 3, abs=0.05)
    torch.testing.assert_close(space.directions @ space.directions.mT, torch.eye(2), atol=1e-5, rtol=0)


def test_squares_lie_where_they_are_asked_for() -> None:
    """A ramp of x and y says of each pixel where it was: centres of 32 pixels across 2 reach."""
    size = 128
    line = (torch.arange(size) + 0.5) / size
    picture = torch.stack([line[None].expand(size, -1), line[:, None].expand(-1, size), torch.zeros(size, size)])[None]
    centre = torch.tensor([[0.4, 0.7]])
    cut, whole = cut_mouths(picture, centre, 0.125)
    steps = (torch.arange(SIDE) + 0.5) / SIDE * 0.25 - 0.125
    torch.testing.assert_close(cut[0, 0], (0.4 + steps)[None].expand(SIDE, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(cut[0, 1], (0.7 + steps)[:, None].expand(-1, SIDE), atol=1e-5, rtol=0)
    assert whole.all()
    places = torch.tensor([[0.1, 0.5], [0.5, 0.9], [0.125, 0.875]])
    assert cut_mouths(picture.repeat(3, 1, 1, 1), places, 0.125)[1].tolist() == [False, False, True]


def test_mouths_of_a_window_are_those_of_the_frame() -> None:
    """A mouth cut out of a part of a picture equals the one cut out of the whole."""
    frame = F.interpolate(torch.rand(1, 3, 16, 16), (256, 256), mode="bilinear")
    mouth = torch.tensor([[0.45, 0.6]])
    expected, _ = cut_mouths(shrink(frame, 256), mouth, REACH)
    top, left, side = 100, 60, 120
    window = frame[:, :, top : top + side, left : left + side]
    inside = (mouth * 256 - torch.tensor([left, top])) / side
    found, whole = cut_mouths(shrink(window, 256), inside, REACH * 256 / side)
    assert whole.all()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def mouths_that_open(count: int, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """Pictures [F, 256, 256, 3] with a dark slit, and how far it is open."""
    rng = np.random.default_rng(seed)
    opening = rng.uniform(-1, 1, count)
    y, x = np.mgrid[0:256, 0:256]
    pictures = np.full((count, 256, 256, 3), 150, np.uint8)
    for picture, gap in zip(pictures, opening, strict=True):
        picture[(abs(x - 120) < 20) & (abs(y - 160) < 6 + 5 * gap)] = 30
        picture += rng.integers(0, 8, picture.shape, np.uint8)
    return pictures, torch.from_numpy(np.stack([opening, 0 * opening], 1)).float()


def test_a_reader_reads_mouths_that_it_was_not_shown() -> None:
    pictures, shapes = mouths_that_open(120, 0)
    unseen, true = mouths_that_open(40, 1)
    centres = np.tile([120 / 256, 160 / 256], (160, 1))
    reader = learn_to_read(filmed_mouths(pictures, centres[:120]), shapes, 150, 0, lambda part, text: None)
    mouths = filmed_mouths(unseen, centres[120:]).float() / 127.5 - 1
    mouths.requires_grad_()
    read = reader(mouths)
    assert float(torch.corrcoef(torch.stack([read[:, 0], true[:, 0]]))[0, 1].detach()) > 0.95
    assert not any(parameter.requires_grad for parameter in reader.parameters())
    read.sum().backward()  # a drawn mouth can learn from it
    assert mouths.grad is not None
    assert mouths.grad.abs().max() > 0


def test_a_reader_is_a_function_of_its_seed() -> None:
    pictures, shapes = mouths_that_open(30, 0)
    mouths = filmed_mouths(pictures, np.tile([0.47, 0.62], (30, 1)))
    torch.manual_seed(1)
    one = learn_to_read(mouths, shapes, 3, 7, lambda part, text: None)
    torch.manual_seed(2)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    other = learn_to_read(mouths, shapes, 3, 7, lambda part, text: None)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(torch.rand(1), drawn), "learning to read must leave the caller's random numbers alone"


def test_the_expert_sees_one_frame_among_its_neighbours() -> None:
    """With the filmed lips in their own place, its vector is that of the whole film; with others it is not."""
    rng = np.random.default_rng(3)
    frames = 60
    lips = np.cumsum(rng.standard_normal((frames, 80)), 0) * 0.05
    sound = (rng.standard_normal(frames * 640) * 0.1).astype(np.float32)
    judge = SyncJudge(lips, sound)
    index = torch.tensor([AROUND, 20, frames - 1 - AROUND])
    own = torch.from_numpy(lips[index]).float().requires_grad_()
    seen, heard = judge(index, own)
    expert = load_sync()
    with torch.no_grad():
        film, track = expert(mouth_features(lips)[None], sound_features(sound, frames)[None])
    torch.testing.assert_close(seen, film[0, index], atol=1e-4, rtol=0)
    torch.testing.assert_close(heard, track[0, index])
    changed, _ = judge(index, own.detach() + 0.3)
    assert (changed - seen).norm(dim=1).min() > 0.05
    seen.sum().backward()
    assert own.grad is not None
    assert own.grad.abs().max() > 0
    assert math.isfinite(float(own.grad.abs().max()))
