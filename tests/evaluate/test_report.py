"""The whole report: the truth itself scores perfectly, damage costs, and meaningless scores are refused."""

import csv
import itertools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import rich.console

import talk3d
from talk3d import frozen
from talk3d.camera import Orbit
from talk3d.capture.artifact import Capture
from talk3d.capture.build import prepare
from talk3d.capture.track import track
from talk3d.errors import MediaError, NoFaceError, OutputExistsError, ScoringError
from talk3d.evaluate.page import ADRIFT
from talk3d.evaluate.report import Report, as_table, evaluate
from talk3d.video.read import read_audio, read_frames
from talk3d.video.write import VideoWriter

SIDE = 128


@pytest.fixture(scope="module")
def source(shared: Path) -> Path:
    if not all(status.installed for status in frozen.list_models()):
        pytest.skip(f"the face models are not installed; `{frozen.INSTALL_COMMAND}` puts them in the cache")
    return shared / "data/synthetic/A/A.mp4"


@pytest.fixture(scope="module")
def capture(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """Eleven seconds, so that the test part is one; posed with a flat stand-in for canonical landmarks."""
    folder = tmp_path_factory.mktemp("capture")
    film = folder / "film.mp4"
    with VideoWriter(film, (256, 256), audio_rate=16000, preset="ultrafast") as writer:
        writer.write_audio(read_audio(source)[: 440 * 640])
        for frame in read_frames(source, stop=440):
            writer.write(frame)
    first = track(read_frames(source, stop=1)).landmarks[0] / 256 - 0.5
    canonical = np.column_stack([0.75 * first[:, 0], -0.75 * first[:, 1], 0.25 - 2 * (first**2).sum(axis=1)])
    return prepare(
        film,
        folder / "capture",
        canonical=canonical.astype(np.float64),
        orbit=Orbit(),
        resolution=SIDE,
        prior_hash="cd" * 32,
        consent="synthetic",
    )


def terminal(report: Report) -> str:
    """What is printed of a report."""
    console = rich.console.Console(width=160, record=True)
    console.print(as_table(report))
    return console.export_text()


Film = Callable[..., Path]


@pytest.fixture
def film(capture: Capture, tmp_path: Path) -> Film:
    """Write test frames, changed by `change`, as a result that makes `claims`."""

    def make(
        change: Callable[[np.ndarray], np.ndarray] = lambda frame: frame,
        shift: int = 0,
        name: str = "result.mp4",
        side: int = SIDE,
        span: tuple[int, int] | None = None,
        **claims: object,
    ) -> Path:
        start, stop = span or capture.test
        said = {"avatar": "x", "capture": capture.hash, "protocol": "paper", "frames": [start, stop], "split": "test"}
        metadata = {"talk3d": {k: v for k, v in (said | claims).items() if v is not None}}
        path = tmp_path / name
        with VideoWriter(path, (side, side), metadata=metadata, crf=0, full_colour=True, preset="ultrafast") as writer:
            for frame in capture.frames(start - shift, stop - shift):
                writer.write(cv2.resize(change(frame), (side, side), interpolation=cv2.INTER_CUBIC))
        return path

    return make


def test_the_truth_scores_perfectly_and_beats_the_baselines(capture: Capture, film: Film, tmp_path: Path) -> None:
    report = evaluate(film(), capture.root, tmp_path / "report")
    assert list(report.rows) == ["result.mp4", "mean training frame", "nearest training pose"]
    assert (report.frames, report.unseen, report.notes) == (capture.test, {"result.mp4": True}, [])
    assert (report.protocols, report.offsets) == ({"result.mp4": "paper"}, {"result.mp4": capture.test[0]})
    start, count = capture.test[0], 40
    best = report.scores
    # Colour conversion costs one level here and there, no more.
    assert best["psnr"].value > 46
    assert best["ssim"].value > 0.99
    assert best["mouth_opening"].value > 0.99
    assert best["mouth_lag"].value == 0
    assert best["mouth_distance"].value < 0.3
    assert best["sharpness"].value == pytest.approx(1, abs=0.05)
    assert best["mae"].value < 1
    assert best["headnet_distance"].value < 0.01
    assert best["headnet_identity"].value > 0.99
    assert best["flicker"].value == pytest.approx(1, abs=0.05)
    assert best["ms_ssim"].value is None  # 128 pixels are too few for five scales
    for name in (
        "psnr", "psnr_face", "ssim_mouth", "mouth_distance", "mouth_opening", "eye_opening", "face_found",
        "mae_mouth", "headnet_distance", "headnet_identity",
    ):  # fmt: skip
        assert best[name].frames == count, name
    assert best["flicker"].frames == count - 2
    assert best["mouth_opening_at_lag"].frames == count - 20
    for name in ("mean training frame", "nearest training pose"):
        row = report.rows[name]
        assert row["psnr"].value < best["psnr"].value - 10
        assert row["psnr_mouth"].value < best["psnr_mouth"].value - 10
        assert row["mouth_distance"].value > 3 * best["mouth_distance"].value
        assert row["psnr"].frames == count
        assert row["headnet_distance"].value > 5 * best["headnet_distance"].value
    assert report.rows["mean training frame"]["sharpness"].value < 0.8
    assert report.rows["mean training frame"]["flicker"].value < 0.1
    stored = json.loads((tmp_path / "report" / "report.json").read_text())
    assert stored["rows"]["result.mp4"]["psnr"] == {"value": best["psnr"].value, "frames": count, "interval": None}
    assert stored["frames"] == list(capture.test)
    sheet = cv2.imread(str(tmp_path / "report" / "sheet.png"))
    assert sheet.shape == (5 * SIDE, 6 * SIDE, 3)  # small pictures stay as they are
    with (tmp_path / "report" / "frames.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["frame"]) for line in lines] == list(range(*capture.test))
    distances = [float(line["result.mp4: lip distance"]) for line in lines]
    assert np.mean(distances) == pytest.approx(best["mouth_distance"].value, rel=1e-3)
    sides = list(read_frames(tmp_path / "report" / "side-by-side.mp4"))
    assert len(sides) == count
    assert sides[0].shape == (SIDE, 3 * SIDE, 3)
    assert np.abs(sides[7][:, :SIDE].astype(int) - next(capture.frames(start + 7, start + 8))).mean() < 4
    shown = (tmp_path / "report" / "report.html").read_text()
    assert f"{best['psnr'].value:.3f}" in shown
    assert "camera, blinks and head motion of these frames" in shown
    shown = terminal(report)
    assert "Lip opening, correlation" in shown
    assert f"{best['psnr'].value:.3f}" in shown


def test_damage_costs(capture: Capture, film: Film, tmp_path: Path) -> None:
    def blur(sigma: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda frame: cv2.GaussianBlur(frame, (0, 0), sigma)

    rows = []
    for number, sigma in enumerate((0.4, 0.8, 1.6)):
        result = film(blur(sigma), name=f"{number}.mp4")
        rows.append(evaluate(result, capture.root, tmp_path / f"r{number}", baselines=False).scores)
    for name in ("psnr", "psnr_face", "psnr_mouth", "ssim", "ssim_face", "ssim_mouth", "sharpness", "headnet_identity"):
        values = [row[name].value for row in rows]
        assert values == sorted(values, reverse=True), name
        assert values[0] > values[-1], name
    for name in ("mae", "mae_face", "mae_mouth", "headnet_distance"):
        values = [row[name].value for row in rows]
        assert values == sorted(values), name
        assert values[0] < values[-1], name


def test_the_sound_is_judged_with_the_lips(capture: Capture, film: Film, tmp_path: Path) -> None:
    """The expert hears a planted delay; a silent result has no such score."""
    offsets = []
    for late in (0, 4):
        path = tmp_path / f"late{late}.mp4"
        with VideoWriter(path, (SIDE, SIDE), audio_rate=16000, preset="ultrafast") as writer:
            writer.write_audio(np.concatenate([np.zeros(late * 640, np.float32), capture.audio()])[: 160 * 640])
            for frame in capture.frames(0, 160):
                writer.write(frame)
        row = evaluate(path, path, tmp_path / f"report{late}", baselines=False).scores
        assert row["sync_offset"].frames == 130
        offsets.append(row["sync_offset"].value)
    assert offsets[1] - offsets[0] == pytest.approx(4, abs=0.3)
    silent = evaluate(film(), capture.root, tmp_path / "silent", baselines=False).scores
    assert "sync_offset" not in silent


def test_a_late_result_is_found_out(capture: Capture, film: Film, tmp_path: Path) -> None:
    row = evaluate(film(shift=2), capture.root, tmp_path / "report", baselines=False).scores
    assert row["mouth_lag"].value == 2
    assert row["mouth_opening_at_lag"].value > 0.98
    assert row["mouth_opening"].value < 0.9


def test_the_worst_frames_are_shown_first(capture: Capture, film: Film, tmp_path: Path) -> None:
    numbers = iter(range(40))

    def spoil(frame: np.ndarray) -> np.ndarray:
        strength = {30: 90, 5: 60, 6: 50}.get(next(numbers), 0)
        return np.clip(frame.astype(int) + strength, 0, 255).astype(np.uint8)

    evaluate(film(spoil), capture.root, tmp_path / "report", baselines=False)
    shown = re.findall(r"<figcaption>result.mp4, frame (\d+), face", (tmp_path / "report" / "report.html").read_text())
    start = capture.test[0]
    assert [int(number) for number in shown[:2]] == [start + 30, start + 5]  # the sixth is too close to the fifth
    assert all(abs(int(a) - int(b)) >= 12 for a, b in itertools.combinations(shown, 2))


def test_what_is_outside_the_face_does_not_count_there(capture: Capture, film: Film, tmp_path: Path) -> None:
    def spoil(frame: np.ndarray) -> np.ndarray:
        spoilt = frame.copy()
        spoilt[:20, :20] = 255 - spoilt[:20, :20]
        return spoilt

    row = evaluate(film(spoil), capture.root, tmp_path / "report", baselines=False).scores
    assert row["psnr"].value < 30
    assert row["psnr_face"].value > 45
    assert row["psnr_mouth"].value > 45


def test_a_result_without_a_face_is_said_so(capture: Capture, film: Film, tmp_path: Path) -> None:
    report = evaluate(film(lambda frame: frame // 64 * 0 + 90), capture.root, tmp_path / "r", baselines=False)
    row = report.scores
    assert report.warnings[0].startswith("result.mp4: no face was found in any of its 40 frames")
    shown = (tmp_path / "r" / "report.html").read_text()
    assert 0 < shown.index("no face was found") < shown.index("<table>")
    printed = terminal(report)
    assert printed.index("WARNING: result.mp4: no face") < printed.index("PSNR, whole")
    assert row["face_found"].value == 0
    assert row["mouth_opening"].value is None
    assert row["mouth_distance"].frames == 0
    assert row["psnr"].frames == 40


def test_a_truth_without_a_face_is_refused_before_the_films_are_followed(film: Film, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    truth = film(lambda frame: noise, name="noface.mp4")
    stages: list[str] = []
    with pytest.raises(NoFaceError, match=r"none of the frames 0\.\.39 of the truth, `noface.mp4`.*Give as --truth"):
        evaluate(film(), truth, tmp_path / "report", progress=lambda stage, part: stages.append(stage))
    assert set(stages) <= {"tracking noface.mp4"}
    assert not (tmp_path / "report").exists()


def test_a_part_of_the_truth_without_a_face_is_refused(film: Film, tmp_path: Path) -> None:
    """The truth shows a face in its first half only; the film claims the second."""
    numbers = iter(range(40))
    truth = film(lambda frame: frame if next(numbers) < 20 else frame // 64 * 0 + 90, name="truth.mp4")
    with pytest.raises(NoFaceError, match=r"none of the frames 20\.\.39"):
        evaluate(film(name="result.mp4"), truth, tmp_path / "report", frames=(20, 40))


def test_a_plain_video_as_truth(capture: Capture, film: Film, tmp_path: Path) -> None:
    truth = film(name="truth.mp4")
    report = evaluate(film(name="result.mp4"), truth, tmp_path / "report")
    assert list(report.rows) == ["result.mp4", "first frame, still"]
    assert report.frames == (0, 40)
    assert report.scores["psnr"].value > 45
    assert "taken for granted" in report.warnings[0]
    assert report.placed_by == {"result.mp4": ""}
    assert "plain video" in report.notes[0]
    shown = (tmp_path / "report" / "report.html").read_text()
    table = shown[shown.index("<table>") : shown.index("</table>")]
    heads = re.findall(r"<th class='([^']*)'>(.*?)</th>", table)
    assert [(name.split("<")[0], kind, ADRIFT in name) for kind, name in heads[:3]] == [
        ("truth", "", False), ("result.mp4", "adrift", True), ("first frame, still", "", False),
    ]  # fmt: skip
    printed = terminal(report)
    assert printed.index("WARNING: result.mp4: when it begins is not known") < printed.index("PSNR, whole")
    assert "place in" in printed[: printed.index("PSNR, whole")].split("WARNING")[-1]
    asked = evaluate(film(name="asked.mp4"), truth, tmp_path / "asked", baselines=False, frames=(5, 40))
    assert (asked.warnings, asked.offsets) == ([], {"asked.mp4": 5})
    unknown = film(name="foreign.mp4", split=None, frames=None, capture=None)
    assert evaluate(unknown, truth, tmp_path / "again", baselines=False).unseen == {"foreign.mp4": False}


def test_another_size_is_resized_and_said(capture: Capture, film: Film, tmp_path: Path) -> None:
    report = evaluate(film(side=2 * SIDE), capture.root, tmp_path / "report", baselines=False)
    assert "256x256, was resized to 128x128" in report.notes[0]
    assert report.scores["psnr"].value > 33


def test_a_shorter_result_is_scored_on_what_it_has(capture: Capture, film: Film, tmp_path: Path) -> None:
    start, _ = capture.test
    result = film(span=(start, start + 25), frames=list(capture.test))
    report = evaluate(result, capture.root, tmp_path / "report", baselines=False)
    assert report.frames == (start, start + 25)
    assert report.scores["psnr"].frames == 25
    assert "25 of the truth's 40 frames" in report.notes[0]


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"frames": [390, 430]}, "overlap the training frames 0..399"),
        ({"frames": [0, 40], "split": None}, "overlap the training frames"),
        ({"split": "train"}, "trained on"),
        ({"capture": "ef" * 32}, "belongs to capture efefefef"),
        ({"frames": [420, 460]}, "do not exist"),
    ],
)
def test_meaningless_scores_are_refused(
    capture: Capture, film: Film, tmp_path: Path, claims: dict[str, object], message: str
) -> None:
    with pytest.raises(ScoringError, match=message):
        evaluate(film(**claims), capture.root, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_contradictions_are_refused(capture: Capture, film: Film, tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="asked for"):
        evaluate(film(), capture.root, tmp_path / "report", frames=(401, 430))
    with pytest.raises(ScoringError, match="neither a video nor a readable Capture"):
        evaluate(film(name="other.mp4"), tmp_path, tmp_path / "report")


def test_a_foreign_result_is_taken_for_the_test_part(capture: Capture, film: Film, tmp_path: Path) -> None:
    foreign = film(capture=None, frames=None, split=None, avatar=None, protocol=None)
    report = evaluate(foreign, capture.root, tmp_path / "report", baselines=False)
    assert report.frames == capture.test
    assert report.unseen == {"result.mp4": False}
    assert report.protocols == {"result.mp4": "unknown"}
    assert "taken for granted" in report.warnings[0]


def test_files_that_cannot_be_read(capture: Capture, tmp_path: Path) -> None:
    with pytest.raises(MediaError):
        evaluate(tmp_path / "missing.mp4", capture.root, tmp_path / "report")


def test_an_existing_report_is_kept_unless_asked(capture: Capture, film: Film, tmp_path: Path) -> None:
    result = film()
    evaluate(result, capture.root, tmp_path / "report", baselines=False)
    with pytest.raises(OutputExistsError):
        evaluate(result, capture.root, tmp_path / "report", baselines=False)
    evaluate(result, capture.root, tmp_path / "report", baselines=False, overwrite=True)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("precious")
    with pytest.raises(ScoringError, match="holds no report"):
        evaluate(result, capture.root, precious, overwrite=True)
    assert (precious / "thesis.txt").read_text() == "precious"


# ------------------------------------------------------------------------------------------------ many systems, one page


@pytest.fixture(scope="module")
def contest(capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The truth's own test frames, re-encoded; with a frozen mouth; of another person; shifted; and blurred: one report."""
    folder = tmp_path_factory.mktemp("contest")
    frames = list(capture.frames(*capture.test))
    points = capture.landmarks[slice(*capture.test)] * SIDE
    start, stop = capture.test
    sound = capture.audio()[start * 640 : stop * 640]
    assert (start, stop) == (400, 440)
    closed = int(np.argmin(capture.lip_gap[slice(*capture.test)]))
    middle = points[:, [61, 291]].mean(1)
    mask = np.zeros((SIDE, SIDE), np.float32)
    x, y = (int(v) for v in middle[closed])
    cv2.ellipse(mask, (x, y + 8), (26, 24), 0, 0, 360, 1.0, -1)  # with the chin, from which the tracker guesses at lips
    mask = cv2.GaussianBlur(mask, (0, 0), 2)

    def frozen_mouth(number: int) -> np.ndarray:
        """Mouth and chin of the frame in which the lips are closed, moved along with the head."""
        move = np.column_stack([np.eye(2), middle[number] - middle[closed]])
        lips, where = (cv2.warpAffine(picture, move, (SIDE, SIDE)) for picture in (frames[closed], mask))
        return (where[..., None] * lips + (1 - where[..., None]) * frames[number]).round().astype(np.uint8)

    other = [cv2.resize(f, (SIDE, SIDE)) for f in read_frames(Path(talk3d.__file__).parent / "assets/demo.mp4", stop=40)]
    films = {
        "good": frames,
        "frozen": [frozen_mouth(number) for number in range(len(frames))],
        "swapped": other,
        "late": [frames[max(0, number - 3)] for number in range(len(frames))],
        "blurred": [cv2.GaussianBlur(frame, (0, 0), 2) for frame in frames],
    }
    claims = {"capture": capture.hash, "frames": [start, stop], "split": "test", "protocol": "paper"}
    for name, shown in films.items():
        with VideoWriter(folder / f"{name}.mp4", (SIDE, SIDE), audio_rate=16000, crf=12, metadata={"talk3d": claims}) as writer:
            writer.write_audio(sound)
            for frame in shown:
                writer.write(np.ascontiguousarray(frame))
    good, *others = (folder / f"{name}.mp4" for name in films)
    return evaluate(good, capture.root, folder / "report", compare=others, baselines=False)


def ranked(report: Report, measure: str, best: str) -> list[str]:
    """Films by a measure, the best first."""
    values = {name.removesuffix(".mp4"): row[measure].value for name, row in report.rows.items()}
    assert all(value is not None for value in values.values()), values
    return sorted(values, key=lambda name: values[name] * (-1 if best == "high" else 1))


def test_all_films_are_on_one_page_and_on_the_same_frames(contest: Report) -> None:
    assert list(contest.rows) == ["good.mp4", "frozen.mp4", "swapped.mp4", "late.mp4", "blurred.mp4"]
    assert {row["psnr"].frames for row in contest.rows.values()} == {40}
    assert contest.results == list(contest.rows)


def test_a_frozen_mouth_is_worst_on_lips(contest: Report) -> None:
    """Of the films that show the right person at the right time."""
    rows = {name: contest.rows[name] for name in ("good.mp4", "frozen.mp4", "blurred.mp4")}
    for measure, worst in (
        ("mouth_opening", min), ("mouth_opening_at_lag", min), ("wrongly_closed", max), ("mouth_distance", max),
        ("expression_error", max), ("psnr_mouth", min), ("ssim_mouth", min),
    ):  # fmt: skip
        values = {name: row[measure].value for name, row in rows.items()}
        known = {name: value for name, value in values.items() if value is not None}
        assert worst(known, key=known.__getitem__) == "frozen.mp4", (measure, values)
    # Its own pixels are right everywhere else, so that whole pictures do not tell.
    assert rows["frozen.mp4"]["psnr"].value > rows["blurred.mp4"]["psnr"].value


def test_another_person_is_worst_on_identity(contest: Report) -> None:
    assert ranked(contest, "headnet_identity", "high")[-1] == "swapped"
    assert ranked(contest, "headnet_distance", "low")[-1] == "swapped"
    assert ranked(contest, "psnr", "high")[-1] == "swapped"
    if "dlib_distance" in contest.scores:
        assert ranked(contest, "dlib_distance", "low")[-1] == "swapped"


def test_the_undamaged_film_is_best_at_everything(contest: Report) -> None:
    for measure in (
        "psnr",
        "psnr_face",
        "psnr_mouth",
        "psnr_torso",
        "ssim",
        "ssim_torso",
        "psnr_face_published",
        "mouth_opening",
    ):
        assert ranked(contest, measure, "high")[0] == "good", measure
    for measure in ("mae", "mae_torso", "headnet_distance", "mouth_distance", "face_distance", "expression_error"):
        assert ranked(contest, measure, "low")[0] == "good", measure


def test_a_late_film_is_said_to_be_late_and_blur_is_seen(contest: Report) -> None:
    assert contest.rows["late.mp4"]["mouth_lag"].value == 3
    assert contest.rows["good.mp4"]["mouth_lag"].value == 0
    assert contest.rows["blurred.mp4"]["sharpness"].value < 0.5
    assert contest.rows["good.mp4"]["sharpness"].value == pytest.approx(1, abs=0.15)


def test_grey_outside_the_region_raises_every_score(contest: Report) -> None:
    for row in contest.rows.values():
        assert row["psnr_face_published"].value > row["psnr_face"].value
        assert row["psnr_torso_published"].value > row["psnr_torso"].value
        assert row["ssim_face_published"].value > row["ssim_face"].value


def test_a_foreign_film_is_laid_on_the_truth(source: Path, tmp_path: Path) -> None:
    """Another frame rate, size and crop, begun 14 frames later: it is found and scored as if it were cut out alike."""
    truth, result = tmp_path / "truth.mp4", tmp_path / "result.mp4"
    sound = read_audio(source)
    with VideoWriter(truth, (256, 256), audio_rate=16000, crf=10) as writer:
        writer.write_audio(sound[: 150 * 640])
        for frame in read_frames(source, stop=150):
            writer.write(frame)
    with VideoWriter(result, (300, 320), 50, audio_rate=16000, crf=10) as writer:
        writer.write_audio(sound[14 * 640 :])
        for frame in read_frames(source, 50, start=28, stop=290):
            cut = cv2.resize(frame[20:244, 20:230], (300, 320), interpolation=cv2.INTER_CUBIC)
            writer.write(cut)
    report = evaluate(result, truth, tmp_path / "report", baselines=False)
    assert report.offsets == {"result.mp4": 14}
    assert report.frames == (14, 145)
    assert "known from its sound" in report.notes[0]
    assert "laid on the truth by its face" in report.notes[1]
    row = report.scores
    assert row["mouth_lag"].value == 0
    assert row["mouth_opening"].value > 0.95
    assert row["psnr_face"].value > 27  # resampled twice
    assert row["psnr"].value > 25
    assert "in the part that they share" in report.notes[-1]


def test_a_short_cut_is_found_and_said_to_shorten_the_comparison(source: Path, tmp_path: Path) -> None:
    """1.8 s out of the middle with their own sound, beside a film that shows all; the page begins with what all that means."""
    sound, frames = read_audio(source), list(read_frames(source, stop=150))

    def cut(name: str, start: int, stop: int) -> Path:
        path = tmp_path / name
        with VideoWriter(path, (256, 256), audio_rate=16000, preset="ultrafast") as writer:
            writer.write_audio(sound[start * 640 : stop * 640])
            for frame in frames[start:stop]:
                writer.write(frame)
        return path

    truth, whole, short = cut("truth.mp4", 0, 150), cut("whole.mp4", 0, 150), cut("a short.mp4", 88, 133)
    report = evaluate(whole, truth, tmp_path / "report", compare=[short])
    assert report.offsets == {"whole.mp4": 0, "a short.mp4": 88}
    assert report.placed_by == {"whole.mp4": "its sound", "a short.mp4": "its sound"}
    assert report.frames == (88, 133)
    assert len(report.warnings) == 1
    assert "compared on the 45 frames that all of them show; without a short.mp4 it would be 150" in report.warnings[0]
    assert report.rows["a short.mp4"]["psnr_face"].value > 35  # a frame off is below 30
    assert any("no verdict, as 25 frames are too few" in line for line in report.summary["a short.mp4"])
    shown = (tmp_path / "report" / "report.html").read_text()
    places = [shown.index(text) for text in ("compared on the 45 frames", "Rests on 45 frames (1.8 s), 88 to 132", "<table>")]
    assert places == sorted(places)
    printed = " ".join(terminal(report).split())
    places = [printed.index(text) for text in ("WARNING: All films", "Rests on 45 frames", "PSNR, whole")]
    assert places == sorted(places)
    facts = json.loads((tmp_path / "report" / "report.json").read_text())["facts"]
    assert shlex.split(facts["Command"]) == [
        "talk3d", "evaluate", str(whole), "--truth", str(truth), "--output", str(tmp_path / "report"), "--compare", str(short),
    ]  # fmt: skip


def test_films_that_share_nothing_are_refused(capture: Capture, film: Film, tmp_path: Path) -> None:
    start, _ = capture.test
    early = film(span=(start, start + 15), frames=[start, start + 15], name="early.mp4")
    later = film(span=(start + 20, start + 40), frames=[start + 20, start + 40], name="later.mp4")
    with pytest.raises(ScoringError, match="different frames"):
        evaluate(early, capture.root, tmp_path / "report", compare=[later])
    with pytest.raises(ScoringError, match="given twice"):
        evaluate(early, capture.root, tmp_path / "report", compare=[early])
    assert not (tmp_path / "report").exists()
