"""From heads or pictures to a Prior on disk, at tiny size; what is impossible is refused before any work."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talk3d.camera import Orbit, camera_label
from talk3d.errors import ConfigError
from talk3d.heads.model import HeadPack
from talk3d.pretrain import make, train
from talk3d.pretrain.adversarial import AdversarialConfig
from talk3d.pretrain.labelled import LabelledDataset
from talk3d.pretrain.train import PretrainConfig
from talk3d.prior.generator import Generator, Profile, load_prior

pytestmark = pytest.mark.usefixtures("small")

TINY = AdversarialConfig(steps=2, batch=2, channel_base=512, channel_max=16, density_points=20, bfloat16=False)


def ignore(stage: str, part: float) -> None:
    pass


def found(generator: Generator) -> np.ndarray:
    return np.full((468, 3), 0.1, np.float32)


@pytest.fixture
def dataset(tmp_path: Path) -> LabelledDataset:
    folder = tmp_path / "pictures"
    folder.mkdir()
    orbit = Orbit(focal=4.2647)
    label = camera_label(orbit.pose(torch.zeros(1), torch.zeros(1)), orbit.intrinsics())[0].tolist()
    for number in range(2):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((64, 64, 3), 90 * number, np.uint8))
    (folder / "dataset.json").write_text(json.dumps({"labels": [["0.png", label], ["1.png", label]]}))
    return LabelledDataset(folder)


def test_too_few_shards_are_refused_before_any_is_rendered(pack: HeadPack, tmp_path: Path) -> None:
    few, none = PretrainConfig(shards=5), PretrainConfig(shards=9, steps=0)
    with pytest.raises(ConfigError, match="held out for scoring"):
        make.from_heads(pack, tmp_path / "prior", tmp_path / "work", None, few, TINY, ignore, False)
    with pytest.raises(ConfigError, match="0 supervised steps"):
        make.from_heads(pack, tmp_path / "prior", tmp_path / "work", None, none, TINY, ignore, False)
    assert list(tmp_path.iterdir()) == []


def test_heads_become_a_prior_with_expressions(
    pack: HeadPack, shards: Path, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both phases; the shards lie there already, so that no process has to draw them at full size."""
    monkeypatch.setattr(make, "measure_canonical", found)
    monkeypatch.setattr(make, "IMAGE_SIZE", 64)
    monkeypatch.setattr(make, "DEPTH_SIZE", 16)
    monkeypatch.setattr(make, "FIRST_SHARDS", 2)
    monkeypatch.setattr(train, "FIRST_SHARDS", 2)
    work = tmp_path / "work"
    work.mkdir()
    (work / "shards").symlink_to(shards)
    config = PretrainConfig(steps=2, heads=2, shards=4, bfloat16=False)
    torch.manual_seed(0)
    make.from_heads(pack, tmp_path / "prior", work, Generator(profile), config, TINY, ignore, False, renderers=0)
    prior = load_prior(tmp_path / "prior")
    assert prior.profile == profile
    assert "jawOpen" in prior.expressions
    # It draws whole people: of hairstyles (one-hot in the latent, so two values each) no one has a blend.
    values = [len(column.unique()) for column in prior.generator.random_latents(make.PEOPLE, 0).T]
    assert len(prior.generator.random_latents(make.PEOPLE, 0).unique(dim=0)) == make.PEOPLE
    assert sum(count == 2 for count in values) > 20
    assert prior.artifact.manifest["licence"] == "Apache-2.0"
    assert (work / "adversarial" / "log.jsonl").read_text().count("\n") == 2
    settings = prior.artifact.config["training"]
    assert settings["supervised"]["steps"] == 2
    assert settings["adversarial"] == json.loads(json.dumps(dataclasses.asdict(TINY.continued())))


def test_a_prior_of_other_heads_cannot_be_continued(pack: HeadPack, profile: Profile, tmp_path: Path) -> None:
    other = Generator(dataclasses.replace(profile, z_dim=20))
    with pytest.raises(ConfigError, match="reads 20 numbers"):
        make.from_heads(pack, tmp_path / "p", tmp_path / "w", other, PretrainConfig(shards=9), TINY, ignore, False)
    assert list(tmp_path.iterdir()) == []


def test_pictures_become_a_prior(
    dataset: LabelledDataset, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "measure_canonical", found)
    opaque = dataclasses.replace(profile, alpha=False, c_dim=25, mapping_embed=8, camera_scale=1.0)
    monkeypatch.setitem(make.PRESETS, "mini", (opaque, TINY))
    make.from_images(dataset, tmp_path / "prior", tmp_path / "work", "mini", None, 1, False, ignore, False)
    prior = load_prior(tmp_path / "prior")
    # The camera is that of the pictures, which were taken from elsewhere than the preset's.
    assert prior.profile == dataclasses.replace(opaque, orbit=dataset.orbit())
    assert prior.profile.orbit.focal == pytest.approx(4.2647)
    assert (tmp_path / "work" / "adversarial" / "log.jsonl").read_text().count("\n") == 1
    assert prior.artifact.config["training"]["data"] == dataset.digest()
    # So it is when the training goes on from weights that were meant for another camera.
    start = Generator(opaque)
    make.from_images(dataset, tmp_path / "on", tmp_path / "on-work", "mini", start, 1, False, ignore, False)
    assert load_prior(tmp_path / "on").profile.orbit == dataset.orbit()
    assert start.profile == opaque


def test_pictures_of_another_size_are_refused(dataset: LabelledDataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="64 pixels wide, the network draws 256"):
        make.from_images(dataset, tmp_path / "prior", tmp_path / "work", "mini", None, None, False, ignore, False)
    assert not (tmp_path / "work").exists()


def test_presets_are_what_they_are_called() -> None:
    assert make.PRESETS["eg3d"][0].image_resolution == 512
    assert make.PRESETS["eg3d"][1].batch == 32
    assert make.PRESETS["mini"][0].image_resolution == 256
    assert not any(profile.alpha for profile, _ in make.PRESETS.values())
