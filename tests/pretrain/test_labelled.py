"""Data sets in EG3D's layout: folders and ZIPs read the same, mirrored cameras see mirrored pictures, faults are named."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talk3d.camera import Orbit, camera_from_label, camera_label
from talk3d.errors import ConfigError
from talk3d.pretrain.labelled import LabelledDataset, mirror_label

COUNT, SIZE = 3, 16
OFF_CENTRE = Orbit(radius=2.6, pivot=(0.0, 0.05, 0.1), focal=3.9)


def labels() -> list[list[float]]:
    orbit = OFF_CENTRE
    poses = orbit.pose(torch.tensor([0.0, 0.4, -0.2]), torch.tensor([0.0, 0.1, -0.3]))
    intrinsics = orbit.intrinsics()
    intrinsics[0, 2], intrinsics[0, 1] = 0.45, 0.02  # an axis off the middle, and some skew
    return camera_label(poses, intrinsics).tolist()


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3)).astype(np.uint8)


def write(folder: Path, entries: object = None, images: np.ndarray | None = None) -> Path:
    (folder / "00").mkdir(parents=True)
    for number, image in enumerate(pictures() if images is None else images):
        cv2.imwrite(str(folder / "00" / f"{number}.png"), image[..., ::-1])
    names = [f"00/{number}.png" for number in range(COUNT)]
    default = [list(entry) for entry in zip(names, labels(), strict=True)]
    (folder / "dataset.json").write_text(json.dumps({"labels": default if entries is None else entries}))
    return folder


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_pictures_and_labels_come_back(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "data")
    dataset = LabelledDataset(path if form == "folder" else zipped(path))
    assert (len(dataset), dataset.resolution) == (COUNT, SIZE)
    got = dataset.get(np.array([2, 0]))
    expected = torch.from_numpy(pictures()[[2, 0]]).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(got.images, expected)
    torch.testing.assert_close(got.labels, torch.tensor(labels())[[2, 0]])


def test_mirrored_pictures_come_with_mirrored_cameras(tmp_path: Path) -> None:
    dataset = LabelledDataset(write(tmp_path / "data"), mirrored=True)
    assert len(dataset) == 2 * COUNT
    plain, mirror = dataset.get(np.array([2])), dataset.get(np.array([3]))
    assert torch.equal(mirror.images, plain.images.flip(3))
    # A point seen at x by the camera is seen at 1 - x by the mirrored camera once it is itself mirrored.
    point = torch.tensor([0.07, -0.05, 0.1])
    columns = []
    for label, p in ((plain.labels, point), (mirror.labels, point * torch.tensor([-1.0, 1.0, 1.0]))):
        pose, intrinsics = camera_from_label(label)
        seen = intrinsics[0] @ (torch.linalg.inv(pose[0]) @ torch.cat([p, torch.ones(1)]))[:3]
        columns.append(seen[:2] / seen[2])
    assert float(columns[1][0]) == pytest.approx(1 - float(columns[0][0]), abs=1e-6)
    assert float(columns[1][1]) == pytest.approx(float(columns[0][1]), abs=1e-6)


def test_mirroring_twice_changes_nothing() -> None:
    label = np.array(labels()[1], np.float32)
    np.testing.assert_array_equal(mirror_label(mirror_label(label)), label)
    assert not np.array_equal(mirror_label(label), label)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "lists no pictures"),
        ([["00/0.png", [0.0] * 24]], "not \\[file, \\[25 finite numbers"),
        ([["00/0.png", [float("nan")] * 25]], "25 finite numbers"),
        ([["00/0.png"]], "25 finite numbers"),
        ([["00/nobody.png", [0.0] * 25]], "lacks 1 of the 1 pictures"),
        ([["../secret.png", [0.0] * 25]], "lacks 1 of the 1 pictures"),
    ],
)
def test_faults_of_the_index_are_named(tmp_path: Path, entries: list, message: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=message):
        LabelledDataset(write(tmp_path / "data", entries))


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a folder nor a ZIP"):
        LabelledDataset(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"no readable dataset\.json"):
        LabelledDataset(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": ')
    with pytest.raises(ConfigError, match=r"no readable dataset\.json"):
        LabelledDataset(tmp_path)


def test_damaged_and_odd_pictures_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "data")
    dataset = LabelledDataset(path)
    (path / "00" / "1.png").write_bytes(b"no picture")
    cv2.imwrite(str(path / "00" / "2.png"), np.zeros((SIZE, SIZE + 1, 3), np.uint8))
    for number, message in ((1, "cannot be read as a picture"), (2, "17 x 16, not square")):
        with pytest.raises(ConfigError, match=message):
            dataset.get(np.array([number]))
    cv2.imwrite(str(path / "00" / "2.png"), np.zeros((SIZE * 2, SIZE * 2, 3), np.uint8))
    with pytest.raises(ConfigError, match="is 32 pixels wide, the first picture 16"):
        dataset.get(np.array([2]))


def test_the_camera_of_the_pictures_is_found(tmp_path: Path) -> None:
    found = LabelledDataset(write(tmp_path / "data")).orbit()
    assert found.focal == pytest.approx(3.9, abs=1e-3)
    assert found.radius == pytest.approx(2.6, abs=1e-3)
    np.testing.assert_allclose(found.pivot, OFF_CENTRE.pivot, atol=2e-3)


def test_a_digest_tells_data_sets_apart(tmp_path: Path) -> None:
    dataset = LabelledDataset(write(tmp_path / "data"))
    assert dataset.digest() == LabelledDataset(write(tmp_path / "same")).digest()
    assert dataset.digest() != LabelledDataset(tmp_path / "data", mirrored=True).digest()
    dataset.labels[0, 3] += 0.1
    assert dataset.digest() != LabelledDataset(tmp_path / "data").digest()
