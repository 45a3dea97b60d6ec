"""HeadNet: its distance is one, folding changes nothing, and the shipped weights do what the model card says of them."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talk3d.errors import CheckpointError
from talk3d.judges.headnet import (
    READINGS,
    WEIGHTS,
    HeadNet,
    HeadNetDims,
    close_up,
    face_frame,
    load_headnet,
    perceptual_distance,
    save_headnet,
)
from talk3d.pretrain import portraits
from talk3d.pretrain.portraits import Portraits, load_portraits, render_portraits

TINY = HeadNetDims(
    widths=(4, 6, 8, 8, 8), blocks=(0, 1, 0, 0, 1), squeeze=4, hidden=8, embedding=6, close_widths=(4, 6), close_blocks=(0, 1)
)  # fmt: skip


@pytest.fixture
def tiny() -> HeadNet:
    """Random weights, statistics of random pictures."""
    network = HeadNet(TINY)
    network(torch.randn(8, 3, 128, 128))
    return network.eval()


@pytest.fixture(scope="module")
def heads(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Portraits:
    """Twenty-four people of a shard that neither training nor benchmark draws, in two pictures each."""
    from talk3d.heads.model import HeadPack

    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in (("PERSONS", 24), ("FACES", 2), ("VIEWS", 1)):
            monkeypatch.setattr(portraits, name, value)
        folder = render_portraits(tmp_path_factory.mktemp("heads"), 999, HeadPack(shared / "heads"))
    return load_portraits([folder])


def over(data: Portraits, background: np.ndarray | float) -> torch.Tensor:
    """[N, 3, S, S] in -1..1."""
    images = torch.from_numpy(data.images).float()
    return (images[:, :3] + (1 - images[:, 3:] / 255) * torch.as_tensor(background)) / 127.5 - 1


def test_the_distance_is_symmetric_and_zero_for_equal_pictures(tiny: HeadNet) -> None:
    x, y = torch.rand(2, 3, 3, 64, 96) * 2 - 1
    assert (tiny.distance(x, x) == 0).all()
    assert (tiny.distance(x, y) > 0).all()
    torch.testing.assert_close(tiny.distance(x, y), tiny.distance(y, x))
    torch.testing.assert_close(tiny.distance(x, y)[1:2], tiny.distance(x[1:2], y[1:2]))


def test_the_distance_has_a_finite_gradient_also_at_zero(tiny: HeadNet) -> None:
    for x in (torch.zeros(1, 3, 32, 32), torch.rand(1, 3, 32, 32)):
        for y in (x, torch.ones_like(x)):
            (gradient,) = torch.autograd.grad(tiny.distance(x.requires_grad_(), y.detach()).sum(), x)
            assert torch.isfinite(gradient).all()


def test_close_ups_are_cut_where_the_face_is() -> None:
    """A picture whose colours are its own coordinates shows where each pixel came from."""
    places = (torch.arange(128) + 0.5) / 128
    picture = torch.stack([places.expand(128, 128), places[:, None].expand(128, 128), torch.zeros(128, 128)])[None]
    points = torch.rand(1, 68, 2, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.45
    points[0, [36, 39]] = torch.tensor([[0.36, 0.40], [0.42, 0.42]])  # eyes, turned and not in the middle
    points[0, [42, 45]] = torch.tensor([[0.52, 0.44], [0.58, 0.46]])
    frame = face_frame(points)
    cut = close_up(picture, points)[0, :2]
    rows = (torch.arange(64) + 0.5) / 64
    grid = torch.stack([rows.expand(64, 64), rows[:, None].expand(64, 64), torch.ones(64, 64)])
    expected = torch.einsum("ij,jhw->ihw", frame[0], grid)
    inside = ((expected > 0.01) & (expected < 0.99)).all(0)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(cut[:, inside], expected[:, inside], atol=1e-4, rtol=0)
    # Turned, shifted and scaled points turn, shift and scale what is cut.
    turn = 0.8 * torch.tensor([[0.96, -0.28], [0.28, 0.96]])
    moved = face_frame(points @ turn.T + torch.tensor([0.1, -0.05]))[0]
    torch.testing.assert_close(moved[:, :2], turn @ frame[0, :, :2])
    torch.testing.assert_close(moved[:, 2], turn @ frame[0, :, 2] + torch.tensor([0.1, -0.05]))


def test_folding_changes_nothing(tiny: HeadNet) -> None:
    x = torch.randn(2, 3, 128, 128)
    before, after = tiny(x), tiny.folded()(x)
    for name in ("embedding", "readings", "landmarks"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=1e-4, atol=1e-5)
    assert not any("norm" in name for name in tiny.folded().state_dict())


def test_it_comes_back_from_disk_with_its_sizes(tiny: HeadNet, tmp_path: Path) -> None:
    save_headnet(tiny.folded(), tmp_path / "a.safetensors")
    again = load_headnet(tmp_path / "a.safetensors")
    assert again.dims == TINY
    x = torch.randn(1, 3, 128, 128)
    torch.testing.assert_close(again(x).landmarks, tiny(x).landmarks, atol=2e-3, rtol=0)
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a readable HeadNet"):
        load_headnet(tmp_path / "missing.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"tools/train_judges\.py"):
        load_headnet(tmp_path / "bad.safetensors")


def test_pictures_of_other_sizes_are_read_too() -> None:
    network = load_headnet()
    coarse = torch.rand(1, 3, 6, 6)
    small, large = (torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic") for side in (128, 384))
    torch.testing.assert_close(network(large).landmarks, network(small).landmarks, atol=5e-3, rtol=0)


def test_the_shipped_judges_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in WEIGHTS.parent.glob("*.safetensors")}
    assert sizes.keys() == {"ear.safetensors", "headnet.safetensors", "sync.safetensors"}
    assert sizes["headnet.safetensors"] <= 5.8e6
    assert max(sizes["sync.safetensors"], sizes["ear.safetensors"]) <= 1e6


def test_it_knows_people_again_whom_it_never_saw(heads: Portraits) -> None:
    embedding = load_headnet()(over(heads, 128.0)).embedding
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(len(embedding)))
    likeness = (embedding @ embedding.T).numpy()
    one = heads.person[:, None] == heads.person
    strangers = heads.twins[:, None] != heads.twins
    other_picture = ~np.eye(len(heads), dtype=bool)
    same, different = likeness[one & other_picture], likeness[strangers]
    chance = (same[:, None] > different[None]).mean()
    assert chance > 0.95


def test_the_background_is_not_the_person(heads: Portraits) -> None:
    network = load_headnet()
    plain = network(over(heads, 128.0)).embedding
    noise = np.random.default_rng(0).uniform(0, 255, (3, 8, 8)).astype(np.float32)
    busy = cv2.resize(noise.transpose(1, 2, 0), (128, 128), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)
    moved = (plain * network(over(heads, busy.clip(0, 255))).embedding).sum(1)
    others = (plain @ plain.T)[heads.twins[:, None] != heads.twins]
    # A new background changes less than another person does, by far.
    assert moved.mean() > 0.85
    assert moved.mean() > others.mean() + 0.5


def test_it_reads_poses_and_expressions(heads: Portraits) -> None:
    read = load_headnet()(over(heads, 128.0))
    eyes = np.linalg.norm(heads.landmarks[:, 36] - heads.landmarks[:, 45], axis=1)
    error = np.linalg.norm(read.landmarks.numpy() - heads.landmarks, axis=2).mean(1) / eyes
    assert np.median(error) < 0.08
    for name, least in (("jawOpen", 0.9), ("mouthSmile", 0.6), ("eyeBlink_L", 0.4)):
        column = READINGS.index(name)
        assert np.corrcoef(read.readings[:, column].numpy(), heads.readings[:, column])[0, 1] > least


def test_the_distance_grows_with_what_is_done_to_a_picture(heads: Portraits) -> None:
    pictures = over(dataclasses.replace(heads, images=heads.images[::8]), 90.0)
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))

    def blurred(deviation: float) -> torch.Tensor:
        rows = [cv2.GaussianBlur(p.permute(1, 2, 0).numpy(), (0, 0), deviation) for p in pictures]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)

    for changes in (
        [blurred(d) for d in (0.5, 1, 2, 4)],
        [pictures + d * noise for d in (0.05, 0.1, 0.2, 0.4)],
        [pictures.roll(d, 3) for d in (1, 2, 4, 8)],
    ):
        distances = torch.stack([perceptual_distance(pictures, changed) for changed in changes])
        assert (distances[0] > 0).all()
        assert (distances.diff(dim=0) > 0).all()
