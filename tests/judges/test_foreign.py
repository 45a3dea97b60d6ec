"""LPIPS and ArcFace: real networks with the public files' names, and honest errors where the weights are not there."""

import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from talk3d.errors import CheckpointError, ModelMissingError
from talk3d.judges.foreign import ArcFaceIrSe50, LpipsAlex, load_arcface, load_lpips_alex


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TALK3D_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def lpips(models: Path) -> LpipsAlex:
    """Loaded from a file of random weights; those of the last layers are positive, as in the public file."""
    tensors = LpipsAlex().state_dict()
    tensors = {name: value.abs() if name.startswith("lin") else value for name, value in tensors.items()}
    safetensors.torch.save_file(tensors, models / "lpips_alex.safetensors")
    return load_lpips_alex()


def test_lpips_has_the_public_names_and_shapes() -> None:
    shapes = {name: tuple(value.shape) for name, value in LpipsAlex().state_dict().items()}
    assert shapes == {
        "features.0.weight": (64, 3, 11, 11), "features.0.bias": (64,),
        "features.3.weight": (192, 64, 5, 5), "features.3.bias": (192,),
        "features.6.weight": (384, 192, 3, 3), "features.6.bias": (384,),
        "features.8.weight": (256, 384, 3, 3), "features.8.bias": (256,),
        "features.10.weight": (256, 256, 3, 3), "features.10.bias": (256,),
        "lin0.model.1.weight": (1, 64, 1, 1), "lin1.model.1.weight": (1, 192, 1, 1), "lin2.model.1.weight": (1, 384, 1, 1),
        "lin3.model.1.weight": (1, 256, 1, 1), "lin4.model.1.weight": (1, 256, 1, 1),
    }  # fmt: skip


def test_lpips_is_a_symmetric_distance(lpips: LpipsAlex) -> None:
    x, y = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    assert (lpips(x, x) == 0).all()
    assert (lpips(x, y) > 0).all()
    torch.testing.assert_close(lpips(x, y), lpips(y, x))
    torch.testing.assert_close(lpips(x, y)[1:], lpips(x[1:], y[1:]))
    assert torch.equal(lpips(x, y), lpips(x, y))
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_lpips_has_finite_gradients_everywhere(lpips: LpipsAlex) -> None:
    x = torch.full((1, 3, 64, 64), -0.03, requires_grad=True)  # the picture whose input to the network is nearly 0
    (gradient,) = torch.autograd.grad(lpips(x, torch.rand(1, 3, 64, 64)).sum(), x)
    assert torch.isfinite(gradient).all()


def test_lpips_by_hand_at_the_first_layer(lpips: LpipsAlex) -> None:
    """All other layers silenced: the mean over places of weighted squared differences of unit vectors."""
    for index in range(1, 5):
        lpips.get_parameter(f"lin{index}.model.1.weight").zero_()
    x, y = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    units = []
    for picture in (x, y):
        plain = (picture - shift[:, None, None]) / scale[:, None, None]
        weight, bias = lpips.get_parameter("features.0.weight"), lpips.get_parameter("features.0.bias")
        active = torch.conv2d(plain, weight, bias, stride=4, padding=2).relu()[0]
        units.append(active / active.norm(dim=0))
    weights = lpips.get_parameter("lin0.model.1.weight")[0, :, 0, 0]
    expected = ((units[0] - units[1]) ** 2 * weights[:, None, None]).sum(0).mean()
    torch.testing.assert_close(lpips(x, y), expected[None])


def test_arcface_has_the_public_names() -> None:
    with torch.device("meta"):
        tensors = ArcFaceIrSe50().state_dict()
    shapes = {name: tuple(value.shape) for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    assert shapes["input_layer.0.weight"] == (64, 3, 3, 3)
    assert shapes["input_layer.2.weight"] == (64,)
    assert shapes["body.3.shortcut_layer.0.weight"] == (128, 64, 1, 1)
    assert "body.0.shortcut_layer.0.weight" not in shapes  # as wide before as after: the picture itself, every second pixel
    assert shapes["body.3.res_layer.0.weight"] == (64,)
    assert shapes["body.3.res_layer.1.weight"] == (128, 64, 3, 3)
    assert shapes["body.3.res_layer.5.fc1.weight"] == (8, 128, 1, 1)
    assert shapes["body.23.res_layer.5.fc2.weight"] == (512, 32, 1, 1)
    assert shapes["output_layer.3.weight"] == (512, 25088)
    assert shapes["output_layer.4.running_mean"] == (512,)
    assert {int(m[1]) for name in shapes if (m := re.match(r"body\.(\d+)\.", name))} == set(range(24))


def test_arcface_gives_unit_vectors(models: Path) -> None:
    safetensors.torch.save_file(ArcFaceIrSe50().state_dict(), models / "arcface_ir_se50.safetensors")
    network = load_arcface()
    faces = torch.rand(2, 3, 112, 112) * 2 - 1
    vectors = network(faces)
    assert vectors.shape == (2, 512)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(network(faces[1:]), vectors[1:], rtol=1e-3, atol=1e-4)
    with pytest.raises(Exception, match="112"):
        network(faces[..., :96, :96])


@pytest.mark.parametrize(("load", "name"), [(load_lpips_alex, "alex.pth"), (load_arcface, "model_ir_se50.pth")])
def test_missing_weights_say_what_to_fetch(models: Path, load, name: str) -> None:
    with pytest.raises(ModelMissingError, match=rf"(?s)does not exist.*{name}.*safetensors.*can run code"):
        load()


def test_other_weights_are_refused(models: Path) -> None:
    tensors = LpipsAlex().state_dict()
    tensors["features.3.weight"] = torch.zeros(192, 64, 3, 3)
    safetensors.torch.save_file(tensors, models / "lpips_alex.safetensors")
    with pytest.raises(CheckpointError, match=r"(?s)lpips_alex.*features.3.weight"):
        load_lpips_alex()
    (models / "lpips_alex.safetensors").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="does not hold"):
        load_lpips_alex()
