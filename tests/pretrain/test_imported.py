"""`talk3d prior import`: a Prior or nothing, and a Prior without landmarks poses no video."""

import importlib.util
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d import cli, frozen
from talk3d.errors import ArtifactError, CheckpointError, NoFaceError
from talk3d.pretrain import canonical, imported
from talk3d.pretrain.imported import import_prior
from talk3d.prior.generator import Generator, load_prior

LANDMARKS = np.random.default_rng(0).normal(0, 0.1, (468, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file of EG3D's layout with random weights, and those weights."""
    source = Path(__file__).parents[2] / "benchmarks" / "fuzz_convert.py"
    spec = importlib.util.spec_from_file_location("fuzz_convert_files", source)
    assert spec is not None
    assert spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = fuzz
    spec.loader.exec_module(fuzz)
    state = {name: value.clone() for name, value in fuzz.small_generator().state_dict().items()}
    path = tmp_path_factory.mktemp("foreign") / "G_tune.pkl"
    with fuzz.foreign_classes() as make:
        path.write_bytes(pickle.dumps(fuzz.network(make, state)))
    return path, state


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["talk3d", *map(str, words)])
    cli.main()


def test_the_command_writes_a_prior(
    checkpoint: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = checkpoint
    command(monkeypatch, "prior", "import", path, "-o", tmp_path / "prior")
    assert "no video can be prepared with this prior" in capsys.readouterr().out
    prior = load_prior(tmp_path / "prior")
    loaded = prior.generator.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert prior.artifact.config["imported"]["file"] == "G_tune.pkl"
    assert prior.artifact.manifest["licence"].startswith("unknown")
    # Nothing that needs landmarks goes on with it.
    with pytest.raises(ArtifactError, match="not known where the faces") as error:
        _ = prior.canonical_landmarks
    assert "--measure-landmarks" in str(error.value)
    with pytest.raises(SystemExit):
        command(monkeypatch, "prepare", "x.mp4", "-o", tmp_path / "c", "--consent", "self", "--prior", tmp_path / "prior")
    assert "not known where the faces" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["prior"]


def test_measured_landmarks_are_kept(checkpoint: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, state = checkpoint
    seen = []

    def measure(generator: Generator) -> np.ndarray:
        seen.append(generator.state_dict())
        assert list(tmp_path.iterdir()) == []
        return LANDMARKS

    monkeypatch.setattr(imported, "measure_canonical", measure)
    import_prior(path, tmp_path / "prior", None, True, lambda *_: None, False)
    np.testing.assert_array_equal(load_prior(tmp_path / "prior").canonical_landmarks, LANDMARKS)
    assert torch.equal(seen[0]["decoder.net.0.weight"], state["decoder.net.0.weight"])


def test_a_prior_without_faces_is_not_measured_and_leaves_nothing(
    checkpoint: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real tracker: random weights draw no face."""
    if not all(status.installed for status in frozen.list_models()):
        pytest.skip("needs the face models (talk3d models install)")
    monkeypatch.setattr(canonical, "PITCHES", (0.0,))  # seven views instead of 28
    with pytest.raises(NoFaceError, match="nothing was written") as error:
        import_prior(checkpoint[0], tmp_path / "prior", None, True, lambda *_: None, False)
    assert "without `--measure-landmarks`" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"G": 1}))
    with pytest.raises(CheckpointError, match="holds no `G_ema`"):
        import_prior(path, tmp_path / "out" / "prior", None, False, lambda *_: None, False)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def test_stated_axes_that_contradict_the_file_end_the_command(
    checkpoint: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch, "prior", "import", checkpoint[0], "-o", tmp_path / "p", "--plane-axes", "aligned")
    assert "its planes lie as `eg3d`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
