"""The checks that guard all other tests: each is seen to fail where it should."""

import tomllib
import warnings
from pathlib import Path

import pytest
import torch

import talk3d
from talk3d.camera import Orbit

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
UNCHECKED = {"talk3d.heads.raster", "talk3d.render.backward", "talk3d.render.compiled", "talk3d.render.kernels"}
"""Modules that cannot be checked at run time."""


def checked(name: str) -> bool:
    """Whether pytest's options have this module's annotations checked at run time."""
    options = PYPROJECT["tool"]["pytest"]["ini_options"]["addopts"]
    option = next(o for o in options if o.startswith("--jaxtyping-packages="))
    *packages, checker = option.partition("=")[2].split(",")
    assert checker == "beartype.beartype"
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_annotations_of_every_module_are_checked() -> None:
    source = Path(talk3d.__file__).parent
    names = set()
    for path in source.rglob("*.py"):
        parts = ["talk3d", *path.relative_to(source).with_suffix("").parts]
        if path.name != "__init__.py":
            names.add(".".join(parts))
    assert {name for name in names if not checked(name)} == UNCHECKED
    assert not checked("talk3d.unheard_of")


def test_canary_a_wrong_shape_is_noticed() -> None:
    orbit = Orbit()
    assert orbit.pose(torch.zeros(2), torch.zeros(2)).shape == (2, 4, 4)
    with pytest.raises(Exception, match="pitch"):
        orbit.pose(torch.zeros(2), torch.zeros(3))
    with pytest.raises(Exception, match="yaw"):
        orbit.pose(torch.zeros(2, dtype=torch.int64), torch.zeros(2))


def test_canary_a_deprecated_call_of_ours_is_noticed() -> None:
    """What other packages deprecate must be mended before it is gone."""
    code = compile("import warnings\nwarnings.warn('old', DeprecationWarning)", "talk3d/old.py", "exec")
    with pytest.raises(DeprecationWarning):
        exec(code, {"__name__": "talk3d.old"})
    # That of other people is theirs.
    with warnings.catch_warnings(record=True):
        exec(code, {"__name__": "elsewhere"})


def test_every_room_has_its_layer() -> None:
    """A module in no layer is an error (`exhaustive`); this says so before import-linter runs."""
    contract = PYPROJECT["tool"]["importlinter"]["contracts"][0]
    assert contract["exhaustive"]
    layers = {room.strip(" ()") for layer in contract["layers"] for room in layer.split("|")}
    rooms = {p.stem for p in Path(talk3d.__file__).parent.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert rooms - {"__init__"} <= layers
