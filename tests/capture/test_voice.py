"""Voice activity: the network is silero's, and finds where somebody speaks."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from talk3d.capture import voice as room
from talk3d.capture.voice import BLOCK, CHUNK, CONTEXT, VoiceNetwork, load_voice, voice
from talk3d.errors import ModelMissingError

ASSETS = Path(room.__file__).parents[1] / "assets"
DATA = Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0]) / "data"
NAMES = {
    "stft_conv.weight": "stft.forward_basis_buffer",
    **{f"conv{n + 1}.{kind}": f"encoder.{n}.reparam_conv.{kind}" for n in range(4) for kind in ("weight", "bias")},
    **{f"lstm_cell.{kind}_{side}": f"decoder.rnn.{kind}_{side}" for kind in ("weight", "bias") for side in ("ih", "hh")},
    **{f"final_conv.{kind}": f"decoder.decoder.2.{kind}" for kind in ("weight", "bias")},
}
"""Of the same weights here and in the package's own TorchScript."""


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return soundfile.read(ASSETS / "drive.flac", dtype="float32")[0]


def test_the_network_is_the_one_that_the_package_runs(speech: np.ndarray) -> None:
    """With the weights of the package's own TorchScript, it says what that says, chunk by chunk."""
    theirs = torch.jit.load(str(DATA / "silero_vad.jit"))
    weights = dict(theirs._model.named_parameters()) | dict(theirs._model.named_buffers())
    ours = VoiceNetwork()
    ours.load_state_dict({name: weights[other] for name, other in NAMES.items()})
    count = len(speech) // CHUNK
    sound = torch.from_numpy(speech[: count * CHUNK])
    with torch.no_grad():
        expected = torch.cat([theirs(chunk, 16000).flatten() for chunk in sound.split(CHUNK)])
        windows = torch.nn.functional.pad(sound, (CONTEXT, 0)).unfold(0, CONTEXT + CHUNK, CHUNK)
        found = ours(windows, None)[0]
        first, state = ours(windows[:100], None)
        second, _ = ours(windows[100:], state)
    assert expected.min() < 0.05
    assert expected.max() > 0.95
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat([first, second]), found, atol=1e-5, rtol=0)  # in blocks as at once


def test_speech_between_pauses_is_found_where_it_is(speech: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    quiet = rng.normal(0, 1e-3, 3 * 16000).astype(np.float32)
    words = speech[: 3 * 16000]
    found = voice(np.concatenate([quiet, words, quiet, words, quiet])) > 0.5
    assert len(found) == 15 * 25
    for start, speaks in ((0, False), (3, True), (6, False), (9, True), (12, False)):
        middle = found[start * 25 + 15 : start * 25 + 60]  # the detector takes some frames to fall silent
        assert (middle.mean() > 0.7) == speaks, start
        assert speaks or middle.mean() < 0.1, start


def test_tones_noise_and_silence_are_no_voice() -> None:
    time = np.arange(5 * 16000) / 16000
    rng = np.random.default_rng(1)
    for sound in (np.zeros_like(time), 0.1 * np.sin(2 * np.pi * 1000 * time), rng.normal(0, 0.05, len(time))):
        assert (voice(sound.astype(np.float32)) > 0.5).mean() < 0.05


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (639, 0), (640, 1), (1279, 1), (64000, 100)])
def test_there_is_a_number_for_every_whole_frame(samples: int, frames: int) -> None:
    found = voice(np.zeros(samples, np.float32))
    assert found.shape == (frames,)
    assert ((found >= 0) & (found <= 1)).all()


def test_long_sound_is_judged_in_blocks_that_leave_no_seam(speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = voice(speech)
    monkeypatch.setattr(room, "BLOCK", 37)
    assert len(speech) / CHUNK < BLOCK
    np.testing.assert_allclose(voice(speech), whole, atol=1e-5)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    load_voice.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelMissingError, match=r"pip install --no-deps silero-vad"):
        load_voice()


def test_the_package_is_not_imported() -> None:
    """It would set torch to one thread for everybody."""
    code = "import sys, numpy as np; from talk3d.capture.voice import voice; voice(np.zeros(6400, np.float32)); "
    done = subprocess.run(
        [sys.executable, "-c", code + "assert 'silero_vad' not in sys.modules"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
