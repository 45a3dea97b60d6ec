"""The ear: its grid of frames, its independence of chunks, and what the shipped one hears."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d.errors import CheckpointError
from talk3d.judges.ear import (
    COLUMNS,
    CONTEXT,
    HOP,
    PIECE,
    VISEMES,
    Ear,
    EarDims,
    ear_bands,
    ear_columns,
    load_ear,
    save_ear,
)

TINY = EarDims(hidden=8, width=8, blocks=1, size=4)


@pytest.fixture
def ear() -> Ear:
    torch.manual_seed(0)
    return Ear(TINY).eval().requires_grad_(False)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(round(16000 * seconds)) * 0.07).astype(np.float32)


def columns(chunks: list[np.ndarray], first: int, ear: Ear, count: int) -> torch.Tensor:
    pieces = -(-count // PIECE)
    return torch.cat(list(islice(ear_columns(chunks, 1.0, first, ear), pieces)))[:count]


def test_bands_are_silent_at_minus_one_and_lie_where_they_should() -> None:
    silent = ear_bands(np.zeros(1600, np.float32))
    assert silent.shape == (40, 10)
    assert (silent == -1).all()
    click = np.zeros(16000, np.float32)
    click[80 + 160 * 40] = 1.0
    heard = ear_bands(click).mean(0)
    assert int(heard.argmax()) == 40
    torch.testing.assert_close(heard[35:40], heard[41:46].flip(0))


@pytest.mark.parametrize("first", [80, -2160, -1520, 80 + 4 * 160])
def test_columns_are_those_of_the_whole_sound(ear: Ear, first: int) -> None:
    """Piece by piece or at once, and from wherever one begins: the frames are the sound's own."""
    sound = noise(20.0)
    frames = len(sound) // 640
    code, visemes = ear(ear_bands(sound)[None])
    whole = torch.cat([code[0], 2 * visemes[0].softmax(0) - 1]).T
    heard = columns([sound], first, ear, 1961)
    for column in (400, 1000, PIECE - 1, PIECE, PIECE + 3, 1960):  # away from the ends, where silence is padded or not
        sample = first + HOP * column
        frame = sample // (HOP * COLUMNS)
        assert 5 < frame < frames - 5
        torch.testing.assert_close(heard[column], whole[frame], atol=1e-5, rtol=0)
    assert CONTEXT * HOP > 640 * 5


def test_chunks_do_not_matter_and_silence_follows(ear: Ear) -> None:
    sound = noise(3.0)
    whole = columns([sound], -2160, ear, 2 * PIECE)
    cuts = np.split(sound, [1, 1000, 1001, 30000])
    assert torch.equal(columns(cuts, -2160, ear, 2 * PIECE), whole)
    assert torch.equal(whole[PIECE + 200], whole[PIECE + 300])


def test_columns_must_fit_the_grid(ear: Ear) -> None:
    with pytest.raises(AssertionError, match="fixed places"):
        next(ear_columns([noise(1.0)], 1.0, 81, ear))


def test_weights_come_back_and_leave_random_numbers_alone(ear: Ear, tmp_path: Path) -> None:
    save_ear(ear, tmp_path / "ear.safetensors")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = load_ear(tmp_path / "ear.safetensors")
    assert torch.equal(torch.rand(1), expected), "whoever trains must not depend on who has read the file before"
    assert again.dims == TINY
    torch.testing.assert_close(again.code.weight, ear.code.weight, atol=1e-3, rtol=1e-3)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="ear"):
        load_ear(tmp_path / "bad.safetensors")


def test_the_shipped_ear_hears_silence_and_speech(shared: Path) -> None:
    """On a voice of no training: rest in silence, and lips together where the truth says p, b or m."""
    import soundfile

    _, visemes = load_ear()(ear_bands(np.zeros(32000, np.float32))[None])
    assert float(visemes[0].softmax(0)[VISEMES.index("rest")].min()) > 0.8
    folder = shared / "data" / "synthetic" / "A"
    sound = soundfile.read(folder / "self.flac", dtype="float32")[0]
    with np.load(folder / "self.truth.npz") as truth:
        gap = truth["lip_gap_cm"]
    level = float(np.sqrt((sound**2)[np.abs(sound) > 0.01].mean()))
    _, visemes = load_ear()(ear_bands((sound * (0.07 / level)).astype(np.float32))[None])
    heard = visemes[0].softmax(0).numpy()[:, : len(gap)]
    open_mouth = heard[[VISEMES.index(name) for name in ("aa", "E", "O")]].sum(0)
    assert np.corrcoef(open_mouth, gap[: len(open_mouth)])[0, 1] > 0.6
