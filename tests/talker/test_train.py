"""Training the talker: resumable, deterministic, blind to test frames, and the same in several processes."""

import dataclasses
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talk3d import runs
from talk3d.artifacts import load_state
from talk3d.errors import CheckpointError, ConfigError
from talk3d.prior.subject import save_subject
from talk3d.runs import Workers
from talk3d.talker import train, validate
from talk3d.talker.clip import crop_numbers
from talk3d.talker.config import TrainConfig
from talk3d.talker.draw import Talker
from talk3d.talker.material import Material
from talk3d.talker.objective import LossWeights
from talk3d.talker.train import STATE, finish_run, frames_note, train_talker

CONFIG = TrainConfig(
    steps=4, minutes=None, frames_per_step=4, listen_steps=4, superres_from=0.5, precision="float32", save_seconds=0.0
)


def weights(talker: Talker) -> dict[str, torch.Tensor]:
    modules = {"n": talker.network, "s": talker.generator.superresolution}
    return {f"{n}.{k}": v.clone() for n, m in modules.items() for k, v in m.state_dict().items()}


def log(run: Path) -> list[dict[str, float]]:
    """The lines of the log but for the time they took."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def silent(part: float, text: str) -> None:
    pass


@pytest.fixture
def short_validation(monkeypatch):
    """Clips of seconds are validated too."""
    monkeypatch.setattr(validate, "SLICE", 12)


@pytest.fixture(scope="module")
def saved_subject(tiny_subject, tiny_capture, tmp_path_factory) -> Path:
    """The tiny subject on disk, for other processes."""
    path = tmp_path_factory.mktemp("subject") / "tiny"
    save_subject(
        path, tiny_subject.generator, tiny_subject.ws[0, 0], tiny_subject.yaw, tiny_subject.pitch, tiny_subject.expressions,
        capture_path=tiny_capture.root, parents={"Prior": tiny_subject.prior_hash, "Capture": tiny_capture.hash},
        consent="synthetic", config={}, overwrite=False,
    )  # fmt: skip
    return path


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class StoppedError(Exception):
    pass


def stop_after(last: int):
    """A progress report that interrupts the training."""

    def report(part: float, text: str) -> None:
        if text.startswith(f"step {last} "):
            raise StoppedError

    return report


def in_two_parts(subject, capture, run: Path) -> Talker:
    """Interrupted after the second step, and continued."""
    with pytest.raises(StoppedError):
        train_talker(subject, capture, run, CONFIG, stop_after(2))
    assert load_state(run / STATE)[1]["step"] == 2
    return train_talker(subject, capture, run, CONFIG, silent)


def test_interrupted_and_continued_equals_uninterrupted(tiny_subject, tiny_capture, tmp_path):
    whole = weights(train_talker(tiny_subject, tiny_capture, tmp_path / "whole", CONFIG, silent))
    assert equal(whole, weights(in_two_parts(tiny_subject, tiny_capture, tmp_path / "parts")))


def test_canary_a_forgotten_optimiser_is_noticed(tiny_subject, tiny_capture, tmp_path, monkeypatch):
    whole = weights(train_talker(tiny_subject, tiny_capture, tmp_path / "whole", CONFIG, silent))
    monkeypatch.setattr(runs, "restore_optimizer", lambda *_: None)
    assert not equal(whole, weights(in_two_parts(tiny_subject, tiny_capture, tmp_path / "parts")))


def test_test_frames_leave_no_trace(tiny_subject, tiny_prior, tiny_capture, make_capture, tmp_path):
    corrupted = make_capture(tmp_path / "corrupted", tiny_prior.hash, test_noise=True)
    results = []
    for name, capture in (("clean", tiny_capture), ("corrupted", corrupted)):
        results.append(weights(train_talker(tiny_subject, capture, tmp_path / name, CONFIG, silent)))
    assert equal(*results)


def test_training_frames_do_leave_a_trace(tiny_subject, tiny_capture, tmp_path):
    """The canary of the test above: it must be able to see a difference."""
    first = weights(train_talker(tiny_subject, tiny_capture, tmp_path / "a", CONFIG, silent))
    moved = dataclasses.replace(tiny_subject, yaw=tiny_subject.yaw + 0.1)
    second = weights(train_talker(moved, tiny_capture, tmp_path / "b", CONFIG, silent))
    assert not equal(first, second)


def test_other_settings_or_subject_are_refused(tiny_subject, tiny_capture, tmp_path):
    train_talker(tiny_subject, tiny_capture, tmp_path, CONFIG, silent)
    with pytest.raises(CheckpointError, match="other settings"):
        train_talker(tiny_subject, tiny_capture, tmp_path, dataclasses.replace(CONFIG, learning_rate=1e-4), silent)
    with pytest.raises(CheckpointError, match="another subject"):
        train_talker(dataclasses.replace(tiny_subject, hash="other"), tiny_capture, tmp_path, CONFIG, silent)


def test_longer_training_continues(tiny_subject, tiny_capture, tmp_path):
    train_talker(tiny_subject, tiny_capture, tmp_path, CONFIG, silent)
    train_talker(tiny_subject, tiny_capture, tmp_path, dataclasses.replace(CONFIG, steps=6), silent)
    assert load_state(tmp_path / STATE)[1]["step"] == 6


def test_crop_numbers_of_a_known_similarity():
    scale, roll = 2.0, 0.1
    linear = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    centre = np.array([30.0, 20.0])
    affine = np.concatenate([linear, (32 - linear @ centre)[:, None]], 1)[None]
    numbers = crop_numbers(affine, 64)[0]
    np.testing.assert_allclose(numbers, [30 / 32, 20 / 32, np.log(2), roll], atol=1e-12)


def test_a_prior_without_expressions_leaves_all_to_the_unet(tiny_subject, tiny_capture, tmp_path):
    plain = dataclasses.replace(tiny_subject, expressions={})
    talker = train_talker(plain, tiny_capture, tmp_path, CONFIG, silent)
    assert talker.network.modes.names == ()
    assert talker.network.unet.out.weight.abs().max() > 0


PROCESS = """
import sys, time, torch
from pathlib import Path
from talk3d.capture.artifact import Capture
from talk3d.prior.subject import load_subject
from talk3d.runs import join, weights_digest
from talk3d.talker import validate
from talk3d.talker.config import TrainConfig
from talk3d.talker.train import train_talker

torch.set_num_threads(1)
validate.SLICE = 12
config = TrainConfig(
    steps=8, minutes=None, listen_steps=30, superres_from=0.5, validation=0.2, precision="float32", save_seconds=0.1,
    preview_seconds=0.2,
)

def report(part, text):
    print(text, flush=True)
    time.sleep(0.1)  # however fast the machine is, a kill comes before the end

subject, run = load_subject(Path(sys.argv[1])), Path(sys.argv[2])
capture = Capture.open(subject.capture_path)
with join() as workers:
    talker = train_talker(subject, capture, run, config, report, workers)
if workers.rank == 0:
    (run / "digest").write_text("".join(weights_digest(module) for module in talker.trained().values()))
"""


def test_killed_at_any_moment_the_curve_goes_on_bit_for_bit(saved_subject, tmp_path):
    """Killed while it listens and at several steps, with no chance to tidy up."""

    def start(run: str) -> subprocess.Popen:
        command = [sys.executable, "-c", PROCESS, str(saved_subject), str(tmp_path / run)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start("whole")
    moments = random.Random(0)
    for last in ("listening 25", "step 2", "step 5"):
        with start("parts") as child:
            assert child.stdout is not None
            assert any(line.startswith(last) for line in child.stdout)
            time.sleep(moments.uniform(0, 0.2))
            child.kill()
        assert child.returncode == -9
    with start("parts") as child:
        first = next(line for line in child.stdout if line.startswith("step"))
        child.stdout.read()
    whole.communicate()
    assert (whole.returncode, child.returncode) == (0, 0)
    assert int(first.split()[1]) > 1, "it went on from a state"
    assert [line["step"] for line in log(tmp_path / "parts")] == list(range(1, 9))
    assert log(tmp_path / "parts") == log(tmp_path / "whole")
    assert sum("val_score" in line for line in log(tmp_path / "whole")) == 4
    assert (tmp_path / "parts" / "digest").read_text() == (tmp_path / "whole" / "digest").read_text()


def test_two_processes_give_the_curve_of_one(saved_subject, tmp_path):
    script = tmp_path / "together.py"
    script.write_text(PROCESS)
    alone = [sys.executable, str(script), str(saved_subject), str(tmp_path / "alone")]
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run(alone, capture_output=True, check=True, timeout=300)
    subprocess.run([*together, str(saved_subject), str(tmp_path / "two")], capture_output=True, check=True, timeout=300)
    one, two = log(tmp_path / "alone"), log(tmp_path / "two")
    assert len(one) == len(two) == 8
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    assert (tmp_path / "two" / "preview.png").exists()


def test_processes_that_cannot_share_a_step_are_refused(tiny_subject, tiny_capture, tmp_path):
    with pytest.raises(ConfigError, match="cannot be shared evenly by 3"):
        train_talker(tiny_subject, tiny_capture, tmp_path, CONFIG, silent, Workers(0, 3))


def test_a_training_started_afresh_starts_its_log_afresh(tiny_subject, tiny_capture, tmp_path):
    for _ in range(2):
        train_talker(tiny_subject, tiny_capture, tmp_path, CONFIG, silent)
        finish_run(tmp_path)
        assert [line["step"] for line in log(tmp_path)] == [1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "preview.png"]
    # No frame is held out of so short a clip: two rows of four pictures, and a caption.
    size = tiny_capture.resolution
    assert cv2.imread(str(tmp_path / "preview.png")).shape == (2 * size + 20, 4 * size, 3)


def test_averaged_weights_are_what_is_kept(tiny_subject, tiny_capture, tmp_path):
    """With a half-life of 0 they are the trained ones; otherwise they lie behind."""
    config = dataclasses.replace(CONFIG, ema_half_life=0.0)
    kept = weights(train_talker(tiny_subject, tiny_capture, tmp_path / "a", config, silent))
    tensors, _ = load_state(tmp_path / "a" / STATE)
    trained = {name: value for name, value in tensors.items() if name.startswith("network.")}
    assert all(torch.equal(value, kept["n" + name.removeprefix("network")]) for name, value in trained.items())
    averaged = weights(train_talker(tiny_subject, tiny_capture, tmp_path / "b", CONFIG, silent))
    again, _ = load_state(tmp_path / "b" / STATE)
    assert torch.equal(again["network.unet.constant"], trained["network.unet.constant"]), "averaging changes no training"
    assert not torch.equal(averaged["n.unet.constant"], kept["n.unet.constant"])


def test_roll_out_and_convolution_are_chosen_by_the_config(tiny_subject):
    assert train._new_network(tiny_subject, CONFIG).config.unet.rollout == "aligned"
    network = train._new_network(tiny_subject, dataclasses.replace(CONFIG, rollout="off", convolution="joint"))
    assert (network.unet.config.rollout, network.unet.config.convolution) == ("off", "joint")


def test_averages_lie_one_half_life_behind():
    config = TrainConfig(ema_half_life=3.0)
    assert train._decay(1000, config) ** 3 == pytest.approx(0.5)
    assert train._decay(20, config) == pytest.approx(0.5)  # a half-life of a twentieth of the steps
    assert train._decay(1000, dataclasses.replace(config, ema_half_life=0.0)) == 0


@pytest.mark.usefixtures("short_validation")
def test_held_out_frames_are_not_learnt_from_but_judged_by(tiny_subject, tiny_capture, make_capture, tiny_prior, tmp_path):
    """Noise in their place changes the scores and no trained weight."""
    config = dataclasses.replace(CONFIG, validation=0.2)
    noisy = _noise_in_pictures(tiny_capture, 52, 60)
    train_talker(tiny_subject, tiny_capture, tmp_path / "clean", config, silent)
    train_talker(tiny_subject, noisy, tmp_path / "noisy", config, silent)
    (clean, _), (other, _) = (load_state(tmp_path / name / STATE) for name in ("clean", "noisy"))
    assert all(torch.equal(clean[name], other[name]) for name in clean if name.startswith(("network.", "superresolution.")))
    for a, b in zip(log(tmp_path / "clean"), log(tmp_path / "noisy"), strict=True):
        assert a.keys() == b.keys()
        assert {name for name in a if a[name] != b[name]} == {n for n in a if n.startswith("val_")}


def _noise_in_pictures(capture, start, stop):
    """The same capture, of which some pictures are noise."""
    rng = np.random.default_rng(0)

    class Noisy(type(capture)):
        def frames(self, first=0, last=None):
            for number, frame in enumerate(super().frames(first, last), first):
                yield rng.integers(0, 255, frame.shape).astype(np.uint8) if start <= number < stop else frame

    return Noisy(capture.root, capture.manifest)


@pytest.mark.usefixtures("short_validation")
def test_the_state_that_scores_best_in_the_second_half_is_kept(tiny_subject, tiny_capture, tmp_path, monkeypatch):
    scores = iter([0.1, 0.9, 0.3, 0.8])  # after each of four steps

    def score(self, drawn):
        return {"val_score": next(scores)}

    monkeypatch.setattr(validate.Validation, "scores", score)
    config = dataclasses.replace(CONFIG, validation=0.2)
    kept = weights(train_talker(tiny_subject, tiny_capture, tmp_path, config, silent))
    tensors, state = load_state(tmp_path / STATE)
    assert state["notes"]["best_score"] == 0.3
    assert torch.equal(kept["n.unet.constant"], tensors["best_network.unet.constant"])
    assert not torch.equal(kept["n.unet.constant"], tensors["average_network.unet.constant"])


def test_films_too_long_for_the_disk_are_thinned_out(tiny_subject, tiny_capture, tmp_path):
    config = dataclasses.replace(CONFIG, cache_gigabytes=20 * 4 * tiny_capture.resolution**2 / 1e9)
    assert frames_note(tiny_capture, CONFIG) is None
    assert "20 of 60 frames are learnt from" in frames_note(tiny_capture, config)
    train_talker(tiny_subject, tiny_capture, tmp_path, config, silent)
    (pictures,) = (tmp_path / "frames").glob("pictures-*.npy")
    assert len(np.load(pictures, mmap_mode="r")) == 20


def test_frames_in_which_the_face_is_covered_are_left_out(tiny_subject, tiny_prior, make_capture, tmp_path):
    capture = make_capture(tmp_path / "capture", tiny_prior.hash)
    occluded = np.zeros(capture.count)
    occluded[10:30] = 0.3
    vars(capture)["track"] = capture.track | {"occluded": occluded}
    assert frames_note(capture, CONFIG) == "20 of 60 frames are left out: something is before the face."
    material = Material.of(capture, tiny_subject, tmp_path / "frames", CONFIG)
    assert material.learnt.tolist() == [*range(10), *range(30, 60)]
    seen = [material.batch(CONFIG, 16, slice(None), np.random.default_rng(seed)).index for seed in range(40)]
    assert not set(range(10, 30)) & set(torch.cat(seen).tolist())
    occluded[:60] = 0.3
    with pytest.raises(ConfigError, match="before the face in all of the 60 frames"):
        Material.of(capture, tiny_subject, tmp_path / "other", CONFIG)


def test_bfloat16_trains_nearly_alike(tiny_subject, tiny_capture, tmp_path):
    train_talker(tiny_subject, tiny_capture, tmp_path / "a", CONFIG, silent)
    train_talker(tiny_subject, tiny_capture, tmp_path / "b", dataclasses.replace(CONFIG, precision="bfloat16"), silent)
    exact, half = (np.array([line["final"] for line in log(tmp_path / name)]) for name in "ab")
    assert not np.array_equal(exact, half)
    np.testing.assert_allclose(half, exact, rtol=0.02)


def test_pairs_are_not_torn_apart(tiny_subject, tiny_capture, tmp_path):
    config = dataclasses.replace(CONFIG, frames_per_step=2, weights=LossWeights(temporal=1.0))
    with pytest.raises(ConfigError, match="pairs, but each process draws 1"):
        train_talker(tiny_subject, tiny_capture, tmp_path, config, lambda part, text: None, Workers(0, 2))
    assert not list(tmp_path.iterdir()), "before any work"


def test_pairs_are_not_made_of_strangers(tiny_subject, tiny_capture, tmp_path):
    """Of a film that was thinned out, the next frame there is may be a second later."""
    few = 20 * 4 * tiny_capture.resolution**2 / 1e9
    config = dataclasses.replace(CONFIG, cache_gigabytes=few, weights=LossWeights(temporal=1.0))
    with pytest.raises(ConfigError, match="only 20 of 60 frames fit"):
        train_talker(tiny_subject, tiny_capture, tmp_path, config, silent)


@pytest.mark.parametrize("limits", [{"steps": 0}, {"steps": -3}, {"minutes": None}, {"steps": 5, "minutes": 0.0}])
def test_a_training_without_end_or_beginning_is_refused(limits):
    with pytest.raises(ConfigError, match="would do nothing or never end"):
        TrainConfig(**limits)


def test_judges_of_lips_are_asked_along(tiny_subject, tiny_capture, tmp_path):
    """The reader is taught on this film's mouths, the expert hears its sound."""
    weights = LossWeights(mouth_shape=0.1, sync=0.1, mouth_perceptual=0.1, identity=0.1)
    config = dataclasses.replace(CONFIG, steps=2, read_steps=2, weights=weights)
    train_talker(tiny_subject, tiny_capture, tmp_path, config, silent)
    first = log(tmp_path)[0]
    assert {"mouth_shape", "sync", "mouth_perceptual", "identity"} <= set(first)
    assert all(np.isfinite(value) for value in first.values())


def test_losses_of_pairs_train(tiny_subject, tiny_capture, tmp_path):
    weights = LossWeights(temporal=1.0, smoothness=1.0, adversarial=0.1, reprojection=1.0)
    config = dataclasses.replace(CONFIG, steps=2, weights=weights)
    train_talker(tiny_subject, tiny_capture, tmp_path, config, lambda part, text: None)
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert {"temporal", "smoothness", "adversarial", "fake", "real", "reprojection"} <= last.keys()
    assert all(np.isfinite(value) for value in last.values())
