"""Artifacts: all of one or nothing, checked on opening; training states come back to the last bit."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import talk3d
from talk3d.artifacts import (
    FORMAT_VERSION,
    MANIFEST,
    Artifact,
    Avatar,
    Capture,
    Prior,
    Subject,
    annotate,
    creating,
    load_state,
    optimizer_tensors,
    restore_optimizer,
    save_state,
)
from talk3d.errors import ArtifactError, CheckpointError, OutputExistsError
from talk3d.partials import refuse_existing, remove_stale_partials


def make(cls: type[Artifact], path: Path, *, zipped: bool = False, **config: object) -> Artifact:
    with creating(cls, path, zipped=zipped, overwrite=path.exists()) as draft:
        draft.config = {"size": 3, **config}
        draft.consent = "synthetic"
        draft.licence = "Apache-2.0"
        draft.write_json("notes.json", {"a": [1, 2]})
        draft.write_tensors("weights.safetensors", {"w": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2).half()})
        (draft.folder / "sound.flac").write_bytes(b"not really")
    return cls.open(path)


def fail_to_make(cls: type[Artifact], path: Path) -> None:
    with creating(cls, path, overwrite=path.exists()) as draft:
        draft.write_json("notes.json", 1)
        raise RuntimeError("disk on fire")


def edit_manifest(path: Path, **changes: object) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | changes))


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("zipped", [False, True])
def test_members_config_and_manifest_come_back(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "deep" / "me"
    artifact = make(Subject, path, zipped=zipped)
    assert type(artifact) is Subject
    assert artifact.json("notes.json") == {"a": [1, 2]}
    tensors = artifact.tensors("weights.safetensors")
    assert torch.equal(tensors["w"], torch.arange(6.0).reshape(2, 3))
    assert tensors["half"].dtype == torch.float16
    assert artifact.read("sound.flac") == b"not really"
    assert artifact.config == {"size": 3}
    assert (artifact.consent, artifact.manifest["licence"]) == ("synthetic", "Apache-2.0")
    assert artifact.manifest["creator"] == f"talk3d {talk3d.__version__}"
    assert artifact.manifest["format"] == FORMAT_VERSION
    assert path.is_file() == zipped
    assert names(path.parent) == ["me"]
    if not zipped:
        assert artifact.path("sound.flac").is_file()


def test_folder_and_zip_are_the_same_artifact(tmp_path: Path) -> None:
    folder, single = make(Avatar, tmp_path / "folder"), make(Avatar, tmp_path / "me.talk3d", zipped=True)
    assert folder.hash == single.hash
    assert folder.manifest["members"] == single.manifest["members"]
    with zipfile.ZipFile(tmp_path / "me.talk3d") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("zipped", [False, True])
def test_notes_are_added_later_and_are_no_part_of_the_identity(tmp_path: Path, zipped: bool) -> None:
    made = make(Avatar, tmp_path / "me", zipped=zipped)
    assert made.notes == {}
    annotate(tmp_path / "me", {"views": {"yaw": [-30, 45]}, "other": 1})
    annotate(tmp_path / "me", {"views": {"yaw": [-15, 15]}})
    noted = Avatar.open(tmp_path / "me")  # which compares all members with their hashes
    assert noted.notes == {"views": {"yaw": [-15, 15]}, "other": 1}
    assert noted.hash == made.hash
    assert {**noted.manifest, "notes": None} == {**made.manifest, "notes": None}
    assert torch.equal(noted.tensors("weights.safetensors")["w"], torch.arange(6.0).reshape(2, 3))
    assert names(tmp_path) == ["me"]
    assert made.notes == {}  # what is open is as it was read


@pytest.mark.parametrize("zipped", [False, True])
def test_a_note_that_cannot_be_written_leaves_the_artifact_as_it_was(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(Avatar, tmp_path / "me", zipped=zipped)

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        annotate(tmp_path / "me", {"views": 1})
    assert Avatar.open(tmp_path / "me").notes == {}
    assert names(tmp_path) == ["me"]


def test_only_artifacts_take_notes(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("no zip")
    for path in (tmp_path / "mine.txt", tmp_path / "nothing", tmp_path):
        with pytest.raises(ArtifactError, match="not a talk3d artifact"):
            annotate(path, {"views": 1})
    assert names(tmp_path) == ["mine.txt"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux shows the state of a process in /proc")
def test_a_killed_process_that_was_not_waited_for_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    (tmp_path / f".p.{process.pid}.partial").mkdir()
    remove_stale_partials(tmp_path / "p")
    assert names(tmp_path) == []
    process.wait()


def test_the_hash_depends_on_kind_content_config_and_parents(tmp_path: Path) -> None:
    first = make(Prior, tmp_path / "a")
    assert make(Prior, tmp_path / "b").hash == first.hash
    hashes = {first.hash, make(Subject, tmp_path / "c").hash, make(Prior, tmp_path / "d", size=4).hash}
    with creating(Prior, tmp_path / "e") as draft:
        draft.config = {"size": 3}
        draft.write_json("notes.json", {"a": [1, 3]})
    with creating(Prior, tmp_path / "f") as draft:
        draft.config = {"size": 3}
        draft.parents = {"Capture": "0"}
        draft.write_json("notes.json", {"a": [1, 3]})
    hashes |= {Prior.open(tmp_path / "e").hash, Prior.open(tmp_path / "f").hash}
    assert len(hashes) == 5


def test_it_appears_by_a_rename_with_everything_in_it(tmp_path: Path) -> None:
    with creating(Prior, tmp_path / "p") as draft:
        draft.write_json("notes.json", 1)
        written = draft.folder.stat().st_ino
        assert not (tmp_path / "p").exists()
    assert (tmp_path / "p").stat().st_ino == written


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="disk on fire"):
        fail_to_make(Prior, tmp_path / "p")
    assert names(tmp_path) == []


def test_an_error_while_replacing_keeps_the_old_one(tmp_path: Path) -> None:
    old = make(Prior, tmp_path / "p")
    with pytest.raises(RuntimeError, match="disk on fire"):
        fail_to_make(Prior, tmp_path / "p")
    assert Prior.open(tmp_path / "p").hash == old.hash
    assert names(tmp_path) == ["p"]


KILLED = """
import sys, time
from pathlib import Path
from talk3d.artifacts import Prior, creating
with creating(Prior, Path(sys.argv[1]), zipped=sys.argv[2] == "zip") as draft:
    draft.write_json("notes.json", 1)
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_kill_in_the_middle_leaves_no_artifact_and_the_next_run_cleans_up(tmp_path: Path, form: str) -> None:
    path = tmp_path / "p"
    environment = os.environ | {"PYTHONPATH": str(Path(talk3d.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), form], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert names(tmp_path) == [f".p.{process.pid}.partial"]
    # While it runs, another process does not take its partial away.
    remove_stale_partials(path)
    assert names(tmp_path) == [f".p.{process.pid}.partial"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not path.exists()
    with pytest.raises(ArtifactError, match="does not exist"):
        Prior.open(path)
    make(Prior, path)
    assert names(tmp_path) == ["p"]


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "p"
    refuse_existing(path, overwrite=False)
    old = make(Prior, path)
    for _ in range(2):
        with pytest.raises(OutputExistsError, match="--overwrite"), creating(Prior, path):
            pytest.fail("no work must be done for an output that is taken")
    assert Prior.open(path).hash == old.hash
    new = make(Prior, path, size=5)
    assert new.hash != old.hash
    assert names(tmp_path) == ["p"]


@pytest.mark.parametrize("taken", ["file", "folder", "other kind"])
def test_overwrite_replaces_only_the_same_kind(tmp_path: Path, taken: str) -> None:
    path = tmp_path / "p"
    if taken == "file":
        path.write_text("thesis")
    elif taken == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("thesis")
    else:
        make(Capture, path)
    before = path.read_text() if taken == "file" else names(path)
    with pytest.raises(OutputExistsError, match="no Prior"), creating(Prior, path, overwrite=True):
        pytest.fail("unreachable")
    assert (path.read_text() if taken == "file" else names(path)) == before
    assert names(tmp_path) == ["p"]


def test_what_is_not_there_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"Capture `.*nothing` does not exist\. Make one with `talk3d prepare VIDEO"):
        Capture.open(tmp_path / "nothing")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    make(Capture, tmp_path / "c")
    with pytest.raises(ArtifactError, match=r"is of the kind Capture, but Subject is needed here.*talk3d personalize"):
        Subject.open(tmp_path / "c")


@pytest.mark.parametrize("content", [b"", b"PK but broken", b"{}"])
def test_a_file_that_is_no_artifact_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "me.talk3d"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not a talk3d Avatar"):
        Avatar.open(path)


@pytest.mark.skipif(os.name == "nt", reason="there are no such permissions")
def test_members_may_be_read_by_whom_other_files_may(tmp_path: Path) -> None:
    make(Prior, tmp_path / "p")
    assert len({member.stat().st_mode for member in (tmp_path / "p").iterdir()}) == 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kind": "Prior"}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    make(Prior, tmp_path / "p")
    (tmp_path / "p" / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError, match="no readable manifest"):
        Prior.open(tmp_path / "p")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    make(Prior, tmp_path / "p")
    edit_manifest(tmp_path / "p", format=FORMAT_VERSION + 1)
    with pytest.raises(ArtifactError, match=rf"format {FORMAT_VERSION + 1}.*reads up to {FORMAT_VERSION}.*Upgrade"):
        Prior.open(tmp_path / "p")


def test_an_older_format_is_refused(tmp_path: Path) -> None:
    make(Prior, tmp_path / "p")
    edit_manifest(tmp_path / "p", format=FORMAT_VERSION - 1)
    with pytest.raises(ArtifactError, match=rf"format {FORMAT_VERSION - 1} of an older talk3d.*Remake"):
        Prior.open(tmp_path / "p")
    make(Prior, tmp_path / "p", overwrite=True)
    Prior.open(tmp_path / "p")


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p"
    make(Prior, path)
    data = bytearray((path / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "weights.safetensors").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"damaged: `weights\.safetensors`"):
        Prior.open(path)
    Prior.open(path, verify=False)
    (path / "weights.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"lacks its member `weights\.safetensors`"):
        Prior.open(path)


def test_a_damaged_member_of_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "me.talk3d"
    make(Avatar, path, zipped=True)
    data = path.read_bytes()
    position = data.index(b"not really")
    path.write_bytes(data[:position] + b"NOT" + data[position + 3 :])
    with pytest.raises(ArtifactError, match=r"damaged: `sound\.flac`"):
        Avatar.open(path)


def test_a_zip_cut_short_is_to_be_copied_again(tmp_path: Path) -> None:
    """Not to be trained again, as what never was one."""
    path = tmp_path / "me.talk3d"
    make(Avatar, path, zipped=True)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ArtifactError, match=r"cut off or damaged.*Copy it again"):
        Avatar.open(path)


def test_only_the_parent_it_was_made_from_is_accepted(tmp_path: Path) -> None:
    parent, other = make(Prior, tmp_path / "a"), make(Prior, tmp_path / "b", size=9)
    with creating(Subject, tmp_path / "s") as draft:
        draft.parents = {"Prior": parent.hash}
    subject = Subject.open(tmp_path / "s")
    subject.require_parent(parent)
    with pytest.raises(ArtifactError, match="was made from another Prior"):
        subject.require_parent(other)
    with pytest.raises(ArtifactError, match="was made from another Capture"):
        subject.require_parent(make(Capture, tmp_path / "c"))


# Training states.


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))


def advance(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()


OPTIMISERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.9, 0.99)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
}


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_training_continues_to_the_last_bit(tmp_path: Path, kind: str) -> None:
    whole, halves = network(), network()
    halves.load_state_dict(copy.deepcopy(whole.state_dict()))
    optimizer = OPTIMISERS[kind](whole.parameters())
    advance(whole, optimizer, range(8))

    first = OPTIMISERS[kind](halves.parameters())
    advance(halves, first, range(4))
    tensors = {f"net.{k}": v for k, v in halves.state_dict().items()} | optimizer_tensors(first, "adam")
    save_state(tmp_path / "s", tensors, {"step": 4, "nested": {"rate": 0.1}, "word": "ü"})

    loaded, state = load_state(tmp_path / "s")
    assert state == {"step": 4, "nested": {"rate": 0.1}, "word": "ü"}
    again = network()
    again.load_state_dict({k.removeprefix("net."): v for k, v in loaded.items() if k.startswith("net.")})
    second = OPTIMISERS[kind](again.parameters())
    restore_optimizer(second, loaded, "adam")
    advance(again, second, range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_canary_a_forgotten_optimiser_state_shows(tmp_path: Path) -> None:
    whole = network()
    halves = copy.deepcopy(whole)
    advance(whole, OPTIMISERS["adam"](whole.parameters()), range(8))
    advance(halves, OPTIMISERS["adam"](halves.parameters()), range(4))
    advance(halves, OPTIMISERS["adam"](halves.parameters()), range(4, 8))
    assert not torch.equal(whole[0].weight, halves[0].weight)


def test_optimisers_with_prefixes_alike_do_not_mix(tmp_path: Path) -> None:
    net = network()
    optimizer = OPTIMISERS["adam"](net.parameters())
    advance(net, optimizer, range(1))
    tensors = optimizer_tensors(optimizer, "opt") | {f"opt2.{k}": v for k, v in optimizer_tensors(optimizer, "x").items()}
    fresh = OPTIMISERS["adam"](net.parameters())
    restore_optimizer(fresh, tensors, "opt")
    assert fresh.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()


def test_saving_again_replaces_the_state_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_state(path, {"a": torch.zeros(3), "transposed": torch.arange(6.0).reshape(2, 3).T}, {"step": 1})
    save_state(path, {"a": torch.ones(3)}, {"step": 2})
    tensors, state = load_state(path)
    assert tensors.keys() == {"a"}
    assert state == {"step": 2}
    assert names(tmp_path) == ["s.safetensors"]


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_state_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="Delete it to start afresh"):
        load_state(path)


def test_a_state_cut_short_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "s"
    save_state(path, {"a": torch.zeros(100)}, {"step": 1})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError):
        load_state(path)
    with pytest.raises(CheckpointError):
        load_state(tmp_path / "never")
