"""Live sound to features: as in the file where all is there to be heard, filled in where it is not, in constant memory."""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import talk3d
from talk3d.phone_decoder import PHONES
from talk3d.talker.audio import SPEECH_RMS, AudioConfig, Loudness, RunningLoudness, frame_windows, silent_window
from talk3d.talker.live import Line, LiveConfig, LiveFeatures, LivePhones
from talk3d.video.clock import AUDIO_RATE, SAMPLES_PER_FRAME

CONFIG = AudioConfig()
AROUND = 8
BANDS, HEARD = slice(0, CONFIG.bands), slice(CONFIG.bands, CONFIG.bands + len(PHONES))
EAR = slice(CONFIG.bands + len(PHONES), None)


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """The shipped sound, nine seconds of speech, at the level that features expect."""
    sound, rate = soundfile.read(Path(talk3d.__file__).parent / "assets" / "drive.flac", dtype="float32")
    assert rate == AUDIO_RATE
    return (sound * Loudness.of([sound]).gain).astype(np.float32)


def live(sound: np.ndarray, config: AudioConfig = CONFIG, look_ahead: int | None = None, fill: str = "repeat") -> torch.Tensor:
    """All frames' windows [T, W, M, K], each heard as soon as its look-ahead is there."""
    features = LiveFeatures(config, AROUND, LiveConfig(gain=1.0, fill=fill))
    look_ahead = features.look_ahead if look_ahead is None else look_ahead
    frames, heard, found = -(-len(sound) // SAMPLES_PER_FRAME), 0, []
    padded = np.pad(sound, (0, look_ahead + 2 * SAMPLES_PER_FRAME))
    for frame in range(frames):
        while heard < (frame + 1) * SAMPLES_PER_FRAME + look_ahead:
            size = ((frame + 1) * SAMPLES_PER_FRAME + look_ahead - heard - 1) % SAMPLES_PER_FRAME + 1
            features.hear(padded[heard : heard + size])
            heard += size
        found.append(features.around(frame, frames if heard > len(sound) else None))
    return torch.stack(found)


def filed(sound: np.ndarray, config: AudioConfig = CONFIG) -> torch.Tensor:
    """The same from `frame_windows`."""
    windows = torch.cat(list(frame_windows([sound], 1.0, config)))
    silence = silent_window(config)
    before, after = silence.expand(AROUND // 2, -1, -1), silence.expand(AROUND - AROUND // 2 - 1, -1, -1)
    return torch.cat([before, windows, after]).unfold(0, AROUND, 1).movedim(-1, 1)


@pytest.mark.parametrize("columns", [32, 24])
def test_bands_and_ear_are_those_of_the_file(voice: np.ndarray, columns: int) -> None:
    """From the first frame to the last, also where the sound does not end with a frame."""
    sound = voice[: 3 * AUDIO_RATE + 100]
    config = AudioConfig(columns=columns)
    found, known = live(sound, config), filed(sound, config)
    assert found.shape == known.shape
    torch.testing.assert_close(found[:, :, BANDS], known[:, :, BANDS], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, :, EAR], known[:, :, EAR], atol=1e-4, rtol=0)


def test_look_ahead_is_what_bands_and_ear_know_of_and_no_more(voice: np.ndarray) -> None:
    """A sample less, and something differs; by the receptive field of the ear and of the windows (see `LiveFeatures`)."""
    sound = voice[AUDIO_RATE : 2 * AUDIO_RATE]
    for config, samples in ((CONFIG, 7800), (AudioConfig(phones=False, ear=False), 4280), (AudioConfig(phones=False), 7800)):
        assert LiveFeatures(config, AROUND, LiveConfig()).look_ahead == samples
    bands = AudioConfig(phones=False, ear=False)
    full, known = live(sound, bands, 4280), filed(sound, bands)
    assert torch.equal(full, known)
    assert not torch.equal(live(sound, bands, 4280 - 160)[:15], known[:15])
    both = AudioConfig(phones=False)
    late = (live(sound, both, 7800 - 160)[:12] - filed(sound, both)[:12]).abs().amax((0, 1, 2))
    assert late[-4:].max() > 1e-4, "the ear's last frame knows of the last column"
    assert late[:-4].max() < 1e-4, "and no other does"


def test_phones_are_mostly_those_of_the_file(voice: np.ndarray) -> None:
    found, known = (some[:, AROUND // 2, HEARD, 14:18] for some in (live(voice), filed(voice)))  # a frame's own columns
    spoken = known.amax(1) > 0
    same = (found.argmax(1) == known.argmax(1)) & (found.amax(1) > 0)
    assert same[spoken].float().mean() > 0.7
    # One line moved by a fifth of a second agrees no better than chance.
    assert (found.roll(5, 0).argmax(1) == known.argmax(1))[spoken].float().mean() < 0.3


def test_digital_silence_is_the_silence_that_avatars_learnt() -> None:
    found = live(np.zeros(2 * AUDIO_RATE, np.float32))
    torch.testing.assert_close(found, silent_window(CONFIG).expand_as(found), atol=1e-4, rtol=0)


@pytest.mark.parametrize("fill", ["repeat", "silence"])
def test_what_is_not_there_yet_is_filled_in(voice: np.ndarray, fill: str) -> None:
    found, known = live(voice[: 2 * AUDIO_RATE], look_ahead=0, fill=fill), filed(voice[: 2 * AUDIO_RATE])
    frame = found[30, :, BANDS]  # of the middle of the sound
    # Sound ends with the frame: 18 columns of its own window lie within it, and a column's window ends 200 samples later.
    own, true = frame[AROUND // 2], known[30, AROUND // 2, BANDS]
    there = 14 + 4 - 1
    assert torch.equal(own[:, :there], true[:, :there])
    last = own[:, there - 1 : there] if fill == "repeat" else torch.full((CONFIG.bands, 1), -1.0)
    assert torch.equal(own[:, there:], last.expand(-1, CONFIG.columns - there))


def test_a_line_keeps_its_end_and_can_be_rewritten() -> None:
    line = Line(torch.tensor([-1.0]), 5)
    assert line.take(-5, 2, "repeat").flatten().tolist() == [-1] * 7
    line.put(0, torch.arange(3.0)[:, None])
    line.put(2, torch.tensor([[7.0], [8.0], [9.0], [10.0]]))
    assert line.known == 6
    assert line.take(1, 8, "repeat").flatten().tolist() == [1, 7, 8, 9, 10, 10, 10]
    assert line.take(5, 8, "silence").flatten().tolist() == [10, -1, -1]
    assert line.take(7, 9, "repeat").flatten().tolist() == [10, 10]
    line.put(0, torch.arange(20.0)[:, None])  # further back than it remembers
    assert line.take(15, 20, "repeat").flatten().tolist() == [15, 16, 17, 18, 19]
    with pytest.raises(AssertionError, match="must be kept"):
        line.take(14, 20, "repeat")


def test_utterances_end_in_pauses_and_phones_go_on(voice: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word said again and again with pauses is heard the same after each cut."""
    phrase = np.pad(voice[int(1.5 * AUDIO_RATE) : int(3.46 * AUDIO_RATE)], (0, int(1.04 * AUDIO_RATE)))
    phones, cuts = LivePhones(CONFIG, 400), []
    monkeypatch.setattr(phones._listener, "cut", lambda cut=phones._listener.cut: (cuts.append(phones.line.known), cut()))
    heard = []
    for piece in np.tile(phrase, 8).reshape(-1, SAMPLES_PER_FRAME):
        phones.hear(piece)
        if len(heard) < phones.line.known // 300:
            heard.append(phones.take(phones.line.known // 300 * 300 - 300, phones.line.known // 300 * 300, "repeat").argmax(1))
    assert cuts
    for cut in cuts:
        assert 1000 <= cut <= 2300
        assert (cut - 15) % 300 > 220, "in the pause; the first column lies 14 before the sound"
    spoken = slice(20, 200)
    for again in heard[5:]:
        assert (again[spoken] == heard[4][spoken]).float().mean() > 0.8


def test_speech_without_a_pause_is_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    phones, cuts = LivePhones(CONFIG, 100), []
    monkeypatch.setattr(phones._listener, "cut", lambda cut=phones._listener.cut: (cuts.append(phones.line.known), cut()))
    monkeypatch.setattr("talk3d.talker.live.UTTERANCE", 100)
    monkeypatch.setattr("talk3d.talker.live.LONGEST", 200)
    time = np.arange(6 * AUDIO_RATE) / AUDIO_RATE
    vowel = (0.1 * sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20))).astype(np.float32)
    for piece in vowel.reshape(-1, SAMPLES_PER_FRAME):
        phones.hear(piece)
    assert np.diff(cuts).max() <= 204
    assert len(cuts) >= 2


def test_loudness_ends_at_the_gain_of_the_recording() -> None:
    """Speech twice as loud as assumed, with pauses: within 2 dB after two seconds of it, within 0.5 dB in the end."""
    rng = np.random.default_rng(0)
    sound = (rng.standard_normal(20 * AUDIO_RATE) * 2 * SPEECH_RMS).astype(np.float32)
    sound[4 * AUDIO_RATE : 6 * AUDIO_RATE] *= 0.003
    loudness = RunningLoudness()
    assert loudness.gain == 1
    gains = [loudness.add(piece) for piece in sound.reshape(-1, SAMPLES_PER_FRAME)]
    right = Loudness.of([sound]).gain
    assert right == pytest.approx(0.5, rel=0.02)
    assert gains[49] == pytest.approx(right, rel=0.26)
    assert gains[-1] == pytest.approx(right, rel=0.06)
    assert gains[149] == gains[101], "a pause changes nothing"


def test_loudness_believes_in_quiet_speech_after_a_while() -> None:
    """And not in the room: noise 40 dB below speech stays there for a minute; a voice that fell by 26 dB comes back."""
    rng = np.random.default_rng(0)
    piece = rng.standard_normal((25 * 180, SAMPLES_PER_FRAME)).astype(np.float32)
    loudness = RunningLoudness()
    for some in piece[:500]:
        loudness.add(some * SPEECH_RMS)
    assert loudness.gain == pytest.approx(1.0, rel=0.05)
    for some in piece[: 60 * 25]:
        loudness.add(some * SPEECH_RMS * 0.01)
    assert loudness.gain == pytest.approx(1.0, rel=0.05)
    for some in piece[: 60 * 25]:
        loudness.add(some * SPEECH_RMS * 0.05)
    assert loudness.gain == pytest.approx(20.0, rel=0.1)


@pytest.mark.parametrize("level", [0.0, 0.001])
def test_a_room_before_anybody_speaks_changes_no_gain(level: float) -> None:
    """Nor does it count afterwards: the gain is that of the voice."""
    rng = np.random.default_rng(0)
    room, voice = rng.standard_normal((2, 500, SAMPLES_PER_FRAME)).astype(np.float32)
    loudness = RunningLoudness()
    assert [loudness.add(level * piece) for piece in room] == [1.0] * 500
    for piece in voice:
        loudness.add(0.03 * piece)
    assert loudness.gain == pytest.approx(SPEECH_RMS / 0.03, rel=0.05)


def test_memory_is_constant(voice: np.ndarray) -> None:
    """Eight seconds of sound more take no number more."""
    features = LiveFeatures(CONFIG, AROUND, LiveConfig())
    pieces = np.resize(voice, (600, SAMPLES_PER_FRAME))
    sizes = []
    for number, piece in enumerate(pieces):
        features.hear(piece)
        if number % 200 == 199:
            gc.collect()
            sizes.append(held(features))
    assert max(sizes) < 1.1 * min(sizes)
    assert max(sizes) < 2e6


def held(thing: object) -> int:
    """Bytes of arrays and lists under an object's fields; networks do not grow."""
    if isinstance(thing, torch.Tensor):
        return thing.untyped_storage().nbytes()
    if isinstance(thing, np.ndarray):
        return (thing if thing.base is None else thing.base).nbytes
    if hasattr(thing, "__len__") and not isinstance(thing, (str, bytes)):
        return sys.getsizeof(thing)
    if isinstance(thing, torch.nn.Module) or not hasattr(thing, "__dict__"):
        return 0
    return sum(held(value) for value in vars(thing).values())
