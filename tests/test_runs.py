"""A run's state, log, and several processes."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from talk3d.errors import CheckpointError, ConfigError
from talk3d.runs import Run, Workers, finish_gradients, follow


@dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


def parts(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    return module, torch.optim.Adam(module.parameters(), lr=0.1)


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.linspace(-1, 1, 12).view(4, 3)).square().sum().backward()
    optimizer.step()


def test_a_state_comes_back_whole(tmp_path: Path) -> None:
    module, optimizer = parts(0)
    run = Run(tmp_path / "run", Settings(), {"m": module}, {"o": optimizer}, Workers())
    assert run.resume() == 0
    step(module, optimizer)
    run.save(1)
    other, its = parts(1)
    assert Run(tmp_path / "run", Settings(), {"m": other}, {"o": its}, Workers()).resume() == 1
    for _ in range(3):
        step(module, optimizer)
        step(other, its)
    for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    module, optimizer = parts(0)
    Run(tmp_path, Settings(), {"m": module}, {"o": optimizer}, Workers()).save(1)
    with pytest.raises(CheckpointError, match="other settings"):
        Run(tmp_path, Settings(rate=0.2), {"m": module}, {"o": optimizer}, Workers()).resume()


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    module, optimizer = parts(0)
    for rank in (1, 0):
        run = Run(tmp_path / str(rank), Settings(), {"m": module}, {"o": optimizer}, Workers(rank, 2))
        run.save(1)
        run.log(1, {"loss": 2.0})
    assert not list((tmp_path / "1").iterdir())
    assert json.loads((tmp_path / "0" / "log.jsonl").read_text()) == {"step": 1, "loss": 2.0}


def test_tensorboard_is_written_or_its_absence_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, optimizer = parts(0)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        Run(tmp_path, Settings(), {"m": module}, {"o": optimizer}, Workers(), tensorboard=True)


def test_gradients_become_finite() -> None:
    module, _ = parts(0)
    weight = module[0].weight
    weight.grad = torch.full_like(weight, 0.5)
    weight.grad[0, 0], weight.grad[0, 1], weight.grad[0, 2] = float("nan"), float("inf"), -float("inf")
    finish_gradients(module.parameters(), Workers())
    assert weight.grad[0].tolist() == [0.0, 1e5, -1e5]
    assert (weight.grad[1:] == 0.5).all()


def test_averages_follow_and_buffers_are_copied() -> None:
    (average, _), (module, _) = parts(0), parts(1)
    module[1].running_mean.fill_(7.0)
    before = average[0].weight.clone()
    follow(average, module, 0.75)
    torch.testing.assert_close(average[0].weight, 0.75 * before + 0.25 * module[0].weight)
    assert (average[1].running_mean == 7).all()


@pytest.mark.parametrize(
    ("total", "count", "expected"), [(6, 1, [slice(0, 6)]), (6, 3, [slice(0, 2), slice(2, 4), slice(4, 6)])]
)
def test_shares_cover_the_batch(total: int, count: int, expected: list[slice]) -> None:
    assert [Workers(rank, count).share(total) for rank in range(count)] == expected


TOGETHER = """
import sys, torch
from pathlib import Path
from talk3d.runs import finish_gradients, join
torch.set_num_threads(1)
with join() as workers:
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.arange(3.0) + 10 * workers.rank
    finish_gradients([parameter], workers)
    Path(sys.argv[1], str(workers.rank)).write_text(f"{workers.count} {parameter.grad.tolist()}")
"""


def test_processes_average_their_gradients(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run([*command, str(tmp_path)], capture_output=True, check=True, timeout=300)
    for rank in ("0", "1"):
        assert (tmp_path / rank).read_text() == "2 [5.0, 6.0, 7.0]"
