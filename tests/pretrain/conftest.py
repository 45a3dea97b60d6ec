"""Rendered heads at a size that takes moments."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from talk3d.camera import Orbit
from talk3d.heads import latent
from talk3d.heads.latent import HeadEmbedding
from talk3d.heads.model import HeadPack
from talk3d.pretrain import dataset
from talk3d.prior.generator import MINI, Profile
from talk3d.prior.superres import SuperResolutionConfig

HEADS, VIEWS, IMAGE, DEPTH = 4, 3, 64, 16


@pytest.fixture(scope="package")
def pack(shared: Path) -> HeadPack:
    return HeadPack(shared / "heads")


@pytest.fixture(scope="package")
def embedding(pack: HeadPack) -> HeadEmbedding:
    """Made once: it samples 2,000 heads."""
    return HeadEmbedding(pack)


@pytest.fixture(scope="package")
def profile(embedding: HeadEmbedding) -> Profile:
    """The shape of the shipped profile, tiny."""
    return dataclasses.replace(
        MINI,
        name="tiny",
        z_dim=embedding.size,
        w_dim=16,
        mapping_features=16,
        plane_resolution=16,
        plane_channels=4,
        channel_base=256,
        channel_max=16,
        decoder_hidden=8,
        decoder_features=4,
        neural_resolution=DEPTH,
        superres=SuperResolutionConfig(input_resolution=DEPTH, widths=(6, 4), first_up=True, clamp=None),
        render=dataclasses.replace(MINI.render, samples_coarse=6, samples_fine=6),
    )


@pytest.fixture(scope="package")
def small(embedding: HeadEmbedding) -> Iterator[None]:
    """Shards of 4 heads, 3 views each, 64 x 64 pixels."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(latent, "HeadEmbedding", lambda pack: embedding)
        sizes = {"HEADS_PER_SHARD": HEADS, "VIEWS_PER_HEAD": VIEWS, "IMAGE_SIZE": IMAGE, "DEPTH_SIZE": DEPTH}
        for name, value in sizes.items():
            monkeypatch.setattr(dataset, name, value)
        yield


@pytest.fixture(scope="package")
def shards(pack: HeadPack, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two held-out shards and two to train on."""
    root = tmp_path_factory.mktemp("heads")
    dataset.claim(root, pack, Orbit())
    for number in range(4):
        dataset.render_shard(root, number, pack, Orbit())
    return root
