"""`prepare` from end to end on a short film of a synthetic head, and everything that can be wrong with a film."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from talk3d.artifacts import Capture as CaptureArtifact
from talk3d.camera import Orbit
from talk3d.capture import stretches
from talk3d.capture.artifact import Capture
from talk3d.capture.detect import warp
from talk3d.capture.takes import Scenes, find_takes, split_of
from talk3d.capture.track import Track, track
from talk3d.errors import (
    ArtifactError,
    ConfigError,
    MediaError,
    ModelMissingError,
    NoAudioError,
    NoFaceError,
    OutputExistsError,
)
from talk3d.video.provenance import provenance
from talk3d.video.read import read_frames
from talk3d.video.write import VideoWriter

SIDE = 128
Prepare = Callable[..., Capture]


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory, film: Path, run: Prepare) -> Capture:
    stages: list[tuple[str, float]] = []
    capture = run(film, tmp_path_factory.mktemp("capture") / "capture", progress=lambda s, p: stages.append((s, p)))
    assert {"tracking", "cutting", "done"} <= {stage for stage, _ in stages}
    assert all(0 <= part <= 1 for _, part in stages)
    return capture


def test_what_a_capture_holds(capture: Capture) -> None:
    assert capture.count == 88
    assert (capture.train, capture.test) == ((0, 80), (80, 88))
    assert capture.resolution == SIDE
    assert capture.orbit == Orbit()
    assert capture.prior_hash == capture.parents["Prior"] == "ab" * 32
    assert capture.consent == "synthetic"
    assert {path.name for path in capture.root.iterdir()} == {
        *("manifest.json", "frames.mp4", "person.mkv", "plate.png", "plate_seen.png", "audio.flac"),
        *("track.safetensors", "report.json", "report.html", "overview.png"),
        "palette.safetensors",
    }
    assert {name: values.shape for name, values in capture.track.items()} == {
        **dict.fromkeys(("yaw", "pitch", "blink", "confidence", "residual", "face_height", "occluded"), (88,)),
        **dict.fromkeys(("lip_gap", "lip_width", "brow_height"), (88,)),
        "landmarks": (88, 468, 2),
        "crop_from_source": (88, 2, 3),
        "gaze": (88, 2),
    }
    assert all(np.isfinite(values).all() for values in capture.track.values())
    assert CaptureArtifact.open(capture.root).hash == capture.hash


def test_the_crops_are_the_source_seen_through_the_crop_maps(capture: Capture, film: Path) -> None:
    crops = list(capture.frames())
    assert len(crops) == 88
    for index, frame in enumerate(read_frames(film)):
        if index % 20 == 0:
            expected = warp(frame, capture.crop_from_source[index], (SIDE, SIDE), cubic=True, replicate=True)
            inside = capture.inside(index)
            assert 0.5 < inside.mean() < 1
            error = (crops[index].astype(float) - expected)[inside]
            assert 10 * np.log10(255**2 / (error**2).mean()) > 38
    seen = track(read_frames(film, stop=8)).landmarks
    assert np.abs(seen - capture.landmarks_source[:8]).max() < 0.01


def test_faces_are_aligned(capture: Capture) -> None:
    """Eyes and nose stay put although the head moves; the crop is upright and the eyes level."""
    eyes = capture.landmarks[:, [33, 263]]
    assert np.abs(eyes.mean(axis=1) - eyes.mean(axis=(0, 1))).max() < 0.06
    slope = (eyes[:, 1] - eyes[:, 0])[:, 1] / (eyes[:, 1] - eyes[:, 0])[:, 0]
    assert np.abs(slope).max() < 0.06
    steps = np.linalg.norm(np.diff(eyes.mean(axis=1), axis=0), axis=1)
    assert steps.max() < 0.01


def test_ranges_of_frames_and_masks(capture: Capture) -> None:
    crops = np.stack(list(capture.frames()))
    masks = np.stack(list(capture.person()))
    assert masks.shape == (88, SIDE, SIDE)
    assert np.array_equal(np.stack(list(capture.frames(30, 33))), crops[30:33])
    assert np.array_equal(np.stack(list(capture.person(85, 88))), masks[85:])
    regions = capture.region_masks(5, crops[5], masks[5])
    assert 0.05 < regions.face.mean() < 0.5
    assert (masks[5][~capture.inside(5)] == 0).all()


def test_the_background_behind_a_crop(capture: Capture) -> None:
    plate, seen = capture.plate(), capture.plate_seen()
    assert plate.shape == (256, 256, 3)
    assert 0.2 < seen.mean() < 0.7
    crop, mask, behind = next(capture.frames(0, 1)), next(capture.person(0, 1)), capture.background(0)
    clear = cv2.dilate(mask, np.ones((9, 9), np.uint8)) == 0
    assert np.abs(crop.astype(int) - behind)[clear].mean() < 3


def test_sound_is_exactly_as_long_as_the_frames(capture: Capture, film_sound: np.ndarray) -> None:
    heard = capture.audio()
    assert heard.shape == (88 * 640,)
    assert np.corrcoef(heard, film_sound)[0, 1] > 0.98
    assert soundfile.info(str(capture.path("audio.flac"))).samplerate == 16000


def test_lips_and_blinks_against_the_truth(capture: Capture, truth: dict[str, np.ndarray]) -> None:
    assert np.corrcoef(capture.lip_gap, truth["lip_gap_cm"][:88])[0, 1] > 0.95
    assert np.corrcoef(capture.blink, truth["blink"][:88])[0, 1] > 0.8
    assert np.corrcoef(capture.yaw, truth["yaw"][:88])[0, 1] > 0.95
    assert capture.blink.min() >= 0
    assert capture.blink.max() <= 1
    # The eye corners of this head are 8.7 cm apart, so the unit is known to about a tenth.
    slope = np.polyfit(truth["lip_gap_cm"][:88], capture.lip_gap, 1)[0]
    assert 1 / slope == pytest.approx(10, rel=0.25)


def test_the_report_is_for_people(capture: Capture) -> None:
    report = capture.report
    assert report["frames"]["usable"] == 88
    assert report["face_height_px"] == pytest.approx(172, abs=15)
    assert any("Only 4 s" in warning for warning in report["warnings"])
    assert report["verdict"] == "Record again: there are only 4 s."
    assert report["grade"] == "fail"
    verdicts = {check["name"]: check["verdict"] for check in report["checks"]}
    assert {name for name, verdict in verdicts.items() if verdict != "pass"} == {"Usable length"}
    assert report["frames"]["asked_seconds"] is None
    assert json.dumps(report, allow_nan=False)


def test_preparing_again_gives_the_same_capture(capture: Capture, film: Path, run: Prepare, tmp_path: Path) -> None:
    assert run(film, tmp_path / "again").hash == capture.hash


def test_test_frames_do_not_reach_anything_about_training_frames(
    capture: Capture, film_frames: np.ndarray, film_sound: np.ndarray, make_film: Callable, run: Prepare, tmp_path: Path
) -> None:
    """Other test frames, in a film whose training frames decode to the same bits, leave the training part untouched."""
    changed = film_frames.copy()
    changed[80:] = np.roll(film_frames[70:78], 2, axis=2) // 8 * 7 + 16
    path = make_film("changed.mp4", changed, film_sound, causal=True)
    same = make_film("same.mp4", film_frames, film_sound, causal=True)
    mine, other = run(same, tmp_path / "one"), run(path, tmp_path / "two")
    assert other.count == 88
    for name, values in mine.track.items():
        assert np.array_equal(values[:80], other.track[name][:80]), name
        if name not in ("confidence", "blink", "occluded"):
            assert not np.array_equal(values[80:], other.track[name][80:]), name
    assert np.array_equal(np.stack(list(mine.frames(0, 80))), np.stack(list(other.frames(0, 80))))
    assert np.array_equal(np.stack(list(mine.person(0, 80))), np.stack(list(other.person(0, 80))))
    assert np.array_equal(mine.plate(), other.plate())
    assert np.array_equal(mine.palette.colours, other.palette.colours)
    assert np.array_equal(mine.palette.places, other.palette.places)


@pytest.mark.parametrize("frames", [50, 88, 1327])
def test_the_split(frames: int) -> None:
    split = split_of(frames)
    assert split["train"][0] == 0
    assert split["train"][1] == split["test"][0]
    assert split["test"][1] == frames
    assert frames - split["test"][0] == pytest.approx(frames / 11, abs=1)
    assert split_of(1327)["train"] == [0, 1206]


# ------------------------------------------------------------------------------------------------------------- takes


def planted_track(frames: int, lost: list[int] = []) -> tuple[Track, Scenes]:  # noqa: B006
    landmarks = np.zeros((frames, 468, 2))
    landmarks[:, 10], landmarks[:, 152], landmarks[:, 1] = (100, 50), (100, 150), (100, 100)
    confidence = np.ones(frames)
    confidence[lost] = 0
    landmarks[lost] = np.nan
    empty = np.zeros((frames, 2, 16, 2))
    thumbnails = np.full((frames, 32, 32), 100, np.uint8) + np.arange(32, dtype=np.uint8)
    person, looked = np.eye(3)[:1], np.arange(0, frames, 25)
    return Track(landmarks, empty, empty[:, :, 0], confidence), Scenes(thumbnails, looked, person[0 * looked], person)


def test_an_unbroken_film_is_one_take() -> None:
    assert find_takes(*planted_track(200)) == [[0, 200]]
    assert find_takes(*planted_track(200, [3, 4, 50, 51, 52, 199])) == [[0, 199]]


def test_a_lost_face_splits_and_short_stretches_are_dropped() -> None:
    assert find_takes(*planted_track(300, list(range(100, 120)))) == [[0, 100], [120, 300]]
    assert find_takes(*planted_track(300, list(range(40, 60)))) == [[60, 300]]
    assert find_takes(*planted_track(300, list(range(300)))) == []
    assert find_takes(*planted_track(40)) == []


def test_another_scene_is_left_out_and_a_jump_cut_is_a_seam() -> None:
    tracked, scenes = planted_track(300)
    scenes.thumbnails[200:] += 60
    assert find_takes(tracked, scenes) == [[0, 200]]
    tracked, scenes = planted_track(300)
    tracked.landmarks[120:] += (40, 0)
    assert find_takes(tracked, scenes) == [[0, 120], [120, 300]]
    closer, scenes = planted_track(300)
    closer.landmarks[200:] *= 2
    assert find_takes(closer, scenes) == [[0, 200]]


@pytest.mark.parametrize(("likeness", "takes"), [(0.97, [[0, 120], [120, 300]]), (0.9, [[0, 120]])])
def test_who_looks_like_another_person_all_through_a_stretch_is_one(likeness: float, takes: list[list[int]]) -> None:
    """However long the stretch is; a look now and then that fits badly is none."""
    tracked, scenes = planted_track(300)
    tracked.landmarks[120:] += (40, 0)
    scenes.looks[1] = (0.8, 0.6, 0)
    scenes.looks[5:] = (likeness, np.sqrt(1 - likeness**2), 0)
    assert find_takes(tracked, scenes) == takes


def test_a_film_with_a_faceless_part(
    film_frames: np.ndarray, film_sound: np.ndarray, make_film: Callable, run: Prepare, tmp_path: Path
) -> None:
    """Frames 60..79 show nothing: both sides are used, the sound of the middle goes, and what is left keeps in step."""
    frames = np.concatenate([film_frames[:60], np.full((20, 256, 256, 3), 90, np.uint8), film_frames[:60]])
    sound = np.concatenate([film_sound[: 60 * 640], np.zeros(20 * 640, np.float32), film_sound[: 60 * 640]])
    capture = run(make_film("broken.mp4", frames, sound), tmp_path / "capture")
    assert capture.config["takes"] == [[0, 60], [80, 140]]
    assert capture.count == 120
    heard = capture.audio()
    assert len(heard) == 120 * 640
    assert np.corrcoef(heard[2000 : 58 * 640], heard[60 * 640 + 2000 : 118 * 640])[0, 1] > 0.98
    assert np.abs(capture.lip_gap[2:58] - capture.lip_gap[62:118]).max() < 0.03
    assert "left out" in " ".join(capture.report["warnings"])


# --------------------------------------------------------------------------------------------------------- bad input


def nothing_left(folder: Path, *names: str) -> bool:
    return {path.name for path in folder.iterdir()} == set(names)


def refuse_work(stage: str, part: float) -> None:
    raise AssertionError(f"work began ({stage}) before the input was checked")


def test_no_face(make_film: Callable, run: Prepare, film_sound: np.ndarray, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 96, 3), dtype=np.uint8)
    with pytest.raises(NoFaceError, match="No face was found"):
        run(make_film("noise.mp4", noise, film_sound), tmp_path / "capture", progress=refuse_work)
    assert nothing_left(tmp_path, "noise.mp4")


def test_a_face_that_shows_too_briefly(
    make_film: Callable, run: Prepare, film_frames: np.ndarray, film_sound: np.ndarray, tmp_path: Path
) -> None:
    frames = np.concatenate([film_frames[:30], np.full((40, 256, 256, 3), 90, np.uint8)])
    with pytest.raises(NoFaceError, match="never for 2 s"):
        run(make_film("brief.mp4", frames, film_sound), tmp_path / "capture")
    assert nothing_left(tmp_path, "brief.mp4")


def test_no_sound_silent_sound_and_too_little_sound(
    make_film: Callable, run: Prepare, film_frames: np.ndarray, film_sound: np.ndarray, tmp_path: Path
) -> None:
    for name, sound, message in (
        ("mute.mp4", None, "no sound track"),
        ("silent.mp4", np.zeros(60 * 640, np.float32), "silent throughout"),
    ):
        with pytest.raises(NoAudioError, match=message):
            run(make_film(name, film_frames[:60], sound), tmp_path / "capture", progress=refuse_work)
    short = tmp_path / "short.wav"
    soundfile.write(short, film_sound[8000:9600], 16000)
    with pytest.raises(NoAudioError, match=r"0\.1 s of sound for 2\.4 s"):
        run(tmp_path / "mute.mp4", tmp_path / "capture", audio=short, progress=refuse_work)


def test_sound_from_a_file_of_its_own(
    make_film: Callable, run: Prepare, film_frames: np.ndarray, film_sound: np.ndarray, tmp_path: Path
) -> None:
    """48 kHz stereo, a little shorter than the film: resampled, filled with silence, and said so."""
    import soxr

    wide = soxr.resample(film_sound[: 55 * 640], 16000, 48000)
    soundfile.write(tmp_path / "sound.wav", np.stack([wide, 0.5 * wide], axis=-1), 48000)
    mute = make_film("mute.mp4", film_frames[:60], None)
    capture = run(mute, tmp_path / "capture", audio=tmp_path / "sound.wav")
    heard = capture.audio()
    assert len(heard) == 60 * 640
    assert np.corrcoef(heard[: 54 * 640], film_sound[: 54 * 640])[0, 1] > 0.99
    assert np.abs(heard[55 * 640 + 100 :]).max() == 0
    assert "the rest is silence" in " ".join(capture.report["warnings"])


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "cut", "brief"])
def test_files_that_are_no_whole_film(
    kind: str, film: Path, film_frames: np.ndarray, make_film: Callable, run: Prepare, tmp_path: Path
) -> None:
    path = tmp_path / "bad.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a film")
    elif kind == "cut":
        path.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    elif kind == "brief":
        make_film("bad.mp4", film_frames[:10], np.zeros(6400, np.float32))
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        run(path, tmp_path / "capture", progress=refuse_work)
    assert not (tmp_path / "capture").exists()


def test_fifty_frames_per_second(
    film_frames: np.ndarray, film_sound: np.ndarray, make_film: Callable, run: Prepare, tmp_path: Path, capture: Capture
) -> None:
    doubled = np.repeat(film_frames[:60], 2, axis=0)
    fast = run(make_film("fast.mp4", doubled, film_sound[: 60 * 640], fps=50), tmp_path / "capture")
    assert fast.count == 60
    assert np.abs(fast.lip_gap - capture.lip_gap[:60]).max() < 0.03
    assert fast.config["source"]["fps"] == 50


def test_settings_that_cannot_be(film: Path, run: Prepare, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="consent"):
        run(film, tmp_path / "capture", consent="none", progress=refuse_work)
    with pytest.raises(ConfigError, match="resolution"):
        run(film, tmp_path / "capture", resolution=101, progress=refuse_work)


@pytest.mark.parametrize("consent", ["self", "permission"])
def test_who_agreed_does_not_change_on_the_way(consent: str, run: Prepare, tmp_path: Path) -> None:
    """A film that an avatar spoke is no recording of somebody else."""
    made = tmp_path / "made.mp4"
    with VideoWriter(made, (64, 64), metadata=provenance("synthetic", {"avatar": "ab12"})) as writer:
        for _ in range(50):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"talk3d made it.*`--consent synthetic`"):
        run(made, tmp_path / "capture", consent=consent, progress=refuse_work)
    with pytest.raises(MediaError, match="sound"):  # what is wrong with it beside that
        run(made, tmp_path / "capture", consent="synthetic", progress=refuse_work)


def test_only_a_capture_is_replaced_by_one(film: Path, run: Prepare, tmp_path: Path) -> None:
    (tmp_path / "capture").write_text("precious")
    with pytest.raises(OutputExistsError, match="no Capture, so `--overwrite` does not apply"):
        run(film, tmp_path / "capture", overwrite=True, progress=refuse_work)
    assert (tmp_path / "capture").read_text() == "precious"


def test_missing_models(film: Path, run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALK3D_CACHE", str(tmp_path / "nothing"))
    with pytest.raises(ModelMissingError, match="talk3d models install"):
        run(film, tmp_path / "capture", progress=refuse_work)


def test_an_existing_output_is_kept_unless_asked(
    film: Path, film_frames: np.ndarray, film_sound: np.ndarray, make_film: Callable, run: Prepare, tmp_path: Path
) -> None:
    output = tmp_path / "capture"
    output.mkdir()
    (output / "precious.txt").write_text("precious")
    with pytest.raises(OutputExistsError):
        run(film, output, progress=refuse_work)
    (output / "precious.txt").unlink()
    output.rmdir()
    short = make_film("short.mp4", film_frames[:55], film_sound)
    first = run(short, output)
    with pytest.raises(OutputExistsError):
        run(short, output, progress=refuse_work)
    assert run(short, output, overwrite=True).hash == first.hash


@pytest.mark.parametrize("stage", ["tracking", "steadying", "cutting", "writing sound"])
def test_an_interrupted_run_goes_on_where_it_was(
    stage: str, film: Path, whole_in_stretches: Capture, run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretches, "STRETCH", 30)
    order, seen = ["tracking", "steadying", "cutting", "writing sound"], []

    def interrupt(now: str, part: float) -> None:
        if (now == stage and part > 0.7) or stage == now == "writing sound":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(film, tmp_path / "capture", progress=interrupt)
    assert nothing_left(tmp_path, "capture.preparing")
    resumed = run(film, tmp_path / "capture", progress=lambda now, part: seen.append((now, part)))
    assert resumed.hash == whole_in_stretches.hash
    assert nothing_left(tmp_path, "capture")
    repeated = {now for now, part in seen if now in order}
    assert repeated == set(order[order.index(stage) :]), "what was finished is not done again"
    if stage != "writing sound":
        assert min(part for now, part in seen if now == stage) > 30 / 88, "nor is what was finished of a pass"


@pytest.fixture(scope="session")
def whole_in_stretches(tmp_path_factory: pytest.TempPathFactory, film: Path, run: Prepare) -> Capture:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "STRETCH", 30)
        return run(film, tmp_path_factory.mktemp("stretches") / "capture")


def test_stretches_make_no_difference_but_to_the_encoder(capture: Capture, whole_in_stretches: Capture) -> None:
    for name, values in capture.track.items():
        assert np.array_equal(values, whole_in_stretches.track[name]), name
    assert np.array_equal(np.stack(list(capture.person())), np.stack(list(whole_in_stretches.person())))
    for mine, other in zip(capture.frames(), whole_in_stretches.frames(), strict=True):
        assert np.abs(mine.astype(int) - other).mean() < 1


def test_an_interrupt_before_anything_was_finished_leaves_nothing(film: Path, run: Prepare, tmp_path: Path) -> None:
    def interrupt(now: str, part: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(film, tmp_path / "capture", progress=interrupt)
    assert nothing_left(tmp_path)


def test_what_was_kept_of_another_film_is_not_used(
    film: Path, film_frames: np.ndarray, film_sound: np.ndarray, make_film: Callable, run: Prepare, tmp_path: Path
) -> None:
    def interrupt(now: str, part: float) -> None:
        if now == "writing sound":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(film, tmp_path / "capture", progress=interrupt)
    short = make_film("short.mp4", film_frames[:55], film_sound)
    assert run(short, tmp_path / "capture").count == 55


def test_two_processes_do_not_prepare_one_output(film: Path, run: Prepare, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / "capture.preparing").mkdir()
        (tmp_path / "capture.preparing/owner.json").write_text(json.dumps({"process": other.pid, "about": ""}))
        with pytest.raises(ConfigError, match="another process"):
            run(film, tmp_path / "capture", progress=refuse_work)
        other.communicate(b"\n")
    assert run(film, tmp_path / "capture").count == 88


def test_a_killed_run_leaves_no_capture_and_can_be_repeated(
    film: Path, canonical: np.ndarray, run: Prepare, capture: Capture, tmp_path: Path
) -> None:
    np.save(tmp_path / "canonical.npy", canonical)
    program = (
        "import sys, time, numpy as np\n"
        "from pathlib import Path\n"
        "from talk3d.camera import Orbit\n"
        "from talk3d.capture.build import prepare\n"
        "def say(stage, part):\n"
        "    if stage == 'cutting' and part > 0.5: print('now', flush=True); time.sleep(60)\n"
        "video, output, canonical = sys.argv[1:]\n"
        "prepare(Path(video), Path(output), canonical=np.load(canonical), orbit=Orbit(), resolution=128,\n"
        "        prior_hash='ab' * 32, consent='synthetic', progress=say)\n"
    )
    output = tmp_path / "work" / "capture"
    command = [sys.executable, "-c", program, str(film), str(output), str(tmp_path / "canonical.npy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline().strip() == "now"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert not output.exists()
    assert run(film, output).hash == capture.hash
    assert nothing_left(output.parent, "capture")


def test_a_damaged_capture_is_noticed(capture: Capture, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(capture.root, copy)
    with (copy / "frames.mp4").open("r+b") as file:
        file.seek(2000)
        file.write(b"\0\1\2\3")
    with pytest.raises(ArtifactError, match=r"frames\.mp4"):
        Capture.open(copy)
