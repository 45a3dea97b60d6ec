"""Training of the judges, tiny: they learn, and an interruption changes nothing at all."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from talk3d import runs
from talk3d.errors import CheckpointError
from talk3d.heads.model import HeadPack
from talk3d.heads.subject import Phone
from talk3d.judges.headnet import READINGS, CloseUp, Glance, HeadNetDims
from talk3d.judges.sync import SyncDims, SyncExpert
from talk3d.pretrain import judges
from talk3d.pretrain.judges import JudgeConfig, augmented, closeup_losses, fit, glance_losses, heard, random_clip, sync_losses
from talk3d.pretrain.portraits import PICTURES, Portraits
from talk3d.pretrain.speakers import Recording, Rig, TrackerModel
from talk3d.video.clock import AUDIO_RATE

DIMS = HeadNetDims(
    widths=(4, 6, 8, 8, 8), blocks=(0, 1, 0, 0, 1), squeeze=4, hidden=16, embedding=8,
    close_widths=(4, 6, 8), close_blocks=(0, 0, 1), close_hidden=16,
)  # fmt: skip
CONFIG = JudgeConfig(steps=6, batch=3, save_every=2)


def ignore(step: int, steps: int, text: str) -> None:
    pass


def stop_after(last: int) -> Callable[[int, int, str], None]:
    def report(step: int, steps: int, text: str) -> None:
        if step == last:
            raise KeyboardInterrupt

    return report


@pytest.fixture(scope="module")
def data() -> Portraits:
    """Discs whose places, sizes and colours stand for heads."""
    rng = np.random.default_rng(0)
    persons = 6
    count = persons * PICTURES
    y, x = np.mgrid[0:128, 0:128]
    face = rng.uniform(-0.1, 0.1, (68, 2))
    images, landmarks = np.zeros((count, 4, 128, 128), np.uint8), np.zeros((count, 68, 2), np.float32)
    for index in range(count):
        who = index // PICTURES
        centre = rng.uniform(50, 78, 2)
        disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (20 + 3 * who) ** 2
        images[index, :3, disc] = np.array([40 * who, 250 - 40 * who, 120])
        images[index, 3, disc] = 255
        landmarks[index] = centre / 128 + face
    person = np.arange(count) // PICTURES
    return Portraits(
        images, landmarks, rng.uniform(0, 1, (count, len(READINGS))).astype(np.float32), person, person // 2 * 2,
        np.zeros((count, 3), np.float32), np.zeros(count, bool),
    )  # fmt: skip


def run(data: Portraits, folder: Path, report: Callable = ignore, config: JudgeConfig = CONFIG) -> dict[str, torch.Tensor]:
    torch.manual_seed(config.seed)
    network = Glance(DIMS)
    assert fit(network, glance_losses(data, config), folder, config, report)
    return network.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def reference(data: Portraits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return run(data, tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("interruptions", [[4], [1, 3]])
def test_an_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(
    data: Portraits, reference: dict[str, torch.Tensor], interruptions: list[int], tmp_path: Path
) -> None:
    for last in interruptions:
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path, stop_after(last))
    assert same(run(data, tmp_path), reference)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 7))


def test_canary_a_forgotten_optimiser_is_noticed(
    data: Portraits, reference: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "restore_optimizer", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, stop_after(4))
    assert not same(run(data, tmp_path), reference)


def test_time_that_runs_out_is_no_loss(data: Portraits, reference: dict[str, torch.Tensor], tmp_path: Path) -> None:
    def some(minutes: float) -> tuple[bool, Glance]:
        torch.manual_seed(CONFIG.seed)
        network = Glance(DIMS)
        return fit(network, glance_losses(data, CONFIG), tmp_path, CONFIG, ignore, minutes), network

    for _ in range(5):
        assert not some(minutes=0.0)[0]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 5
    done, network = some(minutes=1.0)
    assert done
    assert same(network.state_dict(), reference)


def test_other_settings_do_not_continue_a_run(data: Portraits, tmp_path: Path) -> None:
    run(data, tmp_path)
    with pytest.raises(CheckpointError, match="started with other settings"):
        run(data, tmp_path, config=JudgeConfig(steps=6, batch=3, learning_rate=1e-4))


def test_the_glance_learns(data: Portraits, tmp_path: Path) -> None:
    run(data, tmp_path, config=JudgeConfig(steps=80, batch=6, learning_rate=1e-2, save_every=100))
    landmarks = [json.loads(line)["landmarks"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert np.mean(landmarks[-20:]) < 0.85 * np.mean(landmarks[:5]), (np.mean(landmarks[:5]), np.mean(landmarks[-20:]))


def test_landmarks_move_with_the_picture(data: Portraits, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disc's middle, found in the augmented picture, is where the mean landmark went."""
    monkeypatch.setattr(judges, "random_background", lambda data, rng: np.zeros((128, 128, 3), np.float32))
    middles = np.zeros((len(data), 68, 2), np.float32)
    for index, image in enumerate(data.images):
        y, x = np.nonzero(image[3])
        middles[index] = (x.mean() + 0.5) / 128, (y.mean() + 0.5) / 128
    white = data.images[:, 3:].repeat(4, 1)
    bright = dataclasses.replace(data, images=white, landmarks=middles)
    rng = np.random.default_rng(3)
    pictures, landmarks = augmented(bright, np.arange(18), rng)
    for picture, points in zip(pictures, landmarks, strict=True):
        y, x = np.nonzero(picture.mean(0).numpy() > 0.3)
        if x.min() > 0 and y.min() > 0 and x.max() < 127 and y.max() < 127:  # all of the disc
            np.testing.assert_allclose(points[0] * 128, [x.mean() + 0.5, y.mean() + 0.5], atol=1.5)


def test_the_closeup_learns_what_the_middle_shows(data: Portraits) -> None:
    """The readings are the disc's colour."""
    seen = dataclasses.replace(data, readings=np.repeat(data.person[:, None] / 5, len(READINGS), 1).astype(np.float32))
    network = CloseUp(DIMS)
    config = JudgeConfig(steps=60, batch=12)
    losses, optimizer = closeup_losses(seen, config), torch.optim.Adam(network.parameters(), 3e-3)
    values = []
    for step in range(config.steps):
        loss = losses(network, np.random.default_rng(step))["readings"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert np.mean(values[-10:]) < 0.6 * np.mean(values[:5])


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    rng = np.random.default_rng(0)
    result = []
    for _ in range(3):
        loud = (np.arange(8 * AUDIO_RATE) // 2400 % 2).astype(np.float32)
        phones = [Phone(0.3 * k + 0.15, 0.3 * k + 0.3, "aa") for k in range(26)]
        result.append(Recording((rng.standard_normal(8 * AUDIO_RATE) * 0.1 * loud).astype(np.float32), phones))
    return result


def test_a_clip_keeps_sound_and_phones_together(recordings: list[Recording]) -> None:
    clip = random_clip(recordings[0], np.random.default_rng(5))
    assert clip.frames == judges.CLIP
    for phone in [p for p in clip.phones if p.start > 0 and p.stop < 5.9]:
        inside = clip.samples[round((phone.start + 0.02) * AUDIO_RATE) : round((phone.stop - 0.02) * AUDIO_RATE)]
        before = clip.samples[max(0, round((phone.start - 0.1) * AUDIO_RATE)) : round((phone.start - 0.02) * AUDIO_RATE)]
        assert inside.std() > 10 * before.std()


def test_what_is_done_to_sound_does_not_move_it() -> None:
    """An expert for offsets would learn the shift of its own training data."""
    click = np.zeros(AUDIO_RATE, np.float32)
    click[8000] = 1.0
    for seed in range(30):
        changed = heard(click, click * 0, np.random.default_rng(seed))
        assert changed.shape == click.shape
        assert abs(int(np.abs(changed).argmax()) - 8000) <= 2


def test_the_expert_takes_a_step(pack: HeadPack, recordings: list[Recording]) -> None:
    tracker = TrackerModel(
        np.tile(np.eye(40, dtype=np.float32), (1, 2)), np.zeros((1, 80), np.float32), np.zeros((1, 57, 80), np.float32), 1.0
    )
    config = JudgeConfig(steps=1, batch=2)
    network: nn.Module = SyncExpert(SyncDims(width=8, blocks=1, size=4))
    losses = sync_losses(recordings, Rig(pack), tracker, config)
    one, other = (losses(network, np.random.default_rng(0)) for _ in range(2))
    assert one.keys() == {"frame", "piece"}
    assert all(torch.equal(one[name], other[name]) for name in one)
    sum(one.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
