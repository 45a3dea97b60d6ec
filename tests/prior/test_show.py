"""What people see of a prior: its description, samples, a film."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talk3d.errors import ConfigError, OutputExistsError
from talk3d.prior import show
from talk3d.prior.generator import Generator, LoadedPrior, load_prior, save_prior
from talk3d.prior.show import cost, describe, draw_from, interpolation, random_people, sample
from talk3d.video.look import probe
from talk3d.video.read import read_frames


@pytest.fixture(scope="module")
def prior(tiny_prior: LoadedPrior, tmp_path_factory: pytest.TempPathFactory) -> LoadedPrior:
    path = tmp_path_factory.mktemp("prior") / "tiny"
    expressions = {"jawOpen": torch.ones(12)}
    save_prior(path, tiny_prior.generator, np.zeros((468, 3), np.float32), expressions=expressions, licence="Apache-2.0")
    return load_prior(path)


def test_the_description_says_what_matters(prior: LoadedPrior) -> None:
    text = describe(prior)
    weights = sum(parameter.numel() for parameter in prior.generator.parameters())
    for word in (
        f"{weights:,}",
        "64 pixels, RGB and alpha",
        "6 + 6 samples",
        "axes aligned",
        "jawOpen",
        "Apache-2.0",
        prior.hash,
    ):
        assert word in text


def test_costs_scale_as_they_must(prior: LoadedPrior) -> None:
    spent = cost(prior.generator)
    profile = prior.profile
    samples = profile.neural_resolution**2 * 12
    # Two dense layers at every sample of both passes, the coarse ones being drawn again with the fine ones at most.
    dense = 2 * (4 * 8 + 8 * 5)
    assert samples * dense <= spent.rendering <= 1.5 * samples * dense
    assert min(spent.planes, spent.superresolution) > 0


def test_samples_and_film_are_written_whole(prior: LoadedPrior, tmp_path: Path) -> None:
    sample(prior, tmp_path / "out", 10, 0, 0.7, False, lambda *_: None)
    sheet = cv2.imread(str(tmp_path / "out" / "samples.png"))
    assert sheet.shape == (2 * 64, 8 * 64, 3)
    film = probe(tmp_path / "out" / "samples.mp4")
    assert "AI-generated" in film.metadata["notice"]
    info = film.video
    assert info is not None
    assert (info.width, info.fps) == (64, 25)
    assert sum(1 for _ in read_frames(tmp_path / "out" / "samples.mp4")) == 200
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["samples.mp4", "samples.png"]
    with pytest.raises(OutputExistsError):
        sample(prior, tmp_path / "out", 10, 0, 0.7, False, lambda *_: None)


@pytest.mark.parametrize(("count", "truncation"), [(0, 1.0), (3, 1.5), (3, -0.1)])
def test_impossible_samples_are_refused(prior: LoadedPrior, tmp_path: Path, count: int, truncation: float) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        sample(prior, tmp_path / "out", count, 0, truncation, False, lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_truncation_leads_to_the_average(prior: LoadedPrior) -> None:
    average = prior.generator.backbone.mapping.w_avg
    torch.testing.assert_close(random_people(prior.generator, 3, 0, 0.0)[1, 2], average)
    full = random_people(prior.generator, 3, 0, 1.0)
    torch.testing.assert_close(random_people(prior.generator, 3, 0, 0.5), average + 0.5 * (full - average))
    assert not torch.equal(full[0], full[1])
    assert torch.equal(full, random_people(prior.generator, 3, 0, 1.0))


def test_the_film_is_a_closed_tour_that_visits_everyone(prior: LoadedPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    visited: list[tuple[torch.Tensor, float]] = []

    def note(generator: Generator, ws: torch.Tensor, yaw: float, pitch: float) -> torch.Tensor:
        visited.append((ws, yaw))
        return draw_from(generator, ws, yaw, pitch)

    monkeypatch.setattr(show, "draw_from", note)
    people = random_people(prior.generator, 2, 0, 1.0)
    pictures = list(interpolation(prior.generator, people, 40))
    assert len(pictures) == 40
    for number in (0, 1):
        torch.testing.assert_close(visited[20 * number][0], people[number : number + 1])
    steps = [float((a[0] - b[0]).abs().max()) for a, b in zip(visited, visited[1:] + visited[:1], strict=True)]
    assert max(steps) < 0.2 * float((people[0] - people[1]).abs().max())
    assert max(yaw for _, yaw in visited) == pytest.approx(show.SWING_YAW, rel=0.05)
