"""All golden sets that lie beside the repository, one test each, and proof that the comparison can fail.

The comparison itself is `verify.py`, which also runs alone on any folder of the same layout.
"""

import dataclasses
import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_verify", Path(__file__).with_name("verify.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


verify = _load()
SETS = [f"components/{name}" for name in verify.COMPONENTS] + [f"eg3d/eg3d-{size}" for size in (128, 256, 512)]
SETS += [f"talk3d/{name}" for name in verify.TALK3D]
SETS += ["checkpoints/eg3d-128-sample.pkl", "checkpoints/talk3d-sample.pt"]


@pytest.fixture
def golden(shared: Path) -> Path:
    return shared / "golden"


@pytest.mark.parametrize("name", SETS)
def test_set(golden: Path, name: str) -> None:
    result = verify.check(golden, name)
    assert result.cases > 0
    assert not result.failures, "\n".join(result.failures)


def test_every_set_beside_the_repository_is_listed_here(golden: Path) -> None:
    assert set(verify.sets(golden)) == set(SETS)


@pytest.mark.parametrize("name", [f"components/{name}" for name in verify.COMPONENTS])
def test_canary_each_perturbed_tensor_fails(golden: Path, name: str) -> None:
    """Every tensor is an input or an output, so disturbing any one of them must fail its set."""
    names = sorted(verify.Golden(golden / f"{name}.safetensors").tensors)
    for victim in names:

        def disturb(tensors: dict[str, torch.Tensor], victim: str = victim) -> None:
            value = tensors[victim]
            if value.dtype == torch.uint8:
                tensors[victim] = 1 - value
            else:
                tensors[victim] = value + (0.3 * (1 + value.abs()) * torch.randn(value.shape)).to(value)

        assert verify.check(golden, name, disturb).failures, f"{victim} was changed and nothing noticed"


@pytest.mark.parametrize("name", ["checkpoints/eg3d-128-sample.pkl", "checkpoints/talk3d-sample.pt"])
def test_canary_the_last_bit_of_one_imported_weight_fails(golden: Path, name: str) -> None:
    def disturb(tensors: dict[str, torch.Tensor]) -> None:
        value = next(value for key, value in sorted(tensors.items()) if key.endswith("weight") and value.ndim > 1)
        value.view(-1)[0] = torch.nextafter(value.view(-1)[0], torch.tensor(9.0, dtype=value.dtype))

    failures = verify.check(golden, name, disturb).failures
    assert len(failures) in (1, 2)  # the talker's weights lie in two files
    assert all("weight: off by" in failure for failure in failures)


def test_canary_whole_generator(golden: Path) -> None:
    """One pixel of one picture, moved by three times the tolerance."""

    def disturb(tensors: dict[str, torch.Tensor]) -> None:
        tensors["image_raw"][0, 0, 5, 5] += 3e-4 * (1 + tensors["image_raw"][0, 0, 5, 5].abs())

    failures = verify.check(golden, "eg3d/eg3d-128", disturb).failures
    assert len(failures) == 1
    assert failures[0].startswith("image_raw:")


def test_canary_wrong_plane_axes_fail(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes agree in either convention, so only the numbers can tell."""
    monkeypatch.setitem(verify.PLANE_AXES_OF_SETS, "eg3d", "aligned")
    assert verify.check(golden, "eg3d/eg3d-128").failures


@pytest.mark.parametrize("name", ["talk3d/aware3d", "talk3d/deltaplane"])
def test_canary_the_corrected_roll_out_is_not_talk3ds(golden: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes agree here too."""
    monkeypatch.setattr(verify, "ROLL_OUT_OF_TALK3D", "aligned")
    found = verify.load_official

    def aligned(*arguments: object) -> object:
        network = found(*arguments)
        network.unet.config = dataclasses.replace(network.unet.config, rollout="aligned")
        return network

    monkeypatch.setattr(verify, "load_official", aligned)
    failures = verify.check(golden, name).failures
    assert failures
    # What comes before the first roll-out that mixes anything is right all the same.
    assert not any(failure.startswith(("input", "pos_emb")) for failure in failures)


def test_canary_another_order_of_tokens_fails(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention would not notice: it takes tokens in any order."""
    found = verify.load_official

    def swapped(*arguments: object) -> object:
        network = found(*arguments)
        config = network.encoder.config
        object.__setattr__(config, "tokens", ("blink", "audio", *config.tokens[2:]))
        return network

    monkeypatch.setattr(verify, "load_official", swapped)
    (failure,) = verify.check(golden, "talk3d/encoders").failures
    assert failure.startswith("tokens:")


def test_canary_each_tensor_of_the_encoders_counts(golden: Path) -> None:
    folder = golden / "talk3d" / "encoders"
    names = {name for file in ("io", "state") for name in verify.Golden(folder / f"{file}.safetensors").tensors}
    for victim in sorted(names):

        def disturb(tensors: dict[str, torch.Tensor], victim: str = victim) -> None:
            if victim in tensors:
                tensors[victim] = tensors[victim] + 0.3 * (1 + tensors[victim].abs()) * torch.randn(tensors[victim].shape)

        assert verify.check(golden, "talk3d/encoders", disturb).failures, f"{victim} was changed and nothing noticed"


@pytest.mark.parametrize(
    "victim",
    [
        "transformer.0.pos_emb",
        "transformer.0.transformer_blocks.1.attn2.to_k.weight",
        "Downnet.Downnet2_yz.bn1.running_var",
        "Upnet.Upnet3_zx.conv1.bias",
    ],
)
def test_canary_weights_of_the_u_net_count(golden: Path, victim: str) -> None:
    def disturb(tensors: dict[str, torch.Tensor]) -> None:
        if victim in tensors:
            tensors[victim] = 1.01 * tensors[victim]

    assert verify.check(golden, "talk3d/deltaplane", disturb).failures


def test_unread_tensors_fail(golden: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["something_new"] = torch.zeros(3)

    failures = verify.check(golden, "components/ray_marcher", add).failures
    assert failures == ["never compared: something_new"]


def test_program_reports_and_exits(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tmp_path)]) == 2
    for part in ("components", "talk3d", "talk3d/elsewhere"):
        (tmp_path / part).mkdir()
    shutil.copy(golden / "components" / "ray_marcher.safetensors", tmp_path / "components")
    assert verify.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "components/ray_marcher" in out
    assert [line.split()[0] for line in out.splitlines() if "not covered" in line] == ["talk3d/elsewhere"]

    broken = verify.load_file(tmp_path / "components" / "ray_marcher.safetensors")
    broken["rgb"][0, 3, 0] += 0.01
    verify.save_file(broken, tmp_path / "components" / "ray_marcher.safetensors")
    assert verify.main([str(tmp_path)]) == 1
    assert "FAIL" in capsys.readouterr().out

    del broken["depth"]
    verify.save_file(broken, tmp_path / "components" / "ray_marcher.safetensors")
    assert verify.main([str(tmp_path)]) == 1
    assert "could not be compared: KeyError" in capsys.readouterr().out
