"""Speaking: any length of sound, any camera, marked output, and nothing half-written."""

import dataclasses
import itertools
import math
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import soundfile
import torch

from talk3d.artifacts import Avatar, annotate, creating
from talk3d.capture.artifact import Capture
from talk3d.capture.frames import warp_plate
from talk3d.errors import ArtifactError, ConfigError, MediaError, NoAudioError, OutputExistsError
from talk3d.prior.fast import DevicePainter
from talk3d.prior.generator import Picture, RawPicture
from talk3d.talker.audio import silent_window
from talk3d.talker.clip import audio_neighbourhood
from talk3d.talker.drive import Camera, Drive, Motion
from talk3d.talker.speak import (
    GROUP,
    SpeakConfig,
    Speaker,
    _audio_blocks,
    outside_trusted_views,
    reenacted,
    speak,
)
from talk3d.talker.wayback import WayBack
from talk3d.video.look import probe
from talk3d.video.read import read_audio, read_frames
from talk3d.video.write import GrayWriter, VideoWriter

QUIET = SpeakConfig(mark=False)


def sound_file(path: Path, seconds: float, rate: int = 16000, channels: int = 1, level: float = 0.1) -> Path:
    samples = np.random.default_rng(0).standard_normal((round(seconds * rate), channels)) * level
    soundfile.write(path, samples, rate)
    return path


def run(avatar: Path, sound: Path, output: Path, config: SpeakConfig = QUIET, drive: Capture | None = None) -> int:
    return speak(Speaker(avatar), sound, output, config, False, lambda done, total: None, drive)


@pytest.mark.parametrize(
    ("seconds", "rate", "channels", "level", "frames"),
    [(2.0, 16000, 1, 0.1, 50), (1.0, 48000, 2, 0.1, 25), (0.1, 16000, 1, 0.1, 3), (1.0, 16000, 1, 0.0, 25)],
    ids=["plain", "stereo 48 kHz", "a tenth of a second", "digital silence"],
)
def test_video_lasts_as_long_as_the_sound(avatar, tmp_path, seconds, rate, channels, level, frames):
    sound = sound_file(tmp_path / "s.wav", seconds, rate, channels, level)
    assert run(avatar, sound, tmp_path / "o.mp4") == frames
    assert sum(1 for _ in read_frames(tmp_path / "o.mp4")) == frames
    assert abs(len(read_audio(tmp_path / "o.mp4")) / 16000 - frames / 25) < 0.1


def test_too_little_or_no_sound_is_an_error_and_leaves_nothing(avatar, tmp_path):
    with pytest.raises(NoAudioError, match="at least one frame"):
        run(avatar, sound_file(tmp_path / "s.wav", 0.01), tmp_path / "o.mp4")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(MediaError):
        run(avatar, tmp_path / "empty.wav", tmp_path / "o.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.wav", "s.wav"]


def test_existing_output_is_kept(avatar, tmp_path):
    (tmp_path / "o.mp4").write_text("mine")
    with pytest.raises(OutputExistsError):
        run(avatar, sound_file(tmp_path / "s.wav", 1), tmp_path / "o.mp4")
    assert (tmp_path / "o.mp4").read_text() == "mine"


def test_interruption_leaves_nothing(avatar, tmp_path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        speak(Speaker(avatar), sound_file(tmp_path / "s.wav", 1), tmp_path / "o.mp4", QUIET, False, interrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["s.wav"]


@pytest.fixture
def threads() -> Iterator[None]:
    """Torch's number of threads is free to change."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
def test_a_film_is_the_same_again_to_the_byte(avatar, tmp_path, threads, plain):
    """The fast code's also with any number of threads: 17 frames are five groups, of which some are drawn at once."""
    sound = sound_file(tmp_path / "s.wav", 0.68)
    for name, count in (("a", 1), ("b", 1 if plain else 2), ("c", 1 if plain else 5)):
        torch.set_num_threads(count)
        silent_window.cache_clear()  # or it would be that of another number of threads
        speaker = Speaker(avatar, plain)
        assert speaker.workers == count
        assert speak(speaker, sound, tmp_path / f"{name}.mp4", SpeakConfig(), False, lambda done, total: None) == 17
        assert torch.get_num_threads() == count
    first = (tmp_path / "a.mp4").read_bytes()
    assert first == (tmp_path / "b.mp4").read_bytes()
    assert first == (tmp_path / "c.mp4").read_bytes()


@pytest.mark.parametrize("where", ["drawing", "hearing", "writing"])
def test_what_goes_wrong_in_any_thread_ends_all_of_them_and_leaves_nothing(avatar, tmp_path, monkeypatch, threads, where):
    torch.set_num_threads(3)
    speaker = Speaker(avatar)
    places = {"drawing": (Speaker, "draw"), "hearing": (Drive, "at"), "writing": (VideoWriter, "write")}
    owner, name = places[where]
    calls = itertools.count()
    real = getattr(owner, name)

    def fail(*arguments: object) -> object:
        if next(calls) == 3:
            raise ZeroDivisionError(where)
        return real(*arguments)

    monkeypatch.setattr(owner, name, fail)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match=where):
        speak(speaker, sound_file(tmp_path / "s.wav", 2), tmp_path / "o.mp4", QUIET, False, lambda done, total: None)
    assert threading.active_count() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.wav"]
    assert torch.get_num_threads() == 3


def test_output_says_what_it_is(avatar, tmp_path, tiny_capture):
    run(avatar, sound_file(tmp_path / "s.wav", 0.2), tmp_path / "o.mp4")
    metadata = probe(tmp_path / "o.mp4").metadata
    assert "AI-generated" in metadata["notice"]
    assert metadata["consent"] == "synthetic"
    assert metadata["talk3d"]["capture"] == tiny_capture.hash
    assert metadata["talk3d"]["protocol"] == "audio-only"


def test_mark_is_visible_by_default_and_only_in_its_corner(avatar, tmp_path):
    sound = sound_file(tmp_path / "s.wav", 0.2)
    run(avatar, sound, tmp_path / "plain.mp4")
    run(avatar, sound, tmp_path / "marked.mp4", SpeakConfig())
    plain, marked = (next(iter(read_frames(tmp_path / f"{n}.mp4"))).astype(int) for n in ("plain", "marked"))
    difference = abs(plain - marked).max(2)
    size = len(plain)
    assert difference[-size // 4 :].max() > 40
    assert difference[: size // 2].max() < 12


def test_reenacting_test_frames_is_labelled_for_scoring(avatar, tmp_path, tiny_capture):
    start, stop = tiny_capture.test
    assert run(avatar, tiny_capture.root, tmp_path / "o.mp4", QUIET, tiny_capture) == stop - start
    claims = probe(tmp_path / "o.mp4").metadata["talk3d"]
    assert (claims["protocol"], claims["frames"], claims["split"]) == ("paper", [start, stop], "test")


def noted(avatar: Path, folder: Path, cone: dict[str, list[float]] | None) -> Path:
    """A copy of the avatar that knows its trusted views."""
    copy = folder / "noted.talk3d"
    copy.write_bytes(avatar.read_bytes())
    annotate(copy, {"views": {"cone": cone, "failing": ["sharpness"], "pictures_per_view": 3}})
    return copy


@pytest.mark.parametrize(
    ("camera", "outside"),
    [("source", False), ("front", False), ("30,0", False), ("-20,10", True), ("0,25", True), ("orbit", True)],
)
def test_a_camera_outside_the_trusted_views_is_warned_of_and_recorded(avatar, tmp_path, camera, outside):
    speaker = Speaker(noted(avatar, tmp_path, {"yaw": [-15.0, 30.0], "pitch": [-10.0, 20.0]}))
    view = Camera.parse(camera)
    warning = outside_trusted_views(speaker, view, speaker.motion)
    assert (warning is not None) == outside
    if warning:
        assert "yaw -15 to +30, pitch -10 to +20 degrees" in warning
        assert "sharpness failed" in warning
        went = {
            "-20,10": "to -20 degrees of yaw and",
            "0,25": "to +25 degrees of pitch",
            "orbit": "from -30 to +30 degrees of yaw",
        }
        assert went[camera] in warning
    speak(speaker, sound_file(tmp_path / "s.wav", 0.1), tmp_path / "o.mp4", SpeakConfig(view), False, lambda done, total: None)
    assert probe(tmp_path / "o.mp4").metadata["talk3d"].get("outside_trusted_views", False) == outside


def test_a_source_camera_that_is_really_outside_is_warned_of(avatar, tmp_path):
    speaker = Speaker(noted(avatar, tmp_path, {"yaw": [-15.0, 15.0], "pitch": [-10.0, 10.0]}))
    aside = dataclasses.replace(speaker.motion, yaw=speaker.motion.yaw + math.radians(40))
    assert "to +40 degrees of yaw" in (outside_trusted_views(speaker, Camera("source"), aside) or "")


def test_without_a_note_there_is_no_warning_and_without_a_cone_always(avatar, tmp_path):
    speaker = Speaker(avatar)
    assert outside_trusted_views(speaker, Camera.parse("85,50"), speaker.motion) is None
    whole = noted(avatar, tmp_path, {"yaw": [-60.0, 60.0], "pitch": [-30.0, 30.0]})
    annotate(whole, {"views": Avatar.open(whole).notes["views"] | {"failing": []}})
    assert "nobody looked" in (outside_trusted_views(Speaker(whole), Camera.parse("70,0"), speaker.motion) or "")
    hopeless = Speaker(noted(avatar, tmp_path, None))
    assert "even from the front" in (outside_trusted_views(hopeless, Camera("front"), hopeless.motion) or "")


ADMITTED = ("yaw", "pitch", "blink", "crop_from_source")
"""What protocol `paper` takes of a frame besides its sound."""


def garbled(capture: Capture, path: Path, kept: tuple[str, ...] = ADMITTED) -> Capture:
    """A copy with the same sound whose pictures are noise, and so are all curves but the kept ones."""
    rng = np.random.default_rng(9)
    size, shape = capture.resolution, (capture.count, capture.resolution, capture.resolution)
    with creating(Capture, path) as draft:
        draft.consent, draft.config = capture.consent, dict(capture.config)
        for name in ("audio.flac", "report.json"):
            shutil.copy(capture.path(name), draft.folder / name)
        cv2.imwrite(str(draft.folder / "plate.png"), rng.integers(0, 255, capture.plate().shape, np.uint8))
        cv2.imwrite(str(draft.folder / "plate_seen.png"), rng.integers(0, 255, capture.plate().shape[:2], np.uint8))
        with VideoWriter(draft.folder / "frames.mp4", (size, size), crf=0) as writer:
            for picture in rng.integers(0, 255, (*shape, 3), np.uint8):
                writer.write(picture)
        with GrayWriter(draft.folder / "person.mkv", (size, size)) as masks:
            for mask in rng.integers(0, 255, shape, np.uint8):
                masks.write(mask)
        draft.write_tensors(
            "track.safetensors",
            {
                name: torch.from_numpy(values if name in kept else values + rng.uniform(0.2, 0.6, values.shape))
                for name, values in capture.track.items()
            },
        )
    return Capture.open(path)


def reenact(
    avatar: Path, drive: Capture, output: Path, protocol: Literal["paper", "audio-only"], own: bool = False
) -> np.ndarray:
    """Frames of a re-enactment; `own` makes the avatar believe that it was trained on the drive."""
    speaker = Speaker(avatar)
    assert speaker.plate is not None  # with edges: before a plain wall nobody sees where in the picture a head is put
    speaker.plate = np.random.default_rng(3).integers(0, 255, speaker.plate.shape, np.uint8)
    if own:
        manifest = {**speaker.artifact.manifest, "parents": {**speaker.artifact.parents, "Capture": drive.hash}}
        speaker.artifact = dataclasses.replace(speaker.artifact, manifest=manifest)
    config = SpeakConfig(mark=False, protocol=protocol)
    speak(speaker, drive.root, output, config, False, lambda done, total: None, drive)
    return np.stack(list(read_frames(output)))


@pytest.mark.parametrize("own", [True, False], ids=["test part of the same film", "another film"])
def test_reenactment_sees_nothing_of_the_lower_face(avatar, tmp_path, tiny_capture, own):
    """The protocol's promise, which scores rest on: with only what it admits, the film is the same to the bit."""
    seen = garbled(tiny_capture, tmp_path / "seen", tuple(tiny_capture.track))
    unseen = garbled(tiny_capture, tmp_path / "unseen")
    real = reenact(avatar, tiny_capture, tmp_path / "real.mp4", "paper", own=True)
    paper = reenact(avatar, unseen, tmp_path / "unseen.mp4", "paper", own)
    assert np.array_equal(paper, real if own else reenact(avatar, seen, tmp_path / "seen.mp4", "paper"))
    for number, name in enumerate(ADMITTED):  # what is admitted does change it, or this test would prove nothing
        without = garbled(tiny_capture, tmp_path / name, tuple(other for other in ADMITTED if other != name))
        assert not np.array_equal(reenact(avatar, without, tmp_path / f"{number}.mp4", "paper", own), paper), name


@pytest.mark.parametrize("own", [True, False], ids=["test part of the same film", "another film"])
def test_audio_only_hears_and_sees_nothing(avatar, tmp_path, tiny_capture, own):
    seen = garbled(tiny_capture, tmp_path / "seen", tuple(tiny_capture.track))
    unseen = garbled(tiny_capture, tmp_path / "unseen", kept=())
    heard = reenact(avatar, seen, tmp_path / "seen.mp4", "audio-only", own)
    assert np.array_equal(heard, reenact(avatar, unseen, tmp_path / "unseen.mp4", "audio-only", own))


def test_another_film_is_reenacted_whole_and_says_what_it_shows(avatar, tmp_path, tiny_capture):
    other = garbled(tiny_capture, tmp_path / "other")
    assert other.hash != tiny_capture.hash
    for protocol in ("paper", "audio-only"):
        assert len(reenact(avatar, other, tmp_path / f"{protocol}.mp4", protocol)) == other.count
        claims = probe(tmp_path / f"{protocol}.mp4").metadata["talk3d"]
        assert claims["capture"] == tiny_capture.hash
        assert claims["shows"] == other.hash
        assert (claims["protocol"], claims["frames"], claims["split"]) == (protocol, [0, other.count], "test")


def test_head_motion_of_another_camera_is_refused(avatar, tmp_path, tiny_capture, monkeypatch):
    other = garbled(tiny_capture, tmp_path / "other")
    monkeypatch.setattr(Capture, "plate", lambda self: np.zeros((60, 90, 3), np.uint8))
    with pytest.raises(ConfigError, match="same camera"):
        reenact(avatar, other, tmp_path / "o.mp4", "paper")
    assert len(reenact(avatar, other, tmp_path / "o.mp4", "audio-only")) == other.count


@pytest.mark.parametrize("frames", [1, 3, 8, 29])
def test_sound_in_blocks_is_the_sound_around_each_frame(frames):
    """However it arrives; the slow twin is the neighbourhood of all frames at once."""
    windows, silence = torch.arange(1.0, frames + 1)[:, None, None].expand(frames, 2, 3), torch.full((2, 3), -5.0)
    for pieces in (1, 4, frames):
        found = torch.cat(list(_audio_blocks(iter(windows.split(pieces)), 8, silence)))
        assert torch.equal(found, audio_neighbourhood(windows, torch.arange(frames), 8, silence))


def test_films_prepared_for_another_prior_are_refused(avatar, tiny_capture):
    config = {**tiny_capture.config, "prior_hash": "0"}
    other = dataclasses.replace(tiny_capture, manifest={**tiny_capture.manifest, "config": config})
    with pytest.raises(ConfigError, match="another prior"):
        Speaker(avatar).motion_of(other, 0, 3)


def test_which_frames_are_reenacted(avatar, tiny_capture):
    speaker = Speaker(avatar)
    assert reenacted(speaker, tiny_capture) == tiny_capture.test
    stranger = dataclasses.replace(tiny_capture, manifest={**tiny_capture.manifest, "hash": "0"})
    assert reenacted(speaker, stranger) == (0, tiny_capture.count)


def test_blocks_do_not_show(avatar):
    """A frame is the same whether it is drawn alone or among others."""
    speaker = Speaker(avatar)
    audio = torch.randn(5, speaker.network.config.tokens.windows, speaker.audio.channels, speaker.audio.columns)
    frames = torch.arange(5)
    together = speaker.draw(audio, speaker.motion.ping_pong(frames)).astype(int)
    alone = np.concatenate([speaker.draw(audio[i : i + 1], speaker.motion.ping_pong(frames[i : i + 1])) for i in frames])
    assert abs(together - alone).max() <= 1


def test_what_draws_on_a_gpu_draws_the_plain_frames(avatar):
    """All but the card: the plain network, plain or kernels' rendering, folded super-resolution and two buffers."""
    speaker, plain = Speaker(avatar), Speaker(avatar, plain=True)
    speaker.painter = DevicePainter(speaker.generator, speaker.ws, torch.float32)
    speaker.mover, speaker.way_back = None, WayBack()
    audio = torch.randn(3 * GROUP - 1, speaker.network.config.tokens.windows, speaker.audio.channels, speaker.audio.columns)
    motion = speaker.motion.ping_pong(torch.arange(len(audio)))
    frames = speaker.draw(audio, motion)
    assert abs(frames.astype(int) - plain.draw(audio, motion)).max() <= 1
    assert (frames[0] != frames[-1]).any()


@pytest.mark.parametrize("plain", [False, True])
def test_nothing_that_draws_stays_behind_on_the_cpu(avatar, plain):
    """Of tensors on a device without memory nothing is computed, but they do not mix with the CPU's."""
    speaker = Speaker(avatar, plain, torch.device("meta"))
    audio = torch.randn(2, speaker.network.config.tokens.windows, speaker.audio.channels, speaker.audio.columns)
    motion = speaker.motion.ping_pong(torch.arange(2))
    picture = speaker.look(speaker.move(audio, motion, lips=1.5), motion.yaw, motion.pitch)
    assert speaker._finished(picture, motion).device.type == "meta"
    assert picture.image.device.type == "meta"


def test_avatar_needs_neither_capture_nor_video(avatar, tmp_path, tiny_capture):
    moved = tmp_path / "elsewhere.talk3d"
    moved.write_bytes(avatar.read_bytes())
    run(moved, sound_file(tmp_path / "s.wav", 0.2), tmp_path / "o.mp4")


def test_something_else_is_no_avatar(tmp_path, tiny_capture):
    with pytest.raises(ArtifactError, match="talk3d train"):
        Speaker(tiny_capture.root)


def seen_by(avatar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: SpeakConfig) -> tuple[Motion, float]:
    """What is drawn while an avatar speaks for six seconds: its motion, and how far lips move."""
    tmp_path.mkdir()
    moves, lips = [], set()

    def draw(self: Speaker, audio: torch.Tensor, motion: Motion, camera: object, amount: float) -> np.ndarray:
        moves.append(motion)
        lips.add(amount)
        return np.zeros((len(audio), self.size, self.size, 3), np.uint8)

    with monkeypatch.context() as patched:
        patched.setattr(Speaker, "draw", draw)
        patched.setattr(Speaker, "workers", 1)  # or frames would be listed in the order in which they are done
        run(avatar, sound_file(tmp_path / "s.wav", 6.0), tmp_path / "o.mp4", config)
    whole = Motion(*(torch.cat([getattr(m, f.name) for m in moves]) for f in dataclasses.fields(Motion)))
    return whole, lips.pop()


def test_blinks_motion_and_lips_can_be_scaled_and_fixed(avatar, tmp_path, monkeypatch):
    plain, one = seen_by(avatar, tmp_path / "a", monkeypatch, QUIET)
    calm, more = seen_by(avatar, tmp_path / "b", monkeypatch, SpeakConfig(mark=False, lips=1.4, blinks=0.5, motion=0.25))
    still, _ = seen_by(avatar, tmp_path / "c", monkeypatch, SpeakConfig(mark=False, blinks=0.0, motion=0.0))
    assert (one, more) == (1.0, 1.4)
    assert plain.blink.max() > 0.5
    torch.testing.assert_close(calm.blink, 0.5 * plain.blink)
    assert still.blink.max() == 0
    assert plain.yaw.std() > 0
    torch.testing.assert_close(calm.yaw.std(), 0.25 * plain.yaw.std())
    assert still.yaw.std() < 1e-6
    assert still.crop_from_source.std(0).max() < 1e-4


def test_a_changed_performance_says_so(avatar, tmp_path):
    run(avatar, sound_file(tmp_path / "s.wav", 0.2), tmp_path / "o.mp4", SpeakConfig(lips=1.5, motion=0.0))
    claims = probe(tmp_path / "o.mp4").metadata["talk3d"]
    assert (claims["lips"], claims["motion"]) == (1.5, 0.0)
    assert "blinks" not in claims


@pytest.mark.parametrize(("name", "value"), [("lips", 2.5), ("blinks", 1.5), ("motion", -0.1), ("lips", float("nan"))])
def test_amounts_beyond_reason_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        SpeakConfig(**{name: value})


def test_exaggerated_sounds_lie_further_from_the_mean(avatar):
    encoder = Speaker(avatar).network.encoder
    codes = torch.randn(4, encoder.config.width)
    torch.testing.assert_close(encoder.exaggerate(codes, 1.0), codes)
    torch.testing.assert_close(encoder.exaggerate(codes, 0.0), encoder.code_mean.expand(4, -1))
    torch.testing.assert_close(encoder.exaggerate(codes, 2.0) - encoder.code_mean, 2 * (codes - encoder.code_mean))


def test_the_plate_is_untouched_where_no_head_is(avatar):
    """Whatever trace of colour super-resolution leaves there."""
    speaker = Speaker(avatar)
    motion = speaker.motion[torch.arange(2)]
    size = speaker.size
    colour = torch.rand(2, 3, size, size) * 0.2 - 1.1
    nothing = torch.cat([colour, torch.full((2, 1, size, size), -1.05)], 1)
    raw = RawPicture(*(torch.zeros(2, c, 1, 1) for c in (4, 3, 1, 1)))
    plates = np.stack([warp_plate(speaker.plate, c.double().numpy(), size) for c in motion.crop_from_source])
    assert np.array_equal(speaker.finish(Picture(nothing, raw), motion), plates)
    solid = torch.cat([colour.clamp(-1, 1) * 0 + 0.5, torch.ones(2, 1, size, size)], 1)
    assert (speaker.finish(Picture(solid, raw), motion) == 191).all()
