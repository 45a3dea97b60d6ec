"""A recogniser's logits in windows: the same however the sound is cut, and each where it was heard."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d.errors import ConfigError, ModelMissingError
from talk3d.talker.audio import AudioConfig, audio_config, frame_windows
from talk3d.talker.logits import STEP, LogitsConfig, hub_recogniser, logit_windows

CONFIG = LogitsConfig("hf:unknown", channels=2)


def loudest(sound: np.ndarray) -> torch.Tensor:
    """A recogniser of which each step is known: the number in its samples, and one. Like wav2vec2 it leaves out the last."""
    steps = torch.from_numpy(sound.reshape(-1, STEP)[:-1, 0].copy())
    return torch.stack([steps, torch.ones(len(steps))], 1)


def ramp(steps: int) -> np.ndarray:
    """Sound that says in each step how many came before."""
    return np.repeat(np.arange(steps, dtype=np.float32), STEP)


def windows(sound: np.ndarray, cuts: int = 1) -> torch.Tensor:
    return torch.cat(list(logit_windows(np.array_split(sound, cuts), CONFIG, loudest)))


def test_windows_of_a_ramp_are_the_documented_ones() -> None:
    """Method, appendix A, but for its last window, which no video frame goes with."""
    found = windows(ramp(20))
    assert found.shape == (10, 2, 16)
    assert found[0, 0].tolist() == [0.0] * 8 + [float(n) for n in range(8)]
    assert found[1, 0].tolist() == [0.0] * 6 + [float(n) for n in range(10)]
    assert found[4, 0].tolist() == [float(n) for n in range(16)]
    assert found[9, 0].tolist() == [float(n) for n in range(10, 20)] + [0.0] * 6
    assert found[9, 1].tolist() == [1.0] * 10 + [0.0] * 6


@pytest.mark.parametrize("steps", [1, 2, 49, 50, 51, 70, 99, 100, 101, 233])
def test_every_step_is_heard_in_its_place(steps: int) -> None:
    found = windows(ramp(steps))
    assert len(found) == -(-steps // 2)
    for frame, window in enumerate(found):
        expected = [float(n) if 0 <= n < steps else 0.0 for n in range(2 * frame - 8, 2 * frame + 8)]
        assert window[0].tolist() == expected


@pytest.mark.parametrize("cuts", [2, 7, 300])
def test_cuts_do_not_matter(cuts: int) -> None:
    sound = ramp(181)[: -STEP // 3]
    assert torch.equal(windows(sound, cuts), windows(sound))


def test_nothing_is_read_far_ahead() -> None:
    taken = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield np.zeros(2 * STEP, np.float32)

    stream = logit_windows(source(), CONFIG, loudest)
    given = sum(len(next(stream)) for _ in range(5))
    assert taken < given + 40


def test_silence_has_no_windows() -> None:
    assert list(logit_windows([], CONFIG, loudest)) == []


def test_another_recogniser_than_the_avatars_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"makes 2 logits, 69 times in 1\.4 s, but the avatar was trained with 44"):
        list(logit_windows([ramp(9)], LogitsConfig("hf:other"), loudest))


def test_features_are_told_apart_by_their_extractor() -> None:
    assert audio_config({"extractor": "hf:some/model", "channels": 44, "columns": 16}) == LogitsConfig("hf:some/model")
    assert audio_config({"bands": 12, "ear": True}) == AudioConfig(bands=12)
    assert audio_config({"bands": 12}) == AudioConfig(bands=12, ear=False), "avatars from before there was an ear"
    with pytest.raises(ConfigError, match="`deepspeech` in windows of 16: no such features are known"):
        audio_config({"extractor": "deepspeech"})


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    hub_recogniser.cache_clear()
    with pytest.raises(ModelMissingError, match=r"hears through `hf:some/model`.* pip install transformers"):
        next(frame_windows([ramp(9)], 1.0, LogitsConfig("hf:some/model")))


def test_nothing_is_fetched_while_speaking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recogniser that is not on this machine is an error that says how to fetch it."""
    asked = []

    def look(name: str, **options: object) -> None:
        asked.append((name, options))
        raise OSError("not in the cache.")

    feature_extractor = types.SimpleNamespace(from_pretrained=look)
    fake = types.SimpleNamespace(AutoFeatureExtractor=feature_extractor, AutoModelForCTC=feature_extractor)
    monkeypatch.setitem(sys.modules, "transformers", fake)
    hub_recogniser.cache_clear()
    with pytest.raises(ModelMissingError, match=r"not on this machine.*huggingface-cli download some/model"):
        next(frame_windows([ramp(9)], 1.0, LogitsConfig("hf:some/model")))
    assert [(name, options["local_files_only"]) for name, options in asked] == [("some/model", True)]


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs `transformers`, which is optional")
def test_a_wav2vec2_of_random_weights(tmp_path: Path) -> None:
    import transformers

    config = transformers.Wav2Vec2Config(
        vocab_size=11, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.Wav2Vec2ForCTC(config).save_pretrained(tmp_path, safe_serialization=True)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    sound = np.random.default_rng(0).normal(0, 0.1, 30000).astype(np.float32)
    hears = LogitsConfig(f"hf:{tmp_path}", channels=11)
    found = torch.cat(list(frame_windows([sound], 1.0, hears)))
    assert found.shape == (47, 11, 16)
    assert found.isfinite().all()
    assert found[20].std() > 0
