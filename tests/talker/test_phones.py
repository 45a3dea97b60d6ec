"""Sound to phones: in time with the log-mel bands, the same however the sound arrives and whatever was decoded before."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import talk3d
from talk3d import phone_decoder
from talk3d.errors import ConfigError
from talk3d.phone_decoder import HOP, PHONES, segments
from talk3d.talker import phones
from talk3d.talker.audio import AudioConfig, Loudness, frame_windows
from talk3d.talker.phones import CONTEXT, PIECE
from talk3d.video.clock import AUDIO_RATE, SAMPLES_PER_FRAME

CONFIG = AudioConfig(ear=False)
PIECE_SECONDS = PIECE * HOP // AUDIO_RATE


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """The shipped sound, nine seconds of speech, brought to the level that frame_windows expects."""
    sound, rate = soundfile.read(Path(talk3d.__file__).parent / "assets" / "drive.flac", dtype="float32")
    assert rate == AUDIO_RATE
    return sound * Loudness.of([sound]).gain


@pytest.fixture(scope="module")
def phrase(voice: np.ndarray) -> np.ndarray:
    """Two seconds of it without a pause; it begins and ends with the voice."""
    return voice[int(1.5 * AUDIO_RATE) : int(3.46 * AUDIO_RATE)]


def windows(sound: np.ndarray, gain: float = 1.0, config: AudioConfig = CONFIG) -> torch.Tensor:
    return torch.cat(list(frame_windows([sound], gain, config)))


def heard(found: torch.Tensor) -> torch.Tensor:
    """The phone channels of windows."""
    return found[:, -len(PHONES) :]


def timeline(found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows as one line of columns [channels, columns], and the sample on which each is centred, by the convention."""
    columns = found.shape[2]
    middle = slice((columns - 4) // 2, (columns - 4) // 2 + 4)  # four columns of 160 samples make a frame
    centres = SAMPLES_PER_FRAME * torch.arange(len(found))[:, None] + 320 + HOP * (torch.arange(columns) - (columns - 1) / 2)
    return found[:, :, middle].permute(1, 0, 2).flatten(1), centres[:, middle].flatten()


def placed(sound: np.ndarray, start: int, seconds: float) -> np.ndarray:
    """A sound in digital silence."""
    whole = np.zeros(int(seconds * AUDIO_RATE), np.float32)
    whole[start : start + len(sound)] = sound
    return whole


def samples(sound: np.ndarray) -> np.ndarray:
    return (sound * 32767).astype(np.int16)


def test_phones_are_those_of_the_model() -> None:
    import pocketsphinx

    lines = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text().splitlines()
    assert sorted({phone for line in lines for phone in line.split()[1:]}) == list(PHONES)
    assert len(PHONES) == 39


def test_the_bands_are_as_without_phones(voice: np.ndarray) -> None:
    found, alone = windows(voice), windows(voice, config=AudioConfig(phones=False, ear=False))
    assert found.shape[1] == CONFIG.channels == CONFIG.bands + 39
    assert alone.shape[1] == AudioConfig(phones=False, ear=False).channels == CONFIG.bands
    assert torch.equal(found[:, : CONFIG.bands], alone)


def test_a_voice_says_one_phone_at_a_time_and_many_in_all(voice: np.ndarray) -> None:
    line, _ = timeline(heard(windows(voice)))
    evidence = (line + 1) / 2
    assert evidence.min() == 0
    assert evidence.max() == 1
    assert evidence.sum(0).max() < 1 + 1e-5
    assert (evidence.amax(1) == 1).sum() > 20
    # It speaks for 7.3 s of the 9: all but a second of the time, some phone is surer than the others.
    assert 6 < float((evidence.amax(0) > 0.5).sum()) * HOP / AUDIO_RATE < 8


def test_phones_are_what_the_decoder_says(phrase: np.ndarray) -> None:
    """Against a decoder of our own: what it hears in the first piece, frame by frame."""
    import pocketsphinx

    line, centres = timeline(heard(windows(phrase)))
    # The columns' centres are frames' centres, and the context lies before the first window's first column.
    first = int(centres[0]) - (CONFIG.columns - 4) // 2 * 160
    before = 205 + CONTEXT * 160 - first
    length = PIECE + 2 * CONTEXT
    model = pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin")
    decoder = pocketsphinx.Decoder(lm=None, allphone=model, lw=2.0, beam=1e-20, pbeam=1e-20, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(samples(np.pad(phrase, (before, length * 160 + 250 - before - len(phrase)))).tobytes(), full_utt=True)
    decoder.end_utt()
    said = np.zeros((len(PHONES), length + 1))
    for segment in decoder.seg():
        if segment.word in PHONES:
            said[PHONES.index(segment.word), segment.start_frame : segment.end_frame + 1] = 1
    smooth = np.stack([np.convolve(row, np.hanning(7) / 3, "same") for row in said])
    inside = (centres > 1000) & (centres < len(phrase) - 1000)
    frames = (centres[inside].int() + before - 205) // 160
    torch.testing.assert_close(line[:, inside], torch.from_numpy(smooth).float()[:, frames] * 2 - 1)


@pytest.mark.parametrize("columns", [32, 24])
@pytest.mark.parametrize("start", [AUDIO_RATE, 50_001, PIECE_SECONDS * AUDIO_RATE - AUDIO_RATE, PIECE_SECONDS * AUDIO_RATE])
def test_phones_begin_and_end_with_the_voice(phrase: np.ndarray, start: int, columns: int) -> None:
    """Also where a piece ends within the phrase, or begins with it; in bands and phones alike."""
    found = windows(placed(phrase, start, start / AUDIO_RATE + 3), config=AudioConfig(columns=columns, ear=False))
    loud = (np.abs(phrase) > 0.02).nonzero()[0]
    for channels, threshold in ((found[:, : CONFIG.bands].mean(1, keepdim=True), -0.8), (heard(found), 0.0)):
        line, centres = timeline(channels)
        active = centres[line.amax(0) > threshold]
        assert float(active[0]) == pytest.approx(start + loud[0], abs=0.04 * AUDIO_RATE)
        assert float(active[-1]) == pytest.approx(start + loud[-1], abs=0.04 * AUDIO_RATE)


def test_phones_move_with_the_sound(voice: np.ndarray) -> None:
    """By a whole piece, that is: then the decoder is given the same."""
    frames = PIECE * HOP // SAMPLES_PER_FRAME
    later = windows(placed(voice, frames * SAMPLES_PER_FRAME, PIECE_SECONDS + len(voice) / AUDIO_RATE))
    assert torch.equal(heard(later)[frames:], heard(windows(voice)))


@pytest.mark.parametrize("size", [641, 3 * AUDIO_RATE, PIECE * HOP, PIECE * HOP + 1])
def test_phones_do_not_depend_on_the_chunks(voice: np.ndarray, size: int) -> None:
    sound = np.tile(voice, 5)[: 2 * PIECE * HOP + 5 * AUDIO_RATE + 77]  # three pieces, the last one in part
    chunks = [sound[i : i + size] for i in range(0, len(sound), size)]
    found = torch.cat(list(frame_windows(chunks, 1.0, CONFIG)))
    assert torch.equal(found, windows(sound))
    assert len(found) == -(-len(sound) // SAMPLES_PER_FRAME)


def test_pieces_agree_where_they_meet(voice: np.ndarray) -> None:
    """What a word is does not depend on its place: the phones of a sound moved by half a piece are mostly the same."""
    sound = np.tile(voice, 2)
    frames = PIECE * HOP // SAMPLES_PER_FRAME // 2
    moved = windows(placed(sound, frames * SAMPLES_PER_FRAME, PIECE_SECONDS / 2 + len(sound) / AUDIO_RATE))[frames:]
    one, other = timeline(heard(windows(sound)))[0], timeline(heard(moved))[0]
    spoken = one.amax(0) > 0
    assert (one.argmax(0) == other.argmax(0))[spoken].float().mean() > 0.6


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (640, 1), (641, 2), (1600, 3), (32001, 51)])
def test_short_sounds_have_windows_too(voice: np.ndarray, samples: int, frames: int) -> None:
    blocks = list(frame_windows([voice[2 * AUDIO_RATE : 2 * AUDIO_RATE + samples]], 1.0, CONFIG))
    assert sum(map(len, blocks)) == frames
    assert all(block.shape[1:] == (CONFIG.channels, CONFIG.columns) for block in blocks)


@pytest.mark.parametrize("level", [0.0, 5e-5])
def test_silence_is_no_phone_and_asks_no_decoder(level: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phone_decoder, "_decoder", lambda: pytest.fail("there is nothing to decode"))
    hiss = level * np.random.default_rng(0).uniform(-1, 1, 10 * AUDIO_RATE).astype(np.float32)
    assert (heard(windows(hiss)) == -1).all()
    assert (windows(0 * hiss) == -1).all()


def test_silence_beside_a_voice_is_no_phone(voice: np.ndarray) -> None:
    """Left alone, the decoder hears seconds of ZH around this word."""
    word = voice[9120:18600]
    line, centres = timeline(heard(windows(placed(word, 50_000, 10))))
    far = (centres < 49_000) | (centres > 51_000 + len(word))
    assert (line[:, far] == -1).all()
    assert (line[:, ~far] > 0).any()


def test_a_decoder_that_hears_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch, voice: np.ndarray) -> None:
    assert segments(np.ones(100, np.int16)) == []  # less than one frame
    monkeypatch.setattr(phones, "segments", lambda sound: [])
    assert (heard(windows(voice)) == -1).all()


def test_phones_do_not_depend_on_what_was_decoded_before(voice: np.ndarray) -> None:
    sounds = {start: samples(voice[start * AUDIO_RATE : (start + 3) * AUDIO_RATE]) for start in (0, 1, 3, 6)}
    fresh = {}
    for start, sound in sounds.items():
        phone_decoder._decoder.cache_clear()
        fresh[start] = segments(sound)
    for start in (0, 1, 3, 6, 6, 3, 1, 0):
        assert segments(sounds[start]) == fresh[start]


def by_its_own_class(sound: np.ndarray) -> list[tuple[str, int, int]]:
    """What pocketsphinx says by itself."""
    decoder = phone_decoder._new_decoder()
    decoder.start_utt()
    decoder.process_raw(sound.tobytes(), full_utt=True)
    decoder.end_utt()
    return [(segment.word, segment.start_frame, segment.end_frame + 1) for segment in decoder.seg()]


def test_phones_are_those_of_the_decoders_own_class(voice: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which segments are decoded without, and with where its library shows no functions."""
    sound = samples(voice[: 4 * AUDIO_RATE])
    truth = by_its_own_class(sound)
    assert len(truth) > 10
    phone_decoder._decoder.cache_clear()
    assert segments(sound) == truth
    assert isinstance(phone_decoder._decoder(), phone_decoder._UnlockedDecoder)

    def hidden(path: str) -> object:
        return object()

    with monkeypatch.context() as patched:
        patched.setattr("ctypes.CDLL", hidden)
        phone_decoder._decoder.cache_clear()
        assert segments(sound) == truth
        assert not isinstance(phone_decoder._decoder(), phone_decoder._UnlockedDecoder)
    phone_decoder._decoder.cache_clear()


def test_other_threads_run_while_phones_are_decoded(voice: np.ndarray) -> None:
    """The decoder's own class lets them run once or twice, before and after."""
    sound, turns, done = samples(voice), 0, threading.Event()
    segments(sound[:1600])

    def count() -> None:
        nonlocal turns
        while not done.wait(0.001):
            turns += 1

    thread = threading.Thread(target=count)
    thread.start()
    segments(sound)
    done.set()
    thread.join()
    assert turns > 10


def test_threads_take_turns_at_the_decoder(voice: np.ndarray) -> None:
    sounds = [samples(voice[start * AUDIO_RATE : (start + 2) * AUDIO_RATE]) for start in (0, 2, 4, 6)]
    alone = [segments(sound) for sound in sounds]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(segments, sounds * 2)) == alone * 2


def test_gain_is_the_factor_on_the_sound(voice: np.ndarray) -> None:
    short = voice[: 4 * AUDIO_RATE]
    assert torch.equal(heard(windows(0.25 * short, 4.0)), heard(windows(short)))  # exact: powers of two
    clipped = (100.0 * short).clip(-1, 1)  # and does not wrap around
    assert torch.equal(heard(windows(short, 100.0)), heard(windows(clipped)))


def test_columns_of_another_length_have_no_phones() -> None:
    assert AudioConfig(hop=80, phones=False, ear=False).channels == 40
    with pytest.raises(ConfigError, match=r"`hop` is 80. Set it to 160, or `phones` and `ear` to False"):
        AudioConfig(hop=80)
