"""The model cache: nothing unchecked gets in, and what is missing is named together with its remedy."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from talk3d import frozen
from talk3d.errors import ModelMissingError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TALK3D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small stand-in wheel, with the table of models rewritten to expect its contents."""
    path = tmp_path / "stand_in.whl"
    models = {}
    with zipfile.ZipFile(path, "w") as archive:
        for name, model in frozen.MODELS.items():
            data = f"weights of {name}".encode()
            archive.writestr(model.member, data)
            models[name] = replace(model, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    monkeypatch.setattr(frozen, "MODELS", models)
    return path


def test_missing_models_name_the_command(cache: Path) -> None:
    assert not any(status.installed for status in frozen.list_models())
    with pytest.raises(ModelMissingError, match=r"face_landmark.*talk3d models install"):
        frozen.model_path("face_landmark")
    with pytest.raises(ModelMissingError):
        frozen.load_tflite("face_landmark")
    assert not cache.exists()


def test_install_puts_all_models_in_place_and_may_be_repeated(cache: Path, wheel: Path) -> None:
    lines: list[str] = []
    paths = frozen.install_models(lines.append, wheel=wheel)
    assert [path.parent for path in paths] == [cache / "models"] * 4
    assert all(status.installed for status in frozen.list_models())
    assert frozen.model_path("iris_landmark").read_bytes() == b"weights of iris_landmark"
    assert len(lines) == 4
    before = [path.stat().st_mtime_ns for path in paths]
    frozen.install_models(lines.append, wheel=wheel)
    assert lines[-1] == "all models are already installed"
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_a_damaged_model_is_refused_and_replaced(cache: Path, wheel: Path) -> None:
    frozen.install_models(wheel=wheel)
    path = frozen.model_path("face_landmark")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelMissingError, match="damaged"):
        frozen.model_path("face_landmark")
    frozen.install_models(wheel=wheel)
    assert frozen.model_path("face_landmark") == path


def test_a_wheel_with_other_bytes_installs_nothing_of_them(cache: Path, wheel: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged.whl"
    with zipfile.ZipFile(forged, "w") as archive:
        for model in frozen.MODELS.values():
            archive.writestr(model.member, b"something else")
    with pytest.raises(ModelMissingError, match="SHA-256"):
        frozen.install_models(wheel=forged)
    assert not any(status.installed for status in frozen.list_models())
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"not a zip", b""])
def test_an_unreadable_wheel_says_so(cache: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.whl"
    path.write_bytes(content)
    with pytest.raises(ModelMissingError, match="holds no readable"):
        frozen.install_models(wheel=path)


def test_a_failed_download_gives_pips_reason(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelMissingError, match=r"through pip failed: .*mediapipe.*--wheel FILE"):
        frozen.install_models()
    assert not cache.exists()


def test_installed_models_load_and_have_the_expected_inputs() -> None:
    if not all(status.installed for status in frozen.list_models()):
        pytest.skip(f"the face models are not installed; `{frozen.INSTALL_COMMAND}` puts them in the cache")
    sizes = {name: frozen.load_tflite(name).input_shape for name in frozen.MODELS}
    assert sizes == {
        "face_detection_short_range": (1, 128, 128, 3),
        "face_landmark": (1, 192, 192, 3),
        "iris_landmark": (1, 64, 64, 3),
        "selfie_segmentation": (1, 256, 256, 3),
    }
    mask = frozen.load_tflite("selfie_segmentation")(np.zeros((1, 256, 256, 3), np.float32))[0]
    assert mask.shape == (1, 256, 256, 1)


def test_loading_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    if not all(status.installed for status in frozen.list_models()):
        pytest.skip(f"the face models are not installed; `{frozen.INSTALL_COMMAND}` puts them in the cache")
    frozen.load_tflite("face_landmark")
    out, err = capfd.readouterr()
    assert out + err == ""
