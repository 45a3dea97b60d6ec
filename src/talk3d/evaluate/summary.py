"""A film's scores in a few plain sentences, for people who make films and read no tables.

A verdict on lips, or against a baseline, is only given where an interval supports it: whole seconds are drawn again and again,
and what holds for 95 of 100 films so drawn is said. One on who somebody is needs a few dozen frames. Otherwise the numbers
stand alone, with the reason.

Letters: F frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..video.clock import FPS
from .lips import FEWEST, LIKELY, Score, mean_interval
from .scores import Curves, Row

SOFT, HARD = 0.85, 1.15
"""Parts of the truth's fine detail below which a film looks soft, and above which it looks hard or noisy."""
ANOTHER = 0.6
"""dlib's distance above which it takes two faces for two persons."""
STRANGERS = 0.93
"""HeadNet's median cosine that films of different people reach (docs/notebook.md)."""
FEWEST_LOOKS = 36
"""Frames below which nothing is said of who somebody is."""


def summarise(
    name: str,
    rows: Mapping[str, Row],
    baselines: Sequence[str],
    curves: Mapping[str, Curves],
    first: int,
    adrift: bool,
    other_sound: bool,
) -> list[str]:
    """What the scores of one film say.

    Args:
        name: of the film.
        rows: scores of all films, baselines among them.
        baselines: names of those.
        curves: of all films, [F].
        first: number of the first frame.
        adrift: whether the film may show other frames than those that it is compared with.
        other_sound: whether its sound is not the truth's.
    """
    count = len(curves[name].face_psnr)
    sentences = [f"Rests on {count} frames ({count / FPS:.1f} s), {first} to {first + count - 1} of the truth."]
    if adrift:
        sentences.append(
            "No verdict: it is not known that it shows these frames, and if it does not, the numbers mean nothing."
        )
    sentences.append(_picture(rows[name]))
    sentences.append(_lips(rows[name], adrift, other_sound))
    sentences.append(_person(rows[name]))
    if not adrift:
        if baselines:
            sentences.append(_against(name, rows, baselines, curves, "face"))
        if baselines and not other_sound:
            sentences.append(_against(name, rows, baselines, curves, "lips"))
        sentences.append(_worst(rows[name], curves[name], first))
    return [sentence for sentence in sentences if sentence]


def _picture(row: Row) -> str:
    face, mouth, detail = (row[key].value for key in ("mae_face", "mae_mouth", "sharpness"))
    if face is None:
        return f"Picture: there is no face to compare; over the whole picture its PSNR is {_value(row['psnr'], 'dB', 1)}."
    near = (
        f"Picture: the face is {face:.1f} of 255 levels off the true one on average (PSNR {_value(row['psnr_face'], 'dB', 1)}, "
        f"SSIM {_value(row['ssim_face'], '', 3)})"
    )
    if mouth is not None:
        near += f", the mouth {mouth:.1f} (PSNR {_value(row['psnr_mouth'], 'dB', 1)})"
    if detail is None:
        return near + "."
    looks = "softer than" if detail < SOFT else "harder or noisier than" if detail > HARD else "about as sharp as"
    return near + f"; it looks {looks} the truth, with {detail:.2f} of its fine detail."


def _lips(row: Row, adrift: bool, other_sound: bool) -> str:
    """By the shift that suits them best, if one does."""
    lag, there, now = row["mouth_lag"], row["mouth_opening_at_lag"], row["mouth_opening"]
    if now.value is None and now.frames < FEWEST:
        return f"Lips: no verdict, as they were seen in only {now.frames} frames of both films."
    if now.value is None:
        return "Lips: they do not move."
    correlation = there if lag.value is not None else now
    agree = f"their opening goes with the true lips' at a correlation of {_value(correlation, '', 2)}"
    if correlation.interval is not None:
        agree += f" ({correlation.interval[0]:.2f} to {correlation.interval[1]:.2f} in 95 of 100 such films)"
    agree += _late(lag)
    if adrift:
        return f"Lips: no verdict, see above; {agree}."
    if other_sound:
        return f"Lips: no verdict, as its sound is not the truth's and other words need other lips; {agree}."
    if correlation.interval is None:
        return f"Lips: no verdict, as {correlation.frames} frames are too few for one; {agree}."
    low = correlation.interval[0]
    if low >= LIKELY:
        return f"Lips: they follow the speech; {agree}."
    if low > 0:
        return f"Lips: they follow the speech loosely; {agree}."
    return f"Lips: they cannot be told from lips that know nothing of the speech; {agree}."


def _late(lag: Score) -> str:
    if lag.value is None:
        return ", and no shift is known to suit them better"
    frames = round(abs(lag.value))
    if not frames:
        said = ", in time"
    else:
        said = f", {frames} frame{'s' if frames > 1 else ''} ({1000 * frames // FPS} ms) {'late' if lag.value > 0 else 'early'}"
    return said if lag.interval is None else f"{said} ({lag.interval[0]:+.0f} to {lag.interval[1]:+.0f} frames)"


def _person(row: Row) -> str:
    """By dlib where it was asked, as HeadNet knows looks and hardly shape."""
    dlib, looks = row.get("dlib_distance"), row["headnet_identity"]
    if dlib is not None and dlib.value is not None:
        numbers = f"dlib's distance is {dlib.value:.2f}, and it takes two faces for two persons from {ANOTHER} on"
        verdict, frames = "it is the same person" if dlib.value <= ANOTHER else "it is another person", dlib.frames
    elif looks.value is not None:
        numbers = f"HeadNet's cosine is {looks.value:.2f}; it knows looks and hardly shape, and strangers reach {STRANGERS}"
        verdict = "it looks like the same person" if looks.value > STRANGERS else "it may be taken for another person"
        frames = looks.frames
    else:
        return "Person: no verdict, as no face was found in it."
    if frames < FEWEST_LOOKS:
        verdict = f"no verdict, as {frames} frames are too few for one"
    return f"Person: {verdict} ({numbers})."


def _against(name: str, rows: Mapping[str, Row], baselines: Sequence[str], curves: Mapping[str, Curves], what: str) -> str:
    """How the film stands beside what knows nothing of speech, frame for frame."""
    key, unit, digits = ("psnr_face", "dB", 1) if what == "face" else ("mouth_distance", "px", 2)
    verdicts = []
    for baseline in baselines:
        interval = mean_interval(_errors(curves[baseline], what) - _errors(curves[name], what))
        if interval is None:
            verdict = "cannot be compared on so few frames with"
        else:
            verdict = "beats" if interval[0] > 0 else "loses to" if interval[1] < 0 else "cannot be told from"
        verdicts.append(f"{verdict} “{baseline}” ({_value(rows[baseline][key], unit, digits)})")
    measured = "PSNR" if what == "face" else "distance to the true lips"
    return f"On the {what} ({measured} {_value(rows[name][key], unit, digits)}) it {' and '.join(verdicts)}."


def _errors(curves: Curves, what: str) -> np.ndarray:
    """[F], of which less is better and the mean is what the table is made of."""
    return 10 ** (-curves.face_psnr / 10) if what == "face" else curves.lip_distance


def _worst(row: Row, curves: Curves, first: int) -> str:
    regions = {region: row[f"psnr_{region}"].value for region in ("face", "mouth", "torso")}
    known = {region: value for region, value in regions.items() if value is not None}
    if not known or not np.isfinite(curves.face_psnr).any():
        return ""
    region = min(known, key=known.__getitem__)
    frame = int(np.nanargmin(curves.face_psnr))
    others = ", ".join(f"{other} {value:.1f}" for other, value in known.items() if other != region)
    return (
        f"Worst: the {region} (PSNR {known[region]:.1f} dB{'; ' + others if others else ''}), and frame {first + frame} "
        f"(face {curves.face_psnr[frame]:.1f} dB, median {np.nanmedian(curves.face_psnr):.1f})."
    )


def _value(score: Score, unit: str, digits: int) -> str:
    return "-" if score.value is None else f"{score.value:.{digits}f} {unit}".strip()
