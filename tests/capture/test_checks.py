"""Checks: silent about a good recording, and each trips when its own defect is planted, no sooner and none else."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from talk3d.capture.checks import Check, Recording, grade, judged, sentence, time_of, worst
from talk3d.capture.drift import Drift
from talk3d.capture.report import all_checks
from talk3d.capture.seen import openings
from talk3d.capture.sound import Heard, Lateness

FRAMES = 1750
TIME = np.arange(FRAMES) / 25
SPEAKS = TIME % 3 < 2.4


def sounding(**changes: object) -> Callable[[Recording], Any]:
    return lambda good: dataclasses.replace(good.sounding, **changes)


def some(values: object, part: float, otherwise: object) -> np.ndarray:
    """`values` in so large a part of the frames, evenly spread."""
    chosen = np.isin(np.arange(FRAMES), np.linspace(0, FRAMES - 1, round(part * FRAMES)).astype(int))
    return np.where(chosen, values, otherwise)


WHOLE = Heard(144.0, 0.7, 48000, 1)
DEFECTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]] = {
    # Check: what is just good enough, what is not, and what is hopeless.
    "Frames left out": (
        {"decoded": 1940, "lost": [(1750, 1940)], "heard": WHOLE}, {"decoded": 1960, "lost": [(1750, 1960)], "heard": WHOLE},
        {"decoded": 3600, "lost": [(1750, 3600)], "heard": WHOLE},
    ),
    "One person": ({"people": 1}, {"people": 2, "face": 1}, None),
    "Face size": tuple(
        {"crop_from_source": np.broadcast_to(np.array([[s, 0.0, 0.0], [0.0, s, 0.0]]), (FRAMES, 2, 3))} for s in (1.3, 1.4, 2.6)
    ),
    "Sharpness": tuple({"sharpness": np.full(FRAMES, level)} for level in (6.1, 5.9, 3.4)),
    "Blurred frames": ({"sharpness": some(8.0, 0.04, 11.0)}, {"sharpness": some(8.0, 0.06, 11.0)}, None),
    "Flicker": (
        {"brightness": 140 + 140 * 0.018 * (-1.0) ** np.arange(FRAMES)},
        {"brightness": 140 + 140 * 0.022 * (-1.0) ** np.arange(FRAMES)}, None,
    ),
    "Steady exposure": (
        {"brightness": np.linspace(128.0, 152.0, FRAMES)}, {"brightness": np.linspace(120.0, 160.0, FRAMES)}, None,
    ),
    "Overexposed face": tuple({"over": np.full(FRAMES, part)} for part in (0.02, 0.04, 0.3)),
    "Underexposed face": tuple({"under": np.full(FRAMES, part)} for part in (0.09, 0.11, 0.6)),
    "Background": ({"motion": 7.9}, {"motion": 8.1}, None),
    "Head turns": ({"yaw": np.radians(2.1) * np.sin(TIME)}, {"yaw": np.radians(1.9) * np.sin(TIME)}, None),
    "Facing the camera": (
        {"yaw": some(np.radians(40.0), 0.19, 0.1) + 0.08 * np.sin(TIME)},
        {"yaw": some(np.radians(40.0), 0.21, 0.1) + 0.08 * np.sin(TIME)}, None,
    ),
    "Closed mouth": (
        {"lip_gap": np.where(SPEAKS, 0.07 + 0.035 * np.sin(9 * TIME), 0.029)},
        {"lip_gap": np.where(SPEAKS, 0.07 + 0.035 * np.sin(9 * TIME), 0.034)}, None,
    ),
    "Wide open mouth": (
        {"lip_gap": np.where(SPEAKS, 0.052 * (1 + np.sin(9 * TIME)), 0.01)},
        {"lip_gap": np.where(SPEAKS, 0.049 * (1 + np.sin(9 * TIME)), 0.01)}, None,
    ),
    "Mouth movements": (
        {"lip_gap": np.where(SPEAKS, 0.06 + 0.05 * np.sin(2 * np.pi * 0.7 * TIME), 0.06)},
        {"lip_gap": np.where(SPEAKS, 0.06 + 0.05 * np.sin(2 * np.pi * 0.4 * TIME), 0.06)}, None,
    ),
    "Blinks": (
        {"blink": np.where((TIME > 30) & (TIME < 30.2), 1.0, 0.1)},
        {"blink": np.where((TIME > 30) & (TIME < 30.2), 0.4, 0.1)}, None,
    ),
    "Tracking": (
        {"confidence": some(0.6, 0.015, 1.0)}, {"confidence": some(0.6, 0.025, 1.0)}, {"residual": some(0.04, 0.4, 0.007)},
    ),
    "Face in full view": tuple({"occluded": some(0.3, part, 0.02)} for part in (0.015, 0.025, 0.6)),
    "Loudness": tuple({"sounding": sounding(loudness=level)} for level in (-35.0, -37.0, None)),
    "Noise": tuple({"sounding": sounding(signal_to_noise=ratio)} for ratio in (16.0, 14.0, 5.0)),
    "Clipping": tuple({"heard": Heard(70.0, 1.0, 48000, 1, part)} for part in (0.004, 0.006, 0.2)),
    "Bandwidth": tuple({"sounding": sounding(bandwidth=edge)} for edge in (6000.0, 4000.0, 2750.0)),
    "Speech": tuple({"sounding": sounding(voiced_seconds=seconds)} for seconds in (36.0, 34.0, 10.0)),
    "Whole sound": ({"heard": Heard(69.0, 0.7, 48000, 1)}, {"heard": Heard(68.0, 0.7, 48000, 1)}, None),
    "In step with the lips": tuple(
        {"lateness": Lateness(*late)} for late in ((3.9, 0.4, 0.0), (4.1, 0.2, 0.0), (0.1, 0.1, 0.0))
    ),
    "Keeps in step": ({"drift": Drift(0.7, 0.1, 0.0, 0.1, 11)}, {"drift": Drift(1.2, 0.1, 0.0, 0.1, 11)}, None),
}  # fmt: skip


def planted(make: Callable[..., Recording], changes: dict[str, Any]) -> dict[str, Check]:
    good = make()
    changes = {name: value(good) if callable(value) else value for name, value in changes.items()}
    checks = all_checks(make(**changes))
    assert len({each.name for each in checks}) == len(checks)
    return {each.name: each for each in checks}


def test_a_good_recording_passes_everything(make_recording: Callable[..., Recording]) -> None:
    recording = make_recording()
    checks = all_checks(recording)
    assert {each.verdict for each in checks} == {"pass"}
    assert all(each.found and each.limit and not (each.why or each.advice or each.moments) for each in checks)
    assert grade(checks) == "pass"
    assert sentence(checks, recording.seconds).startswith("Good: 70 s of one person")


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_trips_its_check_and_no_other(make_recording: Callable[..., Recording], name: str) -> None:
    enough, bad, hopeless = DEFECTS[name]
    assert planted(make_recording, enough)[name].verdict == "pass"
    found = planted(make_recording, bad)
    assert {each.name for each in found.values() if each.verdict != "pass"} == {name}
    assert found[name].verdict == "warn"
    assert found[name].brief
    assert found[name].why.endswith((".", "!"))
    assert found[name].advice
    assert sentence(list(found.values()), 70.0) == f"Usable, but {found[name].brief}."
    if hopeless is not None:
        found = planted(make_recording, hopeless)
        assert found[name].verdict == "fail"
        assert sentence(list(found.values()), 70.0) == f"Record again: {found[name].brief}."


def test_every_check_has_been_seen_to_fail(make_recording: Callable[..., Recording]) -> None:
    """Those that are not in the table have tests of their own below."""
    assert {each.name for each in all_checks(make_recording())} == {*DEFECTS, "Usable length", "One speaker"}


@pytest.mark.parametrize(("frames", "verdict"), [(1500, "pass"), (1499, "pass"), (1480, "warn"), (260, "warn"), (230, "fail")])
def test_length(make_recording: Callable[..., Recording], frames: int, verdict: str) -> None:
    (found,) = (each for each in all_checks(make_recording(frames)) if each.name == "Usable length")
    assert found.verdict == verdict
    assert "kept" not in found.found
    assert found.value == pytest.approx(frames / 25)


def test_who_asked_for_less_hears_no_complaint(make_recording: Callable[..., Recording]) -> None:
    (found,) = (each for each in all_checks(make_recording(400, fit=1750, decoded=1750)) if each.name == "Usable length")
    assert (found.verdict, found.found) == ("pass", "70 s, 16 s kept")


def test_a_voice_beside_still_lips_is_somebody_else(make_recording: Callable[..., Recording]) -> None:
    """Lips that rest for two seconds of somebody's speech are told with their time in the film, which begins later here."""
    good = make_recording()
    rest = (TIME > 20) & (TIME < 26)
    gap, width = (np.where(rest, np.median(good.track[n]), good.track[n]) for n in ("lip_gap", "lip_width"))
    numbers = np.arange(FRAMES) + 250  # ten seconds were left out before
    voiced = np.where(rest, 0.95, good.voiced)
    more = {"lip_gap": gap, "lip_width": width, "numbers": numbers}
    quiet = {each.name: each for each in all_checks(make_recording(**more, voiced=np.where(rest, 0.02, good.voiced)))}
    assert quiet["One speaker"].verdict == "pass"
    found = {each.name: each for each in all_checks(make_recording(**more, voiced=voiced))}["One speaker"]
    assert found.verdict == "warn"
    assert found.value == pytest.approx(6.0, abs=0.3)
    assert [float(time) for time in re.findall(r"0:(\d\d\.\d)", found.why)] == pytest.approx([30.0, 36.0], abs=0.2)
    assert 30 < found.moments[0] / 25 < 36
    most = (TIME > 20) & (TIME < 50)
    gap, width = (np.where(most, np.median(good.track[n]), good.track[n]) for n in ("lip_gap", "lip_width"))
    found = {each.name: each for each in all_checks(make_recording(lip_gap=gap, lip_width=width))}["One speaker"]
    assert found.verdict == "fail"


def test_lips_and_sound_of_a_short_film_may_disagree_by_chance(make_recording: Callable[..., Recording]) -> None:
    for frames, verdict in ((150, "pass"), (400, "warn"), (441, "fail")):
        checks = all_checks(make_recording(frames, lateness=Lateness(0.1, 0.1, 0.0)))
        assert next(each for each in checks if each.name == "In step with the lips").verdict == verdict, frames


def test_what_was_mended_is_said_but_no_fault(make_recording: Callable[..., Recording]) -> None:
    found = planted(make_recording, {"lateness": Lateness(6.0, 0.5, 6.0), "drift": Drift(-7.5, 0.3, 6.0, 0.1, 11, -7.5)})
    assert {each.verdict for each in found.values()} == {"pass"}
    assert found["In step with the lips"].why == "The sound came 6.0 frames late and was moved into step with the lips."
    assert "earlier by 7.5 frames with each minute" in found["Keeps in step"].why


def test_what_cannot_be_told_is_no_fault(make_recording: Callable[..., Recording]) -> None:
    unknown = {"signal_to_noise": None, "noise_level": None, "bandwidth": None}
    found = planted(
        make_recording,
        {"sounding": sounding(**unknown), "lateness": Lateness(None, None, 0.0), "drift": Drift(None, None, None, None, 2)},
    )
    assert {each.verdict for each in found.values()} == {"pass"}
    for name in ("Noise", "Bandwidth", "In step with the lips", "Keeps in step"):
        assert found[name].value is None
        assert "to tell" in found[name].found


def test_the_sentence_names_the_worst_first_and_not_everything() -> None:
    bad = [Check(f"c{n}", "Picture", "warn", 1.0, "", "", f"fault {n}") for n in range(6)]
    assert sentence(bad[:2], 60.0) == "Usable, but fault 0 and fault 1."
    assert sentence(bad, 60.0) == "Usable, but fault 0, fault 1, fault 2, fault 3, and 2 more things."
    failed = dataclasses.replace(bad[5], verdict="fail")
    assert sentence([*bad[:5], failed], 60.0) == "Record again: fault 5."


@pytest.mark.parametrize(
    ("value", "least", "verdict"),
    [
        (1.0, False, "pass"),
        (2.1, False, "warn"),
        (3.1, False, "fail"),
        (None, False, "pass"),
        (3.0, True, "pass"),
        (1.9, True, "fail"),
    ],
)
def test_limits(value: float | None, least: bool, verdict: str) -> None:
    limits = (3.0, 2.0) if least else (2.0, 3.0)
    assert judged(value, *limits, least=least) == verdict


def test_times_and_worst_moments() -> None:
    assert [time_of(frame) for frame in (0, 10, 1499, 1500, 91_000)] == ["0:00.0", "0:00.4", "1:00.0", "1:00.0", "60:40.0"]
    values = np.zeros(200)
    values[[50, 52, 120]] = 3.0, 4.0, 2.0
    assert worst(values, 2) == [52, 120]


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_movements_of_a_mouth_are_counted(count: int) -> None:
    gap = 0.05 - 0.04 * np.cos(2 * np.pi * count * TIME / TIME[-1])
    gap += np.random.default_rng(0).normal(0, 0.002, FRAMES)
    assert openings(gap) == count
