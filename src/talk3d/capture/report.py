"""What a person should know about a recording."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from ..video.clock import FPS
from .cut import MAX_MOTION
from .mask import Plate
from .sound import Heard, Lateness
from .track import FACE_OVAL


def describe(
    arrays: dict[str, np.ndarray],
    config: dict[str, Any],
    plate: Plate,
    sound: Heard,
    sharpness: np.ndarray,
    lateness: Lateness,
    decoded: int,
) -> dict[str, Any]:
    """What a person should know about the recording, with advice in `warnings`."""
    frames = config["frames"]
    oval = arrays["landmarks_source"][:, [FACE_OVAL[0], FACE_OVAL[18]]]
    face_height = float(np.median(np.linalg.norm(oval[:, 0] - oval[:, 1], axis=-1)))
    shrink = float(np.median(1 / np.sqrt(np.abs(np.linalg.det(arrays["crop_from_source"][..., :2])))))
    yaw, pitch = np.degrees(arrays["yaw"]), np.degrees(arrays["pitch"])
    closed_mouth = float((arrays["lip_gap"] < 0.03).mean())
    blinking = arrays["blink"] > 0.5
    blinks = int((np.diff(blinking.astype(int)) == 1).sum())
    warnings = []
    if frames < 60 * FPS:
        warnings.append(f"Only {frames / FPS:.0f} s are usable; one to five minutes give better lips.")
    if frames < 0.9 * decoded:
        warnings.append(f"{decoded - frames} of {decoded} frames were left out: cuts, no face, or another scene.")
    if shrink < 0.75:
        warnings.append(f"The face is small ({face_height:.0f} px high) and was enlarged {1 / shrink:.1f}x; record closer.")
    if closed_mouth < 0.03:
        warnings.append("The mouth is hardly ever closed; include pauses and the sounds m, b, p.")
    if blinks == 0:
        warnings.append("No blink was seen; blinks will be made up.")
    if np.ptp(np.quantile(yaw, [0.05, 0.95])) < 4:
        warnings.append("The head hardly turns; a little movement helps to find the shape of the face.")
    if plate.motion > MAX_MOTION:
        warnings.append("The background moves; its still picture will not match. Record in front of a still one.")
    if sound.seconds < 0.98 * decoded / FPS:
        warnings.append(f"The sound lasts {sound.seconds:.1f} s of {decoded / FPS:.1f} s; the rest is silence.")
    if lateness.moved:
        side = "late" if lateness.moved > 0 else "early"
        warnings.append(f"The sound came {abs(lateness.moved):.1f} frames {side} and was moved into step with the lips.")
    elif lateness.frames is not None and abs(lateness.frames) >= 4:
        side = "late" if lateness.frames > 0 else "early"
        warnings.append(
            f"The sound may come about {abs(lateness.frames):.0f} frames {side}; check it against the lips (--sync)."
        )
    if sound.peak < 0.03:
        warnings.append("The sound is very quiet; check the microphone.")

    def spread(values: np.ndarray) -> list[float]:
        return [round(float(value), 4) for value in np.quantile(values, [0.0, 0.05, 0.5, 0.95, 1.0])]

    return {
        "frames": {"decoded": decoded, "usable": frames, "seconds": frames / FPS, "takes": len(config["takes"])},
        "face_height_px": round(face_height, 1),
        "source_pixels_per_crop_pixel": round(shrink, 3),
        "yaw_degrees": spread(yaw),
        "pitch_degrees": spread(pitch),
        "lip_gap": spread(arrays["lip_gap"]),
        "closed_mouth_part": round(closed_mouth, 4),
        "blinks": blinks,
        "pose_residual": spread(arrays["residual"]),
        "sharpness": spread(sharpness),
        "background": {"seen_part": round(float(plate.seen.mean()), 4), "motion": round(plate.motion, 3)},
        "sound": {**asdict(sound), "late": asdict(lateness)},
        "quantiles": [0.0, 0.05, 0.5, 0.95, 1.0],
        "warnings": warnings,
    }
