"""Following one face through a film: 468 landmarks, irises, and the curves read off them.

Landmark indices are those of the 468-point face mesh of `talk3d.frozen`'s model; "left" and "right" below are the
viewer's. Positions are in pixels of the picture, x to the right, y down, the first pixel's centre at (0.5, 0.5).

Source: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019; Ablavatski et
al., "Real-time Pupil Tracking from Monocular Video for Digital Puppetry", 2020.

Letters: F frames.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ..frozen import load_tflite
from ..judges.headnet import SIZE, load_headnet
from .detect import Detection, FaceDetector, apply, invert, warp

LANDMARKS = 468
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
LEFT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
RIGHT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
OUTER_EYE_CORNERS = (33, 263)
UNDER_NOSE = 2

UPPER_LIP, LOWER_LIP = (81, 82, 13, 312, 311), (178, 87, 14, 317, 402)
"""Opposite points of the inner lips, middle ones in the middle."""
UPPER_LIDS, LOWER_LIDS = (10, 11, 12, 13, 14), (2, 3, 4, 5, 6)
"""Opposite points of the 16-point lid contour: 0 and 8 are the eye's outer and inner corner, 0..8 the lower lid."""
EYE_CORNERS = ((33, 133), (362, 263))

MIN_CONFIDENCE = 0.5
"""Below this the landmark network says that it is not looking at a face."""

SAME = 0.85
"""Cosine of HeadNet's embeddings, to the most similar of a person's looks, from which on a face that is found again is taken
for that person's. With a dozen looks a person's own faces reach 0.90 to 1 in each of eight films, those of others 0 to 0.98: it
tells most people apart, and not all. What it lets through is looked at again once takes are known (`takes.find_takes`)."""
STILL_SAME = 0.75
"""The same where the picture jumped, but a face is still in its place: mostly a quick turn."""
EVERY = 25
"""Frames from one look at the person to the next."""
JUMP = 20.0
"""Levels of 255 by which the face's picture changes from one frame to the next, on average, where somebody else may have come
into its place. Moving heads change by 3 to 15, in a quick turn by 25, at a cut by 40 and more."""
GLIMPSE = 8
"""Pixels of the network's input from one to the next that are compared for that."""

FACE_HEIGHT, FACE_MIDDLE = 0.63, 0.58
"""How high a face's landmarks are, and where their middle lies from the top, in the pictures that HeadNet was trained on."""


@dataclass(frozen=True)
class Face:
    """The tracked face of one frame."""

    landmarks: Float[np.ndarray, "468 2"]
    lids: Float[np.ndarray, "2 16 2"]
    """Contours of the viewer's left and right eye, from the network that looks at each eye closely."""
    irises: Float[np.ndarray, "2 2"]
    """Centres of the viewer's left and right iris."""
    confidence: float
    """0..1."""


@dataclass(frozen=True)
class Track:
    """One face over F frames; where it was lost, `confidence` is 0 and positions are NaN."""

    landmarks: Float[np.ndarray, "frames 468 2"]
    lids: Float[np.ndarray, "frames 2 16 2"]
    irises: Float[np.ndarray, "frames 2 2"]
    confidence: Float[np.ndarray, " frames"]

    @property
    def found(self) -> Bool[np.ndarray, " frames"]:
        return self.confidence > 0


class FaceTracker:
    """Call it with one frame after the other; it looks where the face was, and searches again when it is gone.

    Of several faces it takes the largest, and then keeps to the one nearest to where it was. If it is told whom to follow, it
    takes the one who looks most like that person, and none who does not. Who moves without a jump stays the same person: what a
    face looks like changes with every expression, and no embedding is as sure as that.

    Args:
        person: looks of the person to follow, embeddings as `embed` gives them; None to take anyone.

    Raises:
        ModelMissingError: the models are not installed.
    """

    def __init__(self, person: Float[np.ndarray, "looks embedding"] | None = None) -> None:
        self._detect = FaceDetector()
        self._mesh = load_tflite("face_landmark")
        self._iris = load_tflite("iris_landmark"), load_tflite("iris_landmark")
        self._other_eye = ThreadPoolExecutor(1)  # the eyes are looked at side by side
        self._person = person
        self._last: np.ndarray | None = None
        self._home: np.ndarray | None = None
        self._glimpse = np.zeros((0, 0, 3), np.uint8)
        self._count = 0
        self.looks: list[tuple[int, np.ndarray]] = []
        """What the person it is told to follow looked like: which frame, counted from its first one, and the embedding."""

    def __call__(self, image: UInt8[np.ndarray, "height width 3"]) -> Face | None:
        """The face in `image` (RGB), or None."""
        glimpse = self._glimpse
        face = None if self._last is None else self._look(image, _region_of_landmarks(self._last))
        if face is not None and _change(glimpse, self._glimpse) > JUMP and self._likeness(image, face) < STILL_SAME:
            face = None
        if face is None:
            face = self._search(image)
        if face is None:
            self._last = None
        else:
            self._last, self._home = face.landmarks, face.landmarks[1]
            if self._person is not None and self._count % EVERY == 0:
                self.looks.append((self._count, embed(image, face.landmarks)))
        self._count += 1
        return face

    def memory(self) -> dict[str, np.ndarray]:
        """All that it needs to remember, but for its `looks`; `go_on` takes it back."""
        nowhere = np.full((LANDMARKS, 2), np.nan)
        return {
            "face": nowhere if self._last is None else self._last,
            "home": nowhere[0] if self._home is None else self._home,
            "glimpse": self._glimpse,
            "count": np.array([self._count]),
        }

    def go_on(self, memory: Mapping[str, np.ndarray]) -> None:
        """Follow on as the tracker did whose `memory` this was."""
        self._last, self._home = (None if np.isnan(memory[name]).any() else memory[name] for name in ("face", "home"))
        self._glimpse, self._count = memory["glimpse"], int(memory["count"][0])

    def everyone(self, image: UInt8[np.ndarray, "height width 3"]) -> list[Face]:
        """All faces in `image` (RGB), whoever is followed."""
        looks = [self._look(image, _region_of_detection(found.box, found.points)) for found in self._detect(image)]
        return [face for face in looks if face is not None]

    def _search(self, image: np.ndarray) -> Face | None:
        """The face to follow from here on, if it is there."""
        if self._person is not None:
            faces = self.everyone(image)
            likeness = [self._likeness(image, face) for face in faces]
            return faces[int(np.argmax(likeness))] if max(likeness, default=0.0) >= SAME else None
        home = self._home

        def rank(detection: Detection) -> float:
            return -detection.size if home is None else float(np.linalg.norm(detection.points[2] - home))

        for detection in sorted(self._detect(image), key=rank):
            face = self._look(image, _region_of_detection(detection.box, detection.points))
            if face is not None:
                return face
        return None

    def _likeness(self, image: np.ndarray, face: Face) -> float:
        """Cosine to the most similar look of the person who is followed."""
        return 1.0 if self._person is None else float((self._person @ embed(image, face.landmarks)).max())

    def _look(self, image: np.ndarray, region: np.ndarray) -> Face | None:
        side = self._mesh.input_shape[1]
        to_input = side * region
        crop = warp(image, to_input, (side, side))
        self._glimpse = np.ascontiguousarray(crop[::GLIMPSE, ::GLIMPSE])
        outputs = {output.size: output.reshape(-1) for output in self._mesh(crop[None].astype(np.float32) / 255)}
        confidence = float(1 / (1 + np.exp(-outputs[1][0])))
        if confidence < MIN_CONFIDENCE:
            return None
        landmarks = apply(invert(to_input), outputs[3 * LANDMARKS].reshape(LANDMARKS, 3)[:, :2].astype(np.float64))
        other = self._other_eye.submit(self._look_at_eye, image, landmarks, 1)
        eyes = np.stack([self._look_at_eye(image, landmarks, 0), other.result()])
        return Face(landmarks, eyes[:, :16], eyes[:, 16], confidence)

    def _look_at_eye(self, image: np.ndarray, landmarks: np.ndarray, eye: int) -> np.ndarray:
        """Lid contour and iris centre [17, 2] of one eye."""
        inner_to_outer = landmarks[list(EYE_CORNERS[eye])]
        network = self._iris[eye]
        side = network.input_shape[1]
        along = inner_to_outer[1] - inner_to_outer[0]
        to_input = side * _square(inner_to_outer.mean(axis=0), 2.3 * float(np.hypot(*along)), along)
        if eye == 1:  # the network knows one side only, so the other eye is shown to it in a mirror
            to_input = np.array([[-1.0, 0], [0, 1]]) @ to_input + [[0, 0, side], [0, 0, 0]]
        crop = warp(image, to_input, (side, side))
        outputs = {output.size: output.reshape(-1) for output in network(crop[None].astype(np.float32) / 255)}
        points = np.concatenate([outputs[213].reshape(71, 3)[:16, :2], outputs[15].reshape(5, 3)[:1, :2]])
        return apply(invert(to_input), points.astype(np.float64))


def track(frames: Iterable[np.ndarray], person: Float[np.ndarray, "looks embedding"] | None = None) -> Track:
    """Track one face through frames uint8 RGB [H, W, 3], which may be a stream; `person` as for `FaceTracker`."""
    return stack(map(FaceTracker(person), frames))


def stack(faces: Iterable[Face | None]) -> Track:
    """The faces of consecutive frames as one track; None where there was no face."""
    lost = Face(np.full((LANDMARKS, 2), np.nan), np.full((2, 16, 2), np.nan), np.full((2, 2), np.nan), 0.0)
    landmarks, lids, irises, confidence = [], [], [], []
    for found in faces:
        face = found or lost
        landmarks.append(face.landmarks.astype(np.float32))
        lids.append(face.lids.astype(np.float32))
        irises.append(face.irises.astype(np.float32))
        confidence.append(face.confidence)
    return Track(
        np.array(landmarks, np.float32).reshape(-1, LANDMARKS, 2),
        np.array(lids, np.float32).reshape(-1, 2, 16, 2),
        np.array(irises, np.float32).reshape(-1, 2, 2),
        np.array(confidence),
    )


def head_pictures(
    frames: Sequence[UInt8[np.ndarray, "height width 3"]], landmarks: Float[np.ndarray, "frames 468 2"]
) -> Float[Tensor, "frames 3 128 128"]:
    """Heads as HeadNet was trained to see them: upright as the frame is, at one size, beyond the frame its border continued."""
    cut = []
    for frame, points in zip(frames, landmarks.astype(np.float64), strict=True):
        top, bottom = points.min(axis=0), points.max(axis=0)
        scale = SIZE * FACE_HEIGHT / (bottom[1] - top[1])
        middle = (top + bottom) / 2
        corner = middle * scale - SIZE * np.array([0.5, FACE_MIDDLE])
        cut.append(warp(frame, np.array([[scale, 0, -corner[0]], [0, scale, -corner[1]]]), (SIZE, SIZE), replicate=True))
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def embed(frame: UInt8[np.ndarray, "height width 3"], landmarks: Float[np.ndarray, "468 2"]) -> Float[np.ndarray, " embedding"]:
    """Who the face with these landmarks (pixels) is: HeadNet's embedding, a unit vector."""
    return load_headnet()(head_pictures([frame], landmarks[None])).embedding[0].double().numpy()


def interocular(landmarks: Float[np.ndarray, "frames 468 2"]) -> Float[np.ndarray, " frames"]:
    """Distance between the outer eye corners, in the landmarks' unit."""
    first, second = OUTER_EYE_CORNERS
    return np.linalg.norm(landmarks[:, first] - landmarks[:, second], axis=-1)


def lip_gap(landmarks: Float[np.ndarray, "frames 468 2"]) -> Float[np.ndarray, " frames"]:
    """Opening between the inner lips in the landmarks' unit: weighted mean over three opposite pairs."""
    pairs = landmarks[:, list(UPPER_LIP[1:4])] - landmarks[:, list(LOWER_LIP[1:4])]
    return np.linalg.norm(pairs, axis=-1) @ np.array([0.25, 0.5, 0.25])


def lip_opening(landmarks: Float[np.ndarray, "frames 468 2"]) -> Float[np.ndarray, " frames"]:
    """`lip_gap` in distances between the outer eye corners of the same frame."""
    return lip_gap(landmarks) / interocular(landmarks)


def lip_width(landmarks: Float[np.ndarray, "frames 468 2"]) -> Float[np.ndarray, " frames"]:
    """Distance between the inner mouth corners in the landmarks' unit."""
    return np.linalg.norm(landmarks[:, INNER_LIPS[0]] - landmarks[:, INNER_LIPS[10]], axis=-1)


def brow_height(landmarks: Float[np.ndarray, "frames 468 2"]) -> Float[np.ndarray, " frames"]:
    """How far the brows are above the line through the corners of their eyes, mean of both, in the landmarks' unit.

    Corners are what it is measured from because lids blink. It shrinks and grows as a head nods: see `pose.upright_brows`.
    """
    heights = []
    for brow, corners in ((LEFT_BROW, EYE_CORNERS[0]), (RIGHT_BROW, EYE_CORNERS[1])):
        left, right = landmarks[:, corners[0]], landmarks[:, corners[1]]
        along = (right - left) / np.linalg.norm(right - left, axis=-1, keepdims=True)
        away = landmarks[:, list(brow)].mean(axis=1) - left
        heights.append(away[:, 0] * along[:, 1] - away[:, 1] * along[:, 0])
    return np.mean(heights, axis=0)


def eye_opening(lids: Float[np.ndarray, "frames 2 16 2"]) -> Float[np.ndarray, " frames"]:
    """Distance between the lids divided by the eye's width, mean of both eyes.

    The contour network is read, not the mesh: on a face with known blinks the mesh's lids hardly follow them.
    """
    gap = np.linalg.norm(lids[:, :, list(UPPER_LIDS)] - lids[:, :, list(LOWER_LIDS)], axis=-1).mean(axis=-1)
    return (gap / np.linalg.norm(lids[:, :, 0] - lids[:, :, 8], axis=-1)).mean(axis=-1)


def gaze(lids: Float[np.ndarray, "frames 2 16 2"], irises: Float[np.ndarray, "frames 2 2"]) -> Float[np.ndarray, "frames 2"]:
    """Where the irises stand between the eye corners, mean of both eyes, in eye widths along and across the eye line.

    (0, 0) is the middle between the corners, +x the viewer's right, +y down.
    """
    left, right = lids[:, [0, 1], [0, 8]], lids[:, [0, 1], [8, 0]]  # the corners of each eye, [F, 2, 2]
    along, away = right - left, irises - (left + right) / 2
    across = away[..., 1] * along[..., 0] - away[..., 0] * along[..., 1]
    offset = np.stack([(away * along).sum(axis=-1), across], axis=-1) / (along**2).sum(axis=-1, keepdims=True)
    return offset.mean(axis=1)


def _region_of_detection(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    centre, size = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max())
    return _square(centre, 1.5 * size, points[1] - points[0])


def _region_of_landmarks(landmarks: np.ndarray) -> np.ndarray:
    along = landmarks[OUTER_EYE_CORNERS[1]] - landmarks[OUTER_EYE_CORNERS[0]]
    turn = np.array([[along[0], along[1]], [-along[1], along[0]]]) / np.hypot(*along)
    upright = landmarks @ turn.T
    low, high = upright.min(axis=0), upright.max(axis=0)
    return _square(turn.T @ ((low + high) / 2), 1.5 * float((high - low).max()), along)


def _change(before: np.ndarray, now: np.ndarray) -> float:
    """Mean difference of two glimpses, levels of 255; 0 if there was none."""
    return float(np.abs(now.astype(np.int16) - before).mean()) if before.shape == now.shape and now.size else 0.0


def _square(centre: np.ndarray, side: float, along: np.ndarray) -> np.ndarray:
    """Affine map [2, 3] from picture pixels to 0..1 over a square whose x axis runs `along`."""
    x = along / (np.hypot(*along) + 1e-12)
    linear = np.array([[x[0], x[1]], [-x[1], x[0]]]) / side
    return np.column_stack([linear, 0.5 - linear @ centre])
