"""The best part of a film: what adds most, in whole blocks, by training frames alone."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from talk3d.capture.artifact import Capture
from talk3d.capture.choose import BLOCK, best_blocks, require_seconds
from talk3d.errors import ConfigError


def test_what_has_not_been_seen_is_taken_first() -> None:
    """Of eight blocks, six show the same and two something else: these two are among the first three."""
    kinds = np.repeat([0, 0, 1, 0, 0, 2, 0, 0], BLOCK)
    kept = best_blocks([kinds], np.ones(len(kinds)), [slice(0, len(kinds))], 3 * BLOCK)
    assert sorted(set(kept // BLOCK)) == [0, 2, 5]  # and of several equal ones the first
    assert len(kept) == 3 * BLOCK
    assert (np.diff(kept) > 0).all()


def test_blurred_and_silent_blocks_are_left() -> None:
    weight = np.repeat([0.2, 1.0, 0.3, 1.0, 0.06], BLOCK)
    kept = best_blocks([np.zeros(5 * BLOCK, int)], weight, [slice(0, 5 * BLOCK)], 2 * BLOCK)
    assert sorted(set(kept // BLOCK)) == [1, 3]


def test_the_greedy_choice_is_near_the_best_of_all() -> None:
    """Against every set of four of twelve blocks."""
    import itertools

    rng = np.random.default_rng(3)
    kinds = [rng.integers(0, 30, 12 * BLOCK) * (rng.random(12 * BLOCK) < 0.5), rng.integers(0, 9, 12 * BLOCK)]
    kinds[0] += np.repeat(rng.integers(0, 40, 12), BLOCK)

    def worth(frames: np.ndarray) -> float:
        return float(sum(np.sqrt(np.bincount(kind[frames])).sum() for kind in kinds))

    kept = best_blocks(kinds, np.ones(12 * BLOCK), [slice(0, 12 * BLOCK)], 4 * BLOCK)
    blocks = [np.arange(n * BLOCK, (n + 1) * BLOCK) for n in range(12)]
    best = max(worth(np.concatenate(four)) for four in itertools.combinations(blocks, 4))
    assert worth(kept) >= 0.98 * best


def test_blocks_end_with_their_part_and_a_rest_is_only_filled_if_it_is_worth_a_seam() -> None:
    kinds = np.zeros(1000, int)
    parts = [slice(0, BLOCK + 60), slice(BLOCK + 60, 1000)]
    everything = best_blocks([kinds], np.ones(1000), parts, 1000)
    assert everything.tolist() == list(range(1000))
    assert len(best_blocks([kinds], np.ones(1000), parts, 2 * BLOCK + 49)) == 2 * BLOCK
    assert len(best_blocks([kinds], np.ones(1000), parts, 2 * BLOCK + 50)) == 2 * BLOCK + 50
    assert len(best_blocks([kinds], np.ones(1000), parts, 10)) == 0


@pytest.mark.parametrize("seconds", [4.9, 0.0, -3.0, float("nan")])
def test_a_budget_of_nothing_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="at least 5"):
        require_seconds(seconds)
    require_seconds(None)
    require_seconds(5.0)


@pytest.fixture(scope="module")
def long_film(film_frames: np.ndarray, film_sound: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Sixteen seconds: the film to and fro, of which the second quarter is blurred; other frames for testing if asked for."""
    import cv2

    from talk3d.video.write import VideoWriter

    folder = tmp_path_factory.mktemp("long")

    def make(other: bool) -> Path:
        order = np.concatenate([np.arange(88), np.arange(87, -1, -1)] * 3)[:400]
        path = folder / f"{other}.mp4"
        with VideoWriter(path, (256, 256), audio_rate=16000, crf=12, preset="veryfast", causal=True) as writer:
            writer.write_audio(np.tile(film_sound, 5)[: 400 * 640])
            for place, index in enumerate(order):
                frame = film_frames[index]
                if 125 <= place < 250:
                    frame = cv2.GaussianBlur(frame, (0, 0), 4)
                if other and place >= 375:
                    frame = np.roll(frame, 3, axis=1)
                writer.write(frame)
        return path

    return make


def test_a_capture_of_the_best_seconds(run: Callable[..., Capture], long_film: Callable[..., Path], tmp_path: Path) -> None:
    """The sharp part is kept, the usual split holds, the report says so, and frames for testing have no say."""
    one = run(long_film(False), tmp_path / "one", seconds=9.0)
    assert one.count <= 225
    assert one.count >= 225 - 60
    numbers = np.concatenate([np.arange(*take) for take in one.config["takes"]])
    learnt, tested = numbers[slice(*one.train)], numbers[slice(*one.test)]
    assert len(learnt) == one.count * 10 // 11
    assert ((learnt >= 125) & (learnt < 250)).mean() < 0.1
    border = 400 * 10 // 11
    assert learnt.max() < border
    assert tested.tolist() == list(range(border, border + len(tested)))
    assert len(one.audio()) == 640 * one.count
    report = one.report
    assert report["frames"]["asked_seconds"] == 9.0
    assert (report["frames"]["fit"], report["frames"]["usable"], report["frames"]["lost"]) == (400, one.count, [])
    assert "the best of 16.0 s" in one.path("report.html").read_text()
    two = run(long_film(True), tmp_path / "two", seconds=9.0)
    assert two.config["takes"] == one.config["takes"]
    for name, values in one.track.items():
        assert np.array_equal(values[: len(learnt)], two.track[name][: len(learnt)]), name


def test_a_budget_that_everything_fits_in_changes_nothing(run: Callable[..., Capture], film: Path, tmp_path: Path) -> None:
    free, bound = run(film, tmp_path / "free"), run(film, tmp_path / "bound", seconds=60.0)
    for name, value in free.manifest["members"].items():
        if name != "report.json":
            assert bound.manifest["members"][name] == value, name
    kept, told = free.report, bound.report
    assert told["frames"].pop("asked_seconds") == 60.0
    assert kept["frames"].pop("asked_seconds") is None
    assert json.dumps(kept) == json.dumps(told)
