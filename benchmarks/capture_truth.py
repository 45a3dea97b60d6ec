"""How exact is a capture? Films of synthetic heads that move strongly, with noise, hard compressed, and scored by their truth.

    python benchmarks/capture_truth.py FOLDER [--heads DIR] [--people ben mira abel] [--size 512] [--noise 4] [--crf 28]

For each of the bench pack's people two films are rendered once and kept: `moving` (the head turns by 35 degrees and more, nods,
rolls and wanders while it talks and blinks) and `still` (it only talks and blinks). Pixel noise is added before the film is
compressed. `talk3d prepare` turns them into captures, and their poses, landmarks, regions, blinks and brows are
compared with the truth; nothing is ever before these faces.

What a prior calls frontal, and where on the skin a landmark lies, is a convention: one rotation for each film, and one offset
in the crop for each landmark, are not counted as errors. They are reported beside.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from talk3d.camera import Orbit
from talk3d.capture.artifact import Capture
from talk3d.capture.build import prepare
from talk3d.capture.covers import OCCLUDED
from talk3d.capture.detect import apply, warp
from talk3d.capture.mask import above_jaw, polygon_mask
from talk3d.capture.regions import region_masks
from talk3d.heads.model import HeadPack
from talk3d.heads.raster import LABELS, landmarks68, project, render_head
from talk3d.heads.subject import Phone, Script, wander, write_script
from talk3d.partials import write_whole
from talk3d.prior.generator import load_prior
from talk3d.video.clock import AUDIO_RATE, FPS
from talk3d.video.read import read_audio, read_frames
from talk3d.video.write import GrayWriter, VideoWriter

ASSETS = Path(__file__).parents[1] / "src" / "talk3d" / "assets"
ORBIT = Orbit(pivot=(0.0, 0.0, 0.15), focal=2.1)
"""A camera further away than the prior's own: room for the head to move."""
FILMS = {"moving": 400, "still": 200}
"""Frames."""
TURNS = {"yaw": 17.0, "pitch": 8.0, "roll": 6.0}
"""Deviations of the moving head, degrees."""
FROM_468 = (
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 75, 97, 2, 326, 305, 33, 160, 158, 133, 153, 144, 362,
    385, 387, 263, 373, 380, 61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
"""Points 17 to 67 of the 68-point scheme (brows, nose, eyes, lips) in the face mesh's."""


def make_film(who: str, kind: str, folder: Path, pack: HeadPack, size: int, noise: float, crf: int) -> None:
    """Render one film with its truth, unless it is there."""
    from make_truth_pack import PEOPLE, room

    path = folder / f"{who}-{kind}.mp4"
    if path.exists():
        return
    person, frames = PEOPLE[who], FILMS[kind]
    script, rng = script_of(who, kind, pack)
    moves = float(kind == "moving")
    yaw, pitch, roll = (moves * np.radians(TURNS[name]) * wander(frames, FPS, 0.5, rng) for name in TURNS)
    shift = moves * 0.04 * np.stack([wander(frames, FPS, 0.4, rng), wander(frames, FPS, 0.4, rng)], 1)
    background = room(person.wall, person.seed)
    background = warp(background, np.array([[size / 256, 0, 0], [0, size / 256, 0]]), (size, size))
    cameras = ORBIT.pose(torch.from_numpy(yaw).float(), torch.from_numpy(pitch).float()).numpy()
    points = []
    notice = {"notice": "AI-generated: a synthetic person, not a recording.", "consent": "synthetic"}
    with (
        GrayWriter(folder / f"{who}-{kind}.labels.mkv", (size, size)) as labels,
        GrayWriter(folder / f"{who}-{kind}.alpha.mkv", (size, size)) as alpha,
        VideoWriter(path, (size, size), FPS, AUDIO_RATE, notice, crf, preset="medium") as writer,
    ):
        writer.write_audio(np.resize(read_audio(ASSETS / "drive.flac"), frames * AUDIO_RATE // FPS))
        for index, expression in enumerate(script.expression):
            head = pack.build(replace(person.looks, expression=expression, gaze=tuple(map(float, script.gaze[index]))))
            cosine, sine = np.cos(roll[index]), np.sin(roll[index])
            camera = cameras[index] @ np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
            intrinsics = ORBIT.intrinsics().numpy().copy()
            intrinsics[:2, 2] += shift[index]
            picture = render_head(head, pack, camera.astype(np.float32), intrinsics, size)
            cover = picture.alpha[..., None].astype(np.float32) / 255
            rgb = picture.rgb + (1 - cover) * background + noise * rng.standard_normal((size, size, 3))
            writer.write(np.clip(rgb + 0.5, 0, 255).astype(np.uint8))
            labels.write(picture.labels)
            alpha.write(picture.alpha)
            points.append(project(landmarks68(head, pack), camera.astype(np.float32), intrinsics) * size)
    blink = np.array([row["eyeBlink"] for row in script.expression])
    angles = {"yaw": yaw, "pitch": pitch, "roll": roll}
    np.savez_compressed(folder / f"{who}-{kind}.truth.npz", points=np.stack(points), blink=blink, **angles)


def script_of(who: str, kind: str, pack: HeadPack) -> tuple[Script, np.random.Generator]:
    """What somebody does in a film, and the source of everything random that follows."""
    from make_truth_pack import PEOPLE

    seed, frames = PEOPLE[who].seed, FILMS[kind]
    rng = np.random.default_rng([seed, sorted(FILMS).index(kind)])
    visemes = sorted(pack.visemes["viseme_to_expression"])
    starts = np.cumsum(rng.uniform(0.06, 0.2, 20 * frames // FPS))
    phones = [
        Phone(float(a), float(b), visemes[rng.integers(len(visemes))])
        for a, b in zip(starts, starts[1:], strict=False)
        if rng.random() > 0.15
    ]
    return write_script(phones, frames, FPS, pack, seed=seed), rng


def rotations(
    yaw: Float[np.ndarray, " frames"], pitch: Float[np.ndarray, " frames"], roll: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames 3 3"]:
    """How heads are turned towards the camera: where it stands on its sphere, whatever it looks at, and how it is rolled."""
    camera = Orbit(pivot=(0.0, 0.0, 0.0)).pose(torch.from_numpy(yaw), torch.from_numpy(pitch))[:, :3, :3].numpy()
    zero, one = np.zeros_like(roll), np.ones_like(roll)
    rows = [np.cos(roll), np.sin(roll), zero, -np.sin(roll), np.cos(roll), zero, zero, zero, one]
    return np.stack(rows, -1).reshape(-1, 3, 3) @ camera.swapaxes(1, 2)


def rotation_errors(capture: Capture, truth: Mapping[str, np.ndarray]) -> tuple[Float[np.ndarray, " frames"], float]:
    """Angles by which head rotations are off, degrees, but for the one rotation that is convention; and that one's angle."""
    linear = np.linalg.inv(capture.crop_from_source[..., :2])
    seen = rotations(capture.yaw, capture.pitch, -np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    convention = rotations(truth["yaw"], truth["pitch"], truth["roll"]).swapaxes(1, 2) @ seen
    left, _, right = np.linalg.svd(convention.mean(0))
    mean = left @ right
    return angles(convention @ mean.T), float(angles(mean[None])[0])


def angles(turns: Float[np.ndarray, "frames 3 3"]) -> Float[np.ndarray, " frames"]:
    """Degrees by which rotations turn."""
    return np.degrees(np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)))


def landmark_errors(capture: Capture, true: Float[np.ndarray, "frames 68 2"]) -> tuple[np.ndarray, np.ndarray]:
    """[F, 51] distances in source pixels but for one offset in the crop for each point, and with that offset."""
    off = capture.landmarks_source[:, list(FROM_468)] - true[:, 17:]
    turned = np.einsum("fij,fpj->fpi", capture.crop_from_source[..., :2], off)
    scale = np.sqrt(np.abs(np.linalg.det(capture.crop_from_source[..., :2])))[:, None]
    free = np.linalg.norm(turned - turned.mean(0), axis=-1) / scale
    return free, np.linalg.norm(off, axis=-1)


def blink_errors(capture: Capture, blink: Float[np.ndarray, " frames"]) -> dict[str, float]:
    """Found and invented blinks, and by how many frames their middles are off."""

    def middles(curve: np.ndarray) -> np.ndarray:
        closed = np.flatnonzero(np.diff(np.concatenate([[0], (curve > 0.5).astype(int), [0]])))
        return closed.reshape(-1, 2).mean(1) - 0.5

    true, seen = middles(blink), middles(capture.blink)
    distance = np.abs(true[:, None] - seen[None]) if len(true) and len(seen) else np.full((len(true), 1), np.inf)
    nearest = distance.min(1) if len(true) else np.zeros(0)
    found = nearest <= 3
    return {
        "blinks": float(len(true)),
        "found": float(found.sum()),
        "invented": float(len(seen) - found.sum()),
        "off_frames": float(nearest[found].mean()) if found.any() else float("nan"),
        "correlation": float(np.corrcoef(blink, capture.blink)[0, 1]),
    }


def region_overlaps(capture: Capture, labels: Path, alpha: Path, points: Float[np.ndarray, "frames 68 2"]) -> dict[str, Any]:
    """How well regions agree with the labels: with the film's own palette, and by proportions alone.

    Intersection over union, pooled over every fifth frame, where crops lie within the film. `face` and `neck` are skin above
    and below the jaw line, which is the true head's where the truth is counted, and lips, eyes and mouth belong to the face.
    `flicker` is the part of the person's pixels whose part (skin, hair, shirt, background) changes from one frame to the next
    while the true one does not, in per cent.
    """
    scores = {name: Overlap() for name in ("palette", "proportions")}
    pictures = zip(
        capture.frames(), capture.person(), read_frames(labels, gray=True), read_frames(alpha, gray=True), strict=True
    )
    for index, (picture, person, label, cover) in enumerate(pictures):
        true = true_parts(capture, index, label, cover, points[index])
        marks = capture.landmarks[index] * capture.resolution
        below = ~above_jaw(marks, person.shape)
        for name, regions in (
            ("palette", capture.region_masks(index, picture, person)),
            ("proportions", region_masks(marks, person)),
        ):
            skin = (regions.head | regions.neck) & ~regions.hair
            seen = {"person": person > 127, "hair": regions.hair, "shirt": regions.torso, "inner_mouth": regions.inner_mouth}
            scores[name].count({**seen, "face": skin & ~below, "neck": skin & below}, true, index % 5 == 0)
    return {name: overlap.result() for name, overlap in scores.items()}


def true_parts(
    capture: Capture,
    index: int,
    label: UInt8[np.ndarray, "height width"],
    cover: UInt8[np.ndarray, "height width"],
    points: Float[np.ndarray, "68 2"],
) -> dict[str, Bool[np.ndarray, "side side"]]:
    """The true regions of a crop, and where it lies within the film."""
    crop, size = capture.crop_from_source[index], (capture.resolution,) * 2

    def crop_of(mask: np.ndarray) -> np.ndarray:
        return warp(mask.astype(np.uint8) * 255, crop, size) > 127

    parts = {name: crop_of(label == number) for number, name in enumerate(LABELS)}
    jaw = apply(crop, points[2:15].astype(np.float64))
    far = 4.0 * capture.resolution
    left, right = jaw[0], jaw[-1]
    above = polygon_mask(np.vstack([[-far, left[1]], jaw, [far, right[1]], [far, -far], [-far, -far]]), size)
    person = warp(cover, crop, size) > 127
    skin = person & ~parts["hair"] & ~parts["shirt"] & ~parts["background"]
    return {
        "person": person, "hair": parts["hair"], "shirt": parts["shirt"], "inner_mouth": parts["mouth"],
        "face": skin & above, "neck": skin & ~above, "inside": capture.inside(index),
    }  # fmt: skip


class Overlap:
    """Counts over the frames of a film."""

    def __init__(self) -> None:
        self._both: dict[str, int] = {}
        self._either: dict[str, int] = {}
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._flicker: list[float] = []

    def count(self, seen: Mapping[str, np.ndarray], true: Mapping[str, np.ndarray], pooled: bool) -> None:
        """Add a frame; only pooled ones count for the overlaps."""
        inside = true["inside"]
        if pooled:
            for name, mask in seen.items():
                self._both[name] = self._both.get(name, 0) + int((mask & true[name] & inside).sum())
                self._either[name] = self._either.get(name, 0) + int(((mask | true[name]) & inside).sum())
        now = self._parts(seen), self._parts(true)
        if self._last is not None:
            changed = (now[0] != self._last[0]) & (now[1] == self._last[1]) & inside
            self._flicker.append(float(changed.sum() / max(true["person"].sum(), 1)))
        self._last = now

    @staticmethod
    def _parts(masks: Mapping[str, np.ndarray]) -> np.ndarray:
        return masks["hair"] * 1 + masks["shirt"] * 2 + (masks["face"] | masks["neck"]) * 3

    def result(self) -> dict[str, float]:
        """Intersections over unions, and the flicker in per cent."""
        overlaps = {name: both / self._either[name] for name, both in self._both.items() if self._either[name]}
        return {**overlaps, "flicker": 100 * float(np.mean(self._flicker))}


def score(folder: Path, name: str, pack: HeadPack) -> dict[str, Any]:
    """All numbers of one film."""
    capture = Capture.open(folder / "captures" / name)
    truth = np.load(folder / f"{name}.truth.npz")
    if capture.count != len(truth["blink"]):
        return {"frames": capture.count, "of": len(truth["blink"]), "lost": True}
    rotation, convention = rotation_errors(capture, truth)
    free, raw = landmark_errors(capture, truth["points"])
    middle = np.einsum("fij,j->fi", np.linalg.inv(capture.crop_from_source[..., :2]), np.full(2, capture.resolution / 2))
    middle -= np.einsum("fij,fj->fi", np.linalg.inv(capture.crop_from_source[..., :2]), capture.crop_from_source[..., 2])
    raised = np.array([row["browInnerUp"] for row in script_of(*name.split("-"), pack)[0].expression])
    eyes = np.linalg.norm(truth["points"][:, 36] - truth["points"][:, 45], axis=-1).mean()
    return {
        "frames": capture.count,
        "rotation_median": float(np.median(rotation)),
        "rotation_95": float(np.quantile(rotation, 0.95)),
        "rotation_rms": float(np.sqrt((rotation**2).mean())),
        "convention": convention,
        "crop_rms_px": float(np.sqrt(((middle - middle.mean(0)) ** 2).sum(1).mean() / 2)),
        "landmarks_median_px": float(np.median(free)),
        "landmarks_95_px": float(np.quantile(free, 0.95)),
        "landmarks_rms_px": float(np.sqrt((free**2).mean() / 2)),
        "landmarks_raw_px": float(np.median(raw)),
        "eye_distance_px": float(eyes),
        **blink_errors(capture, truth["blink"]),
        "brow_correlation": float(np.corrcoef(raised, capture.brow_height)[0, 1]),
        "occluded_part": float((capture.occluded >= OCCLUDED).mean()),
        "occluded_most": float(capture.occluded.max()),
        "iou": region_overlaps(capture, folder / f"{name}.labels.mkv", folder / f"{name}.alpha.mkv", truth["points"]),
    }


def main() -> None:
    """Render, prepare, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heads", type=Path, default=None)
    parser.add_argument("--people", nargs="+", default=["abel", "ben", "mira"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--noise", type=float, default=4.0, help="standard deviation, levels of 255")
    parser.add_argument("--crf", type=int, default=28)
    parser.add_argument("--again", action="store_true", help="prepare again what was prepared before")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    pack, prior = HeadPack(options.heads), load_prior(ASSETS / "prior")
    results = {}
    for who in options.people:
        for kind in FILMS:
            name = f"{who}-{kind}"
            make_film(who, kind, folder, pack, options.size, options.noise, options.crf)
            captured = folder / "captures" / name
            if options.again and captured.exists():
                shutil.rmtree(captured)
            if not captured.exists():
                prepare(
                    folder / f"{name}.mp4", captured, canonical=prior.canonical_landmarks, orbit=prior.profile.orbit,
                    resolution=prior.profile.image_resolution, prior_hash=prior.hash, consent="synthetic", sync=0.0,
                )  # fmt: skip
            results[name] = score(folder, name, pack)
            print(name, json.dumps(results[name], indent=None), flush=True)
    write_whole(folder / "capture_truth.json", (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
