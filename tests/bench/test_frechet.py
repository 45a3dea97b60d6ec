"""Samples against renders: cameras and heads that are not shared, and honest refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d import cli
from talk3d.bench import frechet
from talk3d.bench.frechet import PITCH, YAW, bench_samples
from talk3d.errors import ConfigError
from talk3d.heads.model import HeadPack
from talk3d.judges.headnet import load_headnet
from talk3d.prior.generator import LoadedPrior


def test_no_two_sets_share_cameras_or_heads(shared: Path, tiny_prior: LoadedPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or they would be alike in that for free, and the floor would not be one."""
    sets: list[list[torch.Tensor]] = []
    features = frechet.features
    pictures: list[np.ndarray] = []
    cameras = frechet.cameras

    def spied(*arguments: object) -> list[torch.Tensor]:
        sets.append(list(cameras(*arguments)))
        return sets[-1]

    monkeypatch.setattr(frechet, "cameras", spied)
    monkeypatch.setattr(frechet, "features", lambda net, x: pictures.append(x.numpy()) or features(net, x))
    monkeypatch.setattr(frechet, "FEWEST", 3)
    pack = HeadPack(shared / "heads")
    scores = bench_samples(tiny_prior.generator, pack, load_headnet(), 3, lambda *_: None)
    assert scores["samples"] > scores["floor"] > 0
    poses = torch.stack([torch.stack(one) for one in sets]).flatten(0, 1)
    assert len(poses.unique(dim=0)) == 9
    assert len({picture.tobytes() for picture in pictures}) == 9
    with pytest.raises(ConfigError, match="too few to tell their spread"):
        bench_samples(tiny_prior.generator, pack, load_headnet(), 2, lambda *_: None)


def test_cameras_are_spread_as_said(tiny_prior: LoadedPrior) -> None:
    forward = torch.stack(list(frechet.cameras(tiny_prior.generator, 2000, 0)))[:, :3, 2]
    yaw, pitch = torch.atan2(forward[:, 0], -forward[:, 2]), torch.asin(forward[:, 1])
    assert float(yaw.std()) == pytest.approx(YAW, rel=0.1)
    assert float(pitch.std()) == pytest.approx(PITCH, rel=0.1)


def test_too_few_samples_are_refused_before_anything_is_inverted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["talk3d", "prior", "evaluate", "--heads", str(tmp_path), "--samples", "10", "-o", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        cli.main()
    assert "too few to tell their spread" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
