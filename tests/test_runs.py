"""A run's state, log, and several processes."""

import json
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from talk3d.errors import CheckpointError, ConfigError
from talk3d.runs import Every, Run, Workers, chosen_device, finish_gradients, follow


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


def test_settings_that_no_weight_depends_on_may_change(tmp_path: Path) -> None:
    module, optimizer = parts(0)
    Run(tmp_path, Settings(), {"m": module}, {"o": optimizer}, Workers()).save(1)
    other = Run(tmp_path, Settings(rate=0.2), {"m": module}, {"o": optimizer}, Workers(), harmless={"rate"})
    assert other.resume() == 1


def test_another_origin_is_named(tmp_path: Path) -> None:
    module, optimizer = parts(0)
    for origin in ({"subject": "may", "data": 1}, {"subject": "paul", "data": 1}):
        run = Run(tmp_path, Settings(rate=0.1), {"m": module}, {"o": optimizer}, Workers(), origin=origin)
        if origin["subject"] == "may":
            run.save(1)
    with pytest.raises(CheckpointError, match=r"started with another subject \(may, now paul\)\. Continue with the same"):
        run.resume()
    both = Run(tmp_path, Settings(rate=0.2), {"m": module}, {"o": optimizer}, Workers(), origin=origin)
    with pytest.raises(CheckpointError, match=r"another subject \(may, now paul\) and other settings \(rate 0\.1, now 0\.2\)"):
        both.resume()


def test_notes_come_back_with_the_state(tmp_path: Path) -> None:
    module, optimizer = parts(0)
    run = Run(tmp_path, Settings(), {"m": module}, {"o": optimizer}, Workers())
    run.resume()
    assert run.notes == {}
    run.save(1, {"elapsed": 2.5, "best": None})
    again = Run(tmp_path, Settings(), {"m": module}, {"o": optimizer}, Workers())
    again.resume()
    assert again.notes == {"elapsed": 2.5, "best": None}


def test_what_was_logged_after_the_state_is_logged_once(tmp_path: Path) -> None:
    module, optimizer = parts(0)

    def resumed() -> list[int]:
        run = Run(tmp_path, Settings(), {"m": module}, {"o": optimizer}, Workers())
        steps = range(run.resume() + 1, 5)
        for step in steps:
            run.log(step, {"loss": 1.0})
            if step == 2:
                run.save(step)
        return list(steps)

    assert resumed() == [1, 2, 3, 4]
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')  # a kill while a line was written
    assert resumed() == [3, 4]
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    # Without a state all begins anew.
    (tmp_path / "training.safetensors").unlink()
    assert resumed() == [1, 2, 3, 4]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


def test_time_for_something_comes_round(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    every = Every(10.0)
    due = []
    for now[0] in (109.0, 110.0, 111.0, 119.0, 125.0, 134.0):
        due.append(every.due())
    assert due == [False, True, False, False, True, False]


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
    with workers.first_goes_first():
        order = len(list(Path(sys.argv[1]).glob("*.grad")))
        Path(sys.argv[1], f"{workers.rank}.grad").write_text(f"{workers.count} {order} {parameter.grad.tolist()}")
"""


def test_processes_average_their_gradients_and_let_the_first_go_first(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run([*command, str(tmp_path)], capture_output=True, check=True, timeout=300)
    for rank in (0, 1):
        assert (tmp_path / f"{rank}.grad").read_text() == f"2 {rank} [5.0, 6.0, 7.0]"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide this by themselves")
def test_kept_memory_is_not_asked_for_again() -> None:
    """In a process of its own: it is never taken back."""
    script = (
        "import resource, torch\n"
        "from talk3d.runs import keep_memory\n"
        "def faults(side=2**22, count=4):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(3):\n"
        "        [torch.ones(side) for _ in range(count)]\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "given_back = faults()\n"
        "keep_memory()\n"
        "faults()\n"
        "print(given_back, faults(), faults(2**27, 1))\n"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    given_back, kept, large = map(int, output.split())
    assert given_back > 4096, "each piece is 16 MiB of fresh pages"
    assert kept < given_back / 10
    assert large > given_back, "of 512 MiB, for which there is no room in what is kept"


def test_a_gpu_is_only_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device("auto") == chosen_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no CUDA device"):
        chosen_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen_device("auto") == chosen_device("cuda") == torch.device("cuda")
    assert chosen_device("cpu") == torch.device("cpu")
