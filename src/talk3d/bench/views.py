"""From which angles can an avatar be looked at? Its pictures are measured view by view, with the truth where there is one.

A frontal film shows no sides, so whoever makes an avatar of it has nothing to compare them with. What can be said without the
truth: whether a view shows the same person as the front does, as sharply, with the face where its own depth puts it, a nose
that stands out as far as noses do, and nothing that floats around. Where one of these fails, the avatar has fallen apart; where
none does, it may still be wrong about the person. The largest box of angles in which none fails is the trusted view cone.

Angles are degrees in here, as they are shown. Letters: Y yaws, P pitches, S side of the pictures, R side of the raw pictures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from .. import __version__
from ..artifacts import annotate
from ..camera import Orbit, ViewCone
from ..capture.detect import warp
from ..capture.mask import PersonSegmenter
from ..capture.pose import solve_poses
from ..capture.track import FACE_OVAL, LANDMARKS, OUTER_EYE_CORNERS, FaceTracker, interocular
from ..errors import ConfigError, MediaError, NoFaceError
from ..evaluate.align import similarity
from ..heads.model import SCALE
from ..judges.headnet import load_headnet, perceptual_distance
from ..partials import refuse_existing, write_whole, writing_folder
from ..pictures import Image, as_image, in_rows, write_png
from ..prior.generator import LoadedPrior, Picture, composite
from ..talker.audio import Loudness, frame_windows, silent_window
from ..talker.clip import audio_neighbourhood
from ..talker.speak import Speaker
from ..video.read import read_audio

FAILS, OUTSIDE, TRUSTED = (220, 30, 30), (240, 170, 40), (90, 90, 90)
"""Frames of views on the sheet, RGB."""

YAWS = tuple(range(-60, 61, 15))
PITCHES = tuple(range(-30, 31, 10))
DRIVE = Path(__file__).parents[1] / "assets" / "drive.flac"
LOUD = (45, 104)
"""Frames of `DRIVE` in the middle of open vowels."""

NOSE_TIP = 1
RELIEF = 0.45
"""How far the tip of a nose lies before the line between the outer eye corners, in lengths of that line. Sixteen exact heads
have 0.36 to 0.47, MediaPipe's average face 0.48, six avatars 0.41 to 0.55."""
HIDDEN = 1.0
"""A point that lies this far behind the surface is hidden, cm."""
JUMP = 1.5
"""A jump in depth counts no more than this, cm."""
WITHIN = [i for i in range(LANDMARKS) if i not in FACE_OVAL]
"""Landmarks of skin. The outline is where the cheek turns out of sight, which is another place in each view."""


@dataclass(frozen=True)
class Limit:
    """What a measure must keep for a view to be trusted."""

    means: str
    bound: float
    least: bool
    """Whether the bound is the least or the most that is allowed."""

    def keeps(self, values: Float[np.ndarray, "*views"]) -> Bool[np.ndarray, "*views"]:
        """Where values are good enough; what could not be measured is not."""
        return values >= self.bound if self.least else values <= self.bound


LIMITS = {
    "face": Limit("part of the pictures in which the tracker finds a face", 1.0, least=True),
    "identity": Limit("HeadNet's cosine with the front", 0.75, least=True),
    "sharpness": Limit("Laplacian energy inside the head, front 1", 0.3, least=True),
    "landmarks": Limit("from where the front's landmarks must be, % of the eyes' distance", 8.0, least=False),
    "relief": Limit("nose too far in or out, as seen from here, % of the eyes' distance", 9.0, least=False),
    "roughness": Limit("second difference of depth between raw pixels, cm", 1.0, least=False),
    "stray": Limit("part of the alpha that lies off the head, %", 2.0, least=False),
}
"""The measures and their bounds.

The evidence is thin: eight exact synthetic heads, five avatars of two synthetic people with true views, and one of these broken
on purpose (docs/notebook.md). Exact heads keep all bounds up to 45 degrees of yaw and up to 10 of pitch; the bounds of identity
and landmarks cannot be closer, since HeadNet and the tracker themselves change with the angle.
"""


@dataclass(frozen=True)
class Shot:
    """A head alone, from one view."""

    rgb: UInt8[np.ndarray, "size size 3"]
    """Over mid grey."""
    alpha: Float[np.ndarray, "size size"]
    """0..1."""
    depth: Float[np.ndarray, "raw raw"]
    """Distance along the ray, scene units."""


Draw = Callable[[float, float], Sequence[Shot]]
"""Pictures from a yaw and a pitch, one for each moment; the moments are the same from everywhere."""


def shots(picture: Picture) -> list[Shot]:
    """A generator's pictures, which must have alpha, as shots."""
    image = picture.image
    grey = composite(image, torch.zeros_like(image[:, :3]))
    alpha = ((image[:, 3] + 1) / 2).clamp(0, 1)
    return [
        Shot(np.ascontiguousarray(as_image(rgb)), a.numpy(), d.numpy())
        for rgb, a, d in zip(grey, alpha, picture.raw.depth[:, 0], strict=True)
    ]


def avatar_views(speaker: Speaker) -> Draw:
    """The avatar at rest and in two open vowels of the shipped speech.

    Raises:
        ConfigError: its pictures carry no alpha.
    """
    if not speaker.profile.alpha:
        raise ConfigError("This avatar's pictures carry no alpha, so the head cannot be told from the background in them.")
    sound = read_audio(DRIVE)
    windows = torch.cat(list(frame_windows([sound], Loudness.of([sound]).gain, speaker.audio)))
    silence = silent_window(speaker.audio)
    heard = audio_neighbourhood(windows, torch.tensor(LOUD), speaker.network.config.tokens.windows, silence)
    heard = torch.cat([silence.expand_as(heard[:1]), heard])
    planes = speaker.move(heard, speaker.motion.still()[torch.zeros(len(heard), dtype=torch.long)])

    def draw(yaw: float, pitch: float) -> list[Shot]:
        angles = torch.tensor([yaw, pitch]).float().deg2rad()[:, None].expand(2, len(planes))
        return shots(speaker.look(planes, *angles))

    return draw


# -------------------------------------------------------------------------------------------------- without the truth


@dataclass(frozen=True)
class Front:
    """What the view from the front says about all others, at one moment."""

    shot: Shot
    embedding: Float[np.ndarray, " embedding"]
    points: Float[np.ndarray, "468 3"] | None
    """The landmarks on the rendered surface, scene units; None if no face is found."""
    unit: float
    """Distance between the outer eye corners in the picture, picture widths."""
    relief: float
    """See `RELIEF`."""

    @classmethod
    def of(cls, shot: Shot, orbit: Orbit) -> Front:
        """Look at the front."""
        face = FaceTracker()(shot.rgb)
        embedding = _embedding(shot)
        if face is None:
            return cls(shot, embedding, None, math.nan, math.nan)
        image = face.landmarks / len(shot.rgb)
        points = lift(image, shot.depth, orbit)
        eyes = points[list(OUTER_EYE_CORNERS)]
        relief = float((points[NOSE_TIP] - eyes.mean(0))[2] / np.linalg.norm(eyes[0] - eyes[1]))
        return cls(shot, embedding, points, float(interocular(image[None])[0]), relief)


def lift(
    image: Float[np.ndarray, "points 2"], depth: Float[np.ndarray, "raw raw"], orbit: Orbit
) -> Float[np.ndarray, "points 3"]:
    """Points of the frontal picture (0..1) on the surface that its depth shows, scene units."""
    camera = orbit.pose(torch.zeros(1), torch.zeros(1))[0].double().numpy()
    rays = np.concatenate([(image - 0.5) / orbit.focal, np.ones((len(image), 1))], 1) @ camera[:3, :3].T
    return camera[:3, 3] + _at(depth, image)[:, None] * rays / np.linalg.norm(rays, axis=1, keepdims=True)


def measure_shot(shot: Shot, front: Front, orbit: Orbit, yaw: float, pitch: float) -> dict[str, float]:
    """The measures of `LIMITS` of one picture; NaN where one cannot be taken."""
    angles = torch.tensor([yaw, pitch]).double().deg2rad()[:, None]
    face, landmarks = FaceTracker()(shot.rgb), math.nan
    if face is not None and front.points is not None:
        expected = orbit.project(torch.from_numpy(front.points), *angles)[0].numpy()
        camera = orbit.pose(*angles)[0, :3, 3].numpy()
        behind = np.linalg.norm(front.points - camera, axis=1) - _at(shot.depth, expected)
        off = np.linalg.norm(face.landmarks / len(shot.rgb) - expected, axis=1)[WITHIN]
        visible = behind[WITHIN] < HIDDEN * SCALE
        landmarks = float(100 * off[visible].mean() / front.unit) if visible.any() else math.nan
    # What is too flat or too long is seen as such from the side: by the sine of the angle between the view and the front.
    aside = math.sqrt(max(0.0, 1 - float(angles[0].cos() * angles[1].cos()) ** 2))
    return {
        "face": float(face is not None),
        "identity": float(_embedding(shot) @ front.embedding),
        "sharpness": _sharpness(shot) / max(_sharpness(front.shot), 1e-6),
        "landmarks": landmarks,
        "relief": 100 * abs(front.relief - RELIEF) * aside,
        "roughness": roughness(shot),
        "stray": stray(shot),
    }


def roughness(shot: Shot) -> float:
    """Mean second difference of depth between neighbouring raw pixels well inside the head, cm; NaN without an inside.

    Smooth skin has little; noise, holes and things that float before the face have much. A jump, as from nose to cheek, counts
    for `JUMP` at most.
    """
    depth = shot.depth / SCALE
    whole = cv2.resize(_inside(shot).astype(np.float32), depth.shape, interpolation=cv2.INTER_AREA) > 0.99
    whole = cv2.erode(whole.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)[1:-1, 1:-1] > 0
    bend = np.abs(np.diff(depth, 2, 0))[:, 1:-1] + np.abs(np.diff(depth, 2, 1))[1:-1]
    return float(np.minimum(bend[whole], JUMP).mean()) if whole.any() else math.nan


def stray(shot: Shot) -> float:
    """Percent of the alpha that lies away from the largest piece: what floats around the head; 100 if there is no head."""
    count, pieces, statistics, _ = cv2.connectedComponentsWithStats((shot.alpha > 0.5).astype(np.uint8))
    if count < 2:
        return 100.0
    largest = pieces == 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()
    reach = 2 * max(1, len(shot.alpha) // 64) + 1  # soft edges are no fringe
    near = cv2.dilate(largest.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    return float(100 * shot.alpha[~near].sum() / shot.alpha.sum())


def _embedding(shot: Shot) -> np.ndarray:
    with torch.no_grad():
        return load_headnet()(_tensor(shot.rgb)).embedding[0].numpy()


def _tensor(rgb: np.ndarray) -> Float[Tensor, "1 3 height width"]:
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1


def _inside(shot: Shot) -> np.ndarray:
    """Well inside the head [S, S]: its outline is sharp however bad the rest is."""
    reach = 2 * max(1, len(shot.alpha) // 64) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return cv2.erode((shot.alpha > 0.9).astype(np.uint8), kernel) > 0


def _sharpness(shot: Shot) -> float:
    grey, inside = cv2.cvtColor(shot.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32), _inside(shot)
    return float(np.square(cv2.Laplacian(grey, cv2.CV_32F)[inside]).mean()) if inside.any() else 0.0


def _at(field: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Values of a field [R, R] at places [points, 2], 0..1."""
    x, y = ((image * len(field) - 0.5).astype(np.float32)[:, i : i + 1] for i in (0, 1))  # columns, which OpenCV keeps
    return cv2.remap(field.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0].astype(np.float64)


@dataclass(frozen=True)
class Views:
    """How an avatar looks from each view."""

    measures: dict[str, Float[np.ndarray, "pitches yaws"]]
    """By the names of `LIMITS`; the worst of the moments."""
    moments: int
    """Pictures that each number rests on."""
    pictures: dict[tuple[int, int], Image]
    """By yaw and pitch, the last moment."""

    @property
    def kept(self) -> Bool[np.ndarray, "pitches yaws"]:
        """Which views keep all limits."""
        return np.logical_and.reduce([LIMITS[name].keeps(values) for name, values in self.measures.items()])

    @property
    def cone(self) -> ViewCone | None:
        """The trusted view cone; None if not even the front keeps the limits."""
        return largest_cone(self.kept)

    def failing(self) -> list[str]:
        """The measures that fail in a view next to the cone, or at the front if there is no cone."""
        cone = self.cone or ViewCone((0.0, 0.0), (0.0, 0.0))
        step = (0, 0) if self.cone is None else (YAWS[1] - YAWS[0], PITCHES[1] - PITCHES[0])
        near = np.array([[_near(y, cone.yaw, step[0]) and _near(p, cone.pitch, step[1]) for y in YAWS] for p in PITCHES])
        return [name for name, values in self.measures.items() if not LIMITS[name].keeps(values)[near].all()]

    def note(self) -> dict[str, Any]:
        """What the avatar is told about itself; `talk3d.talker.speak` reads it."""
        return {
            "cone": None if self.cone is None else asdict(self.cone),
            "failing": self.failing(),
            "pictures_per_view": self.moments,
            "creator": f"talk3d {__version__}",
        }


def _near(angle: int, ends: tuple[float, float], step: int) -> bool:
    return ends[0] - step <= angle <= ends[1] + step


def largest_cone(kept: Bool[np.ndarray, "pitches yaws"]) -> ViewCone | None:
    """The largest box of views around the front that are all kept; of equal ones the most even one."""
    front_pitch, front_yaw = PITCHES.index(0), YAWS.index(0)
    boxes = [
        (left, right, down, up)
        for left, right in product(range(front_yaw + 1), range(front_yaw, len(YAWS)))
        for down, up in product(range(front_pitch + 1), range(front_pitch, len(PITCHES)))
        if kept[down : up + 1, left : right + 1].all()
    ]
    if not boxes:
        return None

    def worth(box: tuple[int, int, int, int]) -> tuple[int, int]:
        left, right, down, up = box
        uneven = abs(left + right - 2 * front_yaw) + abs(down + up - 2 * front_pitch)
        return (right - left + 1) * (up - down + 1), -uneven

    left, right, down, up = max(boxes, key=worth)
    return ViewCone((float(YAWS[left]), float(YAWS[right])), (float(PITCHES[down]), float(PITCHES[up])))


def measure_views(draw: Draw, orbit: Orbit, progress: Callable[[float], None]) -> Views:
    """Measure all views; 63 of them with three moments each take about 25 s on one core."""
    fronts = [Front.of(shot, orbit) for shot in draw(0.0, 0.0)]
    measures = {name: np.full((len(PITCHES), len(YAWS)), np.nan) for name in LIMITS}
    pictures = {}
    for index, (pitch, yaw) in enumerate(product(PITCHES, YAWS)):
        drawn = draw(float(yaw), float(pitch))
        rows = [measure_shot(s, front, orbit, float(yaw), float(pitch)) for s, front in zip(drawn, fronts, strict=True)]
        for name, values in measures.items():
            worst = np.min if LIMITS[name].least else np.max  # either passes NaN on
            values[PITCHES.index(pitch), YAWS.index(yaw)] = worst([row[name] for row in rows])
        pictures[yaw, pitch] = drawn[-1].rgb
        progress((index + 1) / (len(PITCHES) * len(YAWS)))
    return Views(measures, len(fronts), pictures)


# ----------------------------------------------------------------------------------------------------- with the truth

FRAMES = 12
"""Frames of the truth that are looked at."""


def true_scores(
    draw: Draw, orbit: Orbit, canonical: Float[np.ndarray, "468 3"], folder: Path, progress: Callable[[float], None]
) -> dict[str, Any]:
    """Compare with true views of a synthetic person; the mouth is at rest and part of the error of everyone alike.

    The truth has cameras and a head frame of its own. Its frontal picture is posed as `prepare` would pose it, which tells by
    what angle the avatar's frame is turned; a similarity between both projections of the canonical landmarks then brings each
    true picture into the avatar's crop. A difference in perspective stays in the error.
    What counts as the head is what the segmenter takes for the person, so a shirt that only shows from above counts too.

    Args:
        draw: the avatar; its first moment is compared.
        orbit: the avatar's camera.
        canonical: landmarks of the prior that the avatar was made with.
        folder: `views.npz` (yaw, pitch in radians, cam2world, intrinsics of the views) and `views/fIIIII_vK.webp`; and, if it
            is known, `views_depth.npz` with `depth` [views, n, n], distances along the rays, scene units, NaN beside the head.
        progress: called with the part done.

    Returns:
        `views` (yaw, pitch in degrees), and for each view the mean over frames of `psnr` (dB, inside the person) and `headnet`
        (perceptual distance of the heads); `frames`, the number of frames; with true depth also `depth` (`depth_error`, cm).

    Raises:
        MediaError: the folder holds no true views.
        NoFaceError: the tracker finds no face in the true front.
    """
    paths = sorted((folder / "views").glob("f*_v*.webp"))
    if not (folder / "views.npz").is_file() or not paths:
        raise MediaError(f"`{folder}` holds no true views: `views.npz` and `views/fIIIII_vK.webp` are needed.")
    with np.load(folder / "views.npz") as views:
        angles = np.degrees(np.stack([views["yaw"], views["pitch"]], 1))
        cameras, intrinsics = views["cam2world"], views["intrinsics"]
    numbers = sorted({int(path.stem[1:].split("_")[0]) for path in paths})
    numbers = numbers[:: max(1, len(numbers) // FRAMES)][:FRAMES]

    def picture(number: int, view: int) -> Image:
        read = cv2.imread(str(folder / "views" / f"f{number:05d}_v{view}.webp"))
        if read is None:
            raise MediaError(f"`{folder}` lacks the picture of frame {number} from view {view}.")
        return np.ascontiguousarray(read[..., ::-1])

    front = int(np.abs(angles).sum(1).argmin())
    faces = [face for number in numbers if (face := FaceTracker()(picture(number, front)))]
    if not faces:
        raise NoFaceError(f"The tracker finds no face in the frontal pictures of `{folder}`, so they cannot be aligned.")
    poses = solve_poses(np.stack([face.landmarks for face in faces]), canonical, orbit)
    offset = np.array([poses.yaw.mean(), poses.pitch.mean()])
    ours_from_front = orbit.pose(*torch.from_numpy(offset)[:, None])[0, :3, :3].numpy()
    turned = canonical @ (cameras[front][:3, :3] @ ours_from_front.T).T  # [468, 3] in the truth's frame

    depths_at = folder / "views_depth.npz"
    depths = np.load(depths_at)["depth"].astype(np.float32) if depths_at.is_file() else None
    apart: list[float] = []

    segment, scores = PersonSegmenter(), np.zeros((len(angles), len(numbers), 2))
    for k, view in enumerate(angles + np.degrees(offset) - angles[front]):
        shot = draw(float(view[0]), float(view[1]))[0]
        size = len(shot.rgb)
        here = orbit.project(torch.from_numpy(canonical).double(), *torch.from_numpy(np.radians(view))[:, None])[0].numpy()
        local = (turned - cameras[k][:3, 3]) @ cameras[k][:3, :3] @ intrinsics.T
        if depths is not None:
            apart.append(depth_error(shot, depths[k], similarity(local[:, :2] / local[:, 2:], here)))
        for i, number in enumerate(numbers):
            true = picture(number, k)
            crop = similarity(local[:, :2] / local[:, 2:] * len(true), here * size)
            warped = warp(true, crop, (size, size))
            known = warp(np.full(true.shape[:2], 255, np.uint8), crop, (size, size)) > 250
            head = (segment(warped) > 127) & known
            error = np.square((shot.rgb.astype(np.float64) - warped) / 255)[head].mean() if head.any() else math.nan
            # Over grey: a head that is missing somewhere must not be forgiven by the true picture behind it.
            pair = np.where(head[..., None], warped, 128), np.where(known[..., None], shot.rgb, 128)
            with torch.no_grad():
                distance = float(perceptual_distance(*(_tensor(one.astype(np.uint8)) for one in pair)))
            scores[k, i] = -10 * math.log10(max(error, 1e-10)), distance
        progress((k + 1) / len(angles))
    psnr, headnet = scores.mean(1).T
    found = {"psnr": psnr.tolist(), "headnet": headnet.tolist()} | ({"depth": apart} if depths is not None else {})
    measured = {name: [value if math.isfinite(value) else None for value in values] for name, values in found.items()}
    return {"views": angles.round(1).tolist(), "frames": len(numbers), **measured}


def depth_error(shot: Shot, truth: Float[np.ndarray, "n n"], ours_from_true: Float[np.ndarray, "2 3"]) -> float:
    """Mean absolute difference of two heads' depths where both are, each about its own median, in centimetres.

    Args:
        shot: the avatar's picture.
        truth: true distances along the rays, scene units, NaN beside the head.
        ours_from_true: from the true picture to the avatar's, both 0..1 from border to border.
    """
    size, count = len(shot.depth), len(truth)
    crop = ours_from_true * [[size / count, size / count, size]]
    crop[:, 2] += crop[:, :2].sum(1) * 0.5 - 0.5  # OpenCV counts from pixel centres
    true = cv2.warpAffine(truth, crop, (size, size), flags=cv2.INTER_NEAREST, borderValue=math.nan)
    solid = cv2.resize(shot.alpha, (size, size), interpolation=cv2.INTER_AREA) > 0.95
    both = np.isfinite(true) & solid
    if not both.any():
        return math.nan
    mine, other = shot.depth[both], true[both]
    return float(np.abs(mine - np.median(mine) - (other - np.median(other))).mean() / SCALE)


# --------------------------------------------------------------------------------------------------------- the report


def note_views(avatar: Path, speaker: Speaker, progress: Callable[[float], None]) -> Views:
    """Measure an avatar and write its trusted view cone into it."""
    views = measure_views(avatar_views(speaker), speaker.profile.orbit, progress)
    annotate(avatar, {"views": views.note()})
    return views


def bench_views(
    avatar: Path,
    output: Path,
    truth: Path | None,
    prior: LoadedPrior,
    overwrite: bool,
    progress: Callable[[float, str], None],
) -> tuple[Views, dict[str, Any] | None]:
    """Measure an avatar, write its trusted view cone into it, and report.

    Args:
        avatar: the avatar file.
        output: folder for `views.json`, `views.png` and `sheet.png`.
        truth: folder of true views, see `true_scores`; used for scoring only, never for the cone.
        prior: what the avatar was made with; only the truth needs it.
        overwrite: replace an existing report.
        progress: called with (part done 0..1, what is done).

    Returns:
        The measures, and the scores against the truth where there is one.

    Raises:
        OutputExistsError: `output` exists, and is not to be replaced or is no such report.
        ArtifactError: `avatar` is none, or `prior` is not the one it was made with.
    """
    refuse_existing(output, overwrite)
    if output.exists() and not (output / "views.json").is_file():
        refuse_existing(output, False)
    speaker = Speaker(avatar)
    if truth is not None:
        speaker.artifact.require_parent(prior.artifact)
    views = note_views(avatar, speaker, lambda part: progress(part, "measuring views"))
    scores = None
    if truth is not None:
        draw, orbit = avatar_views(speaker), speaker.profile.orbit
        scores = true_scores(
            draw, orbit, prior.canonical_landmarks, truth, lambda part: progress(part, "comparing with the truth")
        )
    with writing_folder(output) as folder:
        numbers = as_json(views, scores) | {"avatar": speaker.artifact.hash}
        write_whole(folder / "views.json", json.dumps(numbers, indent=1).encode())
        write_png(folder / "views.png", curves(views))
        write_png(folder / "sheet.png", sheet(views))
    return views, scores


def as_json(views: Views, scores: dict[str, Any] | None) -> dict[str, Any]:
    """All numbers; what could not be measured is null."""
    measures = {
        name: [[round(v, 4) if math.isfinite(v) else None for v in row] for row in values.tolist()]
        for name, values in views.measures.items()
    }
    note = views.note()
    limits = {name: asdict(limit) for name, limit in LIMITS.items()}
    return note | {"yaws": YAWS, "pitches": PITCHES, "measures": measures, "limits": limits, "truth": scores}


def table(views: Views, scores: dict[str, Any] | None) -> str:
    """The views along both axes as plain text; a star marks what does not keep its limit."""
    axes = [(yaw, 0) for yaw in YAWS] + [(0, pitch) for pitch in PITCHES if pitch]
    lines = [f"{'yaw,pitch':10}" + "".join(f"{f'{yaw:+d},{pitch:+d}':>8}" for yaw, pitch in axes) + "   limit"]
    for name, values in views.measures.items():
        limit, cells = LIMITS[name], []
        kept = limit.keeps(values)
        for yaw, pitch in axes:
            at = PITCHES.index(pitch), YAWS.index(yaw)
            cells.append(f"{values[at]:.2f}" + (" " if kept[at] else "*"))
        lines.append(f"{name:10}" + "".join(f"{c:>8}" for c in cells) + f"  {'>=' if limit.least else '<='} {limit.bound:g}")
    lines.append(
        f"{views.moments} pictures a view. " + (f"Trusted: {views.cone}." if views.cone else "Not even the front holds.")
    )
    lines += [f"  {name}: {LIMITS[name].means}" for name in views.failing()]
    if scores:
        lines.append(f"{'truth':10}" + "".join(f"{f'{yaw:+.0f},{pitch:+.0f}':>8}" for yaw, pitch in scores["views"]))
        for name, digits in (("psnr", 2), ("headnet", 3), ("depth", 2)):
            if name in scores:
                cells = ["-" if value is None else f"{value:.{digits}f}" for value in scores[name]]
                lines.append(f"{name:10}" + "".join(f"{cell:>8}" for cell in cells))
        depth = "depth in cm, of one frame" if "depth" in scores else "the truth holds no depth"
        lines.append(f"{scores['frames']} true frames a view; {depth}.")
    return "\n".join(lines)


def sheet(views: Views) -> Image:
    """All views with their angles. Red frames: what is written there fails. Amber: nothing fails, but the view lies outside the
    cone, which is a box of angles."""
    cells = []
    for pitch, yaw in product(reversed(PITCHES), YAWS):
        at = PITCHES.index(pitch), YAWS.index(yaw)
        failing = [name for name, values in views.measures.items() if not LIMITS[name].keeps(values)[at]]
        trusted = views.cone is not None and views.cone.contains(yaw, pitch)
        cell = cv2.resize(views.pictures[yaw, pitch], (144, 144), interpolation=cv2.INTER_AREA)
        frame = FAILS if failing else TRUSTED if trusted else OUTSIDE
        cell = cv2.rectangle(cell, (1, 1), (142, 142), frame, 1 if trusted else 3)
        for line, name in enumerate(failing):
            _written(cell, name, (6, 138 - 13 * line), FAILS)
        cells.append(_written(cell, f"{yaw:+d},{pitch:+d}", (6, 16), (255, 255, 255)))
    return in_rows(cells, len(YAWS))


def curves(views: Views) -> Image:
    """Each measure along yaw (left) and pitch (right); the cone is shaded, the limit is dashed."""
    cone = views.cone
    level, middle = PITCHES.index(0), YAWS.index(0)
    cells = []
    for name, values in views.measures.items():
        for word, angles, row, ends in (
            ("yaw", YAWS, values[level], cone.yaw if cone else None),
            ("pitch", PITCHES, values[:, middle], cone.pitch if cone else None),
        ):
            cells.append(_curve(f"{name} over {word}: {LIMITS[name].means}", angles, row, LIMITS[name].bound, ends))
    return in_rows(cells, 2)


def _curve(title: str, angles: Sequence[int], values: np.ndarray, bound: float, ends: tuple[float, float] | None) -> Image:
    width, height, left, right, top, bottom = 640, 170, 50, 20, 26, 26
    image = np.full((height, width, 3), 255, np.uint8)
    most = 1.1 * max(np.nanmax(np.append(values, bound)), 1e-6)

    def place(angle: float | int, value: float) -> tuple[int, int]:
        x = left + (angle - angles[0]) / (angles[-1] - angles[0]) * (width - left - right)
        return round(x), round(height - bottom - min(max(value / most, 0.0), 1.0) * (height - top - bottom))

    if ends:
        cv2.rectangle(image, place(ends[0], most), place(ends[1], 0.0), (222, 238, 222), -1)
    x0, y0 = place(angles[0], bound)
    for x in range(x0, place(angles[-1], bound)[0], 10):
        cv2.line(image, (x, y0), (x + 5, y0), (200, 60, 40))
    for angle in angles:
        cv2.line(image, place(angle, 0.0), place(angle, most), (235, 235, 235))
        _written(image, f"{angle:+d}", (place(angle, 0.0)[0] - 12, height - 9), (90, 90, 90))
    _written(image, f"{bound:g}", (6, y0 + 4), (200, 60, 40))
    known = [(angle, value) for angle, value in zip(angles, values.tolist(), strict=True) if math.isfinite(value)]
    cv2.polylines(
        image, [np.array([place(*point) for point in known], np.int32).reshape(-1, 2)], False, (30, 90, 200), 2, cv2.LINE_AA
    )
    return _written(image, title, (left, 16), (40, 40, 40))


def _written(image: Image, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> Image:
    """Write into a picture, and return it."""
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return image
