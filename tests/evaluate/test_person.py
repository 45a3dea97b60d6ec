"""Likeness and flicker: laws that hold for any film, on heads whose identity is known."""

from pathlib import Path

import numpy as np
import pytest

from talk3d.camera import Orbit
from talk3d.evaluate.person import BANDS, Flicker, band_powers, blinks, expression_error, likeness, motion_spectrum, new_edges
from talk3d.heads.latent import LATENT_SIZE, parameters_from_latent
from talk3d.heads.model import HeadPack
from talk3d.heads.raster import render_head


@pytest.fixture(scope="module")
def people(shared: Path) -> list[np.ndarray]:
    """Six persons, drawn twice each: [256, 256, 3] with two faces [468, 2] that only say where the head is."""
    pack, orbit, rng = HeadPack(shared / "heads"), Orbit(), np.random.default_rng(3)
    import torch

    drawn = []
    for _ in range(6):
        latent = rng.standard_normal(LATENT_SIZE).astype(np.float32)
        head = pack.build(parameters_from_latent(latent, pack))
        for yaw in (0.0, 0.3):
            pose = orbit.pose(torch.tensor([yaw]), torch.zeros(1))[0].numpy()
            drawn.append(render_head(head, pack, pose, orbit.intrinsics().numpy(), 256).rgb)
    return drawn


def face() -> np.ndarray:
    """Landmarks that fill the box which a face has in those pictures."""
    x, y = np.random.default_rng(0).uniform(0, 1, (2, 468))
    x[:2], y[:2] = (0, 1), (0, 1)
    return np.stack([256 * (0.23 + 0.55 * x), 256 * (0.265 + 0.627 * y)], axis=-1)[None]


def judged(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    found = likeness([(one, other)], face(), face())
    return float(found["distance"][0]), float(found["identity"][0])


def test_the_same_person_from_the_side_is_more_alike_than_another_one(people: list[np.ndarray]) -> None:
    assert judged(people[0], people[0]) == pytest.approx((0, 1), abs=1e-5)
    same = [judged(people[2 * i], people[2 * i + 1]) for i in range(6)]
    swapped = [judged(people[2 * i], people[(2 * i + 2) % 12]) for i in range(6)]
    assert np.mean([identity for _, identity in same]) > np.mean([identity for _, identity in swapped]) + 0.3
    assert np.mean([distance for distance, _ in swapped]) > 0.3


def test_faces_that_are_not_found_are_not_judged(people: list[np.ndarray]) -> None:
    pairs = [(people[0], people[0])] * 3
    faces = face().repeat(3, 0)
    lost, unseen = faces.copy(), faces.copy()
    lost[1], unseen[2] = np.nan, np.nan
    found = likeness(pairs, lost, unseen)
    assert np.isfinite(found["distance"]).tolist() == [True, True, False]
    assert np.isfinite(found["identity"]).tolist() == [True, False, False]
    assert not np.isfinite(likeness(pairs, lost * np.nan, lost * np.nan)["distance"]).any()


def flicker(film: np.ndarray, truth: np.ndarray) -> Flicker:
    measured = Flicker()
    for frame, true in zip(film, truth, strict=True):
        measured.add(frame, true)
    return measured


def test_flicker_is_what_comes_and_goes() -> None:
    rng = np.random.default_rng(0)
    steady = (np.arange(20)[:, None, None, None] * 5 + np.zeros((20, 8, 8, 3))).astype(np.uint8)
    noise = rng.integers(0, 8, steady.shape).astype(np.uint8)
    truth = steady + noise
    assert flicker(truth, truth).value == pytest.approx(1)
    assert flicker(truth, truth).frames == 18
    assert flicker(steady, truth).value == 0  # a steady change is none
    louder = [flicker(steady + level * noise, truth).value for level in (1, 2, 4)]
    assert louder == pytest.approx([1, 2, 4])
    assert flicker(truth, steady).value is None
    assert flicker(truth[:2], truth[:2]).value is None


def test_flicker_is_the_second_difference() -> None:
    film = np.array([0, 10, 0, 30], np.uint8)[:, None, None, None] + np.zeros((4, 4, 4, 3), np.uint8)
    truth = np.array([0, 0, 4, 0], np.uint8)[:, None, None, None] + np.zeros((4, 4, 4, 3), np.uint8)
    assert flicker(film, truth).value == pytest.approx((20 + 40) / (4 + 8))


# ------------------------------------------------------------------------------------- blinks, motion, expressions, seams


def eyes(minimum: float = 0.05, start: int = 40, frames: int = 6) -> np.ndarray:
    """Twenty seconds of open eyes, with one blink."""
    curve = 0.3 + 0.005 * np.random.default_rng(0).normal(size=500)
    curve[start : start + frames] = minimum
    return curve


def test_planted_blinks_are_counted() -> None:
    found = blinks(eyes())
    assert (found.rate.value, found.rate.frames) == (pytest.approx(3.0), 500)
    assert (found.duration.value, found.duration.frames) == (pytest.approx(240), 1)
    assert found.depth.value == pytest.approx(1 - 0.05 / 0.3, abs=0.01)
    longer = blinks(eyes(frames=12))
    assert longer.duration.value == pytest.approx(480)
    twice = eyes()
    twice[200:204] = 0.1
    assert blinks(twice).rate.value == pytest.approx(6.0)
    depths = [blinks(eyes(minimum)).depth.value for minimum in (0.18, 0.1, 0.0)]
    assert depths == sorted(depths)


def test_squinting_is_no_blink_and_unknown_frames_are_none() -> None:
    assert blinks(eyes(minimum=0.24)).rate.value == 0
    assert blinks(eyes(minimum=np.nan)).rate.value == 0
    assert blinks(eyes(minimum=np.nan)).rate.frames == 494
    assert blinks(eyes(minimum=0.24)).depth.value is None
    assert blinks(np.full(500, np.nan)).rate.value is None


def test_band_powers_are_scipys() -> None:
    from scipy.signal import welch

    curves = np.cumsum(np.random.default_rng(1).normal(size=(437, 3)), axis=0)
    hertz, density = welch(curves, 25, "hann", 100, 50, detrend="constant", axis=0)
    expected = [density[(hertz >= low) & (hertz < high)].sum(0) * 0.25 for low, high in zip(BANDS, BANDS[1:], strict=False)]
    found = band_powers(curves)
    assert found is not None
    assert np.allclose(found, np.array(expected).T, rtol=1e-9)
    assert band_powers(curves[:99]) is None


def sway(seed: int, size: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    curves = np.stack([np.convolve(rng.normal(size=1060), np.hanning(13), "valid")[:1000] for _ in range(6)], 1)
    curves[:, 2] *= 0.01
    return size * curves


def test_as_much_motion_is_near_and_less_is_far() -> None:
    truth = sway(0)
    assert motion_spectrum(truth, truth).value == 0
    alike = motion_spectrum(sway(1), truth).value
    sizes = [motion_spectrum(sway(1, size), truth).value for size in (1.0, 0.5, 0.1, 0.0)]
    assert sizes == sorted(sizes)
    assert alike is not None
    assert alike < 4
    assert sizes[1] == pytest.approx(6, abs=1.5)  # half as much is 6 dB less
    assert sizes[3] == pytest.approx(30, abs=1)
    rng = np.random.default_rng(5)
    shaky = motion_spectrum(truth + 0.5 * rng.normal(size=truth.shape), truth).value
    assert shaky > alike


def test_the_size_of_the_picture_is_no_motion() -> None:
    truth = sway(0)
    larger = truth.copy()
    larger[:, :2] *= 3
    larger[:, 2] += np.log(3)
    assert motion_spectrum(larger, truth).value == pytest.approx(0, abs=1e-9)


def test_a_still_face_has_an_expression_error_of_one() -> None:
    truth = np.random.default_rng(2).normal(size=(300, 7)) * [1, 2, 3, 4, 5, 6, 7]
    truth -= np.median(truth, axis=0)
    still = np.zeros((300, 7)) + 3.0
    assert expression_error(still, truth).value == pytest.approx(1)
    assert expression_error(truth + 5, truth).value == pytest.approx(0)  # each film's own rest
    parts = [expression_error(part * truth, truth).value for part in (0.9, 0.5, 0.0)]
    assert parts == pytest.approx([0.1, 0.5, 1.0])
    assert expression_error(truth, np.ones((300, 7))).value is None
    assert expression_error(truth * np.nan, truth).frames == 0


def test_a_seam_is_an_edge_that_the_truth_has_not() -> None:
    x = np.linspace(0, 255, 60)
    truth = np.repeat(np.repeat(x[None, :, None], 60, 0), 3, 2).astype(np.uint8)
    neck = np.zeros((60, 60), bool)
    neck[20:50, 10:50] = True
    seams = []
    for step in (0, 10, 40):
        cut = truth.astype(int)
        cut[35:] -= step
        seams.append(new_edges(np.clip(cut, 0, 255).astype(np.uint8), truth, neck))
    assert seams[0] == 0
    assert seams == sorted(seams)
    assert seams[2] > 0.5
    moved = np.roll(truth, 1, axis=1)
    moved[:, 0] = 0
    striped = truth.copy()
    striped[:, ::10] = 0
    shifted = np.roll(striped, 2, axis=1)
    assert new_edges(moved, truth, neck) < 0.3
    assert new_edges(shifted, striped, neck) < 0.2 * new_edges(striped, truth, neck)  # an edge two pixels off is none
    assert np.isnan(new_edges(truth, truth, neck & False))
