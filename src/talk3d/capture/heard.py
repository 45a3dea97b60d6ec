"""The checks of what is heard: clear speech of one person, in step with their lips."""

from __future__ import annotations

from ..video.clock import FPS
from .checks import SOUND, Check, Recording, Verdict, check, judged, time_of
from .drift import MINUTE
from .listening import lip_motion, strange_voices
from .sound import ENOUGH

AGREE = 0.15
"""Confidence of the lip-sync expert below which lips and sound do not seem to belong together. On six clips it had 0.31 to 0.99
with their own sound; with another one's, or their own from elsewhere in the clip, 0.12 at most."""
ENOUGH_TO_BE_SURE = 400
"""Training frames from which on that is so; over 180 frames another one's sound had up to 0.21."""


def heard_checks(recording: Recording) -> list[Check]:
    """All of them, in the order in which people should read them."""
    return [*_clarity(recording), *_together(recording)]


def _clarity(recording: Recording) -> list[Check]:
    heard, sounding = recording.heard, recording.sounding
    film = recording.decoded / FPS
    loudness = -70.0 if sounding.loudness is None else sounding.loudness
    speech = sounding.voiced_seconds / max(sounding.seconds, 1 / FPS)
    noise, band = sounding.signal_to_noise, sounding.bandwidth
    return [
        check(
            "Loudness", SOUND, judged(loudness, -36.0, -50.0, least=True), loudness, f"{loudness:.1f} LUFS", "-36 or more",
            "the sound is very quiet",
            f"The sound is very quiet ({loudness:.0f} LUFS; speech is usually mixed to between -16 and -24).",
            "Move the microphone closer, or turn it up.",
        ),
        check(
            "Noise", SOUND, judged(noise, 15.0, 6.0, least=True), noise,
            "too few pauses to tell" if noise is None else f"speech {noise:.0f} dB above it", "15 dB or more",
            "the sound is noisy",
            f"Speech stands only {noise or 0:.0f} dB above what is heard in pauses: noise, music, or other people.",
            "Record in a quiet room, with the microphone near the mouth.",
        ),
        check(
            "Clipping", SOUND, judged(heard.clipped, 0.005, 0.1), heard.clipped, f"{heard.clipped:.1%} of the time",
            "0.5% or less",
            "the sound is clipped",
            f"The peaks of the sound are cut off in {heard.clipped:.1%} of the frames; it is distorted there.",
            "Turn the microphone down.",
        ),
        check(
            "Bandwidth", SOUND, judged(band, 6000.0, 3000.0, least=True), band,
            "too little speech to tell" if band is None else f"up to {band:.0f} Hz", "6000 Hz or more",
            "the sound is dull",
            f"The sound holds nothing above {band or 0:.0f} Hz, like a telephone's; s, f and sh can hardly be told apart.",
            "Use the microphone's own recording, not that of a call or a headset over Bluetooth.",
        ),
        check(
            "Speech", SOUND, judged(speech, 0.5, 0.15, least=True), speech, f"in {speech:.0%} of the time", "50% or more",
            "little is spoken" if speech >= 0.15 else "hardly anything is spoken",
            f"A voice is heard in only {speech:.0%} of the time; only speech teaches lips.",
            "Talk all the time, with short pauses.",
        ),
        check(
            "Whole sound", SOUND, judged(heard.seconds, 0.98 * film, least=True), heard.seconds,
            f"{heard.seconds:.1f} s for {film:.1f} s", "as long as the film",
            "the sound ends too early",
            f"The sound lasts {heard.seconds:.1f} s of {film:.1f} s; the rest is silence.",
            "Record sound and picture together to the end.",
        ),
    ]  # fmt: skip


def _together(recording: Recording) -> list[Check]:
    return [_step(recording), _clock(recording), _speaker(recording)]


def _step(recording: Recording) -> Check:
    """Whether the sound is in step with the lips, and belongs to them at all."""
    late = recording.lateness
    name, limit = "In step with the lips", "less than 1 frame off, confidence 0.15 or more"
    if late.frames is None or late.confidence is None:
        return Check(name, SOUND, "pass", None, "too short to tell", limit)
    side = "late" if (late.moved or late.frames) > 0 else "early"
    found = f"{abs(late.frames):.1f} frames {side}, confidence {late.confidence:.2f}"
    if late.confidence < AGREE and recording.border >= ENOUGH:
        return check(
            name, SOUND, "fail" if recording.border >= ENOUGH_TO_BE_SURE else "warn", late.confidence, found, limit,
            "lips and sound hardly agree",
            "Lips and sound hardly agree: the film may be dubbed, the sound file another one's, or the lips hard to see.",
            "Check that the sound is the one recorded with the film, and give the right lateness with --sync.",
        )  # fmt: skip
    if late.moved:
        why = f"The sound came {abs(late.moved):.1f} frames {side} and was moved into step with the lips."
        return Check(name, SOUND, "pass", round(late.frames, 2), found + ", mended", limit, why=why)
    verdict = judged(abs(late.frames), 4.0)
    return check(
        name, SOUND, verdict, late.frames, found, limit,
        "the sound may be out of step",
        f"The sound may come about {abs(late.frames):.0f} frames {side}; check it against the lips.",
        "If it does, say by how many frames with --sync.",
    )  # fmt: skip


def _clock(recording: Recording) -> Check:
    """Whether the sound keeps in step."""
    drift = recording.drift
    name, limit = "Keeps in step", "less than 1 frame of drift over the film"
    if drift.per_minute is None or drift.error is None:
        return Check(name, SOUND, "pass", None, f"{drift.windows} sure windows of 6 s, too few to tell", limit)
    found = f"{drift.per_minute:+.1f} ± {drift.error:.1f} frames a minute"
    if drift.moved:
        why = f"The sound came later by {drift.per_minute:.1f} frames with each minute, and was stretched into step."
        if drift.per_minute < 0:
            why = f"The sound came earlier by {-drift.per_minute:.1f} frames with each minute, and was stretched into step."
        return Check(name, SOUND, "pass", drift.per_minute, found + ", mended", limit, why=why)
    total = abs(drift.per_minute) * int(recording.numbers[-1]) / MINUTE
    suspicious = total >= 2.0 and abs(drift.per_minute) >= 3 * drift.error
    verdict: Verdict = "warn" if drift.certain(int(recording.numbers[-1])) or suspicious else "pass"
    return check(
        name, SOUND, verdict, drift.per_minute, found, limit,
        "sound and picture drift apart",
        f"The sound runs away from the lips by about {abs(drift.per_minute):.1f} frames a minute; it was left as it is.",
        "Record sound and picture with one device, or resample the sound so that clapping at start and end is in step.",
    )  # fmt: skip


def _speaker(recording: Recording) -> Check:
    """Whether another person than the one in the picture is heard."""
    track, numbers = recording.track, recording.numbers
    motion = lip_motion(track["lip_gap"], track["lip_width"])
    found = strange_voices(recording.voiced, motion, recording.parts)
    seconds = sum(each.stop - each.start for each in found) / FPS
    part = seconds / max(recording.sounding.voiced_seconds, 1 / FPS)
    longest = sorted(found, key=lambda each: each.start - each.stop)
    times = ", ".join(
        f"{time_of(int(numbers[each.start]))} to {time_of(int(numbers[each.stop - 1]) + 1)}"
        for each in sorted(longest[:6], key=lambda each: each.start)
    )
    verdict: Verdict = "pass" if not found else "fail" if part > 0.25 else "warn"
    return check(
        "One speaker", SOUND, verdict, seconds, f"{seconds:.1f} s of voice beside still lips", "none",
        "somebody else is heard",
        f"A voice is heard while the lips stand still ({seconds:.0f} s): {times}. It teaches the avatar closed lips.",
        "Cut out what others say, or record without an interviewer.",
        recording.film([(each.start + each.stop) // 2 for each in longest[:2]]),
    )  # fmt: skip
