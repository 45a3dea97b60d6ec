"""Training of the ear, tiny: it learns, an interruption changes nothing, and silence stays silence in every room."""

from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d.heads.subject import Phone
from talk3d.judges.ear import LEVEL, VISEMES, Ear, EarDims
from talk3d.pretrain import ear
from talk3d.pretrain.ear import Clips, another_voice, at_level, ear_losses, heard_visemes, shapes_of
from talk3d.pretrain.judges import CLIP, JudgeConfig, fit
from talk3d.pretrain.speakers import Recording

TINY = EarDims(hidden=12, width=16, blocks=1, size=8)


def babble(seed: int, seconds: float = 8.0) -> Recording:
    """Two sounds that an ear can tell apart: a low hum for open, a hiss for teeth, and silence between them."""
    rng = np.random.default_rng(seed)
    samples, phones, time = np.zeros(round(16000 * seconds), np.float32), [], 0.3
    while time < seconds - 0.5:
        name, length = ("aa", "SS")[rng.integers(2)], rng.uniform(0.15, 0.3)
        start, stop = round(16000 * time), round(16000 * (time + length))
        clock = np.arange(stop - start) / 16000
        tone = np.sin(2 * np.pi * rng.uniform(150, 250) * clock) if name == "aa" else rng.standard_normal(stop - start)
        samples[start:stop] = 0.2 * tone
        phones.append(Phone(time, time + length, name))
        time += length + rng.uniform(0.05, 0.3)
    return Recording(samples, phones)


@pytest.fixture(scope="module")
def clips() -> Clips:
    return Clips.of([babble(seed) for seed in range(6)], 24, 0, True, lambda done: None)


def test_shapes_sum_to_one_and_follow_the_phones() -> None:
    recording = Recording(np.zeros(16000, np.float32), [Phone(0.2, 0.5, "aa"), Phone(0.5, 0.7, "PP")])
    shapes = shapes_of(recording, 25)
    np.testing.assert_allclose(shapes.sum(0), 1, atol=1e-5)
    assert shapes[VISEMES.index("aa"), 8] > 0.9
    assert shapes[VISEMES.index("PP"), 14] > 0.9
    assert shapes[VISEMES.index("rest"), 22] > 0.9


def test_speech_is_brought_to_the_level_whatever_its_pauses() -> None:
    speech = babble(0).samples
    loud = np.abs(speech) > 0
    assert float(np.sqrt((at_level(speech)[loud] ** 2).mean())) == pytest.approx(LEVEL, rel=0.15)
    assert float(np.sqrt((at_level(speech * 0.01)[loud] ** 2).mean())) == pytest.approx(LEVEL, rel=0.15)


def test_other_voices_keep_silence_and_their_words() -> None:
    bands = torch.full((3, 40, 50), -1.0)
    bands[:, 10:15, 20:30] = 0.5
    varied = another_voice(bands, np.random.default_rng(0))
    assert (varied[:, :, :20] == -1).all()
    assert (varied[:, :, 20:30].amax(1) > 0).all()
    assert not torch.equal(varied[0], varied[1])


def test_it_learns_and_continues_as_if_it_had_not_been_interrupted(clips: Clips, tmp_path: Path) -> None:
    config = JudgeConfig(steps=160, batch=8, learning_rate=8e-3, save_every=30)

    def fresh() -> Ear:
        torch.manual_seed(0)
        return Ear(TINY)

    whole = fresh()
    assert fit(whole, ear_losses(clips, config), tmp_path / "whole", config, lambda *now: None)
    heard = heard_visemes(whole, clips)
    assert set(heard) == {"aa", "SS", "rest"}, "what nobody says has no score"
    assert min(heard.values()) > 0.7

    class KilledError(Exception):
        pass

    def die(step: int, steps: int, text: str) -> None:
        if step == 60:
            raise KilledError

    with pytest.raises(KilledError):
        fit(fresh(), ear_losses(clips, config), tmp_path / "parts", config, die)
    parts = fresh()
    assert fit(parts, ear_losses(clips, config), tmp_path / "parts", config, lambda *now: None)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_an_ear_is_trained_from_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ear, "CLIPS", 3)
    trained = ear.train_ear([babble(1)], tmp_path, JudgeConfig(steps=2, batch=2), lambda *now: None)
    assert trained is not None
    assert not any(parameter.requires_grad for parameter in trained.parameters())
    code, visemes = trained(torch.zeros(1, 40, 4 * CLIP))
    assert code.shape[2] == visemes.shape[2] == CLIP
