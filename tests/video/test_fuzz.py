"""The fuzzer of the media readers, on a few inputs, and seen to notice what it looks for."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from talk3d.video.read import read_frames

FUZZER = Path(__file__).parents[2] / "benchmarks" / "fuzz_media.py"


def _load(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


fuzz = _load(FUZZER)


def test_damaged_files_end_in_frames_or_in_errors() -> None:
    outcomes = fuzz.run(120, seed=12)
    assert outcomes.inputs == 120
    counts = outcomes.readings["read_frames"]
    assert counts["read"] > 20
    assert counts["refused"] > 20
    assert len(outcomes.reasons) > 10
    assert "read_frames" in fuzz.table(outcomes)


def test_the_same_seed_makes_the_same_inputs() -> None:
    files = {"a": bytes(range(256)) * 8, "b": b"other" * 100}
    inputs = [fuzz.made(files, 3, index) for index in range(50)]
    assert inputs == [fuzz.made(files, 3, index) for index in range(50)]
    assert inputs[0] == ("a", files["a"])
    assert len({data for _, data in inputs}) > 40


def leave_debris(path: Path) -> None:
    (path.parent / "debris").touch()


def crash(path: Path) -> None:
    raise KeyError("a handler that is missing")


@pytest.mark.parametrize(("reader", "said"), [(leave_debris, "debris"), (crash, "KeyError")])
def test_canary_the_fuzzer_notices(
    reader: Callable[[Path], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fuzz.READERS, "probe", reader)
    with pytest.raises(fuzz.Violation, match=said):
        fuzz.run(1, keep=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0-0-av1.mp4"]


def test_canary_the_fuzzer_notices_wrong_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "read_frames", lambda path, **options: read_frames(path, **({"start": 1} | options)))
    with pytest.raises(fuzz.Violation, match="the bar is at"):
        fuzz.run(1)
