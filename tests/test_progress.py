"""What a log says of how far a command is."""

import time

import pytest

from talk3d import progress


def test_a_log_says_when_stages_begin_and_how_long_they_still_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress.bar("Demo") as report:
        for stage, parts in (("tracking", (0.0, 0.05, 0.25, 0.26, 1.0)), ("cutting", (0.0, 0.5))):
            for part in parts:
                report(stage, part)
                now += 10
    assert capsys.readouterr().out.splitlines() == [
        "Demo: tracking",
        "Demo: tracking: 20 %, 20 s done, 60 s left",
        "Demo: cutting",
        "Demo: cutting: 50 %, 10 s done, 10 s left",
    ]


def test_short_stages_are_not_talked_through(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("Cameras") as report:
        for step in range(100):
            report(step / 100)
    assert capsys.readouterr().out.splitlines() == ["Cameras"]


def test_a_part_and_a_text_are_of_the_one_stage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with progress.bar("Training") as report:
        report(0.0, "step 1")
        report(0.9, "step 9 loss 0.5")
    first, second = capsys.readouterr().out.splitlines()
    assert first == "Training"
    assert second.startswith("Training: 90 %")
    assert second.endswith("step 9 loss 0.5")


def test_of_several_processes_one_reports(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    with progress.bar("Training") as report:
        report(0.5, "step 5")
    assert capsys.readouterr().out == ""
