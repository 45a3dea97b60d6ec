"""Pretrained models that talk3d uses but never trains, and the cache they live in.

The four face models are Apache-2.0 TensorFlow Lite files that ship inside a public wheel. `install_models` downloads
that wheel through pip, takes only those four files out of it, checks their SHA-256 and keeps them in the user's cache;
nothing of the wheel is installed or run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ModelMissingError
from .partials import write_whole

INSTALL_COMMAND = "talk3d models install"
WHEEL = "mediapipe==0.10.14"


@dataclass(frozen=True)
class FrozenModel:
    """One pretrained file: what it is for, where it comes from and what its bytes must be."""

    name: str
    purpose: str
    member: str
    """Path inside the wheel."""
    size: int
    """Bytes."""
    sha256: str
    licence: str = "Apache-2.0"
    source: str = WHEEL


MODELS: dict[str, FrozenModel] = {
    model.name: model
    for model in (
        FrozenModel(
            "face_detection_short_range",
            "finds the face (BlazeFace, 128x128)",
            "mediapipe/modules/face_detection/face_detection_short_range.tflite",
            229714,
            "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        ),
        FrozenModel(
            "face_landmark",
            "468 face landmarks (192x192)",
            "mediapipe/modules/face_landmark/face_landmark.tflite",
            1242398,
            "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        ),
        FrozenModel(
            "iris_landmark",
            "eye contour and iris (64x64)",
            "mediapipe/modules/iris_landmark/iris_landmark.tflite",
            2640568,
            "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        ),
        FrozenModel(
            "selfie_segmentation",
            "person against background (256x256)",
            "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
            249505,
            "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        ),
    )
}


def cache_dir() -> Path:
    """The folder for downloaded models: `$TALK3D_CACHE`, else `$XDG_CACHE_HOME/talk3d`, else `~/.cache/talk3d`."""
    if explicit := os.environ.get("TALK3D_CACHE"):
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "talk3d"


@dataclass(frozen=True)
class ModelStatus:
    """One line of `talk3d models list`."""

    model: FrozenModel
    path: Path
    installed: bool
    """The file is there and its SHA-256 is right."""


def list_models() -> list[ModelStatus]:
    """All models this version knows, and whether each is installed."""
    return [ModelStatus(model, _file(model), _is_good(_file(model), model)) for model in MODELS.values()]


def model_path(name: str) -> Path:
    """The checked file of an installed model.

    Raises:
        ModelMissingError: it is not installed, or its bytes are not the expected ones.
    """
    model = MODELS[name]
    path = _file(model)
    if not path.is_file():
        raise ModelMissingError(
            f"The model `{name}` ({model.purpose}) is not installed: `{path}` does not exist. "
            f"Run `{INSTALL_COMMAND}` once; it downloads about 36 MB and keeps {_total_megabytes():.1f} MB."
        )
    if not _is_good(path, model):
        raise ModelMissingError(
            f"The model file `{path}` is damaged: its SHA-256 is not the expected one. Run `{INSTALL_COMMAND}` to replace it."
        )
    return path


def install_models(progress: Callable[[str], None] | None = None, *, wheel: Path | None = None) -> list[Path]:
    """Put all models into the cache. Does nothing for those already there, so it is safe to run again.

    Args:
        progress: called with one line of text per step.
        wheel: a wheel file at hand, for machines without an index; otherwise pip downloads it.

    Returns:
        The models' paths, in the order of `MODELS`.

    Raises:
        ModelMissingError: the download failed, or a file inside is not the expected one. The cache keeps only
            complete, checked files whatever happens.
    """
    say = progress or (lambda line: None)
    missing = [status.model for status in list_models() if not status.installed]
    if missing:
        with contextlib.ExitStack() as stack:
            if wheel is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="talk3d-models-")))
                say(f"downloading {WHEEL} through pip (about 36 MB, only its model files are kept)")
                wheel = _download_wheel(folder)
            for model in missing:
                _extract(wheel, model)
                say(f"installed {model.name} ({model.size / 1e6:.2f} MB, {model.licence})")
    else:
        say("all models are already installed")
    return [_file(model) for model in MODELS.values()]


class TfliteModel:
    """A TensorFlow Lite network on one CPU thread; call it with an array, get its outputs in the file's order."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with _quiet_stderr():
            self._interpreter: Any = Interpreter(str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        self._input: dict[str, Any] = self._interpreter.get_input_details()[0]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[1, height, width, 3]."""
        return tuple(int(size) for size in self._input["shape"])

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """Run on `image` [1, height, width, 3] float32."""
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def load_tflite(name: str) -> TfliteModel:
    """Load an installed model for inference.

    Raises:
        ModelMissingError: as `model_path`.
    """
    return TfliteModel(model_path(name))


def _file(model: FrozenModel) -> Path:
    return cache_dir() / "models" / f"{model.name}.tflite"


def _is_good(path: Path, model: FrozenModel) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == model.sha256


def _total_megabytes() -> float:
    return sum(model.size for model in MODELS.values()) / 1e6


def _download_wheel(folder: Path) -> Path:
    # The models are the same in every platform's wheel, so one fixed platform is asked for wherever we run.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--python-version", "3.11", "--platform", "manylinux_2_17_x86_64", "--dest", str(folder), WHEEL]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        reason = (result.stderr.strip() or "no wheel arrived").splitlines()[-1]
        raise ModelMissingError(
            f"Downloading {WHEEL} through pip failed: {reason}. Check the network and pip's index settings, or fetch "
            f"that wheel on another machine and run `{INSTALL_COMMAND} --wheel FILE`."
        )
    return wheels[0]


def _extract(wheel: Path, model: FrozenModel) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(model.member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelMissingError(
            f"`{wheel}` holds no readable `{model.member}` ({error}). It must be the wheel {WHEEL}; fetch it again."
        ) from error
    if hashlib.sha256(data).hexdigest() != model.sha256:
        raise ModelMissingError(
            f"`{model.member}` in `{wheel}` does not have the expected SHA-256, so it was not installed. "
            f"It must be the wheel {WHEEL}; fetch it again from an index you trust."
        )
    write_whole(_file(model), data)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send the process's stderr to nowhere: at each load the runtime prints, from C++, which kernels it uses."""
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all, so nothing to quiet
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
