"""Where and when a film shows the truth: planted offsets and crops are found, and what cannot be known is not made up."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import talk3d
from talk3d.capture.detect import apply, invert
from talk3d.evaluate.align import by_motion, by_sound, by_waves, fit, loudness, resizing, similarity
from talk3d.evaluate.film import Sound
from talk3d.evaluate.follow import Landmarks, Motion
from talk3d.video.clock import AUDIO_RATE, SAMPLES_PER_FRAME
from talk3d.video.read import read_audio
from talk3d.video.write import VideoWriter


@pytest.fixture
def talk() -> np.ndarray:
    """Loudness of 20 seconds of syllables and pauses, a hundred times a second."""
    rng = np.random.default_rng(0)
    syllables = np.convolve(rng.normal(size=2020), np.hanning(21), "valid")[:2000]
    return np.maximum(syllables, -1.0) + 0.02 * rng.normal(size=2000)


@pytest.mark.parametrize("start", [0, 37, 500, 1199])
def test_a_piece_of_the_same_sound_is_found(talk: np.ndarray, start: int) -> None:
    piece = talk[start : start + 800] + 0.1 * np.random.default_rng(1).normal(size=800)
    found = by_sound(piece, talk)
    assert found == pytest.approx(start / 100, abs=0.011)


def test_a_sound_that_begins_earlier_than_the_truth_is_found(talk: np.ndarray) -> None:
    assert by_sound(talk[:1500], talk[300:]) == pytest.approx(-3.0, abs=0.011)


def test_loudness_and_microphone_do_not_matter(talk: np.ndarray) -> None:
    assert by_sound(0.4 * talk[100:900] - 3, talk) == pytest.approx(1.0, abs=0.011)


def test_another_sound_is_not_found(talk: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    other = np.maximum(np.convolve(rng.normal(size=2020), np.hanning(21), "valid")[:2000], -1.0)
    assert by_sound(other, talk) is None
    assert by_sound(np.zeros(800), talk) is None
    assert by_sound(talk[:100], talk) is None  # a second is too short to be sure


def test_a_sound_that_repeats_has_no_place(talk: np.ndarray) -> None:
    assert by_sound(talk[:500], np.tile(talk[:500], 4)) is None


Hear = Callable[[np.ndarray], Sound]


@pytest.fixture
def hear(tmp_path: Path) -> Hear:
    """Samples as a film's sound, through the AAC of our own films."""
    numbers = itertools.count()

    def write(samples: np.ndarray) -> Sound:
        path = tmp_path / f"{next(numbers)}.mp4"
        with VideoWriter(path, (16, 16), audio_rate=AUDIO_RATE, preset="ultrafast") as writer:
            writer.write_audio(samples)
            for _ in range(len(samples) // SAMPLES_PER_FRAME):
                writer.write(np.zeros((16, 16, 3), np.uint8))
        return Sound(path, path.with_suffix(".sound"))

    return write


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """What the shipped clip's person says."""
    return read_audio(Path(talk3d.__file__).parent / "assets/demo.mp4")


@pytest.mark.parametrize(("frames", "snr"), [(38, None), (45, None), (50, 3.0), (100, 0.0)])
def test_a_short_cut_is_found_wherever_it_lies(hear: Hear, speech: np.ndarray, frames: int, snr: float | None) -> None:
    """To the hundredth of a frame, re-encoded, and with noise over it."""
    truth = hear(speech)
    last = truth.frames - frames
    for first in (0, last // 3, 2 * last // 3, last):
        cut = speech[first * SAMPLES_PER_FRAME : (first + frames) * SAMPLES_PER_FRAME]
        if snr is not None:
            cut = cut + np.random.default_rng(first).normal(0, cut.std() * 10 ** (-snr / 20), len(cut)).astype(np.float32)
        assert by_waves(hear(cut), truth) == pytest.approx(first / 25, abs=4e-4)


def test_a_sound_that_holds_the_whole_truth_begins_before_it(hear: Hear, speech: np.ndarray) -> None:
    short = hear(speech[90 * SAMPLES_PER_FRAME : 140 * SAMPLES_PER_FRAME])
    assert by_waves(hear(speech), short) == pytest.approx(-90 / 25, abs=4e-4)


def test_other_speech_is_no_copy(hear: Hear, speech: np.ndarray) -> None:
    """Neither what the same voice says elsewhere, nor another voice, nor what repeats, nor silence."""
    other = read_audio(Path(talk3d.__file__).parent / "assets/drive.flac")
    for first, frames in ((20, 38), (100, 45), (140, 100)):
        start, stop = first * SAMPLES_PER_FRAME, (first + frames) * SAMPLES_PER_FRAME
        cut = hear(speech[start:stop])
        assert by_waves(cut, hear(np.concatenate([speech[:start], speech[stop:]]))) is None
        assert by_waves(cut, hear(other)) is None
    once = speech[40 * SAMPLES_PER_FRAME : 90 * SAMPLES_PER_FRAME]
    assert by_waves(hear(once), hear(np.tile(once, 3))) is None
    assert by_waves(hear(np.zeros(50 * SAMPLES_PER_FRAME, np.float32)), hear(speech)) is None
    assert by_waves(hear(speech[: 30 * SAMPLES_PER_FRAME]), hear(speech)) is None  # too short to be sure


def test_loudness_is_the_level_of_each_hundredth(tmp_path: Path) -> None:
    tone = np.sin(np.arange(16000) * 0.9).astype(np.float32) * np.repeat([0.0, 0.5, 0.05, 0.5], 4000)
    soundfile.write(tmp_path / "tone.wav", tone, 16000, subtype="FLOAT")
    level = loudness(Sound(tmp_path / "tone.wav", tmp_path / "scratch"))
    assert len(level) == 100
    assert level[30] - level[60] == pytest.approx(np.log(10), abs=0.1)
    assert level[10] < level[30] - np.log(100)


def test_sound_is_read_from_any_frame_and_silent_outside(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * SAMPLES_PER_FRAME + 100).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", samples, 16000, subtype="FLOAT")
    sound = Sound(tmp_path / "noise.wav", tmp_path / "scratch")
    assert sound.frames == 11
    assert np.array_equal(sound(3, 5), samples[3 * SAMPLES_PER_FRAME : 5 * SAMPLES_PER_FRAME])
    early, late, far = sound(-2, 1), sound(10, 12), sound(-5, -3)
    assert np.array_equal(early, np.r_[np.zeros(2 * SAMPLES_PER_FRAME), samples[:SAMPLES_PER_FRAME]].astype(np.float32))
    assert np.array_equal(
        late, np.r_[samples[10 * SAMPLES_PER_FRAME :], np.zeros(2 * SAMPLES_PER_FRAME - 100)].astype(np.float32)
    )
    assert np.array_equal(far, np.zeros(2 * SAMPLES_PER_FRAME, np.float32))


def motion(seed: int, count: int = 300) -> Motion:
    rng = np.random.default_rng(seed)
    pose = np.stack([np.convolve(rng.normal(size=count + 20), np.hanning(21), "valid") for _ in range(6)], 1)[:count]
    return Motion(np.ones(count), np.ones(count), pose, np.ones((count, 7)))


def shown_from(whole: Motion, start: int, stop: int, noise: float = 0.1) -> Motion:
    pose = whole.pose[start:stop]
    pose = pose + noise * pose.std(0) * np.random.default_rng(9).normal(size=pose.shape)
    return Motion(np.ones(len(pose)), np.ones(len(pose)), pose, np.ones((len(pose), 7)))


@pytest.mark.parametrize("offset", [-30, -5, 1, 4, 40])
def test_head_motion_tells_the_offset(offset: int) -> None:
    whole = motion(1, 400)
    truth, result = shown_from(whole, 50, 300, 0.0), shown_from(whole, 50 + offset, 300 + offset)
    assert by_motion(result, truth) == offset


def test_other_motion_tells_nothing() -> None:
    assert by_motion(motion(1), motion(2)) is None
    assert by_motion(motion(1), motion(1)) == 0
    still = Motion(np.ones(300), np.ones(300), np.zeros((300, 6)), np.ones((300, 7)))
    assert by_motion(still, motion(1)) is None


def wandering(seed: int, count: int) -> Motion:
    """A head as slow as heads are, which moves sideways as it turns."""
    rng = np.random.default_rng(seed)
    slow = [np.convolve(rng.normal(size=count + 60), np.hanning(61), "valid")[:count] for _ in range(4)]
    pose = np.stack([slow[0], slow[1], 0.1 * slow[2], 0.1 * slow[3], slow[0] + 0.5 * slow[2], slow[1] + 0.5 * slow[3]], 1)
    return Motion(np.ones(count), np.ones(count), pose, np.ones((count, 7)))


def test_slow_heads_that_have_nothing_to_do_with_each_other_have_no_place() -> None:
    """Of a hundred shifts one always fits best; it must stand out. Heads that are alike still find each other."""
    placed = [
        by_motion(wandering(seed, count), wandering(1000 + seed, count)) for seed in range(30) for count in (80, 150, 250)
    ]
    assert sum(place is not None for place in placed) <= 2
    alike = [by_motion(shown_from(wandering(seed, 250), 12, 200), wandering(seed, 250)) for seed in range(10)]
    assert alike.count(12) >= 8


def on_disk(path: Path, points: np.ndarray) -> Landmarks:
    path.touch()
    landmarks = Landmarks(path)
    landmarks.append(points.astype(np.float32))
    return landmarks


def test_a_planted_crop_is_found_through_talking_and_lost_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    face = rng.uniform(100, 220, (468, 2))
    truth = face + rng.normal(0, 8, (60, 1, 2)) + rng.normal(0, 0.3, (60, 468, 2))
    scale, angle = 1.7, np.radians(3)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    planted = np.column_stack([linear, [-80, 15]])  # from the result's pixels to the truth's
    result = apply(invert(planted), truth[5:].reshape(-1, 2)).reshape(55, 468, 2) + rng.normal(0, 0.3, (55, 468, 2))
    result[10:14] = np.nan
    result[20] += 60  # the tracker went astray
    mine, true = on_disk(tmp_path / "a", result), on_disk(tmp_path / "b", truth)
    matrix, resize = fit(mine, true, 5, range(5, 60), ((256, 256), (320, 320)))
    assert not resize
    corners = np.array([[0, 0], [256, 0], [0, 256], [256, 256.0]])
    assert np.abs(apply(matrix, corners) - apply(planted, corners)).max() < 2


@pytest.mark.parametrize("wild", [5.0, 15.0, 30.0])
def test_a_head_that_moves_on_its_own_does_not_shrink_the_picture(tmp_path: Path, wild: float) -> None:
    """As in films that were driven by sound alone: same framing, other motion."""
    rng = np.random.default_rng(6)
    face = rng.uniform(100, 220, (468, 2))
    mine, true = (face + rng.normal(0, wild, (200, 1, 2)) + rng.normal(0, 0.3, (200, 468, 2)) for _ in range(2))
    one, other = on_disk(tmp_path / "a", mine), on_disk(tmp_path / "b", true)
    matrix, resize = fit(one, other, 0, range(200), ((320, 320), (320, 320)))
    assert resize
    assert np.array_equal(matrix, [[1, 0, 0], [0, 1, 0]])
    zoomed = on_disk(tmp_path / "c", (mine - 160) * 1.4 + 150)
    matrix, resize = fit(zoomed, other, 0, range(200), ((320, 320), (320, 320)))
    assert not resize
    assert np.hypot(*matrix[:, 0]) == pytest.approx(1 / 1.4, rel=0.01)


def test_a_crop_by_one_percent_is_undone_and_a_squash_is_a_resize(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    truth = rng.uniform(500, 700, (468, 2)) + rng.normal(0, 5, (60, 1, 2))
    true = on_disk(tmp_path / "a", truth)
    cropped = on_disk(tmp_path / "b", truth * 1.01 + 3 + rng.normal(0, 0.5, truth.shape))
    matrix, resize = fit(cropped, true, 0, range(60), ((1280, 720), (1280, 720)))
    assert not resize
    squashed = on_disk(tmp_path / "c", truth * [0.4, 512 / 720] + rng.normal(0, 0.3, truth.shape))
    matrix, resize = fit(squashed, true, 0, range(60), ((512, 512), (1280, 720)))
    assert resize
    assert np.array_equal(matrix, resizing((512, 512), (1280, 720)))


def test_another_size_alone_is_a_plain_resize(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = rng.uniform(100, 220, (468, 2)) + rng.normal(0, 8, (40, 1, 2))
    result = truth * 2 + rng.normal(0, 1.0, (40, 468, 2))
    mine, true = on_disk(tmp_path / "a", result), on_disk(tmp_path / "b", truth)
    matrix, resize = fit(mine, true, 0, range(40), ((640, 640), (320, 320)))
    assert resize
    assert np.array_equal(matrix, resizing((640, 640), (320, 320)))
    lost = on_disk(tmp_path / "c", np.full((40, 468, 2), np.nan))
    assert fit(lost, true, 0, range(40), ((640, 640), (320, 320)))[1]


def test_the_similarity_is_the_least_squares_one() -> None:
    from skimage.transform import SimilarityTransform

    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 30, 2))
    expected = SimilarityTransform.from_estimate(a, a @ [[1.2, 0.4], [-0.4, 1.2]] + 3 + 0.1 * b)
    assert np.allclose(similarity(a, a @ [[1.2, 0.4], [-0.4, 1.2]] + 3 + 0.1 * b), expected.params[:2], atol=1e-9)
