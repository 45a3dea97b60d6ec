"""The report as a page: the verdict, what to do, the checks, frames worth a look, and everything over time.

Times are those of the film, so that they can be found in a player; what could not be used is a gap.

Letters: F usable frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..pages import Chart, Cloud, bullets, chart, cloud, document, jpeg, text
from ..video.clock import FPS
from ..video.read import read_frames
from ..video.source import Pictures
from .checks import Check, Recording, grade, sentence, time_of, worst
from .cut import draw_landmarks
from .listening import SPEAKS, lip_motion, strange_voices
from .seen import CLOSED, OFF, OPEN, blurred_frames

SHOWN = 256
"""Height of pictures, pixels."""
MOST = 10
"""Pictures."""
MARKS = {"pass": ("✓", "good"), "warn": ("!", "could be better"), "fail": ("✕", "record again")}


def render(
    recording: Recording, checks: Sequence[Check], config: Mapping[str, Any], folder: Path, video: Path | Pictures
) -> str:
    """The page as HTML text.

    Args:
        recording: what was measured.
        checks: what came of it.
        config: the Capture's settings.
        folder: of the Capture, with its frames.
        video: the film.
    """
    source = config["source"]
    train, test = recording.border, recording.frames - recording.border
    about = (
        f"{source['name']}, {source['width']} × {source['height']} at {source['fps']:.4g} frames a second, "
        f"{recording.decoded / FPS:.1f} s. Kept: {recording.seconds:.1f} s in {_count(len(config['takes']), 'take')}, "
        f"{train / FPS:.1f} s for training and {test / FPS:.1f} s for testing."
    )
    if recording.fit > recording.frames:
        about += f" They were chosen as the best of {recording.fit / FPS:.1f} s that could be used."
    mended = [check.why for check in checks if check.verdict == "pass" and check.why]
    figures = "".join(
        f"<figure><img src='{jpeg(picture)}' alt=''><figcaption>{text(caption)}</figcaption></figure>"
        for caption, picture in _pictures(recording, checks, folder, video)
    )
    return document(
        "What this recording is like",
        f"""<p class='verdict {grade(checks)}'>{text(sentence(checks, recording.seconds))}</p>
<p>{text(about)}</p>
{"<h2>About the film</h2>" + bullets(recording.notes, "notes") if recording.notes else ""}
{_advice(checks)}
{"<h2>Mended</h2>" + bullets(mended, "mended") if mended else ""}
<h2>Checks</h2>{_table(checks)}
<h2>Frames worth a look</h2><div class='figures'>{figures}</div>
<h2>What the face does</h2>
<p>An avatar knows what it has seen: a good cloud is wide and without holes, and the frames for testing lie in it.</p>
<div class='clouds'>{"".join(cloud(each) for each in _clouds(recording))}</div>
<h2>Over time</h2>
<p>Gaps are what is not kept; a line is a seam. <span class='key test'></span> for testing
<span class='key bad'></span> a voice, but the lips stand still</p>
{"".join(chart(each) for each in _charts(recording))}""",
        _STYLE,
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _advice(checks: Sequence[Check]) -> str:
    """What to do, the most important first."""
    bad = sorted((check for check in checks if check.verdict != "pass"), key=lambda check: check.verdict == "warn")
    if not bad:
        return ""
    lines = "".join(f"<li>{text(check.why)} <b>{text(check.advice)}</b></li>" for check in bad)
    return f"<h2>What to do</h2><ol>{lines}</ol>"


def _table(checks: Sequence[Check]) -> str:
    lines, group = ["<tr><th></th><th>Check</th><th>Found</th><th>Should be</th></tr>"], ""
    for check in checks:
        if check.group != group:
            group = check.group
            lines.append(f"<tr class='group'><th></th><th colspan='3'>{text(group)}</th></tr>")
        mark, word = MARKS[check.verdict]
        cells = f"<td>{text(check.name)}</td><td>{text(check.found)}</td><td>{text(check.limit)}</td>"
        lines.append(f"<tr><td><span class='mark {check.verdict}' title='{word}'>{mark}</span></td>{cells}</tr>")
    return f"<table class='checks'>{''.join(lines)}</table>"


# --------------------------------------------------------------------------------------------------------- pictures


def _pictures(
    recording: Recording, checks: Sequence[Check], folder: Path, video: Path | Pictures
) -> Iterator[tuple[str, np.ndarray]]:
    """The best frame, the worst ones in any case, and those that the checks complain about; each film frame once."""
    track, numbers = recording.track, recording.numbers
    sharp = recording.looks.sharpness / max(float(np.median(recording.looks.sharpness)), 1e-6)
    calm = sharp - track["blink"] - (np.abs(track["yaw"]) + np.abs(track["pitch"])) / 0.3
    wanted: dict[int, str] = {int(numbers[calm.argmax()]): "best frame"}
    for check in checks:
        for moment in check.moments:
            wanted.setdefault(moment, check.brief)
    wanted.setdefault(int(numbers[worst(-sharp, 1)[0]]), "softest frame")
    wanted.setdefault(int(numbers[worst(track["residual"], 1)[0]]), "hardest to track")
    place = {int(number): index for index, number in enumerate(numbers)}
    for moment, caption in list(wanted.items())[:MOST]:
        index = place.get(moment)
        if index is None:
            picture = next(read_frames(video, start=moment, stop=moment + 1), None)
        else:
            picture = next(read_frames(folder / "frames.mp4", start=index, stop=index + 1), None)
        if picture is None:
            continue
        height, width = picture.shape[:2]
        shown = cv2.resize(picture, (max(1, round(width * SHOWN / height)), SHOWN), interpolation=cv2.INTER_AREA)
        if index is not None and (caption == "hardest to track" or "follow" in caption):
            draw_landmarks(shown, track["landmarks"][index] * SHOWN, 0.625)
        yield f"{time_of(moment)}, {caption}", shown


# ----------------------------------------------------------------------------------------------------------- curves


def _clouds(recording: Recording) -> list[Cloud]:
    track, border = recording.track, recording.border

    def groups(right: np.ndarray, up: np.ndarray) -> dict[str, np.ndarray]:
        points = np.stack([right, up], axis=1)
        return {"training": points[:border], "testing": points[border:]}

    return [
        Cloud("Where the head looks", groups(*np.degrees([track["yaw"], track["pitch"]])), "yaw, °", "pitch, °"),
        Cloud(
            "What the mouth does", groups(track["lip_width"], track["lip_gap"]), "width, eye distances", "gap, eye distances"
        ),
        Cloud(
            "What brows and lids do",
            groups(track["blink"], track["brow_height"]),
            "closed, part",
            "brows over eyes, eye distances",
        ),
    ]


def _charts(recording: Recording) -> list[Chart]:
    track, looks = recording.track, recording.looks
    end = recording.decoded / FPS
    motion = lip_motion(track["lip_gap"], track["lip_width"])
    numbers = recording.numbers
    strange = [
        (int(numbers[each.start]) / FPS, (int(numbers[each.stop - 1]) + 1) / FPS, "bad")
        for each in strange_voices(recording.voiced, motion, recording.parts)
    ]
    cuts = sorted({part.start for part in recording.parts} - {0, recording.border})
    seams = [(int(numbers[cut]) / FPS, int(numbers[cut]) / FPS, "seam") for cut in cuts]
    tested = [
        (int(numbers[part.start]) / FPS, (int(numbers[part.stop - 1]) + 1) / FPS, "test")
        for part in recording.parts
        if part.start >= recording.border
    ]

    def over(values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """Over all frames of the film; NaN where there is nothing, or where it does not hold."""
        whole = np.full(recording.decoded, np.nan)
        whole[numbers] = values if where is None else np.where(where, values, np.nan)
        return whole

    level = np.maximum(recording.level, -80.0)
    rows: list[tuple[str, dict[str, np.ndarray], tuple[float, float] | None]] = [
        ("Sound, dBFS", {"all": over(level), "somebody speaks": over(level, recording.voiced > SPEAKS)}, None),
        (
            f"Lip gap, eye distances (closed below {CLOSED:g}, wide open above {OPEN:g})",
            {"gap": over(track["lip_gap"])},
            None,
        ),
        (
            "Head, ° (positive: camera on the person's left, and from above)",
            {"yaw": over(np.degrees(track["yaw"])), "pitch": over(np.degrees(track["pitch"]))},
            None,
        ),
        (
            "Sharpness, levels",
            {"sharpness": over(looks.sharpness), "blurred": over(looks.sharpness, blurred_frames(recording))},
            (0.0, float(looks.sharpness.max())),
        ),
        ("Brightness of the skin, levels", {"brightness": over(looks.brightness)}, (0.0, 255.0)),
        (
            f"Tracking: confidence, covered part of the face, and residual as a part of the most that is good ({OFF:g})",
            {
                "confidence": over(track["confidence"]),
                "covered": over(track["occluded"]),
                "residual": over(track["residual"] / OFF),
            },
            (0.0, max(1.0, float((track["residual"] / OFF).max()))),
        ),
    ]
    return [Chart(title, curves, 0.0, end, " s", (*tested, *strange, *seams), bounds) for title, curves, bounds in rows]


_STYLE = """
.verdict { font-size: 20px; font-weight: 600; border-left: 6px solid; padding: 12px 20px; margin: 16px 0; }
.verdict.pass { border-color: #15803d; background: #15803d22; } .verdict.warn { border-color: #d97706; background: #d9770622; }
.verdict.fail { border-color: #dc2626; background: #dc262622; }
.mark { display: inline-block; width: 20px; line-height: 20px; border-radius: 10px; text-align: center; color: white;
  font-weight: 700; font-size: 13px; }
.mark.pass { background: #15803d; } .mark.warn { background: #d97706; } .mark.fail { background: #dc2626; }
.checks th, .checks td { text-align: left; vertical-align: top; } .checks td:first-child { width: 28px; }
.checks td:last-child { opacity: .65; }
.figures { display: flex; flex-wrap: wrap; gap: 16px; } .figures figure { margin: 0; flex: 0 1 auto; max-width: 100%; }
.figures img { height: 216px; width: auto; max-width: 100%; border-radius: 4px; } figcaption { max-width: 216px; }
.key { display: inline-block; width: 24px; height: 12px; margin: 0 4px 0 16px; vertical-align: middle; }
.key.test { background: #8a8a8a; opacity: .3; } .key.bad { background: #dc2626; opacity: .4; }
ol li { margin-bottom: 8px; }
"""
