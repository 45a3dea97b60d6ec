"""The ablation table: rows change what they say, are made once by any number of processes, and are judged by the seeds."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from talk3d.evaluate import placing
from talk3d.prior.subject import save_subject
from talk3d.talker import validate
from talk3d.talker.config import TrainConfig
from talk3d.talker.objective import LossWeights

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ablations.py"


def _load(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


ablations = _load(SCRIPT)
CLIPS = tuple(ablations.Clip(name, Path(name), Path("subject")) for name in ablations.CLIPS)
FACTS = {"steps": 300} | {
    name: {"capture": "c", "subject": "s", "learnt": 1000, "withheld": 200, "tested": 120} for name in ablations.CLIPS
}


def row(name: str):
    (found,) = (row for row in ablations.ROWS if row.name == name)
    return found


def scores(**values: float | None) -> dict:
    return {"values": values, "intervals": {}, "commit": "abc", "machine": "a machine"}


def store(work: Path, name: str, clip: str, content: dict) -> None:
    folder = work / name / clip
    folder.mkdir(parents=True)
    (folder / ablations.SCORES).write_text(json.dumps(content))


def seeds(*psnr: float, **others: tuple[float, ...]) -> dict[str, dict]:
    """The baseline's scores."""
    return {
        f"baseline-{seed}": scores(psnr_face=value, **{name: other[seed] for name, other in others.items()})
        for seed, value in enumerate(psnr)
    }


def cells(table: str, name: str) -> dict[str, str]:
    """Of one row, by the titles of the columns."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1, "a broken table"
    (found,) = (line for line in lines if line[0] == name)
    return dict(zip(lines[0], found, strict=True))


# ------------------------------------------------------------------------------------------------------------ the rows


def test_there_are_25_rows_of_different_names():
    assert len({row.name for row in ablations.ROWS}) == len(ablations.ROWS) == 25


def test_every_row_differs_from_the_baseline_in_something_of_its_own(tiny_subject):
    base = ablations.BASE
    subject = dataclasses.replace(tiny_subject, expressions=dict(tiny_subject.expressions))
    made = []
    for one in ablations.ROWS:
        config, changed = one.settings(base, subject)
        made.append((json.dumps(dataclasses.asdict(config)), tuple(changed.expressions), one.random))
    assert len(set(made)) == len(ablations.ROWS)
    assert made[0] == (json.dumps(dataclasses.asdict(base)), tuple(subject.expressions), False)


def test_every_loss_but_the_picture_is_switched(tiny_subject):
    """Those that are on are off somewhere, and the other way round."""
    defaults = dataclasses.asdict(LossWeights())
    switched = set()
    for one in ablations.ROWS:
        config, _ = one.settings(TrainConfig(), tiny_subject)
        changed = {name for name, value in dataclasses.asdict(config.weights).items() if bool(value) != bool(defaults[name])}
        assert config.weights == LossWeights() or changed
        switched |= changed
    assert switched == set(defaults) - {"picture"}


# -------------------------------------------------------------------------------------------------------- book-keeping


def test_what_is_finished_is_not_made_again(tmp_path):
    made = []

    def make(one, clip, folder, say):
        made.append((one.name, clip.name))
        assert folder == tmp_path / one.name / clip.name
        return {"number": len(made)}

    rows = [row("baseline-0"), row("mel")]
    todo = [(one, clip) for one in rows for clip in CLIPS]
    store(tmp_path, "mel", "synthetic", {"number": 0})
    calls = []
    ablations.work_off(todo, tmp_path, make, lambda: calls.append(1))
    assert made == [("baseline-0", "synthetic"), ("baseline-0", "real"), ("mel", "real")]
    assert len(calls) == 3
    ablations.work_off(todo, tmp_path, make, lambda: None)
    assert len(made) == 3
    assert ablations.load_scores(tmp_path)["synthetic"] == {"baseline-0": {"number": 1}, "mel": {"number": 0}}


def test_a_row_that_fails_is_made_by_the_next_call(tmp_path):
    def fail(one, clip, folder, say):
        raise KeyboardInterrupt

    todo = [(row("mel"), CLIPS[0])]
    with pytest.raises(KeyboardInterrupt):
        ablations.work_off(todo, tmp_path, fail, lambda: None)
    ablations.work_off(todo, tmp_path, lambda *given: {}, lambda: None)
    assert (tmp_path / "mel" / "synthetic" / ablations.SCORES).exists()


def test_a_row_in_another_processs_hands_is_passed_over(tmp_path):
    """Until that process ends, however it ends."""
    folder = tmp_path / "mel" / "synthetic"
    program = (
        "import importlib.util, pathlib, sys, time\n"
        f"spec = importlib.util.spec_from_file_location('ablations', {str(SCRIPT)!r})\n"
        "module = sys.modules['ablations'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"with module.claimed(pathlib.Path({str(folder)!r})) as mine:\n"
        "    print(mine, flush=True)\n"
        "    time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True\n"
        made = []

        def make(one, clip, folder, say):
            made.append(clip.name)
            return {}

        todo = [(row("mel"), clip) for clip in CLIPS]
        ablations.work_off(todo, tmp_path, make, lambda: None)
        assert made == ["real"]
        other.kill()
    ablations.work_off(todo, tmp_path, make, lambda: None)
    assert made == ["real", "synthetic"]


def test_a_row_that_another_process_finished_meanwhile_is_not_made(tmp_path):
    def make(one, clip, folder, say):
        if clip.name == "synthetic":
            store(tmp_path, "mel", "real", {"by": "another"})
        else:
            pytest.fail("made twice")
        return {}

    ablations.work_off([(row("mel"), clip) for clip in CLIPS], tmp_path, make, lambda: None)


def test_rows_of_other_steps_or_clips_do_not_come_into_one_table(tmp_path):
    ablations.require_same(tmp_path, FACTS)
    ablations.require_same(tmp_path, dict(FACTS))
    with pytest.raises(SystemExit, match=r"made with another steps .* Give the same, or another folder as --work"):
        ablations.require_same(tmp_path, FACTS | {"steps": 301})
    with pytest.raises(SystemExit, match="another real"):
        ablations.require_same(tmp_path, FACTS | {"real": FACTS["real"] | {"subject": "another"}})


def test_the_progress_line_tells_how_long_it_takes(tmp_path, capsys, monkeypatch):
    now = iter(range(0, 10_000, 60))
    monkeypatch.setattr(ablations.time, "monotonic", lambda: float(next(now)))

    def make(one, clip, folder, say):
        say(0.5, "step 7 loss 0.1")
        return {}

    ablations.work_off([(row("mel"), clip) for clip in CLIPS], tmp_path, make, lambda: None)
    assert capsys.readouterr().out.splitlines() == [
        "mel, synthetic: 50%, step 7 loss 0.1 | 0 of 2 done, about 0 h 03 min left",
        "mel, real: 50%, step 7 loss 0.1 | 1 of 2 done, about 0 h 01 min left",
    ]
    assert ablations.time_left(5.0, 0.0, 10.0) == "time left not known yet"
    assert ablations.time_left(3600.0, 1.0, 2.5) == "about 2 h 30 min left"


def test_validation_is_that_of_the_kept_state(tmp_path):
    log = tmp_path / "log.jsonl"
    entries = [
        {"step": 1, "val_score": 0.1},
        {"step": 2, "val_score": 0.4, "val_mouth": 2.0, "loss": 1.0},
        {"step": 3, "loss": 1.0},
    ]
    log.write_text("\n".join(json.dumps(entry) for entry in [*entries, {"step": 4, "val_score": 0.5}]))
    assert ablations.validated(log) == {"val_score": 0.4, "val_mouth": 2.0}
    log.write_text(json.dumps(entries[2]))
    assert ablations.validated(log) == {}


# ----------------------------------------------------------------------------------------------------------- the table


def test_differences_within_the_spread_of_the_seeds_are_marked():
    rows = seeds(25.0, 25.4, 25.2, flicker=(1.1, 0.9, 1.3), mouth_distance=(2.0, 2.1, 2.2), parameters=(1e6,) * 3)
    rows["mel"] = scores(psnr_face=25.55, flicker=0.5, mouth_distance=1.8, parameters=2e6)
    rows |= {f"unet-alone-{seed}": scores(psnr_face=20.0, flicker=1.0, mouth_distance=3.0) for seed in range(2)}
    rows["no-lips-loss"] = scores(psnr_face=25.7, flicker=1.05, mouth_distance=2.4, parameters=1e6)
    table = ablations.table(rows)
    better, other = cells(table, "mel"), cells(table, "no-lips-loss")
    assert (better["PSNR, face (dB)"], other["PSNR, face (dB)"]) == ("25.55 ≈", "25.70 ▲")
    # As much too little as too much is as bad; the baseline's are 0.1, 0.1 and 0.3 off.
    assert (better["Flicker, of the truth's"], other["Flicker, of the truth's"]) == ("0.50 ▼", "1.05 ≈")
    assert (better["Lip distance (LMD) (px)"], other["Lip distance (LMD) (px)"]) == ("1.80 ▲", "2.40 ▼")
    assert better["parameters"] == "2,000,000"
    assert cells(table, "baseline-1")["PSNR, face (dB)"] == "25.40"


def test_parts_of_the_unet_are_judged_by_the_unet_alone():
    """And it by the baseline. The spread that counts is the wider one of both kinds."""
    rows = seeds(25.0, 25.4, 25.2) | {"unet-alone-0": scores(psnr_face=23.0), "unet-alone-1": scores(psnr_face=23.2)}
    rows |= {"no-audio-token": scores(psnr_face=22.6), "rollout-off": scores(psnr_face=22.8), "mel": scores(psnr_face=24.0)}
    names = ("unet-alone-0", "no-audio-token", "rollout-off", "mel")
    found = [cells(ablations.table(rows), name)["PSNR, face (dB)"] for name in names]
    assert found == ["23.00 ▼", "22.60 ▼", "22.80 ≈", "24.00 ▼"]


def test_nothing_is_marked_before_all_seeds_are_there():
    rows = seeds(25.0, 25.4) | {"mel": scores(psnr_face=30.0)}
    assert cells(ablations.table(rows), "mel")["PSNR, face (dB)"] == "30.00"


def test_missing_rows_and_numbers_are_shown_as_such():
    rows = {"mel": scores(psnr_face=None) | {"intervals": {"mouth_opening": [0.51, 0.78]}}}
    rows["mel"]["values"]["mouth_opening"] = 0.666
    table = ablations.table(rows)
    assert list(cells(table, "baseline-0").values())[:3] == ["baseline-0", "not run", ""]
    assert cells(table, "mel")["PSNR, face (dB)"] == "-"
    assert cells(table, "mel")["Lip opening, correlation"] == "0.67 [0.51, 0.78]"


def test_the_table_is_written_again_from_what_is_there(tmp_path):
    output = tmp_path / "table.md"
    with pytest.raises(SystemExit):
        ablations.main(["--work", str(tmp_path), "--render", "--output", str(output)])
    ablations.require_same(tmp_path, FACTS)
    store(tmp_path, "mel", "real", scores(psnr_face=25.0))
    ablations.main(["--work", str(tmp_path), "--render", "--output", str(output)])
    page = output.read_text()
    synthetic, real = page.split("## The real clip")
    assert synthetic.count("| not run |") == len(ablations.ROWS)
    assert real.count("| not run |") == len(ablations.ROWS) - 1
    assert "commit abc on a machine" in page
    assert "for 300\nsteps" in page
    assert all(f"- `{one.name}`: {one.question}" in page for one in ablations.ROWS)
    data = json.loads(output.with_suffix(".json").read_text())
    assert data["scores"]["real"]["mel"]["values"] == {"psnr_face": 25.0}
    assert data["facts"] == FACTS


# ----------------------------------------------------------------------------------------------------------------- all


def test_rows_are_trained_and_scored(tiny_subject, tiny_capture, tmp_path, monkeypatch):
    subject = tmp_path / "subject"
    save_subject(
        subject, tiny_subject.generator, tiny_subject.ws[0, 0], tiny_subject.yaw, tiny_subject.pitch, tiny_subject.expressions,
        capture_path=tiny_capture.root, parents={"Prior": tiny_subject.prior_hash, "Capture": tiny_capture.hash},
        consent="synthetic", config={}, overwrite=False,
    )  # fmt: skip
    base = dataclasses.replace(ablations.BASE, frames_per_step=2, listen_steps=2)
    monkeypatch.setattr(ablations, "BASE", base)
    monkeypatch.setattr(validate, "SLICE", 12)
    monkeypatch.setattr(placing, "FEWEST", 6)  # the tiny capture's test part
    monkeypatch.setattr(placing, "FEWEST_FACES", 0)  # a disc with a slit
    given = [str(tiny_capture.root), str(subject)]
    words = ["--work", str(tmp_path / "work"), "--steps", "2", "--output", str(tmp_path / "table.md")]
    words += ["--synthetic", *given, "--real", *given, "--only", "unet-alone-0", "random-prior"]
    ablations.main(words)
    found = ablations.load_scores(tmp_path / "work")
    for clip in ablations.CLIPS:
        assert found[clip].keys() == {"unet-alone-0"}, "nobody gave a random prior"
        made = found[clip]["unet-alone-0"]
        assert (made["train"]["steps"], made["train"]["listen_steps"]) == (2, 2)
        assert made["frames"] == list(tiny_capture.test)
        assert all(made["values"][name] > 0 for name in ("psnr", "val_score", "val_mouth", "core_seconds", "parameters"))
    assert "48 frames learnt from, 12 withheld, 6 tested" in (tmp_path / "table.md").read_text()
    # Nothing of the training is kept but its log.
    run = tmp_path / "work" / "unet-alone-0" / "real" / "run"
    assert {path.name for path in run.iterdir()} == {"log.jsonl", "preview.png"}
