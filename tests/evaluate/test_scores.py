"""Scores of pictures over regions that may hold nothing."""

from pathlib import Path

import numpy as np
import pytest

from talk3d import frozen
from talk3d.evaluate.film import Film
from talk3d.evaluate.follow import Landmarks, Motion
from talk3d.evaluate.scores import REGIONS, Entry, score


def faceless(path: Path, seed: int, count: int = 12) -> Entry:
    """Noise in which nobody is seen."""
    landmarks = Landmarks(path)
    path.touch()
    landmarks.append(np.full((count, 468, 2), np.nan, np.float32))
    pictures = np.random.default_rng(seed).integers(0, 255, (count, 48, 64, 3)).astype(np.uint8)
    nothing = np.full(count, np.nan)
    motion = Motion(nothing, nothing, np.full((count, 6), np.nan), np.full((count, 7), np.nan))
    return Entry(Film(path.name, (64, 48), count, lambda a, b: iter(pictures[a:b]), None), landmarks, motion, None)


def test_a_region_that_holds_nothing_has_no_score(tmp_path: Path) -> None:
    """On grey as published, two empty regions are equal; that is no likeness."""
    if not all(status.installed for status in frozen.list_models()):
        pytest.skip(f"the face models are not installed; `{frozen.INSTALL_COMMAND}` puts them in the cache")
    rows, curves = score({"result": faceless(tmp_path / "a", 1)}, faceless(tmp_path / "b", 2), None)
    row = rows["result"]
    regional = [
        name for name in row if any(f"_{region}" in name for region in REGIONS) and name.startswith(("psnr", "mae", "ssim"))
    ]
    assert {"psnr_face", "psnr_face_published", "psnr_torso_published", "ssim_face_published", "mae_mouth"} <= set(regional)
    assert {name: (row[name].value, row[name].frames) for name in regional} == dict.fromkeys(regional, (None, 0))
    assert row["psnr"].value is not None
    assert 5 < row["psnr"].value < 9  # of independent uniform noise: 10 log10(6) = 7.8 dB
    assert row["psnr"].frames == 12
    assert np.isnan(curves["result"].face_psnr).all()
