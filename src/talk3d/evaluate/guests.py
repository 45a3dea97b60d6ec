"""Judges of others, which speak under their own names and only where they are installed; nothing ever stands in for them.

FLIP and dlib's face embedding are packages (extras `eval` and `identity`). LPIPS, ArcFace, Inception (for the FID) and SyncNet
are weights that talk3d may not ship; `judges/foreign.py` says where they come from. A 68-point landmark distance needs a
shape predictor of the user's.

Letters: B frames looked at together.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8

from ..capture.detect import warp
from ..capture.track import EYE_CORNERS
from ..errors import ConfigError, ModelMissingError
from ..judges import foreign
from ..judges.frechet import FeatureStatistics, frechet_distance
from ..judges.inception import FEATURES, InceptionFid, load_inception
from ..judges.syncnet import PER_FRAME, SIDE, SyncDistances, SyncNet, cepstra, load_syncnet
from .align import similarity
from .follow import MOUTH_CORNERS, NOSE_TIP
from .lips import Score

MOST = 100
"""Frames that a slow judge looks at, evenly spread."""
ARCFACE_SIDE = 112
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)
"""Where ArcFace's pictures have eyes, nose and mouth corners, pixels; in the face mesh, an eye is between its corners."""
DLIB_POINTS = (263, 362, 33, 133, 2)
"""Of the face mesh: dlib's five, outer and inner corners of the eye at the right, of that at the left, below the nose."""
MOUTH_68 = slice(48, 68)
PIECE = 1500
"""Frames of sound that are heard at a time."""
SYNCNET_BOX, SYNCNET_REACH = 1.15, 0.4
"""A face detector's box in heights of the landmarks', and how far SyncNet's pictures reach beyond it."""

Hear = Callable[[int, int], Float[np.ndarray, " samples"]]
"""A film's sound in a half-open range of frames."""


@dataclass(frozen=True)
class Look:
    """Frames that a judge is shown."""

    frames: UInt8[np.ndarray, "batch height width 3"]
    truth: UInt8[np.ndarray, "batch height width 3"]
    landmarks: Float[np.ndarray, "batch 468 2"]
    """Pixels, NaN without a face."""
    true_landmarks: Float[np.ndarray, "batch 468 2"]


@runtime_checkable
class Guest(Protocol):
    """A judge of one film. It is shown frames in their order, some or all of them, and then asked."""

    every: int
    """It is shown each frame whose number this divides."""

    def look(self, shown: Look) -> None:
        """See some more frames."""

    def scores(self) -> dict[str, Score]:
        """What it has to say, by name of the measure."""


Invitation = Callable[[Hear | None], list[Guest]]
"""Fresh judges for a film with this sound, or without."""


class Framewise:
    """A judge with one opinion a frame, and their mean."""

    def __init__(self, name: str, every: int, judge: Callable[[Look], Sequence[float] | np.ndarray]):
        self.name, self.every, self._judge = name, every, judge
        self._values: list[float] = []

    def look(self, shown: Look) -> None:
        """See some more frames."""
        self._values.extend(float(value) for value in self._judge(shown))

    def scores(self) -> dict[str, Score]:
        """The mean over frames in which it saw what it needs."""
        known = np.array(self._values)[np.isfinite(self._values)]
        return {self.name: Score(float(known.mean()) if len(known) else None, len(known))}


class Fid:
    """The Frechet inception distance of a film's frames to the true ones (Heusel et al., 2017)."""

    every = 1

    def __init__(self, network: InceptionFid) -> None:
        self._network = network
        self._mine, self._true = FeatureStatistics(FEATURES), FeatureStatistics(FEATURES)

    def look(self, shown: Look) -> None:
        """See some more frames."""
        for statistics, frames in ((self._mine, shown.frames), (self._true, shown.truth)):
            statistics.add(self._network(_tensor(frames)))

    def scores(self) -> dict[str, Score]:
        """The distance; few frames make it large."""
        return {"fid": Score(frechet_distance(self._mine, self._true), self._mine.count)}


class SyncNetGuest:
    """LSE-C and LSE-D of SyncNet, on faces that our tracker cuts out."""

    every = 1

    def __init__(self, sound: Hear, count: int, network: SyncNet) -> None:
        # A minute at a time, with a frame more, as a column reaches beyond its place. An hour's are twenty megabytes.
        pieces = [(first, min(first + PIECE, count)) for first in range(0, count, PIECE)]
        columns = [cepstra(sound(first, last + 1))[:, : PER_FRAME * (last - first)] for first, last in pieces]
        self._distances = SyncDistances(torch.cat(columns, 1), network)

    def look(self, shown: Look) -> None:
        """See some more frames."""
        for frame, landmarks in zip(shown.frames, shown.landmarks, strict=True):
            self._distances.add(for_syncnet(frame, landmarks) if np.isfinite(landmarks).all() else None)

    def scores(self) -> dict[str, Score]:
        """The least distance, and by how much it is below the median."""
        curve, count = self._distances.curve, self._distances.count
        if curve is None:
            return {"lse_d": Score(None, 0), "lse_c": Score(None, 0)}
        return {"lse_d": Score(float(curve.min()), count), "lse_c": Score(float(curve.median() - curve.min()), count)}


def invite(count: int, predictor: Path | None = None) -> tuple[Invitation, list[str]]:
    """All judges of others that are here: a function that gives fresh ones for each film, and what is missing, for people.

    Args:
        count: frames of the films.
        predictor: a dlib shape predictor with 68 points.

    Raises:
        ConfigError: the predictor cannot be used.
    """
    every = max(1, -(-count // MOST))
    makers: list[Callable[[Hear | None], Guest | None]] = []
    missing: list[str] = []

    def try_to(what: str, make: Callable[[], Callable[[Hear | None], Guest | None]]) -> None:
        try:
            makers.append(make())
        except ModelMissingError as error:
            missing.append(f"{what} was not measured. {error}")

    def framewise(name: str, judge: Callable[[Look], Any], every: int = every) -> Callable[[Hear | None], Guest]:
        return lambda sound: Framewise(name, every, judge)

    def fid() -> Callable[[Hear | None], Guest]:
        network = load_inception()
        return lambda sound: Fid(network)

    def syncnet() -> Callable[[Hear | None], Guest | None]:
        network = load_syncnet()
        return lambda sound: None if sound is None else SyncNetGuest(sound, count, network)

    try_to("FLIP", lambda: framewise("flip", flip()))
    try_to("LPIPS", lambda: framewise("lpips", lpips(), 1))
    try_to("FID", fid)
    try_to("SyncNet's LSE", syncnet)
    try_to("ArcFace's identity", lambda: framewise("arcface_identity", arcface()))
    try_to("dlib's identity", lambda: framewise("dlib_distance", dlib_identity()))
    if predictor is not None:
        makers.append(framewise("mouth_distance_68", mouth_distance_68(predictor), 1))
    else:
        missing.append(
            "The landmark distance of 68 points was not measured: talk3d has no such detector. Give yours, a dlib file, with "
            "`--shape-predictor FILE.dat`."
        )
    return lambda sound: [guest for make in makers if (guest := make(sound)) is not None], missing


def flip() -> Callable[[Look], list[float]]:
    """FLIP (Andersson et al., "FLIP: A Difference Evaluator for Alternating Images", 2020), 0 for equal pictures, at most 1.

    Raises:
        ModelMissingError: the package is not installed.
    """
    package = _package("flip_evaluator", "eval")

    def judge(shown: Look) -> list[float]:
        pairs = zip(shown.truth, shown.frames, strict=True)
        return [package.evaluate(*(x.astype(np.float32) / 255 for x in pair), "LDR", applyMagma=False)[1] for pair in pairs]

    return judge


def lpips() -> Callable[[Look], np.ndarray]:
    """LPIPS on AlexNet, whole pictures.

    Raises:
        ModelMissingError: its weights are not installed.
    """
    network = foreign.load_lpips_alex()
    return lambda shown: network(_tensor(shown.frames) * 2 - 1, _tensor(shown.truth) * 2 - 1).numpy()


def arcface() -> Callable[[Look], np.ndarray]:
    """ArcFace's cosine of the two persons.

    Raises:
        ModelMissingError: its weights are not installed.
    """
    network = foreign.load_arcface()

    def judge(shown: Look) -> np.ndarray:
        cosines = np.full(len(shown.frames), np.nan)
        both = np.flatnonzero(np.isfinite(shown.landmarks).all((1, 2)) & np.isfinite(shown.true_landmarks).all((1, 2)))
        if len(both):
            sides = ((shown.frames, shown.landmarks), (shown.truth, shown.true_landmarks))
            mine, true = (network(_tensor(np.stack([for_arcface(f[i], p[i]) for i in both])) * 2 - 1) for f, p in sides)
            cosines[both] = (mine * true).sum(1).numpy()
        return cosines

    return judge


def for_arcface(
    frame: UInt8[np.ndarray, "height width 3"], landmarks: Float[np.ndarray, "468 2"]
) -> UInt8[np.ndarray, "112 112 3"]:
    """A face upright and cut out as ArcFace was trained to see it."""
    points = np.array(
        [*(landmarks[list(eye)].mean(0) for eye in EYE_CORNERS), landmarks[NOSE_TIP], *landmarks[list(MOUTH_CORNERS)]],
        np.float64,
    )
    return warp(frame, similarity(points, ARCFACE_POINTS), (ARCFACE_SIDE, ARCFACE_SIDE))


def for_syncnet(
    frame: UInt8[np.ndarray, "height width 3"], landmarks: Float[np.ndarray, "468 2"]
) -> UInt8[np.ndarray, "224 224 3"]:
    """A face cut out about as SyncNet's own detector would: a square, a fifth of the box's side more to the left and right and
    two fifths more below; grey beyond the frame."""
    low, high = landmarks.min(0).astype(np.float64), landmarks.max(0).astype(np.float64)
    half = SYNCNET_BOX * (high[1] - low[1]) / 2
    centre = np.array([(low[0] + high[0]) / 2, high[1] - half])
    corner = centre - half * np.array([1 + SYNCNET_REACH, 1])
    scale = SIDE / (2 * half * (1 + SYNCNET_REACH))
    matrix = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    inside = warp(np.full(frame.shape[:2], 255, np.uint8), matrix, (SIDE, SIDE))
    return np.where(inside[..., None] > 0, warp(frame, matrix, (SIDE, SIDE)), np.uint8(110))


def dlib_identity() -> Callable[[Look], list[float]]:
    """Distance of dlib's face embeddings, aligned by five of our landmarks; above 0.6 it takes two faces for two persons.

    Raises:
        ModelMissingError: the packages are not installed.
    """
    dlib = _package("dlib", "identity")
    models = importlib.util.find_spec("face_recognition_models")
    if models is None or not models.submodule_search_locations:
        raise _not_installed("face_recognition_models", "identity")
    # Found beside the package and not through it: importing it needs a module that setuptools has dropped.
    path = Path(models.submodule_search_locations[0]) / "models" / "dlib_face_recognition_resnet_model_v1.dat"
    network = dlib.face_recognition_model_v1(str(path))

    def embedding(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
        low, high = points.min(0).astype(int), points.max(0).astype(int)
        box = dlib.rectangle(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        five = [dlib.point(round(float(x)), round(float(y))) for x, y in points[list(DLIB_POINTS)]]
        return np.array(network.compute_face_descriptor(np.ascontiguousarray(frame), dlib.full_object_detection(box, five)))

    def judge(shown: Look) -> list[float]:
        values = []
        for frame, truth, mine, true in zip(shown.frames, shown.truth, shown.landmarks, shown.true_landmarks, strict=True):
            known = np.isfinite(mine).all() and np.isfinite(true).all()
            values.append(float(np.linalg.norm(embedding(frame, mine) - embedding(truth, true))) if known else float("nan"))
        return values

    return judge


def mouth_distance_68(path: Path) -> Callable[[Look], list[float]]:
    """The landmark distance as published: points 48 to 67 of 68, centred, mean distance in pixels of the true picture.

    Raises:
        ConfigError: there is no such file, it is no shape predictor, or it has not 68 points.
    """
    try:
        dlib = _package("dlib", "identity")
        predictor = dlib.shape_predictor(str(path))
    except (RuntimeError, ModelMissingError) as error:
        raise ConfigError(
            f"`{path}` cannot be used as a shape predictor ({error}). Give a dlib file with 68 points, such as "
            "shape_predictor_68_face_landmarks.dat; mind its licence."
        ) from error

    def points(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        (left, top), (right, bottom) = landmarks.min(0), landmarks.max(0)
        # dlib's boxes are square and end above the brows.
        top += 0.15 * (bottom - top)
        half, middle = (bottom - top) / 2, (left + right) / 2
        box = dlib.rectangle(*(round(float(x)) for x in (middle - half, top, middle + half, bottom)))
        found = predictor(np.ascontiguousarray(frame), box)
        if found.num_parts != 68:
            raise ConfigError(f"`{path}` finds {found.num_parts} points; 68 are needed.")
        return np.array([[found.part(i).x, found.part(i).y] for i in range(68)], np.float64)[MOUTH_68]

    def judge(shown: Look) -> list[float]:
        values = []
        for frame, truth, mine, true in zip(shown.frames, shown.truth, shown.landmarks, shown.true_landmarks, strict=True):
            if np.isfinite(mine).all() and np.isfinite(true).all():
                a, b = points(frame, mine), points(truth, true)
                values.append(float(np.linalg.norm(a - a.mean(0) - b + b.mean(0), axis=1).mean()))
            else:
                values.append(float("nan"))
        return values

    return judge


def _tensor(frames: UInt8[np.ndarray, "batch height width 3"]) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise _not_installed(name, extra) from None


def _not_installed(name: str, extra: str) -> ModelMissingError:
    return ModelMissingError(f"The package `{name}` is not installed. Install it with `pip install 'talk3d[{extra}]'`.")
