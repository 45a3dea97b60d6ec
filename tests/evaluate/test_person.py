"""Likeness and flicker: laws that hold for any film, on heads whose identity is known."""

from pathlib import Path

import numpy as np
import pytest

from talk3d.camera import Orbit
from talk3d.evaluate.person import Flicker, likeness
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
