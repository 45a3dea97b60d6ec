"""Personalisation: blind to test frames, bound to its prior, and able to find what was planted."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from talk3d.capture.frames import PersonFrames, Views, spread_frames, warp_plate, working_folder
from talk3d.errors import ArtifactError, ConfigError
from talk3d.personalize import preview
from talk3d.personalize.cameras import CameraConfig, refine_cameras
from talk3d.personalize.invert import Inversion, InvertConfig, invert
from talk3d.personalize.preview import preview_of
from talk3d.personalize.subject import PersonalizeConfig, choose_frames, personalize
from talk3d.personalize.tune import TuneConfig, tune
from talk3d.prior.generator import Generator, composite, save_prior
from talk3d.prior.subject import load_subject

CONFIG = PersonalizeConfig(
    frames=3, invert=InvertConfig(steps=3), tune=TuneConfig(steps=3), cameras=CameraConfig(steps=2, rays=16)
)


def silent(*_: object) -> None:
    pass


def drawn(generator, ws, yaw, pitch) -> Views:
    """Frames that the generator itself drew, so that the answer is known."""
    orbit = generator.profile.orbit
    with torch.no_grad():
        picture = generator(ws.expand(len(yaw), -1, -1), orbit.pose(yaw, pitch), orbit.intrinsics().expand(len(yaw), 3, 3))
    size = picture.image.shape[-1]
    return Views(picture.image, torch.zeros(len(yaw), 3, size, size), torch.ones(len(yaw), 1, size, size))


def raw(generator, ws, yaw, pitch) -> torch.Tensor:
    """Rendered colours and opacity."""
    orbit = generator.profile.orbit
    with torch.no_grad():
        seen = generator(ws, orbit.pose(yaw, pitch), orbit.intrinsics().expand(len(yaw), 3, 3)).raw
    return torch.cat([seen.rgb, 2 * seen.alpha - 1], 1)


def test_test_frames_leave_no_trace(tiny_prior, tiny_capture, make_capture, tmp_path):
    corrupted = make_capture(tmp_path / "corrupted", tiny_prior.hash, test_noise=True)
    clean = personalize(tiny_capture, tiny_prior, CONFIG, silent, tmp_path / "a")
    noisy = personalize(corrupted, tiny_prior, CONFIG, silent, tmp_path / "b")
    assert clean.chosen == noisy.chosen
    assert torch.equal(clean.w, noisy.w)
    assert torch.equal(clean.corrections, noisy.corrections)
    for (name, one), other in zip(clean.generator.state_dict().items(), noisy.generator.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_chosen_frames_are_training_frames_and_spread(tiny_capture):
    chosen = choose_frames(tiny_capture, 5, np.arange(*tiny_capture.train))
    start, stop = tiny_capture.train
    assert len(set(chosen.tolist())) == 5
    assert chosen.min() >= 0
    assert chosen.max() < stop - start
    opening = tiny_capture.lip_gap[start:stop]
    assert np.ptp(opening[chosen]) > 0.5 * np.ptp(opening)


def test_frames_in_which_the_face_is_covered_are_not_learnt_from(tiny_prior, make_capture, tmp_path):
    """Neither shown to the inversion and the tuning, nor given cameras of their own."""
    capture = make_capture(tmp_path / "capture", tiny_prior.hash)
    start, stop = capture.train
    occluded = np.zeros(capture.count)
    occluded[start + 5 : start + 45] = 0.3
    vars(capture)["track"] = capture.track | {"occluded": occluded}
    found = personalize(capture, tiny_prior, CONFIG, silent, tmp_path / "frames")
    assert (occluded[found.chosen] == 0).all()
    curve = found.corrections[0, start + 4 : start + 46]
    torch.testing.assert_close(curve, curve[0] + (curve[-1] - curve[0]) * torch.linspace(0, 1, len(curve)))
    occluded[start + 2 : stop] = 0.3
    with pytest.raises(ConfigError, match="before the face in all but 2 of 60"):
        personalize(capture, tiny_prior, CONFIG, silent, tmp_path / "frames")


def test_long_films_are_not_decoded_to_disk_as_a_whole(tiny_prior, tiny_capture, tmp_path):
    """Corrections of the frames that are refined are kept, others lie between those of their neighbours."""
    start, stop = tiny_capture.train
    room = 9 * 4 * tiny_capture.resolution**2 / 1e9
    config = dataclasses.replace(CONFIG, cache_gigabytes=room)
    found = personalize(tiny_capture, tiny_prior, config, silent, tmp_path / "frames")
    (pictures,) = (tmp_path / "frames").glob("pictures-*")
    assert len(np.load(pictures, mmap_mode="r")) <= 9 + CONFIG.frames
    first, second = spread_frames(np.arange(start, stop), tiny_capture.resolution, room)[:2].tolist()
    curve = found.corrections[0, first : second + 1]
    assert curve[0] != curve[-1]
    torch.testing.assert_close(curve, curve[0] + (curve[-1] - curve[0]) * torch.linspace(0, 1, len(curve)))
    assert (found.corrections[0, stop:] == found.corrections[0, stop]).all()


def test_saved_subject_comes_back(tiny_prior, tiny_capture, tmp_path):
    found = personalize(tiny_capture, tiny_prior, CONFIG, silent, tmp_path / "frames")
    found.save(tmp_path / "subject", tiny_capture, tiny_prior, CONFIG, overwrite=False)
    subject = load_subject(tmp_path / "subject")
    assert subject.consent == tiny_capture.consent
    assert subject.capture_hash == tiny_capture.hash
    ws = found.w.expand(1, found.generator.profile.num_ws, -1)
    torch.testing.assert_close(subject.planes, found.generator.planes(ws))
    expected = torch.from_numpy(tiny_capture.yaw).float() + found.corrections[0]
    torch.testing.assert_close(subject.yaw, expected)
    assert subject.expressions.keys() == tiny_prior.expressions.keys()
    assert all(torch.equal(subject.expressions[name], tiny_prior.expressions[name]) for name in subject.expressions)


def test_another_prior_is_refused(tiny_prior, tiny_capture, tmp_path):
    save_prior(tmp_path / "other", tiny_prior.generator, tiny_prior.canonical_landmarks + 0.1)
    from talk3d.prior.generator import load_prior

    with pytest.raises(ArtifactError, match="posed with prior"):
        personalize(tiny_capture, load_prior(tmp_path / "other"), CONFIG, silent, tmp_path / "frames")


def test_too_short_a_capture_is_refused(tiny_prior, tiny_capture, tmp_path):
    with pytest.raises(ConfigError, match="training frames"):
        personalize(tiny_capture, tiny_prior, dataclasses.replace(CONFIG, frames=1000), silent, tmp_path / "frames")


def test_inversion_comes_closer_to_a_planted_person(tiny_prior):
    generator = tiny_prior.generator
    truth = generator.map(torch.full((1, generator.profile.z_dim), 1.5))
    yaw, pitch = torch.tensor([-0.2, 0.0, 0.2]), torch.zeros(3)
    views = drawn(generator, truth, yaw, pitch)

    def error(w: torch.Tensor) -> float:
        ws = w.expand(1, generator.profile.num_ws, -1)
        again = drawn(generator, ws, yaw, pitch)
        return float((composite(again.target, views.background) - composite(views.target, views.background)).abs().mean())

    before = error(generator.map(torch.zeros(1, generator.profile.z_dim))[0, 0])
    found = invert(generator, views, yaw, pitch, InvertConfig(steps=60, camera_learning_rate=0.0), silent)
    assert error(found.w + found.offsets.mean(0)) < 0.7 * before


def test_tuning_moves_only_what_it_may(tiny_prior):
    generator = tiny_prior.generator
    yaw, pitch = torch.zeros(2), torch.zeros(2)
    views = drawn(generator, generator.map(torch.ones(1, generator.profile.z_dim)), yaw, pitch)
    start = invert(generator, views, yaw, pitch, InvertConfig(steps=1), silent)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    tuned = tune(generator, views, start, TuneConfig(steps=2), silent)
    for name, value in tuned.state_dict().items():
        fixed = name.startswith(("superresolution", "backbone.mapping")) or "filter" in name
        assert torch.equal(value, before[name]) == fixed, name
        assert torch.equal(generator.state_dict()[name], before[name]), "the prior itself must not move"


@pytest.mark.parametrize("every", [1, 2])
def test_the_ball_keeps_the_prior_around_the_person(tiny_prior, every):
    torch.manual_seed(1)
    generator = Generator(tiny_prior.profile).eval().requires_grad_(False)  # full of fog, which no gradient can miss
    layers, frontal = generator.profile.num_ws, (torch.zeros(1), torch.zeros(1))
    views = drawn(generator, generator.map(torch.full((1, generator.profile.z_dim), 2.5)), *frontal)
    people = generator.map(generator.random_latents(8, 0))[:, 0]
    person = Inversion(people.mean(0), torch.zeros_like(people[:1]), *frontal)
    near = ((person.w + people) / 2)[:, None].expand(-1, layers, -1)
    everywhere = torch.zeros(len(near)), torch.zeros(len(near))

    def moved(weight: float) -> float:
        config = TuneConfig(steps=40, learning_rate=5e-3, ball_weight=weight, ball_every=every)
        tuned = tune(generator, views, person, config, silent)
        return float((raw(tuned, near, *everywhere) - raw(generator, near, *everywhere)).abs().mean())

    assert moved(3.0) < 0.6 * moved(0.0)


def test_cameras_find_a_planted_turn(tiny_prior):
    generator = tiny_prior.generator
    ws = generator.map(torch.ones(1, generator.profile.z_dim))
    with torch.no_grad():
        planes = 3 * generator.planes(ws)  # random weights draw faint pictures
    frames = 6
    yaw, pitch = torch.zeros(frames), torch.zeros(frames)
    turned = yaw + 0.03
    orbit = generator.profile.orbit
    with torch.no_grad():
        raw = generator.render(
            planes.expand(frames, -1, -1, -1, -1), orbit.pose(turned, pitch), orbit.intrinsics().expand(frames, 3, 3)
        )
    target = torch.cat([raw.rgb, 2 * raw.alpha - 1], 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
    views = Views(target, target[:, :3], torch.ones_like(target[:, :1]))
    config = CameraConfig(steps=40, rays=128, anchor_weight=0.0)
    found = refine_cameras(generator, planes, lambda index: views[index], yaw, pitch, config, silent)
    assert float((found[0] - 0.03).abs().max()) < 0.01
    assert float(found[1].abs().max()) < 0.01


def test_frames_are_matted_and_know_where_the_film_ends(tiny_capture, tmp_path):
    frames = PersonFrames.cached(tiny_capture, tmp_path / "frames", *tiny_capture.train)
    views = frames.views(np.array([0, 5]))
    matte = (views.target[:, 3:] + 1) / 2
    assert float(matte.min()) == 0
    assert float(matte.max()) == 1
    colour = (views.target[:, :3] + 1) / 2
    assert float((colour * (1 - matte)).max()) < 1e-6, "colour is premultiplied"
    # The crop reaches 4 pixels beyond the left edge of the film (a little more or less from frame to frame).
    assert float(views.known[..., :3].max()) == 0
    assert float(views.known[..., 8:-8].min()) == 1
    again = PersonFrames.cached(tiny_capture, tmp_path / "frames", *tiny_capture.train)
    assert np.array_equal(again.pictures, frames.pictures)


def test_some_frames_alone_are_kept(tiny_capture, tmp_path):
    start, stop = tiny_capture.train
    kept = np.array([2, 3, 40])
    everything = PersonFrames.cached(tiny_capture, tmp_path, start, stop)
    some = PersonFrames.cached(tiny_capture, tmp_path, start, stop, kept)
    assert len(some.pictures) == 3
    asked = np.array([40, 2, 40])
    for name in ("target", "background", "known"):
        assert torch.equal(getattr(some.views(asked), name), getattr(everything.views(asked), name))
    with pytest.raises(AssertionError, match="not kept"):
        some.views(np.array([4]))


def test_frames_of_another_film_are_not_taken_for_ours(tiny_capture, tiny_prior, make_capture, tmp_path):
    """As a run that was killed early leaves them."""
    other = make_capture(tmp_path / "other", tiny_prior.hash, test_noise=True)
    theirs = PersonFrames.cached(other, tmp_path / "frames", 0, 66)
    ours = PersonFrames.cached(tiny_capture, tmp_path / "frames", 0, 66)
    assert not np.array_equal(ours.pictures, theirs.pictures)


def test_frames_are_spread_evenly_within_the_space():
    gigabytes = 10 * 4 * 64**2 / 1e9
    assert spread_frames(np.arange(3, 13), 64, gigabytes).tolist() == list(range(3, 13))
    spread = spread_frames(np.arange(100, 1100), 64, gigabytes)
    assert spread.tolist() == [150 + 100 * k for k in range(10)]
    assert len(spread_frames(np.arange(90_000), 256, 2.0)) * 256**2 * 4 <= 2e9
    uneven = np.diff(spread_frames(np.arange(37), 64, gigabytes))
    assert len(uneven) == 9
    assert set(uneven.tolist()) == {3, 4}


def test_a_preview_shows_the_chosen_frames_and_changes_nothing(tiny_prior, tiny_capture, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "SECONDS", 0.0)
    path = preview_of(tmp_path / "me.subject")
    assert path.name == "me.subject.preview.png"
    seen = []
    write = preview.Preview.write
    monkeypatch.setattr(preview.Preview, "write", lambda self, *args: [seen.append(args[-1]), write(self, *args)])
    shown = personalize(tiny_capture, tiny_prior, CONFIG, silent, tmp_path / "frames", path)
    assert seen == [f"{stage}, step {step}" for stage in ("inverting", "tuning") for step in (1, 2, 3)]
    size = tiny_capture.resolution
    assert cv2.imread(str(path)).shape == (2 * size + 20, CONFIG.frames * size, 3)
    plain = personalize(tiny_capture, tiny_prior, CONFIG, silent, tmp_path / "frames")
    assert torch.equal(plain.w, shown.w)
    assert torch.equal(plain.corrections, shown.corrections)


def test_plate_follows_the_crop():
    plate = np.zeros((40, 40, 3), np.uint8)
    plate[10:12, 20:22] = 255
    crop = np.array([[2.0, 0, -10], [0, 2, -4]])
    seen = warp_plate(plate, crop, 64)
    # Source corner (20, 10) is crop corner (30, 16), and everything is twice as large.
    assert seen[16:20, 30:34].min() > 100
    assert seen[:12].max() == 0


def test_working_folder_vanishes_even_after_an_error(tmp_path):
    def interrupted() -> None:
        with working_folder(tmp_path / "subject") as folder:
            folder.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_prior_without_alpha_is_refused(tiny_prior, tiny_capture, tmp_path):
    profile = dataclasses.replace(tiny_prior.profile, alpha=False)
    opaque = dataclasses.replace(tiny_prior, generator=Generator(profile))
    with pytest.raises(ConfigError, match="carry no alpha"):
        personalize(tiny_capture, opaque, CONFIG, silent, tmp_path / "frames")
    assert not (tmp_path / "frames").exists()
