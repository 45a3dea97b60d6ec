"""Training the talker: resumable, deterministic, blind to test frames."""

import dataclasses

import numpy as np
import pytest
import torch

from talk3d.artifacts import load_state
from talk3d.errors import CheckpointError
from talk3d.talker.clip import crop_numbers
from talk3d.talker.train import STATE, Talker, TrainConfig, train_talker

CONFIG = TrainConfig(steps=4, minutes=None, frames_per_step=4, listen_steps=4, superres_from=0.5, save_seconds=0.0)


def weights(talker: Talker) -> dict[str, torch.Tensor]:
    modules = {"n": talker.network, "s": talker.generator.superresolution}
    return {f"{n}.{k}": v.clone() for n, m in modules.items() for k, v in m.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_killed_and_continued_equals_uninterrupted(tiny_subject, tiny_capture, tmp_path):
    whole = weights(train_talker(tiny_subject, tiny_capture, tmp_path / "whole", CONFIG, lambda part, text: None))

    class KilledError(Exception):
        pass

    def die(part: float, text: str) -> None:
        if text.startswith("step 2"):
            raise KilledError

    with pytest.raises(KilledError):
        train_talker(tiny_subject, tiny_capture, tmp_path / "parts", CONFIG, die)
    assert load_state(tmp_path / "parts" / STATE)[1]["step"] == 2
    parts = weights(train_talker(tiny_subject, tiny_capture, tmp_path / "parts", CONFIG, lambda part, text: None))
    assert equal(whole, parts)


def test_test_frames_leave_no_trace(tiny_subject, tiny_prior, tiny_capture, make_capture, tmp_path):
    corrupted = make_capture(tmp_path / "corrupted", tiny_prior.hash, test_noise=True)
    results = []
    for name, capture in (("clean", tiny_capture), ("corrupted", corrupted)):
        results.append(weights(train_talker(tiny_subject, capture, tmp_path / name, CONFIG, lambda part, text: None)))
    assert equal(*results)


def test_training_frames_do_leave_a_trace(tiny_subject, tiny_capture, tmp_path):
    """The canary of the test above: it must be able to see a difference."""
    first = weights(train_talker(tiny_subject, tiny_capture, tmp_path / "a", CONFIG, lambda part, text: None))
    moved = dataclasses.replace(tiny_subject, yaw=tiny_subject.yaw + 0.1)
    second = weights(train_talker(moved, tiny_capture, tmp_path / "b", CONFIG, lambda part, text: None))
    assert not equal(first, second)


def test_other_settings_or_subject_are_refused(tiny_subject, tiny_capture, tmp_path):
    train_talker(tiny_subject, tiny_capture, tmp_path, CONFIG, lambda part, text: None)
    with pytest.raises(CheckpointError, match="other settings"):
        train_talker(
            tiny_subject, tiny_capture, tmp_path, dataclasses.replace(CONFIG, learning_rate=1e-4), lambda part, text: None
        )
    with pytest.raises(CheckpointError, match="another subject"):
        train_talker(dataclasses.replace(tiny_subject, hash="other"), tiny_capture, tmp_path, CONFIG, lambda part, text: None)


def test_longer_training_continues(tiny_subject, tiny_capture, tmp_path):
    train_talker(tiny_subject, tiny_capture, tmp_path, CONFIG, lambda part, text: None)
    train_talker(tiny_subject, tiny_capture, tmp_path, dataclasses.replace(CONFIG, steps=6), lambda part, text: None)
    assert load_state(tmp_path / STATE)[1]["step"] == 6


def test_crop_numbers_of_a_known_similarity():
    scale, roll = 2.0, 0.1
    linear = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    centre = np.array([30.0, 20.0])
    affine = np.concatenate([linear, (32 - linear @ centre)[:, None]], 1)[None]
    numbers = crop_numbers(affine, 64)[0]
    np.testing.assert_allclose(numbers, [30 / 32, 20 / 32, np.log(2), roll], atol=1e-12)


def test_a_prior_without_expressions_leaves_all_to_the_unet(tiny_subject, tiny_capture, tmp_path):
    plain = dataclasses.replace(tiny_subject, expressions={})
    talker = train_talker(plain, tiny_capture, tmp_path, CONFIG, lambda part, text: None)
    assert talker.network.modes.names == ()
    assert talker.network.unet.out.weight.abs().max() > 0
