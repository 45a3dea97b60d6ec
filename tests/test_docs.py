"""The documents: their snippets run, their commands parse, their links lead somewhere, their lists are complete."""

import functools
import importlib.metadata
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import talk3d
from talk3d import cli
from talk3d.capture.artifact import Capture
from talk3d.prior.subject import Subject
from talk3d.talker.config import TrainConfig
from talk3d.talker.speak import save_avatar
from talk3d.talker.train import train_talker
from talk3d.video.read import read_audio, read_frames

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = (
    "models_install", "models_list", "prepare", "personalize", "train", "speak", "evaluate", "demo", "prior_train",
    "prior_import", "prior_sample", "prior_inspect", "prior_evaluate", "heads_sheet", "bench_views", "bench_truth",
    "bench_tokens", "bench_speed", "import_talker",
)  # fmt: skip


def visible(text: str) -> str:
    """A page without its HTML comments."""
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", visible(text), re.DOTALL | re.MULTILINE)


def run_snippets(text: str) -> int:
    """Run a page's Python snippets as one program; returns their number."""
    names: dict[str, Any] = {}
    snippets = blocks(text, "python")
    for snippet in snippets:
        exec(compile(snippet, "snippet", "exec"), names)
    return len(snippets)


def command_lines(text: str) -> list[list[str]]:
    """The words after `talk3d` of every command in shell blocks, and in inline code where it has arguments."""
    lines = [line.strip() for block in blocks(text, "bash") for line in block.splitlines()]
    lines += re.findall(r"`(talk3d [^`]*)`", visible(text))
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["talk3d"] and "COMMAND" not in line]


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], tuple[str, dict[str, Any]]]:
    """Parse a command line with the real parser but without running it: gives the command's name and its arguments."""
    called: list[tuple[str, dict[str, Any]]] = []

    def record(name: str) -> Callable[..., None]:
        original = getattr(cli, name)

        @functools.wraps(original)
        def stub(*arguments: Any, **options: Any) -> None:
            called.append((name, dict(enumerate(arguments)) | options))

        return stub

    for name in COMMANDS:
        monkeypatch.setattr(cli, name, record(name))

    def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["talk3d", *words])
        cli.main()
        return called.pop()

    return parse


def test_every_convention_holds() -> None:
    assert run_snippets((ROOT / "docs" / "conventions.md").read_text()) >= 10


def test_the_live_example_makes_a_film(
    tmp_path: Path, tiny_subject: Subject, tiny_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(steps=1, minutes=None, frames_per_step=2, listen_steps=1)
    talker = train_talker(tiny_subject, tiny_capture, tmp_path / "run", config, lambda part, text: None)
    (tmp_path / "work").mkdir()
    save_avatar(tmp_path / "work" / "me.talk3d", tiny_subject, tiny_capture, talker, config, False)
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(tmp_path / "speech.wav", sound, 16_000)
    monkeypatch.chdir(tmp_path)
    assert run_snippets((ROOT / "README.md").read_text()) == 1
    assert sum(1 for _ in read_frames(tmp_path / "live.mp4")) == 25
    assert np.corrcoef(read_audio(tmp_path / "live.mp4")[:16_000], sound)[0, 1] > 0.9


def test_canary_a_wrong_convention_fails() -> None:
    text = (ROOT / "docs" / "conventions.md").read_text()
    assert "place[1] > 0" in text
    with pytest.raises(AssertionError):
        run_snippets(text.replace("place[1] > 0", "place[1] < 0"))


def test_commands_in_the_documents_parse(parse: Callable[[list[str]], tuple[str, dict[str, Any]]]) -> None:
    seen = {}
    for page in PAGES:
        for words in command_lines(page.read_text()):
            named = "_".join(words).replace("-", "_") in COMMANDS  # without arguments
            if len(words) > 1 and not named:
                name, options = parse(words)
                seen[name] = options
                assert name in (words[0].replace("-", "_"), "_".join(words[:2]))
    # The story of the README is complete.
    assert {"prepare", "personalize", "train", "speak", "evaluate", "prior_import"} <= seen.keys()
    assert seen["prepare"]["consent"] == "self"


@pytest.mark.parametrize(
    "words",
    [
        ["prepare", "me.mp4", "-o", "x"],  # consent is missing
        ["prepare", "me.mp4", "-o", "x", "--consent", "everyone"],
        ["speak", "me.talk3d", "a.wav", "-o", "x.mp4", "--angle", "3"],
        ["dance"],
    ],
)
def test_canary_wrong_commands_do_not_parse(
    parse: Callable[[list[str]], Any], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(words)
    assert exit_.value.code == 2
    assert "Traceback" not in "".join(capsys.readouterr())


def test_commands_named_in_the_documents_exist() -> None:
    """Also those that are only named, without arguments, and make targets."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {name.replace("_", between) for name in COMMANDS for between in " -"}
    for page in PAGES:
        text = visible(page.read_text())
        for words in command_lines(text):
            assert words[0] in known or " ".join(words[:2]) in known, f"{page.name}: talk3d {' '.join(words)}"
        for target in re.findall(r"\bmake ([a-z-]+)(?=[`\s]*(?:#|$|`))", text, re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"
    assert {"test", "demo", "lint", "check"} <= targets


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", visible(page.read_text())):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"


def test_tests_named_in_quirks_exist() -> None:
    defined = set()
    for path in (ROOT / "tests").rglob("*.py"):
        defined |= set(re.findall(r"^def (\w+)", path.read_text(), re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "quirks.md").read_text()))
    assert len(named) > 10
    assert named <= defined, sorted(named - defined)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_by_version_alone() -> None:
    """No address of an index, no path, no local build: a pin must mean the same on every machine."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line), line
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        assert name is not None
        assert normal(name[0]) in {*pins(), "talk3d"}, requirement


def test_no_broken_companion_of_torch_is_installed() -> None:
    """Builds for CUDA that fail at import beside a CPU torch, and that some packages would pull in."""
    installed = {normal(d.metadata["Name"]) for d in importlib.metadata.distributions()}
    assert installed.isdisjoint({"torchvision", "torchaudio", "torchcodec", "opencv-python", "opencv-contrib-python"})


def test_licences_of_all_dependencies_are_listed() -> None:
    listed = {
        normal(name) for name in re.findall(r"^\| ([\w.-]+) \|", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE)
    }
    assert set(pins()) <= listed, sorted(set(pins()) - listed)


def test_the_notice_of_the_head_model_is_given_in_full(shared: Path) -> None:
    notice = (shared / "heads" / "LICENSE.ICT-FaceKit.MIT.txt").read_text()
    assert notice.strip() in (ROOT / "NOTICE").read_text()


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert citation is not None
    assert project["version"] == talk3d.__version__ == citation[1]
