"""The checks of what is seen: how much there is, how it was filmed, and what the person does.

Sizes of the mouth are in distances between the outer eye corners. Limits of sharpness are those of crops 256 pixels wide.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from ..video.clock import FPS
from .checks import MATERIAL, PERSON, PICTURE, Check, Recording, check, judged, time_of, worst
from .covers import OCCLUDED
from .cut import MAX_MOTION

CLOSED, OPEN = 0.03, 0.1
"""Lip gaps up to which a mouth is closed and from which on it is wide open; the tracker sees 0.01 to 0.02 where lips touch."""
BLURRED = 0.75
"""Part of the median sharpness below which a frame is blurred: smearing sharp crops over 3 pixels leaves two thirds."""
UNSURE, OFF = 0.9, 0.03
"""Confidence below which the tracker is unsure, and residual (crop widths) above which its points fit no head: real clips lie
at 1 and at 0.005 to 0.02."""
TURNED, TILTED = 35.0, 25.0
"""Degrees of yaw and pitch from which on a talking head is turned away."""


def seen_checks(recording: Recording) -> list[Check]:
    """All of them, in the order in which people should read them."""
    return [*_material(recording), *_picture(recording), *_person(recording)]


def _material(recording: Recording) -> list[Check]:
    seconds, gone = recording.fit / FPS, recording.decoded - recording.fit  # who asked for less gets no complaint
    kept = f", {recording.seconds:.0f} s kept" if recording.fit > recording.frames else ""
    part = gone / recording.decoded
    lost = sorted(recording.lost, key=lambda stretch: stretch[0] - stretch[1])
    times = ", ".join(f"{time_of(start)} to {time_of(stop)}" for start, stop in sorted(lost[:4]))
    return [
        check(
            "Usable length", MATERIAL, judged(float(round(seconds)), 60.0, 10.0, least=True), seconds, f"{seconds:.0f} s{kept}",
            "60 s or more",
            f"there are only {seconds:.0f} s",
            f"Only {seconds:.0f} s are usable; one to five minutes give better lips.",
            "Record one to five minutes in one go; reading anything aloud will do.",
        ),
        check(
            "Frames left out", MATERIAL, judged(part, 0.1, 0.5), part, f"{gone} of {recording.decoded}", "10% or less",
            f"{part:.0%} of the film had to be left out",
            f"{gone} of {recording.decoded} frames were left out: cuts, no face, or another scene. Mostly {times}.",
            "Stay in the picture, keep hands off the face, and do not cut the film or zoom.",
            [(start + stop) // 2 for start, stop in lost[:2]],
        ),
        check(
            "One person", MATERIAL, judged(float(recording.people), 1.0), float(recording.people),
            f"{recording.people} seen", "1",
            f"{recording.people} people were seen",
            f"{recording.people} people were seen; face {recording.face + 1} in faces.png is portrayed.",
            "If it is the wrong one, say --face; better, record one person alone.",
        ),
    ]  # fmt: skip


def _picture(recording: Recording) -> list[Check]:
    track, looks = recording.track, recording.looks
    height, shrink = face_height(track), source_pixels(track)
    median = float(np.median(looks.sharpness))
    blurred = blurred_frames(recording)
    softest = recording.film(worst(-looks.sharpness))
    fast, slow = unsteadiness(looks.brightness, recording)
    over, under = float(looks.over.mean()), float(looks.under.mean())
    return [
        check(
            "Face size", PICTURE, judged(shrink, 0.75, 0.4, least=True), shrink, f"{height:.0f} px high",
            f"{height * 0.75 / shrink:.0f} px or more",
            f"the face is small ({height:.0f} px)",
            f"The face is small ({height:.0f} px high) and was enlarged {1 / shrink:.1f}x, which adds no detail.",
            "Record closer, or at a higher resolution.",
        ),
        check(
            "Sharpness", PICTURE, judged(median, 6.0, 3.5, least=True), median, f"{median:.1f} levels", "6 or more",
            "the picture is soft",
            "The face is out of focus, compressed hard, or smeared by noise reduction; an avatar is no sharper than its film.",
            "Clean the lens, lock the focus on the eyes, add light, and film at a higher bit rate.",
            softest,
        ),
        check(
            "Blurred frames", PICTURE, judged(blurred.mean(), 0.05), blurred.mean(), f"{blurred.mean():.1%}", "5% or less",
            f"{blurred.mean():.0%} of the frames are blurred",
            f"{blurred.mean():.0%} of the frames are much blurrier than the others: quick motion, or a focus that hunts.",
            "Lock the focus, add light so that exposures are short, and move slowly.",
            softest,
        ),
        check(
            "Flicker", PICTURE, judged(fast, 0.02), fast, f"{fast:.1%} of brightness", "2% or less",
            "the light flickers",
            f"The face's brightness flickers by {fast:.1%} from frame to frame.",
            "Use daylight or lamps that do not flicker, and a shutter time that fits the mains (1/50 or 1/60 s).",
        ),
        check(
            "Steady exposure", PICTURE, judged(slow, 0.2), slow, f"varies by {slow:.0%}", "20% or less",
            f"the brightness of the face varies by {slow:.0%}",
            f"The face's brightness varies by {slow:.0%} over the film: automatic exposure, or light that changes.",
            "Lock exposure and white balance, and record at one go in steady light.",
            recording.film([int(looks.brightness.argmax()), int(looks.brightness.argmin())]),
        ),
        check(
            "Overexposed face", PICTURE, judged(over, 0.03, 0.25), over, f"{over:.1%} of the face", "3% or less",
            "the face is overexposed",
            f"{over:.0%} of the face is overexposed; there is no skin left to learn there.",
            "Lower the exposure, or soften the light on the face.",
            recording.film(worst(looks.over)),
        ),
        check(
            "Underexposed face", PICTURE, judged(under, 0.1, 0.5), under, f"{under:.1%} of the face", "10% or less",
            "the face is too dark",
            f"{under:.0%} of the face is lost in the dark.",
            "Put a light in front of the face, not behind it.",
            recording.film(worst(looks.under)),
        ),
        check(
            "Background", PICTURE, judged(recording.motion, MAX_MOTION), recording.motion,
            f"moves by {recording.motion:.1f} levels", f"{MAX_MOTION:.0f} or less",
            "the background moves",
            "The background moves; its still picture will not match, and masks are not mended with it.",
            "Record in front of a still background, with the camera on a stand.",
        ),
    ]  # fmt: skip


def _person(recording: Recording) -> list[Check]:
    track, seconds = recording.track, recording.seconds
    yaw, pitch, gap = np.degrees(track["yaw"]), np.degrees(track["pitch"]), track["lip_gap"]
    turn, nod = (float(np.ptp(np.quantile(angle, [0.05, 0.95]))) for angle in (yaw, pitch))
    away = float(((np.abs(yaw) > TURNED) | (np.abs(pitch) > TILTED)).mean())
    closed, wide = float((gap < CLOSED).sum()) / FPS, float((gap > OPEN).sum()) / FPS
    least = min(2.0, 0.03 * seconds)
    speaking = max(recording.sounding.voiced_seconds, 1.0)
    moves = openings(gap)
    rate = 60 * moves / speaking
    blinks = count_blinks(track["blink"])
    covered = track["occluded"] >= OCCLUDED
    strange = (track["confidence"] < UNSURE) | (track["residual"] > OFF)
    return [
        check(
            "Head turns", PERSON, judged(turn, 4.0, least=True), turn, f"{turn:.0f}° sideways, {nod:.0f}° up and down",
            "4° sideways or more",
            "the head hardly turns",
            "The head hardly turns; a little movement helps to find the shape of the face.",
            "Turn and nod a little while talking, up to 15° each way.",
        ),
        check(
            "Facing the camera", PERSON, judged(away, 0.2), away, f"{away:.0%} turned far away", "20% or less",
            "the face is often turned away",
            f"In {away:.0%} of the frames the head is turned by more than {TURNED:.0f}° or tilted by more than {TILTED:.0f}°.",
            "Talk to the camera; small turns are enough.",
            recording.film(worst(np.maximum(np.abs(yaw) / TURNED, np.abs(pitch) / TILTED))),
        ),
        check(
            "Closed mouth", PERSON, judged(closed, least, least=True), closed, f"{closed:.1f} s", f"{least:.1f} s or more",
            "the mouth is hardly ever closed",
            "The mouth is hardly ever closed, so the avatar's will not close either.",
            "Include pauses with the mouth closed, and the sounds m, b, p.",
        ),
        check(
            "Wide open mouth", PERSON, judged(wide, min(1.0, 0.02 * seconds), least=True), wide, f"{wide:.1f} s",
            f"{min(1.0, 0.02 * seconds):.1f} s or more",
            "the mouth is hardly ever open",
            "The mouth is hardly ever wide open; the avatar will mumble.",
            "Speak clearly and with energy, with wide vowels (father, more).",
        ),
        check(
            "Mouth movements", PERSON, judged(rate, 40.0, least=True), rate, f"{moves} ({rate:.0f} a minute of speech)",
            "40 a minute or more",
            "the lips hardly move",
            f"The lips open only {rate:.0f} times in a minute of speech; there is little to learn from.",
            "Speak on, without long pauses, and articulate.",
        ),
        check(
            "Blinks", PERSON, judged(float(blinks), 1.0, least=True), float(blinks),
            f"{blinks} ({60 * blinks / seconds:.0f} a minute)", "1 or more",
            "no blink was seen",
            "No blink was seen; blinks will be made up.",
            "Do not stare; a minute of talking has ten to twenty blinks.",
        ),
        check(
            "Tracking", PERSON, judged(strange.mean(), 0.02, 0.3), strange.mean(),
            f"{strange.mean():.1%} of the frames uncertain", "2% or less",
            "the face was hard to follow",
            f"In {strange.mean():.1%} of the frames the tracker was unsure, or its points fit no head.",
            "Keep hands, hair and microphones off the face, and light it evenly.",
            recording.film(worst(track["residual"] / OFF + (track["confidence"] < UNSURE))),
        ),
        check(
            "Face in full view", PERSON, judged(covered.mean(), 0.02, 0.5), covered.mean(),
            f"{covered.mean():.1%} of the frames covered", "2% or less",
            "something is before the face",
            f"In {covered.mean():.1%} of the frames a hand or a thing seems to be before the face; they are not learnt from.",
            "Keep hands, microphones and cups off the face, and tie back hair that falls over it.",
            recording.film(worst(track["occluded"], 4)),
        ),
    ]  # fmt: skip


def face_height(track: dict[str, np.ndarray]) -> float:
    """Median height of the face in the film, pixels."""
    return float(np.median(track["face_height"]))


def source_pixels(track: dict[str, np.ndarray]) -> float:
    """Pixels of the film to one of the crops, along a line; below 1 the film was enlarged."""
    return float(np.median(1 / np.sqrt(np.abs(np.linalg.det(track["crop_from_source"][..., :2])))))


def blurred_frames(recording: Recording) -> Bool[np.ndarray, " frames"]:
    """Frames much blurrier than the film mostly is."""
    sharpness = recording.looks.sharpness
    return sharpness < BLURRED * float(np.median(sharpness))


def unsteadiness(brightness: Float[np.ndarray, " frames"], recording: Recording) -> tuple[float, float]:
    """How much the light flickers, and how far it wanders, as parts of its mean.

    Flicker is the deviation from the mean of the second around a frame; the wandering is the range of that mean.
    """
    fast, slow = np.zeros_like(brightness), np.zeros_like(brightness)
    for part in recording.parts:
        padded = np.pad(brightness[part], FPS // 2, mode="edge")
        slow[part] = np.lib.stride_tricks.sliding_window_view(padded, 2 * (FPS // 2) + 1).mean(axis=1)
        fast[part] = brightness[part] - slow[part]
    usual = max(float(brightness.mean()), 1.0)
    return float(fast.std()) / usual, float(np.ptp(np.quantile(slow, [0.02, 0.98]))) / usual


def openings(lip_gap: Float[np.ndarray, " frames"]) -> int:
    """How often the mouth opens: the gap rises from a quarter below its median to a quarter above it, or 0.01 at least."""
    usual = float(np.median(lip_gap))
    step = max(0.25 * usual, 0.01)
    state = np.sign((lip_gap > usual + step).astype(int) - (lip_gap < usual - step).astype(int))
    state = state[state != 0]
    return int((np.diff(state) > 0).sum())


def count_blinks(blink: Float[np.ndarray, " frames"]) -> int:
    """How often the eyes close."""
    return int((np.diff((blink > 0.5).astype(int)) == 1).sum())
