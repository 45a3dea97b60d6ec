"""Training of a prior, tiny: it learns, and an interruption changes nothing at all."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from talk3d import runs
from talk3d.camera import Orbit
from talk3d.errors import CheckpointError, ConfigError
from talk3d.heads.model import HeadPack
from talk3d.pretrain import dataset, train
from talk3d.pretrain.dataset import HELD_OUT_SHARDS, ShardWriters, render_shard
from talk3d.pretrain.train import PretrainConfig, train_prior
from talk3d.prior.generator import Generator, Profile
from talk3d.runs import STATE, Workers

pytestmark = pytest.mark.usefixtures("small")


def settings(**changes: Any) -> PretrainConfig:
    base = {"steps": 8, "heads": 2, "views": 2, "superres_from": 0.4, "ema_steps": 20.0, "save_every": 2}
    return PretrainConfig(**base | changes)


CONFIG = settings()


def ignore(step: int, steps: int, text: str) -> None:
    pass


def stop_after(last: int) -> Callable[[int, int, str], None]:
    """A progress report that interrupts the run, as the user's Ctrl-C does."""

    def report(step: int, steps: int, text: str) -> None:
        if step == last:
            raise KeyboardInterrupt

    return report


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def same(one: Generator, other: Generator) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def reference(shards: Path, pack: HeadPack, profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """An uninterrupted run: its folder and its averaged generator."""
    run = tmp_path_factory.mktemp("run")
    return run, train_prior(pack, shards, run, profile, CONFIG, ignore)


@pytest.mark.parametrize("interruptions", [[4], [3], [1, 2, 5], [7]])
def test_an_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(
    reference: tuple, interruptions: list[int], shards: Path, pack: HeadPack, profile: Profile, tmp_path: Path
) -> None:
    """At a saved step, between saves, repeatedly, and while super-resolution has joined in."""
    for last in interruptions:
        with pytest.raises(KeyboardInterrupt):
            train_prior(pack, shards, tmp_path, profile, CONFIG, stop_after(last))
        torch.rand(3)  # whatever else happened to the global generator of random numbers
    average = train_prior(pack, shards, tmp_path, profile, CONFIG, ignore)
    run, expected = reference
    assert same(average, expected)
    # The loss curve goes on as well: what was done twice came out the same twice.
    curve = {entry["step"]: entry for entry in log(run)}
    for entry in log(tmp_path):
        for name in ("raw", "raw_structure", "depth", "final"):
            assert entry.get(name) == curve[entry["step"]].get(name)


def test_canary_another_seed_gives_other_weights(
    reference: tuple, shards: Path, pack: HeadPack, profile: Profile, tmp_path: Path
) -> None:
    config = settings(seed=1)
    assert not same(train_prior(pack, shards, tmp_path, profile, config, ignore), reference[1])


def test_canary_a_forgotten_optimiser_is_noticed(
    reference: tuple, shards: Path, pack: HeadPack, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "restore_optimizer", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        train_prior(pack, shards, tmp_path, profile, CONFIG, stop_after(4))
    assert not same(train_prior(pack, shards, tmp_path, profile, CONFIG, ignore), reference[1])


def test_a_finished_run_is_not_trained_further(reference: tuple, shards: Path, pack: HeadPack, profile: Profile) -> None:
    run, expected = reference
    before = (run / STATE).read_bytes()
    assert same(train_prior(pack, shards, run, profile, CONFIG, stop_after(1)), expected)
    assert (run / STATE).read_bytes() == before


def test_the_log_names_every_term(reference: tuple) -> None:
    run, _ = reference
    entries = log(run)
    assert [entry["step"] for entry in entries] == list(range(1, 9))
    assert {"raw", "raw_structure", "depth", "seconds", "heads"} <= entries[0].keys()
    # Super-resolution joins in later.
    assert [("final" in entry) for entry in entries] == [False] * 4 + [True] * 4
    assert entries[0]["heads"] == 8
    # Scores on unseen heads, and a sheet to look at, at the end.
    assert 3 < entries[-1]["psnr_raw"] < 60
    assert 3 < entries[-1]["psnr_final"] < 60
    assert (run / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_other_settings_do_not_continue_a_run(reference: tuple, shards: Path, pack: HeadPack, profile: Profile) -> None:
    config = settings(learning_rate=1e-3)
    with pytest.raises(CheckpointError, match="started with other settings"):
        train_prior(pack, shards, reference[0], profile, config, ignore)


def test_no_heads_is_an_error_that_says_so(pack: HeadPack, profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No rendered heads"):
        train_prior(pack, tmp_path, tmp_path / "run", profile, CONFIG, ignore)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns(shards: Path, pack: HeadPack, profile: Profile, tmp_path: Path, seed: int) -> None:
    config = settings(steps=160, heads=4, superres_from=0.5, save_every=1000, bfloat16=False, seed=seed)
    average = train_prior(pack, shards, tmp_path, profile, config, ignore)
    raw = [entry["raw"] for entry in log(tmp_path)]
    assert np.mean(raw[-10:]) < 0.85 * np.mean(raw[:10])
    final = [entry["final"] for entry in log(tmp_path) if "final" in entry]
    assert np.mean(final[-10:]) < np.mean(final[:5])
    assert all(torch.isfinite(value).all() for value in average.state_dict().values())


def test_one_bad_ray_does_not_end_the_run(
    shards: Path, pack: HeadPack, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = train._losses

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        gradient.view(-1)[0] = float("nan")
        gradient.view(-1)[1] = float("inf")
        return gradient

    def hooked(generator: Generator, *arguments: object, **options: object) -> dict[str, torch.Tensor]:
        weight = next(generator.decoder.parameters())
        if not weight._backward_hooks:
            weight.register_hook(poison)
        return losses(generator, *arguments, **options)

    monkeypatch.setattr(train, "_losses", hooked)
    average = train_prior(pack, shards, tmp_path, profile, settings(steps=3), ignore)
    assert all(torch.isfinite(value).all() for value in average.state_dict().values())


def test_shards_that_come_late_do_not_change_the_run(
    shards: Path, pack: HeadPack, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn beforehand, or one by one as training asks for them: the same weights, bit for bit."""
    monkeypatch.setattr(train, "FIRST_SHARDS", 1)
    config = settings(shards=4, steps_per_shard=3)
    early = train_prior(pack, shards, tmp_path / "early", profile, config, ignore)
    late = tmp_path / "shards"
    dataset.claim(late, pack, Orbit())
    for number in range(HELD_OUT_SHARDS + 1):
        render_shard(late, number, pack, Orbit())

    class Slow(ShardWriters):
        def at_work(self) -> bool:
            render_shard(late, HELD_OUT_SHARDS + 1, pack, Orbit())
            return True

    writers = Slow(late, range(0), pack, Orbit(), 0)
    assert same(train_prior(pack, late, tmp_path / "late", profile, config, ignore, writers=writers), early)
    assert [entry["heads"] for entry in log(tmp_path / "late")] == [4] * 3 + [8] * 5


def test_waiting_for_heads_that_nobody_draws_is_an_error(
    pack: HeadPack, profile: Profile, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no process draws the missing ones"):
        train_prior(pack, shards, tmp_path, profile, settings(shards=20, steps_per_shard=1), ignore)


def test_shares_of_a_batch_add_up_to_the_whole(shards: Path, pack: HeadPack, profile: Profile) -> None:
    """Two processes' mean loss is one's: they draw the same heads, windows, backgrounds and ray samples."""
    generator = train._fresh(profile)
    data = train.HeadShards(shards, pack)
    config = settings(heads=4, bfloat16=False)

    class Apart(Workers):
        """One of several processes, without the others."""

        def mean(self, tensors: Sequence[torch.Tensor]) -> None:
            pass

    def losses(workers: Workers) -> np.ndarray:
        terms = train._losses(generator, data, config, np.random.default_rng(3), workers, superres=True)
        return np.array([float(value.detach()) for value in terms.values()])

    whole, halves = losses(Workers()), [losses(Apart(rank, 2)) for rank in (0, 1)]
    assert not np.allclose(halves[0], halves[1], rtol=0.01)
    np.testing.assert_allclose(np.mean(halves, 0), whole, rtol=1e-3)
    with pytest.raises(ConfigError, match="cannot be shared evenly by 3"):
        losses(Apart(0, 3))


def test_the_order_in_which_shards_come_does_not_matter(pack: HeadPack, shards: Path, tmp_path: Path) -> None:
    data = train.HeadShards(tmp_path, pack)
    for number in (3, 2):
        render_shard(tmp_path, number, pack, Orbit())
        data.refresh()
    for a, b in zip(data, train.HeadShards(shards, pack), strict=True):
        assert torch.equal(a.images, b.images)


def test_scores_are_those_of_the_generators_own_device(shards: Path, pack: HeadPack, profile: Profile) -> None:
    """Everything a GPU would have to hold is moved there: on the meta device, nothing else would fit together."""
    generator = train._fresh(profile).eval().to("meta")
    batch = next(iter(train.HeadShards(shards, pack)))
    with pytest.raises(NotImplementedError, match="meta"):  # only the way back fails, as meta has no numbers
        train._draw(generator, batch)


def test_shards_of_other_heads_are_refused(shards: Path, pack: HeadPack, profile: Profile, tmp_path: Path) -> None:
    dataset.claim(tmp_path, pack, Orbit())
    (tmp_path / "shard-00000").mkdir()
    dataset.claim(tmp_path, pack, Orbit())
    with pytest.raises(ConfigError, match="drawn from something else \\(orbit\\)"):
        dataset.claim(tmp_path, pack, Orbit(radius=3.0))
    (tmp_path / "shards.json").unlink()
    with pytest.raises(ConfigError, match="no note"):
        dataset.claim(tmp_path, pack, Orbit())


def test_a_shard_that_another_process_finished_first_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a killed run whose writer still draws."""
    rename = Path.rename

    def overtaken(self: Path, target: Path) -> Path:
        (target / "theirs.npy").parent.mkdir()
        (target / "theirs.npy").touch()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    dataset.write_shard(tmp_path / "shard-00007", {"ours": np.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00007"]
    assert [path.name for path in (tmp_path / "shard-00007").iterdir()] == ["theirs.npy"]
    monkeypatch.setattr(Path, "rename", lambda self, target: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        dataset.write_shard(tmp_path / "shard-00008", {"ours": np.zeros(3)})
    assert not (tmp_path / "shard-00008").exists()
