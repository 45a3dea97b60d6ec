"""What lies on disk between two commands: folders (or one zip) with a manifest, hashes and parents.

An artifact is written to a hidden sibling and renamed when complete, so a reader sees all of it or nothing. Nothing in
here unpickles: tensors are safetensors, everything else is JSON or media.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from . import __version__
from .errors import ArtifactError, CheckpointError, OutputExistsError
from .partials import partial_path, refuse_existing, remove_stale_partials, write_whole

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 2
MANIFEST = "manifest.json"

AnyArtifact = TypeVar("AnyArtifact", bound="Artifact")


@dataclass(frozen=True)
class Artifact:
    """An opened artifact: `root` is its folder or zip file, `manifest` its parsed and checked manifest.

    `config` holds the settings that made it, `parents` maps a parent's kind to that parent's hash, `consent` says who
    agreed to be portrayed (`self`, `permission`, `synthetic`, or empty for a generic prior).
    """

    root: Path
    manifest: Mapping[str, Any]

    kind: ClassVar[str] = "Artifact"
    made_by: ClassVar[str] = ""
    """The command that makes one, for error messages."""

    @property
    def config(self) -> Mapping[str, Any]:
        return self.manifest["config"]

    @property
    def hash(self) -> str:
        """SHA-256 of the member hashes and the config: the identity by which children name their parent."""
        return self.manifest["hash"]

    @property
    def parents(self) -> Mapping[str, str]:
        return self.manifest["parents"]

    @property
    def consent(self) -> str:
        return self.manifest["consent"]

    @property
    def notes(self) -> Mapping[str, Any]:
        """What was learnt about it after it was made, by topic; no part of its identity. See `annotate`."""
        return self.manifest.get("notes", {})

    @classmethod
    def open(cls: type[AnyArtifact], path: Path | str, verify: bool = True) -> AnyArtifact:
        """Open and check an artifact.

        Args:
            path: the folder or zip file.
            verify: also compare the SHA-256 of each member with the manifest.

        Raises:
            ArtifactError: nothing there, not an artifact, another kind, another format, or damaged members.
        """
        path = Path(path)
        if not path.exists():
            raise ArtifactError(f"{cls.kind} `{path}` does not exist. {cls._how_to_make()}")
        try:
            manifest = json.loads(_read_member(path, MANIFEST))
            kind, version, members = manifest["kind"], manifest["format"], manifest["members"]
        except (KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
            if _is_cut_off(path):
                raise ArtifactError(
                    f"`{path}` is cut off or damaged: its table of contents is missing. Copy it again from where it was whole."
                ) from error
            raise ArtifactError(
                f"`{path}` is not a talk3d {cls.kind}: it has no readable {MANIFEST}. {cls._how_to_make()}"
            ) from error
        if kind != cls.kind:
            raise ArtifactError(f"`{path}` is of the kind {kind}, but {cls.kind} is needed here. {cls._how_to_make()}")
        if version > FORMAT_VERSION:
            raise ArtifactError(
                f"`{path}` uses artifact format {version}, but this talk3d {__version__} reads up to {FORMAT_VERSION}. "
                "Upgrade talk3d, or remake the artifact with this version."
            )
        if version < FORMAT_VERSION:
            raise ArtifactError(
                f"`{path}` uses artifact format {version} of an older talk3d; this one reads format {FORMAT_VERSION}. "
                f"Remake it, and what it was made from. {cls._how_to_make()}".rstrip()
            )
        if verify:
            for name, digest in members.items():
                try:
                    actual = _digest(path, name)
                except zipfile.BadZipFile:
                    actual = "damaged"
                except (KeyError, OSError) as error:
                    raise ArtifactError(f"`{path}` lacks its member `{name}`; it is incomplete. Remake it.") from error
                if actual != digest:
                    raise ArtifactError(
                        f"`{path}` is damaged: `{name}` does not match its recorded SHA-256. Remake it or restore a copy."
                    )
        return cls(path, manifest)

    @classmethod
    def _how_to_make(cls) -> str:
        return f"Make one with `{cls.made_by}`." if cls.made_by else ""

    def read(self, member: str) -> bytes:
        """The bytes of a member.

        Raises:
            ArtifactError: there is no such member.
        """
        if member not in self.manifest["members"]:
            raise ArtifactError(f"`{self.root}` has no `{member}`. Remake it. {self._how_to_make()}".rstrip())
        return _read_member(self.root, member)

    def json(self, member: str) -> Any:
        return json.loads(self.read(member))

    def tensors(self, member: str) -> dict[str, Tensor]:
        import safetensors.torch

        return safetensors.torch.load(self.read(member))

    def path(self, member: str) -> Path:
        """The file path of a member, for readers that need one; only folders have them."""
        return self.root / member

    def require_parent(self, parent: Artifact) -> None:
        """Refuse a parent this artifact was not made from.

        Raises:
            ArtifactError: the recorded hash differs, so results would silently be wrong.
        """
        parent.require_hash(self.parents.get(parent.kind, ""), self.kind)

    def require_hash(self, expected: str, child: str) -> None:
        """Refuse to stand in for the artifact that a child (named by its kind) was made from.

        Raises:
            ArtifactError: this one's hash is not `expected`.
        """
        if self.hash != expected:
            raise ArtifactError(
                f"The {child} was made from another {self.kind} (recorded {expected[:12]}, given {self.hash[:12]} at "
                f"`{self.root}`). Use the original one, or remake the {child}."
            )


class Prior(Artifact):
    """A generative prior: generator weights, profile, canonical landmarks."""

    kind = "Prior"
    made_by = "talk3d prior train"


class Capture(Artifact):
    """A prepared video: aligned frames, masks, head poses, sound, and the train/test split."""

    kind = "Capture"
    made_by = "talk3d prepare VIDEO -o CAPTURE --consent self"


class Subject(Artifact):
    """A prior personalised to the person of one capture."""

    kind = "Subject"
    made_by = "talk3d personalize CAPTURE -o SUBJECT"


class Avatar(Artifact):
    """A subject that speaks: everything `speak` needs, in one file."""

    kind = "Avatar"
    made_by = "talk3d train SUBJECT -o AVATAR"


@dataclass
class Draft:
    """An artifact being written: put members into `folder`; the rest goes into the manifest."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    consent: str = ""
    licence: str = ""

    def write_json(self, member: str, value: Any) -> None:
        (self.folder / member).write_text(json.dumps(value, indent=1))

    def write_tensors(self, member: str, tensors: Mapping[str, Tensor]) -> None:
        import safetensors.torch

        path = self.folder / member
        safetensors.torch.save_file({k: v.detach().contiguous() for k, v in tensors.items()}, path)
        # The library makes files for their owner alone; an artifact's are like all others.
        mask = os.umask(0)
        os.umask(mask)
        path.chmod(0o666 & ~mask)


def refuse_other(cls: type[Artifact], path: Path, overwrite: bool) -> None:
    """As `refuse_existing`, and refuse to replace anything but an artifact of the same kind.

    Raises:
        OutputExistsError: `path` is taken, or cannot be made.
        ConfigError: its folder may not be written to.
    """
    refuse_existing(path, overwrite)
    if not path.exists():
        return
    try:
        kind = json.loads(_read_member(path, MANIFEST))["kind"]  # of any format: older ones are there to be replaced
    except (KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile):
        kind = None
    if kind != cls.kind:
        raise OutputExistsError(
            f"`{path}` exists and is no {cls.kind}, so `--overwrite` does not apply to it. Choose another output."
        )


@contextlib.contextmanager
def creating(cls: type[Artifact], path: Path | str, *, overwrite: bool = False, zipped: bool = False) -> Iterator[Draft]:
    """Write an artifact atomically: yields a `Draft`, then hashes, writes the manifest and renames into place.

    Args:
        path: final folder (or file, if `zipped`).
        overwrite: replace an existing artifact *of the same kind*; anything else is never replaced.
        zipped: one uncompressed zip instead of a folder.

    Raises:
        OutputExistsError: `path` is taken.
    """
    path = Path(path)
    refuse_other(cls, path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = partial_path(path)
    remove_stale_partials(path)
    staging.mkdir()
    try:
        draft = Draft(staging)
        yield draft
        _seal(cls, draft)
        complete = staging
        if zipped:
            complete = partial_path(path, "zip")
            with zipfile.ZipFile(complete, "w", zipfile.ZIP_STORED) as archive:
                for member in sorted(staging.iterdir()):
                    archive.write(member, member.name)
        _replace(complete, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        partial_path(path, "zip").unlink(missing_ok=True)


def _is_cut_off(path: Path) -> bool:
    """Whether a file begins as a zip does, but does not end as one."""
    if path.is_dir() or zipfile.is_zipfile(path):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def annotate(path: Path, notes: Mapping[str, Any]) -> None:
    """Add notes to an artifact on disk, replacing those of the same topics; its hash stays, as its members and config do.

    Args:
        path: the folder or zip file.
        notes: JSON values by topic.

    Raises:
        ArtifactError: there is no artifact.
    """
    try:
        manifest = json.loads(_read_member(path, MANIFEST))
        manifest["notes"] = manifest.get("notes", {}) | dict(notes)
    except (AttributeError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"`{path}` is not a talk3d artifact: it has no readable {MANIFEST} ({error}).") from error
    text = json.dumps(manifest, indent=1)
    if path.is_dir():
        write_whole(path / MANIFEST, text.encode())
        return
    # A zip cannot be changed in place: its table of contents comes last, and a kill would leave none.
    remove_stale_partials(path)
    partial = partial_path(path, "zip")
    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as new:
            for info in old.infolist():
                new.writestr(info, text if info.filename == MANIFEST else old.read(info))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _seal(cls: type[Artifact], draft: Draft) -> None:
    members = {
        member.name: _digest(draft.folder, member.name) for member in sorted(draft.folder.iterdir()) if member.name != MANIFEST
    }
    manifest: dict[str, Any] = {
        "kind": cls.kind,
        "format": FORMAT_VERSION,
        "creator": f"talk3d {__version__}",
        "config": draft.config,
        "parents": draft.parents,
        "consent": draft.consent,
        "licence": draft.licence,
        "members": members,
    }
    identity = json.dumps([cls.kind, draft.config, draft.parents, members], sort_keys=True)
    manifest["hash"] = hashlib.sha256(identity.encode()).hexdigest()
    draft.write_json(MANIFEST, manifest)


def _replace(new: Path, old: Path) -> None:
    """Rename `new` to `old`. A folder cannot be renamed over a full one, so the old one steps aside first."""
    aside = partial_path(old, "old")
    if old.is_dir():
        old.rename(aside)
    os.replace(new, old)
    shutil.rmtree(aside, ignore_errors=True)


def _read_member(root: Path, member: str) -> bytes:
    if root.is_dir():
        return (root / member).read_bytes()
    with zipfile.ZipFile(root) as archive:
        return archive.read(member)


def _digest(root: Path, member: str) -> str:
    """SHA-256 of a member, read in pieces: captures hold long films."""
    if root.is_dir():
        with (root / member).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    with zipfile.ZipFile(root) as archive, archive.open(member) as packed:
        digest = hashlib.sha256()
        while piece := packed.read(1 << 20):
            digest.update(piece)
        return digest.hexdigest()


def save_state(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a training state atomically: tensors by name plus JSON-serialisable `state`, in one safetensors file."""
    import safetensors.torch

    remove_stale_partials(path)
    partial = partial_path(path)
    try:
        safetensors.torch.save_file(
            {k: v.detach().contiguous() for k, v in tensors.items()}, partial, {"state": json.dumps(state)}
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote.

    Raises:
        CheckpointError: the file is damaged or is not a training state.
    """
    import safetensors
    import safetensors.torch

    try:
        with safetensors.safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})["state"])
        return safetensors.torch.load_file(path), state
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"`{path}` is not a readable training state ({error}). Delete it to start afresh.") from error


def optimizer_tensors(optimizer: Any, prefix: str) -> dict[str, Tensor]:
    """An Adam-like optimiser's state as named tensors, so that it can be saved without pickling."""
    return {
        f"{prefix}.{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def restore_optimizer(optimizer: Any, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix + "."):
            index, name = key.removeprefix(prefix + ".").split(".", 1)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
