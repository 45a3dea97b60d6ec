"""What tokens do: nothing exchanged moves nothing, leaks are found and told from the tracker's own, maps lie right."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d import frozen
from talk3d.artifacts import Avatar
from talk3d.bench import tokens as bench
from talk3d.bench.attention import Attention, Moment, attend, attention_sheet, over_face, plane_names, token_shares
from talk3d.bench.exchange import EXCHANGES, Drive, Exchange, Ways, rolled, ways
from talk3d.bench.tokens import (
    FEATURES,
    TARGETS,
    Draw,
    Drawn,
    Measured,
    Moved,
    bench_tokens,
    drawing,
    measure,
    moves,
    own_range,
    pasted,
)
from talk3d.camera import Orbit
from talk3d.capture.artifact import Capture
from talk3d.capture.track import INNER_LIPS, LEFT_EYE, OUTER_LIPS, RIGHT_EYE, Face, eye_opening, lip_opening
from talk3d.errors import ArtifactError, ConfigError, NoFaceError, OutputExistsError
from talk3d.evaluate.follow import RIGID
from talk3d.render.reference import RenderOptions, project_points
from talk3d.talker.audio import silent_window
from talk3d.talker.clip import audio_neighbourhood, capture_windows
from talk3d.talker.drive import Motion
from talk3d.talker.speak import Speaker

SIZE, COUNT = 64, 26
MOUTH, EYES, HEAD = (slice(44, 52), slice(24, 40)), (slice(20, 28), slice(12, 52)), (slice(2, 6), slice(2, 6))
"""Where the drawn puppet has what: rows and columns."""


@pytest.fixture
def lively(avatar: Path) -> Speaker:
    """The avatar with a network whose deltas everybody sees."""
    speaker = Speaker(avatar)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in speaker.network.unet.out.parameters():
            parameter.normal_(0, 1)
        speaker.network.modes.planes.normal_(0, 1)
    return speaker


def resting_face() -> np.ndarray:
    """Landmarks [468, 2] of a face of which what is read here lies where the puppet has it."""
    points = np.random.default_rng(2).uniform(8, 56, (468, 2))
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    for group, reach in ((OUTER_LIPS, 6.0), (INNER_LIPS, 4.0)):
        points[list(group)] = np.stack([32 - reach * np.cos(turn), 48 + 3 * np.sin(turn)], 1)
    for group, middle in ((LEFT_EYE, 20.0), (RIGHT_EYE, 44.0)):
        across = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        points[list(group)] = np.stack([middle + 5 * np.cos(across), 24 + 2 * np.sin(across)], 1)
    points[list(RIGID[4:])] = np.stack([np.full(10, 32.0), np.linspace(26, 38, 10)], 1)
    for corner, x in zip(RIGID[:4], (15.0, 25.0, 39.0, 49.0), strict=True):
        points[corner] = x, 24.0
    return points


FACE = resting_face()


class Reader:
    """A tracker that reads off grey levels how far the puppet opens mouth and eyes and where its head is."""

    def __call__(self, image: np.ndarray) -> Face | None:
        if image[0, 0, 0] == 255:
            return None
        gap, opening, aside = (float(image[part].mean()) / 40 for part in (MOUTH, EYES, HEAD))
        points = FACE.copy()
        for upper, lower in zip((81, 82, 13, 312, 311), (178, 87, 14, 317, 402), strict=True):
            points[upper, 1], points[lower, 1] = 48 - gap, 48 + gap
        points += [aside, 0.0]
        lids = np.zeros((2, 16, 2))
        lids[:, 8, 0] = 10
        lids[:, 10:15, 1] = opening
        return Face(points, lids, np.zeros((2, 2)), 1.0)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "FaceTracker", Reader)


def conditions(count: int = COUNT) -> Drive:
    """Conditions that all change from frame to frame; the sound's first number is how loud it is, 0..1."""
    steps = torch.arange(count).float()
    yaw = 0.3 * (0.3 * steps).sin()
    motion = Motion(
        yaw=yaw,
        pitch=torch.zeros(count),
        blink=(steps % 4 == 1).float(),
        crop_from_source=torch.eye(2, 3).expand(count, 2, 3),
        rotation=torch.stack([yaw, 0 * yaw], -1),
        landmark=(0.2 * steps).cos()[:, None].expand(count, 4),
    )
    heard = (0.5 + 0.5 * (0.9 * steps).sin())[:, None, None, None].expand(count, 2, 3, 4)
    return Drive(heard, motion)


def puppet(sound_to_eyes: float = 0.0, blink_to_mouth: float = 0.0, rotation_to_plate: float = 0.0) -> Draw:
    """A face that obeys its conditions exactly, but for what leaks."""

    def draw(drive: Drive) -> Drawn:
        count = len(drive)
        rgb, alpha = np.full((count, SIZE, SIZE, 3), 100.0), np.zeros((count, SIZE, SIZE))
        alpha[:, 16:60, 8:56] = 1.0
        loud, blink = drive.heard[:, 0, 0, 0].numpy(), drive.motion.blink.numpy()
        levels = (
            (MOUTH, 20 + 120 * loud + blink_to_mouth * 120 * blink),
            (EYES, 180 - 160 * blink + sound_to_eyes * 160 * loud),
            (HEAD, 100 + 100 * drive.motion.yaw.numpy()),
        )
        for part, level in levels:
            rgb[:, *part] = level[:, None, None, None]
        rgb[:, 8:12, 56:] += rotation_to_plate * drive.motion.rotation[:, 0].numpy()[:, None, None, None]
        return Drawn(rgb.clip(0, 254).round().astype(np.uint8), alpha)

    return draw


def run(draw: Draw, exchanges: dict[str, Exchange] | None = None, drive: Drive | None = None) -> Measured:
    return measure(draw, drive or conditions(), exchanges or EXCHANGES, lambda part: None)


def verdicts(measured: Measured) -> dict[tuple[str, str], bool | None]:
    return {(target.exchange, target.feature): measured.kept(target) for target in TARGETS}


# ---------------------------------------------------------------------------------------------------------- measures


def test_motion_is_told_in_percent_of_its_own_range() -> None:
    """A point that goes from 0 to 100 evenly has a range of 90 between its 5th and 95th percentiles."""
    own = np.linspace(0, 100, 101)[:, None, None]
    assert own_range(own) == pytest.approx(90)
    assert moves(own, own) == (0, 0)
    assert moves(own, own + 9) == pytest.approx((10, 10))
    one_in_ten = own + 9 * (np.arange(101) % 10 == 0)[:, None, None]
    assert moves(own, one_in_ten) == pytest.approx((100 * 9 * 11 / 101 / 90, 10))


def test_the_range_of_points_is_a_diagonal_and_frames_without_a_face_do_not_count() -> None:
    steps = np.linspace(0, 1, 201)
    points = np.stack([3 * steps, 4 * steps], -1)[:, None]  # [F, 1, 2]
    assert own_range(points) == pytest.approx(0.9 * 5)
    lost = points.copy()
    lost[::2] = np.nan
    assert own_range(lost) == pytest.approx(0.9 * 5, rel=1e-2)
    assert moves(points, lost + np.array([0.45, 0.0]))[0] == pytest.approx(10)
    assert all(map(math.isnan, moves(points * np.nan, points)))
    assert all(map(math.isnan, moves(points * 0, points))), "percent of nothing"


def test_pasting_brings_back_a_region_and_nothing_far_from_it() -> None:
    own, other = np.full((SIZE, SIZE, 3), 10, np.uint8), np.full((SIZE, SIZE, 3), 90, np.uint8)
    mixed = pasted(own, other, FACE, (LEFT_EYE, RIGHT_EYE))
    assert (mixed[24, [20, 44]] == 10).all()
    assert (mixed[24, 32] == 90).all(), "between the eyes"
    assert (mixed[44:] == 90).all(), "the mouth"
    lips = pasted(own, other, FACE, (OUTER_LIPS,))
    assert (lips[48, 28:36] == 10).all()
    assert (lips[:40] == 90).all()


def test_rolling_gives_each_frame_what_is_half_a_film_away() -> None:
    assert rolled(torch.arange(6)).tolist() == [3, 4, 5, 0, 1, 2]
    assert sorted(rolled(torch.arange(7)).tolist()) == list(range(7))


def test_an_exchange_changes_one_condition_alone() -> None:
    drive = conditions()
    own = {"heard": drive.heard, **vars(drive.motion)}
    changed = {}
    for name, exchange in EXCHANGES.items():
        told = exchange.of(drive)
        now = {"heard": told.heard, **vars(told.motion)}
        changed[name] = [key for key, value in now.items() if not torch.equal(value, own[key])]
        assert not drive.told_as(told)
    assert changed == {
        "sound": ["heard"], "blink": ["blink"], "blink inverted": ["blink"], "rotation": ["rotation"], "landmark": ["landmark"],
    }  # fmt: skip
    assert drive.told_as(conditions())


# ------------------------------------------------------------------------------------------------------ the puppet


@pytest.mark.usefixtures("reader")
def test_exchanging_nothing_changes_exactly_nothing() -> None:
    effect = run(puppet(), {"sound": Exchange("nothing", "audio", lambda drive: drive)}).effects["sound"]
    assert not effect.told
    assert {(moved.mean, moved.p95) for moved in effect.moved.values()} == {(0.0, 0.0)}
    assert effect.background is not None
    assert (effect.background.levels, effect.background.worst) == (0.0, 0.0)


@pytest.mark.usefixtures("reader")
def test_a_puppet_that_obeys_keeps_all_targets() -> None:
    measured = run(puppet())
    assert set(verdicts(measured).values()) == {True}
    assert measured.effects["sound"].moved["mouth"].mean > 20
    assert measured.effects["sound"].moved["eyes"].mean == 0
    assert measured.effects["blink inverted"].moved["eyes"].mean > 20
    assert measured.effects["blink inverted"].moved["mouth"].mean == 0
    assert {m.mean for name in ("rotation", "landmark") for m in measured.effects[name].moved.values()} == {0.0}
    assert measured.effects["sound"].faces == COUNT


@pytest.mark.usefixtures("reader")
def test_leaks_are_found_where_they_are_and_nowhere_else() -> None:
    sound = verdicts(run(puppet(sound_to_eyes=0.3)))
    assert [key for key, kept in sound.items() if not kept] == [("sound", "eyes")]
    blink = verdicts(run(puppet(blink_to_mouth=0.5)))
    assert not blink["blink inverted", "mouth"]
    assert blink["sound", "eyes"]
    plate = run(puppet(rotation_to_plate=30.0))
    assert [key for key, kept in verdicts(plate).items() if not kept] == [("rotation", "background")]
    background = plate.effects["rotation"].background
    assert background is not None
    assert 0 < background.levels < background.worst <= 18  # twice the widest yaw, times 30
    assert background.clear == pytest.approx(1 - 44 * 48 / SIZE**2)


@pytest.mark.usefixtures("reader")
def test_what_the_tracker_makes_up_is_told_from_what_the_avatar_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that lets an open mouth lift the eyelids, and an avatar that does: pasted eyes tell the two apart."""

    class Muddled(Reader):
        def __call__(self, image: np.ndarray) -> Face | None:
            face = super().__call__(image)
            assert face is not None
            face.lids[:, 10:15, 1] += float(image[MOUTH].mean()) / 80
            return face

    leaking = run(puppet(sound_to_eyes=0.5)).effects["sound"].moved["eyes"]
    monkeypatch.setattr(bench, "FaceTracker", Muddled)
    muddled = run(puppet()).effects["sound"].moved["eyes"]
    assert leaking.mean > 5
    assert leaking.tracker < 0.2 * leaking.mean
    assert muddled.mean > 5
    assert muddled.tracker == pytest.approx(muddled.mean, rel=1e-6)
    assert 0 < muddled.noise < 2


def test_films_do_not_disturb_each_other_in_the_memory_of_the_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that sees eyes as wide as the mouth was open a frame before: no exchanged mouth may show in the eyes."""

    class Remembering(Reader):
        before = 0.0

        def __call__(self, image: np.ndarray) -> Face | None:
            face = super().__call__(image)
            assert face is not None
            face.lids[:, 10:15, 1] += self.before
            self.before = float(image[MOUTH].mean()) / 40
            return face

    monkeypatch.setattr(bench, "FaceTracker", Remembering)
    sound = run(puppet()).effects["sound"]
    assert sound.moved["mouth"].mean > 20
    assert sound.moved["eyes"].mean == 0


@pytest.mark.usefixtures("reader")
def test_an_exchange_of_equals_keeps_and_misses_nothing() -> None:
    """Where nobody blinks, exchanged blinks say nothing about the lips."""
    drive = conditions()
    drive = dataclasses.replace(drive, motion=dataclasses.replace(drive.motion, blink=torch.zeros(COUNT)))
    measured = run(puppet(), drive=drive)
    assert not measured.effects["blink"].told
    assert verdicts(measured)["blink", "mouth"] is None
    assert verdicts(measured)["blink inverted", "mouth"] is True


@pytest.mark.usefixtures("reader")
def test_frames_without_a_face_are_left_out_and_a_film_without_any_is_refused() -> None:
    def hidden(first: int) -> Draw:
        def draw(drive: Drive) -> Drawn:
            drawn = puppet()(drive)
            drawn.rgb[(drive.motion.landmark[:, 0] > math.cos(0.2 * (first - 0.5))).numpy(), 0, 0] = 255
            return drawn

        return draw

    only = {"sound": EXCHANGES["sound"]}
    measured = run(hidden(4), only)
    assert 0 < measured.effects["sound"].faces < COUNT
    assert measured.kept(TARGETS[0]) is True
    with pytest.raises(NoFaceError, match="no face"):
        run(lambda drive: Drawn(np.full_like(puppet()(drive).rgb, 255), None), only)


@pytest.mark.usefixtures("reader")
def test_pictures_without_alpha_have_no_background() -> None:
    measured = run(lambda drive: dataclasses.replace(puppet()(drive), alpha=None))
    assert {effect.background for effect in measured.effects.values()} == {None}
    assert verdicts(measured)["rotation", "background"] is None


# ------------------------------------------------------------------------------------------------------- the avatar


def driven(speaker: Speaker, capture: Capture, count: int = 6) -> Drive:
    """Frames of the capture's test part; it has no blinks, so some are made up."""
    start = capture.test[0]
    motion = speaker.motion_of(capture, start, start + count)
    motion = dataclasses.replace(motion, blink=torch.linspace(0, 0.4, count))
    config = speaker.network.config
    heard = torch.randn(count, config.tokens.windows, config.audio.channels, config.audio.columns)
    return Drive(heard, motion)


def change(speaker: Speaker, drive: Drive, name: str) -> int:
    """The most that an exchange changes in any pixel."""
    draw = drawing(speaker)
    return int(np.abs(draw(drive).rgb.astype(int) - draw(EXCHANGES[name].of(drive)).rgb).max())


def test_an_avatar_that_ignores_its_blinks_shows_no_effect_of_them(lively: Speaker, tiny_capture: Capture) -> None:
    drive = driven(lively, tiny_capture)
    assert change(lively, drive, "blink inverted") > 0
    encoder = lively.network.encoder
    with torch.no_grad():
        for parameter in encoder.blink.parameters():
            parameter.zero_()
        lively.network.modes.blink.zero_()
    assert change(lively, drive, "blink inverted") == 0
    assert change(lively, drive, "sound") > 0


def test_the_way_of_an_exchange_is_found_where_it_is(lively: Speaker, tiny_capture: Capture) -> None:
    """With one part silenced, all comes through the other; what only tokens are told never plays an expression."""
    drive, exchanges = driven(lively, tiny_capture), {name: EXCHANGES[name] for name in ("sound", "blink inverted", "rotation")}

    def found() -> dict[str, Ways]:
        return ways(lively, drive, exchanges, lambda part: None)

    both = found()
    assert all(way.unet > 0 for way in both.values())
    assert both["sound"].expressions > 0
    assert both["rotation"].expressions == 0
    loud = lively.network.unet.out.weight.clone()
    with torch.no_grad():
        lively.network.unet.out.weight.zero_()
    assert {name: way.unet for name, way in found().items()} == dict.fromkeys(exchanges, 0.0)
    with torch.no_grad():
        lively.network.unet.out.weight.copy_(loud)
        lively.network.modes.planes.zero_()
    without = found()
    assert {name: way.expressions for name, way in without.items()} == dict.fromkeys(exchanges, 0.0)
    assert all(way.unet > 0 for way in without.values())


def test_frames_are_those_that_speak_draws(lively: Speaker, tiny_capture: Capture) -> None:
    drive = driven(lively, tiny_capture)
    drawn = drawing(lively)(drive)
    # Frames drawn in other company are rounded a little differently.
    np.testing.assert_allclose(drawn.rgb.astype(int), lively.draw(drive.heard, drive.motion), atol=1)
    assert drawn.alpha is not None
    assert 0 <= drawn.alpha.min() < drawn.alpha.max() <= 1


def test_sound_is_heard_as_speak_hears_it(
    avatar: Path, tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from talk3d.talker.speak import SpeakConfig, speak

    speaker, heard = Speaker(avatar), []
    draw = speaker.draw

    def listening(audio: torch.Tensor, *rest: object) -> np.ndarray:
        heard.append(audio)
        return draw(audio, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(speaker, "draw", listening)
    speak(speaker, Path(), tmp_path / "a.mp4", SpeakConfig(), False, lambda done, total: None, drive=tiny_capture)
    start, stop = tiny_capture.test
    windows, around = capture_windows(tiny_capture, tiny_capture.train, speaker.audio), speaker.network.config.tokens.windows
    expected = audio_neighbourhood(windows, torch.arange(start, stop), around, silent_window(speaker.audio))
    torch.testing.assert_close(expected, torch.cat(heard))


# ------------------------------------------------------------------------------------------------------- attention


def test_shares_sum_to_one_and_null_vectors_count_as_one(lively: Speaker, tiny_capture: Capture) -> None:
    drive = driven(lively, tiny_capture, 3)
    shares = token_shares(lively, drive.heard, drive.motion)
    side = lively.network.config.unet.plane_size // 8
    assert shares.shape == (3, 3, len(lively.network.config.tokens.tokens), side, side)
    torch.testing.assert_close(shares.sum(2), torch.ones(3, 3, side, side))
    two = lively.network.config.tokens
    vectors = dataclasses.replace(two, null_tokens=2)
    network = lively.network
    network.config = dataclasses.replace(network.config, tokens=vectors)
    network.encoder.config = vectors
    null = two.tokens.index("null")
    with torch.no_grad():
        # Twice the same vector takes what one took, and as much again, of the rest.
        network.encoder.null = torch.nn.Parameter(network.encoder.null.repeat(2, 1), requires_grad=False)
        kinds = network.encoder.kinds
        network.encoder.kinds = torch.nn.Parameter(torch.cat([kinds[: null + 1], kinds[null:]]), requires_grad=False)
    doubled = token_shares(lively, drive.heard, drive.motion)
    assert doubled.shape == shares.shape
    assert (doubled[:, :, null] > shares[:, :, null]).all()


@pytest.mark.parametrize("axes", ["aligned", "eg3d"])
def test_a_map_lights_up_where_the_surface_projects_onto_it(axes: str) -> None:
    """One position of one plane alone: the pixels it lights up are those whose points lie within a texel of it."""
    orbit, raw, side = Orbit(), 48, 8
    options = RenderOptions(plane_axes=axes)  # type: ignore[arg-type]
    camera = orbit.pose(torch.tensor([0.3]), torch.tensor([-0.1]))[0]
    v, u = torch.meshgrid(torch.linspace(-1, 1, raw), torch.linspace(-1, 1, raw), indexing="ij")
    depth = 2.6 - 0.2 * u + 0.1 * v**2
    # Where each pixel's point is, without the renderer's rays.
    image = torch.stack([(u * (raw - 1) / raw) / 2, (v * (raw - 1) / raw) / 2], -1) / orbit.focal
    directions = torch.cat([image, torch.ones(raw, raw, 1)], -1) @ camera[:3, :3].mT
    points = camera[:3, 3] + depth[..., None] * torch.nn.functional.normalize(directions, dim=-1)
    places = project_points(points.reshape(1, -1, 3), options.plane_axes)[0]  # [3, P, 2], -0.5..0.5
    for plane in range(3):
        # The position that the middle pixel's point falls on.
        column, row = ((places[plane, raw * raw // 2 + raw // 2] + 0.5) * side).long().tolist()
        maps = torch.zeros(3, 2, side, side)
        maps[plane, 1, row, column] = 3.0
        heat = over_face(maps, depth, camera, orbit.intrinsics(), options)
        assert heat.shape == (2, raw, raw)
        assert heat[0].abs().max() == 0
        texel = torch.tensor([column, row]) + 0.5
        away = (texel - (places[plane] + 0.5) * side).abs()
        expected = (1 - away).clamp(min=0).prod(-1).reshape(raw, raw)
        torch.testing.assert_close(heat[1], expected, atol=1e-4, rtol=0)
        assert 0 < (heat[1] > 0).float().mean() < 1


def test_maps_of_an_avatar_and_their_sheet(lively: Speaker, tiny_capture: Capture) -> None:
    drive, done = driven(lively, tiny_capture), []
    chosen = [("open", 2, None), ("closed", 4, 1.0)]
    attention = attend(lively, drive.heard, drive.motion, chosen, done.append)
    assert done[-1] == 1.0
    np.testing.assert_allclose(attention.planes.sum(0), 1, atol=1e-5)
    shares = token_shares(lively, drive.heard, drive.motion)
    np.testing.assert_allclose(attention.planes, shares.mean(0).transpose(0, 1).numpy(), atol=1e-5)
    assert [moment.title for moment in attention.moments] == ["open", "closed"]
    together = drawing(lively)(drive).rgb[2].astype(int)  # a batch of one may round otherwise than one of six
    np.testing.assert_allclose(attention.moments[0].picture.astype(int), together, atol=1)
    assert (attention.moments[1].picture != drawing(lively)(drive).rgb[4]).any(), "told to close its eyes"
    picture = attention_sheet(attention)
    assert picture.dtype == np.uint8
    assert len(picture) > len(attention.tokens) * 200


def test_up_is_up_on_the_sheet_and_axes_are_those_of_the_planes() -> None:
    assert plane_names("aligned") == ["xy", "xz", "zy"]
    assert plane_names("eg3d") == ["xy", "xz", "zx"]
    planes = np.zeros((1, 3, 4, 4))
    planes[0, :, 3, 0] = 1.0  # the last row: far along the height; the first column: little along the width
    moment = Moment("m", np.full((SIZE, SIZE, 3), 90, np.uint8), np.zeros((1, 16, 16)), np.zeros((16, 16)))
    picture = attention_sheet(Attention(("audio",), planes, "aligned", [moment]))
    from talk3d.bench.attention import CELL, HEADER, LABEL

    bright = picture[HEADER:, LABEL : LABEL + CELL].astype(int).sum(-1)[8:-8, 8:-8]
    rows, columns = np.nonzero(bright > bright.min() + 100)
    assert rows.max() < CELL / 3
    assert columns.max() < CELL / 3


# -------------------------------------------------------------------------------------------------------- the report


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny capture's test part has fewer frames than a real one may have."""
    monkeypatch.setattr(bench, "FEWEST", 2)


@pytest.mark.usefixtures("reader", "few")
def test_the_report(avatar: Path, tiny_capture: Capture, tmp_path: Path) -> None:
    output, said = tmp_path / "report", []
    report = bench_tokens(avatar, tiny_capture.root, output, 4, False, lambda stage, part: said.append(stage))
    assert sorted(path.name for path in output.iterdir()) == ["attention.png", "report.html", "report.json", "sheet.png"]
    assert list(dict.fromkeys(said)) == ["listening", "drawing", "ways", "attention"]
    numbers = json.loads((output / "report.json").read_text())
    assert set(numbers["effects"]) == set(numbers["ways"]) == set(EXCHANGES)
    assert set(numbers["effects"]["sound"]["moved"]) == set(FEATURES)
    assert [target["bound"] for target in numbers["targets"]] == [target.bound for target in TARGETS]
    assert sum(sum(planes.values()) for planes in numbers["attention"].values()) == pytest.approx(3, abs=0.01)
    assert "Infinity" not in json.dumps(numbers)
    assert "NaN" not in json.dumps(numbers)
    assert any("blinks of other frames" in line and "nothing was exchanged" in line for line in numbers["missing"])
    html = (output / "report.html").read_text()
    assert html.count("data:image/jpeg") == 2
    assert "http" not in html.replace("http://www.w3.org", "")
    assert "sound" in bench.table(report)
    with pytest.raises(OutputExistsError):
        bench_tokens(avatar, tiny_capture.root, output, 4, False, lambda stage, part: None)
    bench_tokens(avatar, tiny_capture.root, output, 4, True, lambda stage, part: None)
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputExistsError):
        bench_tokens(avatar, tiny_capture.root, tmp_path / "mine", 4, True, lambda stage, part: None)


def test_what_cannot_be_measured_is_refused_at_once(
    avatar: Path,
    tiny_capture: Capture,
    make_capture: Callable[..., Capture],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(truth: Path, frames: int = 100) -> None:
        bench_tokens(avatar, truth, tmp_path / "report", frames, False, lambda stage, part: None)

    monkeypatch.setattr(bench, "measure", lambda *rest: pytest.fail("drew frames"))
    with pytest.raises(ArtifactError, match="made from another Capture"):
        refused(make_capture(tmp_path / "other", tiny_capture.prior_hash, test_noise=True).root)
    with pytest.raises(ConfigError, match="the test part has"):
        refused(tiny_capture.root, 2)
    with pytest.raises(ConfigError, match="longer film"):
        refused(tiny_capture.root)
    imported = Speaker(avatar)
    imported.pose_offset = None
    monkeypatch.setattr(bench, "Speaker", lambda path: imported)
    with pytest.raises(ConfigError, match="was imported"):
        refused(tiny_capture.root)
    assert not (tmp_path / "report").exists()


def test_targets_name_exchanges_and_features_that_exist() -> None:
    for target in TARGETS:
        assert target.exchange in EXCHANGES
        assert target.feature in (*FEATURES, "background")
    assert {target.bound for target in TARGETS} == {5.0, 0.0}, "goals are not loosened"


def test_the_puppet_is_read_as_it_is_drawn() -> None:
    """What the other tests rest on: level to opening, and back."""
    face = Reader()(puppet()(conditions()).rgb[0])
    assert face is not None
    assert eye_opening(face.lids[None])[0] == pytest.approx(0.45, abs=0.01)
    assert lip_opening(face.landmarks[None])[0] > 0
    assert dataclasses.astuple(Moved(1.0, 2.0, 3.0, 4.0)) == (1, 2, 3, 4)


@pytest.mark.skipif(not all(s.installed for s in frozen.list_models()), reason="the face models are not installed")
@pytest.mark.usefixtures("few")
def test_an_avatar_without_a_face_is_refused(avatar: Path, tiny_capture: Capture, tmp_path: Path) -> None:
    with pytest.raises(NoFaceError, match="what the avatar draws"):
        bench_tokens(avatar, tiny_capture.root, tmp_path / "report", 4, False, lambda stage, part: None)
    assert not (tmp_path / "report").exists()
    assert Avatar.open(avatar)
