"""What bench speed counts and times; nothing here depends on how long anything takes."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d.bench import budget
from talk3d.bench import speed as bench
from talk3d.bench.budget import Ceilings, Work
from talk3d.errors import ConfigError
from talk3d.prior.generator import MINI, Decoder
from talk3d.talker.speak import Speaker

CEILINGS = Ceilings(single=2e9, half=8e9, bytes=1e9)


def test_the_floor_is_set_by_whatever_runs_out_first() -> None:
    assert CEILINGS.floor(Work(operations=2e9, bytes=1e3), torch.float32) == 1.0
    assert CEILINGS.floor(Work(operations=2e9, bytes=1e3), torch.bfloat16) == 0.25
    assert CEILINGS.floor(Work(operations=2e3, bytes=3e9), torch.float32) == 3.0


def test_rendering_is_counted_as_the_decoder_counts_itself() -> None:
    """Against torch's own count of the decoder, and of lookups as the products of matrices they could be."""
    profile = dataclasses.replace(MINI, neural_resolution=4)
    points = 4**2 * 32
    decoder = Decoder(16, 32, 16)
    decoded = budget.module_work(lambda: decoder(torch.zeros(1, points, 16))[0], 0, 0, 1)
    blended = budget.module_work(lambda: torch.zeros(16, 1, 32) @ torch.zeros(16, 32, 16), 0, 0, 1)
    looked = budget.module_work(lambda: torch.zeros(points, 1, 12) @ torch.zeros(points, 12, 16), 0, 0, 1)
    counted = budget.rendering_work(profile).operations
    assert counted == decoded.operations + blended.operations + looked.operations


def test_twins_are_timed_in_turn_and_compared_with_the_first() -> None:
    order: list[str] = []

    def busy(name: str, milliseconds: float) -> None:
        order.append(name)
        end = time.process_time() + milliseconds / 1e3
        while time.process_time() < end:
            pass

    work = Work(operations=4e6, bytes=0.0)
    plain, fast = bench.in_turn(
        "mini",
        "frame",
        2,
        [
            ("plain", lambda: busy("p", 4), work, torch.float32, None),
            ("fast", lambda: busy("f", 1), work, torch.bfloat16, 50.0),
        ],
        CEILINGS,
        3,
    )
    assert "".join(order) == "pf" * 4, "once to warm up"
    assert plain.ratio == 1
    assert fast.ratio == pytest.approx(plain.milliseconds / fast.milliseconds)
    assert plain.milliseconds >= 2, "a call draws two frames"
    assert (plain.floor, fast.floor) == (2.0, 0.5)


def test_an_avatar_is_timed_stage_by_stage(avatar: Path, tmp_path: Path) -> None:
    timings = bench.time_avatar(avatar, CEILINGS, tmp_path)
    assert [t.stage for t in timings] == [
        *["planes"] * 2, *["rendering"] * 2, *["super-resolution"] * 2, "finishing", "writing", *["frame"] * 2
    ]  # fmt: skip
    assert timings[-1].psnr is not None
    assert timings[-1].psnr > 45, "the fast picture is the plain one"
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_an_avatar_without_a_fast_twin_cannot_be_compared(
    avatar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talk3d.prior.fast.fused", None)
    with pytest.raises(ConfigError, match="numba is not installed"):
        bench.time_avatar(avatar, CEILINGS, tmp_path)


def test_signal_to_noise_of_pictures() -> None:
    plain = np.zeros((2, 2))
    assert bench.psnr(plain + 25.5, plain, 255.0) == pytest.approx(20)
    assert bench.psnr(plain, plain, 255.0) > 100


def test_plain_speakers_have_no_fast_twins(avatar: Path) -> None:
    plain, fast = Speaker(avatar, plain=True), Speaker(avatar)
    assert plain.painter is None
    assert plain.mover is None
    assert fast.painter is not None
    assert fast.mover is not None
    audio, motion = bench.some_speech(plain), plain.motion.ping_pong(torch.arange(8))
    ours, theirs = fast.draw(audio, motion), plain.draw(audio, motion)
    assert ours.shape == theirs.shape
    assert bench.psnr(ours, theirs, 255.0) > 45


def test_films_are_spoken_with_one_thread_and_with_all(avatar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the number of threads is given back, also if something goes wrong."""
    before = torch.get_num_threads()
    spoken: list[tuple[bool, int]] = []

    def speak(speaker: Speaker, *_: object) -> int:
        spoken.append((speaker.painter is None, torch.get_num_threads()))
        if len(spoken) == 9:
            raise KeyError("lost")
        return 5

    monkeypatch.setattr(bench, "speak", speak)
    try:
        torch.set_num_threads(3)
        films = bench.time_films(avatar, tmp_path, repeats=2)
        assert spoken == [(True, 3), (False, 1), (False, 3)] * 2
        assert [(film.path, film.threads, film.frames) for film in films] == [("plain", 3, 5), ("fast", 1, 5), ("fast", 3, 5)]
        assert films[0].ratio == 1
        assert films[2].ratio == pytest.approx(films[0].milliseconds / films[2].milliseconds)
        with pytest.raises(KeyError):
            bench.time_films(avatar, tmp_path)
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        spoken.clear()
        assert [(film.path, film.threads) for film in bench.time_films(avatar, tmp_path, 1)] == [("plain", 1), ("fast", 1)]
    finally:
        torch.set_num_threads(before)
