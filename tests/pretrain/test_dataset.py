"""Rendered heads on disk: the same everywhere, whole or not at all, held-out ones apart."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d.camera import Orbit
from talk3d.heads.latent import LATENT_SIZE, HeadEmbedding, parameters_from_latent
from talk3d.heads.model import HeadPack
from talk3d.heads.raster import render_head
from talk3d.pretrain import dataset
from talk3d.pretrain.dataset import (
    HELD_OUT_SHARDS,
    PITCH_RANGE,
    YAW_RANGE,
    Batch,
    HeadShards,
    ShardWriters,
    render_shard,
)

HEADS, VIEWS, IMAGE, DEPTH = 4, 3, 64, 16
pytestmark = pytest.mark.usefixtures("small")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_shard_depends_on_its_number_alone(shards: Path, pack: HeadPack, tmp_path: Path) -> None:
    again = render_shard(tmp_path, 2, pack, Orbit())
    assert again == tmp_path / "shard-00002"
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00002"]
    assert contents(again) == contents(shards / "shard-00002")
    other = contents(shards / "shard-00003")
    assert all(other[name] != data for name, data in contents(again).items())


def test_a_finished_shard_is_not_rendered_again(shards: Path, pack: HeadPack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadPack, "build", lambda *_: pytest.fail("it is already there"))
    assert render_shard(shards, 2, pack, Orbit()) == shards / "shard-00002"


def test_an_interrupted_shard_is_not_seen_and_is_made_again(
    shards: Path, pack: HeadPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = np.save

    def killed(path: Path, array: np.ndarray) -> None:
        if "images" in str(path):
            raise KeyboardInterrupt
        save(path, array)

    with monkeypatch.context() as broken:
        broken.setattr(dataset.np, "save", killed)
        broken.setattr("talk3d.partials.os.getpid", lambda: 999_999)  # it was another process
        with pytest.raises(KeyboardInterrupt):
            render_shard(tmp_path, 2, pack, Orbit())
    assert not list(tmp_path.glob("shard-*"))
    assert len(HeadShards(tmp_path, pack)) == 0
    assert contents(render_shard(tmp_path, 2, pack, Orbit())) == contents(shards / "shard-00002")
    assert len(HeadShards(tmp_path, pack)) == HEADS
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00002"]


def test_shapes_and_ranges(shards: Path) -> None:
    shard = {path.stem: np.load(path) for path in (shards / "shard-00002").iterdir()}
    assert {name: (array.shape, array.dtype.name) for name, array in shard.items()} == {
        "latents": ((HEADS, LATENT_SIZE), "float32"),
        "yaw": ((HEADS, VIEWS), "float32"),
        "pitch": ((HEADS, VIEWS), "float32"),
        "images": ((HEADS, VIEWS, 4, IMAGE, IMAGE), "uint8"),
        "depth": ((HEADS, VIEWS, DEPTH, DEPTH), "float16"),
    }
    assert np.abs(shard["yaw"]).max() <= YAW_RANGE + 1e-6
    assert np.abs(shard["pitch"]).max() <= PITCH_RANGE + 1e-6
    # Premultiplied: no colour exceeds its alpha, but for rounding.
    assert (shard["images"][:, :, :3] <= shard["images"][:, :, 3:].astype(int) + 1).all()


def test_pictures_are_those_of_the_latents_and_cameras(shards: Path, pack: HeadPack) -> None:
    shard = {path.stem: np.load(path) for path in (shards / "shard-00001").iterdir()}
    head = pack.build(parameters_from_latent(shard["latents"][3], pack))
    orbit = Orbit()
    pose = orbit.pose(torch.from_numpy(shard["yaw"][3, 1:2]), torch.from_numpy(shard["pitch"][3, 1:2]))[0].numpy()
    picture = render_head(head, pack, pose, orbit.intrinsics().numpy(), IMAGE)
    drawn = np.concatenate([picture.rgb, picture.alpha[..., None]], 2).transpose(2, 0, 1)
    # Angles are stored in single precision: a pixel at an outline may fall to the other side.
    assert (np.abs(drawn.astype(int) - shard["images"][3, 1]) > 2).mean() < 0.01
    cells = picture.depth.reshape(DEPTH, 4, DEPTH, 4)
    depth = shard["depth"][3, 1].astype(float)
    whole = np.isfinite(cells).all((1, 3))
    assert whole.any()
    assert (np.isfinite(depth) == whole).mean() > 0.99  # a cell counts only where the head covers all of it
    both = whole & np.isfinite(depth)
    np.testing.assert_allclose(depth[both], cells.mean((1, 3))[both], atol=2e-3)


def test_held_out_heads_are_never_trained_on(shards: Path, pack: HeadPack) -> None:
    train, held_out = HeadShards(shards, pack), HeadShards(shards, pack, held_out=True)
    assert len(train) == len(held_out) == 2 * HEADS
    assert HELD_OUT_SHARDS == 2
    first = {tuple(batch.latents[0].tolist()) for batch in train}
    second = {tuple(batch.latents[0].tolist()) for batch in held_out}
    assert len(first) == len(second) == 2 * HEADS
    assert first.isdisjoint(second)


def test_batches_come_from_the_generator_of_random_numbers_alone(shards: Path, pack: HeadPack) -> None:
    data = HeadShards(shards, pack)

    def draw(seed: int) -> Batch:
        return data.get(*data.choose(np.random.default_rng([7, seed]), 5, 2))

    one, same = draw(3), draw(3)
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.latents, same.latents)
    assert one.images.shape == (5, 2, 4, IMAGE, IMAGE)
    assert one.depth.shape == (5, 2, DEPTH, DEPTH)
    assert one.depth.dtype == torch.float32
    # The views of one head differ from each other.
    assert (one.yaw[:, 0] != one.yaw[:, 1]).all()
    assert not torch.equal(draw(4).images, one.images)


def test_rows_of_a_batch_belong_together(shards: Path, pack: HeadPack) -> None:
    data = HeadShards(shards, pack)
    every = list(data)
    picked = data.get(np.array([6, 1]), np.array([[2, 0], [1, 2]]))
    for row, (index, views) in enumerate([(6, [2, 0]), (1, [1, 2])]):
        for name in ("yaw", "pitch", "images", "depth"):
            assert torch.equal(getattr(picked, name)[row], getattr(every[index], name)[0][views])
        assert torch.equal(picked.latents[row], every[index].latents[0])


def test_latents_are_the_heads_embedded(shards: Path, pack: HeadPack, embedding: HeadEmbedding) -> None:
    data = HeadShards(shards, pack)
    stored = np.load(shards / "shard-00003" / "latents.npy")
    expected = embedding(parameters_from_latent(stored[2], pack))
    np.testing.assert_array_equal(data.get(np.array([HEADS + 2]), np.array([[0]])).latents[0].numpy(), expected)


def test_new_shards_are_noticed_when_asked(shards: Path, pack: HeadPack, tmp_path: Path) -> None:
    (tmp_path / "shard-00002").symlink_to(shards / "shard-00002")
    data = HeadShards(tmp_path, pack)
    (tmp_path / "shard-00003").symlink_to(shards / "shard-00003")
    (tmp_path / ".shard-00004.1.partial").mkdir()
    assert len(data) == HEADS
    data.refresh()
    data.refresh()
    assert len(data) == 2 * HEADS


def test_a_writer_draws_what_is_missing_while_its_trainer_lives(
    pack: HeadPack, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    dataset._draw_shards(tmp_path, [0, 1], pack.root, Orbit(), parent=-1)
    assert not list(tmp_path.iterdir())
    dataset._draw_shards(tmp_path, [0, 1], pack.root, Orbit(), parent=os.getppid())
    for number in (0, 1):
        assert contents(tmp_path / f"shard-{number:05d}") == contents(shards / f"shard-{number:05d}")


def test_writers_end_with_their_work_or_their_context(pack: HeadPack, tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / f"shard-{number:05d}").mkdir()
    with ShardWriters(tmp_path, range(2), pack, Orbit(), 2) as writers:
        while writers.at_work():  # there is nothing to draw
            time.sleep(0.05)
    with ShardWriters(tmp_path, range(3), pack, Orbit(), 1) as writers:
        assert writers.at_work()
    assert not writers.at_work()
    assert not (tmp_path / "shard-00002").exists()
