"""The dual discriminator: EG3D's size and names, and the laws its parts obey."""

import json
from pathlib import Path

import pytest
import torch

from talk3d.prior.discriminator import DiscriminatorConfig, DualDiscriminator, MinibatchDeviation

SMALL = DiscriminatorConfig(resolution=32, channel_base=512, channel_max=32, mapping_layers=2)


def inputs(count: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((count, 3, 32, 32), (count, 3, 8, 8), (count, 25))
    return tuple(torch.randn(size, generator=generator) for size in sizes)  # type: ignore[return-value]


@pytest.fixture
def discriminator() -> DualDiscriminator:
    torch.manual_seed(0)
    return DualDiscriminator(SMALL)


def test_the_official_one_has_its_size() -> None:
    """Method, appendix A: 31,359,744 parameters and 92 entries at 512."""
    official = DualDiscriminator(DiscriminatorConfig())
    assert sum(parameter.numel() for parameter in official.parameters()) == 31_359_744
    assert len(official.state_dict()) == 92


def test_names_and_shapes_are_those_of_an_official_file(shared: Path) -> None:
    record = json.loads((shared / "golden/checkpoints/eg3d-128-sample.json").read_text())["D_tensors"]
    width = record["b64.conv0.weight"]["shape"][0]
    resolution = max(int(name[1:].split(".")[0]) for name in record if name[0] == "b" and name[1].isdigit())
    layers = 1 + max(int(name.split(".")[1][2:]) for name in record if name.startswith("mapping.fc"))
    ours = DualDiscriminator(
        DiscriminatorConfig(
            resolution, channel_base=width * 64, channel_max=record["b4.fc.weight"]["shape"][0], mapping_layers=layers
        )
    ).state_dict()
    assert {name: list(value.shape) for name, value in ours.items()} == {name: entry["shape"] for name, entry in record.items()}


def test_it_looks_at_everything(discriminator: DualDiscriminator) -> None:
    given = [value.requires_grad_() for value in inputs()]
    gradients = torch.autograd.grad(discriminator(*given).sum(), given)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_r1_has_a_gradient(discriminator: DualDiscriminator) -> None:
    """The penalty differentiates a derivative: every layer, and the antialiased resize, must allow that."""
    image, raw, label = inputs()
    image.requires_grad_()
    raw.requires_grad_()
    first = torch.autograd.grad(discriminator(image, raw, label).sum(), (image, raw), create_graph=True)
    sum(gradient.square().sum() for gradient in first).backward()
    assert discriminator.b32.conv0.weight.grad.abs().sum() > 0


def test_a_group_of_equal_pictures_does_not_deviate() -> None:
    deviate = MinibatchDeviation()
    same = torch.randn(1, 3, 4, 4).expand(4, -1, -1, -1)
    assert deviate(same)[:, 3].abs().max() < 2e-4
    x = torch.randn(8, 3, 4, 4)
    added = deviate(x)[:, 3:]
    # Groups interleave: samples 0, 2, 4, 6 belong together.
    expected = (x[0::2].var(0, unbiased=False) + 1e-8).sqrt().mean()
    torch.testing.assert_close(added[0], expected.expand(1, 4, 4))
    assert torch.equal(added[0], added[2])
    assert not torch.equal(added[0], added[1])


@pytest.mark.parametrize(("batch", "group"), [(1, 1), (2, 2), (3, 3), (4, 4), (6, 3), (8, 4), (5, 1)])
def test_groups_are_as_large_as_divides_the_batch(batch: int, group: int) -> None:
    x = torch.randn(batch, 3, 4, 4)
    values = MinibatchDeviation()(x)[:, 3, 0, 0]
    assert len(set(values.tolist())) == (batch // group if group > 1 else 1)
    assert (values > 0.1).all() == (group > 1)


def test_without_a_label_there_is_no_projection() -> None:
    torch.manual_seed(0)
    image, raw, _ = inputs()
    free = DualDiscriminator(DiscriminatorConfig(resolution=32, c_dim=0, channel_base=512, channel_max=32))
    assert free(image, raw).shape == (4,)
    assert not any(name.startswith("mapping") for name in free.state_dict())
