"""The lip-sync expert: what it sees does not depend on where a head is, and planted offsets come out with the right sign."""

from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d.capture import track
from talk3d.errors import CheckpointError, ScoringError
from talk3d.judges import sync
from talk3d.judges.sync import (
    REACH,
    SyncDims,
    SyncExpert,
    lips_in_face,
    load_sync,
    mouth_features,
    save_sync,
    sound_features,
    sync_offset,
)
from talk3d.video.clock import AUDIO_RATE, FPS

TINY = SyncDims(width=8, blocks=1, size=4)


def face(frames: int, opening: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """[F, 468, 2]: random points that stand still but for the lips, which open."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(40, 60, (468, 2))
    for index, x in zip(sync.EYES, (40, 47, 53, 60), strict=True):
        points[index] = (x, 40)
    film = np.repeat(points[None], frames, 0)
    if opening is not None:
        film[:, list(sync.LIPS[10:20]), 1] -= opening[:, None]
    return film


class Meter(SyncExpert):
    """An expert by rule: both vectors turn with loudness and opening, so that equal curves give equal vectors."""

    def forward(self, mouth, sound):
        def turn(curve):
            curve = (curve - curve.mean()) / curve.std()
            return torch.stack([torch.cos(curve), torch.sin(curve)], -1)

        return turn(-mouth[:, 21]), turn(sound.mean(1))


def speech(opening: np.ndarray, late: int = 0) -> np.ndarray:
    """Noise as loud as a mouth is open, so many frames later."""
    loud = np.roll(opening, late).repeat(AUDIO_RATE // FPS)
    return (np.random.default_rng(1).standard_normal(len(loud)) * 10 ** (loud - 2)).astype(np.float32)


@pytest.fixture
def opening() -> np.ndarray:
    steps = np.random.default_rng(2).standard_normal(200)
    return np.clip(np.convolve(steps, np.hanning(7), "same") + 1, 0, 3)


@pytest.mark.parametrize("late", [-10, -3, 0, 4, 10])
def test_positive_means_that_the_sound_is_late(opening: np.ndarray, late: int) -> None:
    found = sync_offset(face(200, opening), speech(opening, late), network=Meter(TINY))
    assert found.offset == pytest.approx(late, abs=0.6)
    assert found.curve.shape == (2 * REACH + 1,)
    assert int(found.curve.argmin()) - REACH == late
    assert found.confidence == pytest.approx(float(np.median(found.curve) - found.curve.min()))
    assert found.frames == 200 - 2 * REACH


def test_offsets_are_counted_at_25_frames_per_second(opening: np.ndarray) -> None:
    times = (np.arange(400) + 0.5) / 2 - 0.5
    fast = np.interp(times, np.arange(200), opening)
    found = sync_offset(face(400, fast), speech(opening, 5), fps=50.0, network=Meter(TINY))
    assert found.offset == pytest.approx(5, abs=0.6)
    assert found.frames == 200 - 2 * REACH


def test_lost_faces_are_left_out(opening: np.ndarray) -> None:
    film = face(200, opening)
    film[60:80] = np.nan
    found = sync_offset(film, speech(opening, 2), network=Meter(TINY))
    assert found.offset == pytest.approx(2, abs=1.0)
    assert found.frames == 200 - 2 * REACH - 20


def test_too_short_films_are_refused() -> None:
    with pytest.raises(ScoringError, match=r"at least 40 frames \(1.6 s\)"):
        sync_offset(face(39), np.zeros(39 * 640, np.float32), network=SyncExpert(TINY))
    with pytest.raises(ScoringError, match="0 can be judged"):
        sync_offset(np.full((60, 468, 2), np.nan), np.zeros(60 * 640, np.float32), network=SyncExpert(TINY))


def test_lips_do_not_depend_on_where_the_head_is(opening: np.ndarray) -> None:
    film = face(30, opening[:30])
    angle = 0.3
    turn = 1.7 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(lips_in_face(film @ turn.T + [100.0, -20.0]), lips_in_face(film), atol=1e-9)
    assert np.ptp(lips_in_face(film)[:, 21]) > 0.01


def test_mouths_are_seen_about_their_median_at_equal_size(opening: np.ndarray) -> None:
    one, twice = (mouth_features(lips_in_face(face(200, k * opening))) for k in (3.0, 6.0))
    assert one.shape == (160, 200)
    torch.testing.assert_close(one, twice, atol=2e-2, rtol=0)
    assert (mouth_features(np.full((10, 80), np.nan)) == 0).all()
    still = mouth_features(np.random.default_rng(0).normal(0, 1e-4, (50, 80)))
    assert still.abs().max() < 0.1


def test_the_lips_are_those_of_the_tracker() -> None:
    assert sync.LIPS == track.OUTER_LIPS + track.INNER_LIPS
    assert {sync.EYES[0], sync.EYES[3]} == set(track.OUTER_EYE_CORNERS)


def test_sound_is_heard_in_its_frame_at_any_gain() -> None:
    sound = np.zeros(50 * 640, np.float32)
    sound[20 * 640 + 320] = 0.5
    heard = sound_features(sound, 50).reshape(4, 40, 50).mean(1)  # columns of each frame
    assert int(heard.sum(0).argmax()) == 20
    torch.testing.assert_close(heard[1:3, 20].max(), heard.max())
    torch.testing.assert_close(heard[[1, 2], 20], heard[[2, 1], 20])  # a click in the middle: even to both sides
    talk = np.random.default_rng(0).standard_normal(50 * 640).astype(np.float32) * 0.1
    torch.testing.assert_close(sound_features(talk, 50), sound_features(0.03 * talk, 50), atol=1e-3, rtol=0)


def test_missing_sound_is_silence_and_silence_is_finite() -> None:
    talk = np.random.default_rng(0).standard_normal(20 * 640).astype(np.float32)
    padded = np.concatenate([talk, np.zeros(30 * 640, np.float32)])
    torch.testing.assert_close(sound_features(talk, 50), sound_features(padded, 50))
    assert torch.isfinite(sound_features(np.zeros(0, np.float32), 50)).all()


def test_a_vector_knows_of_nine_frames() -> None:
    network = SyncExpert().eval()
    mouth = torch.randn(1, 160, 40, requires_grad=True)
    network(mouth, torch.randn(1, 160, 40))[0][0, 20, 0].backward()
    assert mouth.grad is not None
    touched = mouth.grad.abs().sum((0, 1)).nonzero().flatten()
    assert touched.tolist() == list(range(16, 25))


def test_it_comes_back_from_disk_with_its_sizes(tmp_path: Path) -> None:
    network = SyncExpert(TINY).eval()
    save_sync(network, tmp_path / "a.safetensors")
    again = load_sync(tmp_path / "a.safetensors")
    mouth, sound = torch.randn(2, 1, 160, 20)
    torch.testing.assert_close(again(mouth, sound)[0], network(mouth, sound)[0], atol=1e-2, rtol=0)
    with pytest.raises(CheckpointError, match="not a readable lip-sync expert"):
        load_sync(tmp_path / "b.safetensors")


@pytest.mark.parametrize("late", [-10, -6, -1, 0, 3, 10])
def test_the_shipped_expert_finds_planted_offsets(late: int) -> None:
    """Six seconds of a synthetic person that no training saw, with a voice that none heard, drawn and really tracked.

    `speaking.npz` is the beginning of the first film that benchmarks/judges.py draws.
    """
    with np.load(Path(__file__).parent / "speaking.npz") as file:
        film = np.full((len(file["places"]), 468, 2), np.nan)
        film[:, file["points"]] = file["places"] / 64  # pixels
        sound = file["sound"].astype(np.float32) / 32768
    step = abs(late) * AUDIO_RATE // FPS
    sound = np.pad(sound, (step, 0)) if late >= 0 else sound[step:]
    found = sync_offset(film, sound[: 150 * AUDIO_RATE // FPS])
    assert found.offset == pytest.approx(late, abs=1.0)
    assert found.confidence > 0.4
    # Another person's words belong to no offset.
    assert sync_offset(film, sound[::-1].copy()).confidence < 0.5 * found.confidence
