"""Pictures for people."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talk3d.errors import ConfigError
from talk3d.pictures import as_image, captioned, in_rows, require_png, write_png


def test_tensors_become_rgb_images() -> None:
    picture = torch.tensor([-2.0, 0.0, 1.0])[:, None, None].expand(3, 2, 4)
    assert as_image(picture).tolist() == [[[0, 128, 255]] * 4] * 2


def test_images_are_laid_row_by_row_and_filled_up() -> None:
    cells = [np.full((1, 1, 3), value, np.uint8) for value in (1, 2, 3)]
    assert in_rows(cells, 2)[..., 0].tolist() == [[1, 2], [3, 255]]
    assert in_rows(cells, 8)[..., 0].tolist() == [[1, 2, 3]]


def test_a_caption_stands_beneath() -> None:
    image = np.full((6, 100, 3), 7, np.uint8)
    framed = captioned(image, "step 3")
    assert framed.shape == (26, 100, 3)
    assert (framed[:6] == 7).all()
    assert framed[6:, :60].min() < 100 < framed[6:, 60:].min() == 255


def test_files_come_back_and_folders_are_made(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    write_png(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "a.png"))[..., ::-1], image)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        require_png(tmp_path / "a.jpg")
