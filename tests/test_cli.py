"""The command line: help is quick and light, errors are for people."""

import errno
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import talk3d
from talk3d import cli, frozen
from talk3d.errors import ConfigError, Talk3DError
from talk3d.talker.drive import Camera

COMMANDS = (
    "", "models install", "models list", "prepare", "personalize", "train", "speak", "evaluate", "demo", "prior train",
    "prior import", "prior sample", "prior inspect", "prior evaluate", "heads sheet", "bench views", "bench tokens",
)  # fmt: skip
RUN = "from talk3d.cli import main; main()"
LIGHT = {"talk3d", "tyro", "docstring_parser", "typing_extensions", "colorama", "typeguard", "_distutils_hack"}
"""What help may import beside the standard library: the command line's own needs, and what the interpreter starts with."""
AT_EXIT = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a user would: a new process, without the tests' runtime checks."""
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
    )


def fails(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command in this process and expect it to end; returns its exit status and what it wrote to stderr."""
    monkeypatch.setattr(sys, "argv", ["talk3d", *words])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return int(exit_.value.code or 0), err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_only_the_command_line(command: str) -> None:
    """What keeps help quick: 0.15 s on one core; torch alone would add more than a second (benchmarks/startup.py)."""
    result = python(f"{AT_EXIT}{RUN}", *command.split(), "--help")
    assert result.returncode == 0, result.stderr
    assert "talk3d" in result.stdout
    modules = result.stderr.split()
    assert {name for name in modules if name.startswith("talk3d")} == {
        "talk3d",
        "talk3d.cli",
        "talk3d.errors",
        "talk3d.progress",
    }
    outside = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    installed = set(importlib.metadata.packages_distributions())
    assert outside & installed <= LIGHT
    assert "tyro" in outside & installed


def test_help_names_every_argument_in_words() -> None:
    text = " ".join(python(RUN, "speak", "--help").stdout.split())
    for word in ("AVATAR", "AUDIO", "--output", "-o", "--camera", "--seed", "YAW,PITCH in degrees"):
        assert word in text


def test_canary_heavy_imports_are_noticed() -> None:
    result = python(f"{AT_EXIT}import talk3d.cli, numpy")
    assert "numpy" in result.stderr.split()


def test_models_list_shows_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TALK3D_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["talk3d", "models", "list"])
    cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(frozen.MODELS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["models"], ["models", "sell"], ["prior"], ["paint"], []])
def test_unknown_or_half_a_command_is_a_usage_error(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _ = fails(words, monkeypatch, capsys)
    assert status == 2


@pytest.mark.parametrize(
    ("word", "meant"), [("prepar", "`prepare`"), ("models", "`models install` or `models list`"), ("xyzzy", "lists all")]
)
def test_a_wrong_command_is_told_the_right_one(
    word: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text = fails([word], monkeypatch, capsys)
    assert text.startswith(f"talk3d: There is no command `{word}`.")
    assert meant in text


def test_the_version_is_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["talk3d", "--version"])
    cli.main()
    assert capsys.readouterr().out == f"talk3d {talk3d.__version__}\n"


@pytest.mark.parametrize(
    "command", ["prepare film.mp4 --consent self", "speak a.talk3d b.wav", "train a.subject", "personalize a"]
)
def test_a_place_below_a_file_is_refused_before_any_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clip.mp4").write_text("precious")
    monkeypatch.chdir(tmp_path)
    status, text = fails([*command.split(), "-o", str(Path("clip.mp4") / "deeper" / "x.mp4")], monkeypatch, capsys)
    assert status == 2
    assert "is a file, no folder" in text
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_full_disk_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> list[frozen.ModelStatus]:
        raise OSError(errno.ENOSPC, "No space left on device", "out.mp4")

    monkeypatch.setattr(frozen, "list_models", full)
    status, text = fails(["models", "list"], monkeypatch, capsys)
    assert status == 2
    assert "No space left on device: 'out.mp4'" in text


def test_being_asked_to_end_tidies_up_as_ctrl_c_does(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from talk3d import cli, frozen\n"
        "from talk3d.partials import writing_folder\n"
        "def terminated():\n"
        f"    with writing_folder(Path({str(tmp_path / 'x')!r})):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        signal.pause()\n"
        "frozen.list_models = terminated\n"
        "sys.argv = ['talk3d', 'models', 'list']\n"
        "cli.main()\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 130
    assert "interrupted" in result.stderr
    assert not list(tmp_path.iterdir())


def test_errors_are_one_message_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = fails(["train", str(tmp_path / "nobody"), "-o", str(tmp_path / "x.talk3d")], monkeypatch, capsys)
    assert status == 2
    assert "nobody` does not exist. Make one with `talk3d personalize CAPTURE -o SUBJECT`" in text
    assert text.startswith("talk3d: ")
    assert not list(tmp_path.iterdir())


def test_a_rate_is_for_folders_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "film.mp4").write_text("never looked into")
    words = ["prepare", str(tmp_path / "film.mp4"), "-o", str(tmp_path / "x"), "--consent", "self", "--fps", "30"]
    status, text = fails(words, monkeypatch, capsys)
    assert status == 2
    assert "a film knows its own rate. Leave out `--fps`" in " ".join(text.split())
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_an_existing_output_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken.mp4"
    taken.write_text("precious")
    status, text = fails(["speak", "no.talk3d", "no.wav", "-o", str(taken)], monkeypatch, capsys)
    assert status == 2
    assert "already exists" in text
    assert "--overwrite" in text
    assert taken.read_text() == "precious"


def test_an_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> list[frozen.ModelStatus]:
        raise KeyboardInterrupt

    monkeypatch.setattr(frozen, "list_models", interrupted)
    status, text = fails(["models", "list"], monkeypatch, capsys)
    assert status == 130
    assert "The same command goes on" in text


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the user's errors are made short; a defect must show where it is."""

    def broken() -> list[frozen.ModelStatus]:
        raise ZeroDivisionError

    monkeypatch.setattr(frozen, "list_models", broken)
    monkeypatch.setattr(sys, "argv", ["talk3d", "models", "list"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_prepare_ends_with_the_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What was mended, what to do, the verdict in plain words, and where the report lies."""
    from talk3d.capture import build

    report = {
        "mended": ["It came late."],
        "warnings": ["It is soft. Add light."],
        "verdict": "Usable, but the picture is soft.",
    }
    made = SimpleNamespace(report=report, count=550, train=(0, 500), path=lambda name: Path("work") / name)
    asked: dict[str, object] = {}
    monkeypatch.setattr(build, "prepare", lambda *paths, **options: asked.update(options) or made)
    words = ["talk3d", "prepare", "me.mp4", "-o", "work", "--consent", "self", "--seconds", "30"]
    monkeypatch.setattr(sys, "argv", words)
    cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-6:-2] == [
        "note: It came late.",
        "note: It is soft. Add light.",
        "work: 550 frames, 500 for training, the rest for testing",
        "Usable, but the picture is soft.",
    ]
    assert str(Path("work") / "report.html") in lines[-2]
    assert lines[-1] == "Next: talk3d personalize work -o work.subject"
    assert asked["seconds"] == 30.0


@pytest.mark.parametrize("text", ["sideways", "1", "1,2,3", "left,up", "", "91,0", "0,61"])
def test_an_unknown_camera_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="camera"):
        Camera.parse(text)


def test_cameras_are_given_in_degrees() -> None:
    assert [Camera.parse(name).kind for name in ("source", "front", "orbit")] == ["source", "front", "orbit"]
    camera = Camera.parse("20,-5")
    assert camera.kind == "fixed"
    assert (camera.yaw, camera.pitch) == pytest.approx((0.349066, -0.0872665), abs=1e-5)


def test_an_unknown_camera_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.mp4"
    status, text = fails(["speak", "a.talk3d", "b.wav", "-o", str(output), "--camera", "sideways"], monkeypatch, capsys)
    assert status == 2
    assert "`sideways` is no camera. Use source, front, orbit, or YAW,PITCH" in text


def test_errors_share_a_base() -> None:
    assert issubclass(ConfigError, Talk3DError)
