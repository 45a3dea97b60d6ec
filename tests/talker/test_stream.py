"""Speaking live: the frames of the file, whatever the chunks, each as soon as its look-ahead is there and not before."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import talk3d
from talk3d.errors import ConfigError, MediaError
from talk3d.talker.audio import Loudness, silent_window
from talk3d.talker.drive import Camera
from talk3d.talker.live import LiveConfig
from talk3d.talker.logits import LogitsConfig
from talk3d.talker.speak import SpeakConfig, Speaker, speak
from talk3d.talker.stream import Stream
from talk3d.video.clock import AUDIO_RATE, SAMPLES_PER_FRAME
from talk3d.video.write import VideoWriter

QUIET = SpeakConfig(mark=False)


@pytest.fixture(scope="module")
def speaker(avatar: Path) -> Speaker:
    return Speaker(avatar)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """More than a second of a voice, which does not end with a frame."""
    voice, rate = soundfile.read(Path(talk3d.__file__).parent / "assets" / "drive.flac", dtype="float32")
    assert rate == AUDIO_RATE
    return voice[24_000:43_277]


def cut(sound: np.ndarray, size: int) -> list[np.ndarray]:
    return [sound[i : i + size] for i in range(0, len(sound), size)]


def frames_of(
    speaker: Speaker, chunks: list[np.ndarray], config: SpeakConfig = QUIET, live: LiveConfig | None = None
) -> np.ndarray:
    return np.stack(list(speaker.stream(chunks, config, live)))


@pytest.mark.parametrize("size", [1, 333, 640, 641, 7000])
def test_frames_do_not_depend_on_the_chunks(speaker: Speaker, sound: np.ndarray, size: int) -> None:
    sound = sound[: 8 * SAMPLES_PER_FRAME + 5] if size == 1 else sound
    chunks = [np.zeros(0, np.float32), *cut(sound, size), np.zeros(0, np.float32)]
    for live in (LiveConfig(None), LiveConfig(look_ahead=0.013)):
        assert np.array_equal(frames_of(speaker, chunks, live=live), frames_of(speaker, [sound], live=live))


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (640, 1), (641, 2), (6400, 10), (16001, 26)])
def test_every_begun_frame_of_sound_gets_its_frame(speaker: Speaker, samples: int, frames: int) -> None:
    for live in (LiveConfig(), LiveConfig(None), LiveConfig(look_ahead=0.1)):
        found = list(speaker.stream([np.zeros(samples, np.float32)], QUIET, live))
        assert len(found) == frames
        assert all(f.shape == (speaker.size, speaker.size, 3) and f.dtype == np.uint8 for f in found)


@pytest.mark.parametrize("look_ahead", [None, 0.0, 0.16])
def test_a_frame_comes_exactly_when_its_look_ahead_is_there(
    speaker: Speaker, sound: np.ndarray, look_ahead: float | None
) -> None:
    stream = Stream(speaker, QUIET, LiveConfig(look_ahead=look_ahead))
    waits = 7800 if look_ahead is None else round(look_ahead * AUDIO_RATE)
    assert stream.look_ahead == waits
    assert stream.latency == pytest.approx((waits + 640) / 16000)
    assert not list(stream.push(sound[: 640 + waits - 1]))
    assert len(list(stream.push(sound[640 + waits - 1 : 640 + waits]))) == 1
    assert not list(stream.push(sound[640 + waits : 2 * 640 + waits - 1]))
    assert len(list(stream.push(sound[2 * 640 + waits - 1 : 2 * 640 + waits + 1]))) == 1


def test_frames_know_nothing_of_what_comes_later(speaker: Speaker, sound: np.ndarray) -> None:
    other = sound.copy()
    other[20 * SAMPLES_PER_FRAME :] = np.random.default_rng(0).normal(0, 0.1, len(sound) - 20 * SAMPLES_PER_FRAME)
    one, two = (frames_of(speaker, cut(some, 1000), live=LiveConfig(look_ahead=0.08)) for some in (sound, other))
    assert np.array_equal(one[:18], two[:18])
    assert not np.array_equal(one[18:21], two[18:21])


def test_no_more_look_ahead_than_there_is_to_hear(speaker: Speaker) -> None:
    assert Stream(speaker, live=LiveConfig(look_ahead=30.0)).look_ahead == 7800


@pytest.mark.parametrize("camera", ["source", "front", "orbit", "10,5"])
def test_the_film_is_that_of_the_file(
    speaker: Speaker, sound: np.ndarray, camera: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all look-ahead, the recording's gain, and phones left out, which the decoder hears in its own way."""
    soundfile.write(tmp_path / "s.wav", sound, AUDIO_RATE, subtype="FLOAT")
    config = SpeakConfig(Camera.parse(camera), seed=3, lips=1.5, blinks=0.5, motion=0.7)
    hear = speaker.network.encoder.hear
    phones = slice(speaker.audio.bands, speaker.audio.bands + 39)

    def without_phones(windows: torch.Tensor) -> torch.Tensor:
        windows = windows.clone()
        windows[:, :, phones] = -1
        return hear(windows)

    written: list[np.ndarray] = []
    with monkeypatch.context() as patched:
        patched.setattr(speaker.network.encoder, "hear", without_phones)
        patched.setattr(VideoWriter, "write", lambda self, frame: written.append(frame))
        patched.setattr(VideoWriter, "close", VideoWriter.abort)
        speak(speaker, tmp_path / "s.wav", tmp_path / "o.mp4", config, False, lambda done, total: None)
        live = frames_of(speaker, cut(sound, 640), config, LiveConfig(None, gain=Loudness.of([sound]).gain))
    difference = np.abs(live.astype(int) - np.stack(written))
    assert difference.max() <= 2  # frames drawn together are rounded differently
    assert difference.mean() < 0.02
    if camera in ("source", "orbit"):
        assert np.abs(live[0].astype(int) - live[25]).max() > 2


def test_silence_closes_the_mouth(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the network is told is what it was taught of silence, and stays so."""
    codes = []
    conditions = speaker.conditions

    def noted(audio: torch.Tensor, *others: object) -> object:
        told = conditions(audio, *others)
        codes.append(told.code)
        return told

    monkeypatch.setattr(speaker, "conditions", noted)
    frames_of(speaker, [np.zeros(2 * AUDIO_RATE, np.float32)])
    silence = silent_window(speaker.audio).expand(1, speaker.network.config.tokens.windows, -1, -1)
    with torch.inference_mode():
        taught = speaker.network.encoder.hear(silence)
    torch.testing.assert_close(torch.cat(codes), taught.expand(50, -1), atol=1e-3, rtol=0)


def test_frames_are_marked_unless_told_otherwise(speaker: Speaker, sound: np.ndarray) -> None:
    plain, marked = (frames_of(speaker, [sound[:640]], config)[0].astype(int) for config in (QUIET, SpeakConfig()))
    difference = abs(plain - marked).max(2)
    assert difference[-speaker.size // 4 :].max() > 40
    assert difference[: speaker.size // 2].max() == 0


def test_chunks_are_asked_for_only_when_their_frames_are_wanted(speaker: Speaker) -> None:
    taken = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:  # speech without end
            taken += 1
            yield np.zeros(SAMPLES_PER_FRAME, np.float32)

    stream = speaker.stream(source(), QUIET)
    for number in range(30):
        next(stream)
        assert taken == number + 1 + 8


def test_what_waits_is_less_than_a_frame(speaker: Speaker) -> None:
    stream = Stream(speaker, QUIET)
    for chunk in cut(np.zeros(2 * AUDIO_RATE, np.float32), 1000):
        list(stream.push(chunk))
        assert len(stream._waiting) < SAMPLES_PER_FRAME


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (np.zeros(640, np.int16), r"int16 \[640\].*divide 16-bit samples by 32768"),
        (np.zeros((640, 2), np.float32), r"float32 \[640, 2\].*mean of channels"),
        (np.zeros(640), "float64"),
        (np.full(640, 12000, np.float32), "reaches 12000"),
        (np.full(640, np.nan, np.float32), "reaches nan"),
        (np.full(640, np.inf, np.float32), "reaches inf"),
    ],
)
def test_what_is_no_sound_is_refused_and_the_stream_goes_on(
    speaker: Speaker, sound: np.ndarray, chunk: np.ndarray, message: str
) -> None:
    stream = Stream(speaker, QUIET)
    found = list(stream.push(sound[:9000]))
    with pytest.raises(MediaError, match=message):
        stream.push(chunk)
    found += [*stream.push(sound[9000:10000]), *stream.finish()]
    assert np.array_equal(np.stack(found), frames_of(speaker, [sound[:10000]]))


def test_a_finished_stream_takes_no_more(speaker: Speaker, sound: np.ndarray) -> None:
    stream = Stream(speaker, QUIET)
    stream.push(sound[:1000])
    assert len(list(stream.finish())) == 2
    with pytest.raises(MediaError, match="was finished"):
        stream.push(sound[:1000])
    assert not list(stream.finish())


def test_impossible_settings_are_refused(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"look_ahead is -0\.1 s"):
        LiveConfig(look_ahead=-0.1)
    with pytest.raises(ConfigError, match="gain is 0"):
        LiveConfig(gain=0.0)
    monkeypatch.setattr(speaker, "audio", LogitsConfig("hf:some/model"))
    with pytest.raises(ConfigError, match="cannot speak live"):
        Stream(speaker)
