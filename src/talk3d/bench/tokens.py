"""What does each token of an avatar do? One thing that it is told is exchanged, all others stay, and what moves is measured.

Sound should move the lips and nothing else, a blink the eyes and nothing else, and nothing the background. The avatar draws
frames that it was not trained on as they were filmed, and the same again with exactly one condition of other frames. The
tracker follows the face in both; what moves is told in percent of how far it moves in the first film by itself. Two more films
say how much of that is the tracker's own doing: one with a little noise, and one in which the measured region was pasted back.

Where shapes say it: `batch` frames are drawn at once, `windows` of sound lie around each.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from .. import __version__
from ..capture.artifact import Capture
from ..capture.track import (
    FACE_OVAL,
    LEFT_EYE,
    OUTER_LIPS,
    RIGHT_EYE,
    Face,
    FaceTracker,
    Track,
    eye_opening,
    interocular,
    lip_opening,
    stack,
)
from ..errors import ConfigError, NoFaceError
from ..evaluate.follow import RIGID
from ..judges.sync import lips_in_face
from ..pages import bullets, document, jpeg, text
from ..partials import refuse_existing, write_whole, writing_folder
from ..pictures import Image, in_rows, write_png
from ..talker.audio import silent_window
from ..talker.clip import audio_neighbourhood, capture_windows
from ..talker.speak import BATCH, Speaker
from .attention import Attention, attend, attention_sheet, plane_names
from .exchange import EXCHANGES, Drive, Exchange, Ways, ways

FEWEST = 8
"""Frames that ranges and percentiles can be read off at least."""
SHOWN = 6
"""Frames in the contact sheet."""
CELL = 160
"""Their side there, pixels."""
FILMED = "as filmed"


@dataclass(frozen=True)
class Feature:
    """Something in the face whose motion is measured."""

    title: str
    unit: str
    """Of its range."""
    read: Callable[[Track], Float[np.ndarray, "frames points numbers"]]
    region: tuple[tuple[int, ...], ...] | None
    """Landmarks around the parts of the picture in which it is seen; None if that is all of the face."""


FEATURES = {
    "mouth": Feature("lip opening", "eye distances", lambda t: lip_opening(_double(t.landmarks))[:, None, None], (OUTER_LIPS,)),
    "lips": Feature(
        "40 lip points", "face sizes", lambda t: lips_in_face(_double(t.landmarks)).reshape(-1, 40, 2), (OUTER_LIPS,)
    ),
    "eyes": Feature("eye opening", "eye widths", lambda t: eye_opening(_double(t.lids))[:, None, None], (LEFT_EYE, RIGHT_EYE)),
    "pose": Feature("pose: eye corners and nose", "px", lambda t: _double(t.landmarks)[:, list(RIGID)], (RIGID,)),
    "contour": Feature("contour with the chin", "px", lambda t: _double(t.landmarks)[:, list(FACE_OVAL)], None),
}
"""Lip points as the face sees them, pose and contour in the picture. Sound may move the contour: the chin follows the jaw."""


@dataclass(frozen=True)
class Target:
    """What an avatar should keep."""

    exchange: str
    feature: str
    """Of `FEATURES`, or `background`."""
    bound: float
    """The most that may move on average, percent of its own range; of the background, levels of 255 where alpha is 0."""


TARGETS = (
    Target("sound", "eyes", 5.0),
    Target("sound", "pose", 5.0),
    *(Target(blink, lips, 5.0) for blink in ("blink", "blink inverted") for lips in ("mouth", "lips")),
    Target("rotation", "background", 0.0),
)


@dataclass(frozen=True)
class Drawn:
    """Frames of an avatar."""

    rgb: UInt8[np.ndarray, "batch size size 3"]
    alpha: Float[np.ndarray, "batch size size"] | None
    """0..1, how much is the person; None if its pictures have no alpha."""


Draw = Callable[[Drive], Drawn]


def drawing(speaker: Speaker) -> Draw:
    """Frames as `speak` draws them from the source camera, with their alpha."""

    @torch.inference_mode()
    def draw(drive: Drive) -> Drawn:
        motion = drive.motion
        picture = speaker.look(speaker.move(drive.heard, motion), motion.yaw, motion.pitch)
        alpha = ((picture.image[:, 3] + 1) / 2).clamp(0, 1).numpy() if speaker.plate is not None else None
        return Drawn(speaker.finish(picture, motion), alpha)

    return draw


# -------------------------------------------------------------------------------------------------------- what moves


@dataclass(frozen=True)
class Moved:
    """How far a feature moves between two films of the same frames, percent of its own range; NaN if that is unknown."""

    mean: float
    p95: float
    """95th percentile over the frames."""
    noise: float
    """The mean that the tracker makes of a level of noise."""
    tracker: float
    """The mean that it makes of everything but the feature: the feature's pixels are those of the first film. NaN for what is
    all over the face."""


@dataclass(frozen=True)
class Background:
    """How much of what is not the person changes between two films."""

    levels: float
    """Mean absolute difference where alpha is below one half in both, 0..255; NaN if that is nowhere."""
    worst: float
    """The greatest difference of a pixel where alpha is 0 in both, 0..255; NaN if that is nowhere."""
    clear: float
    """The part of all pixels in which it is 0 in both."""


@dataclass(frozen=True)
class Effect:
    """What one exchange does."""

    told: bool
    """Whether it changes what the avatar is told; if not, nothing is learnt."""
    moved: dict[str, Moved]
    """By the names of `FEATURES`."""
    background: Background | None
    """None if there is no alpha."""
    faces: int
    """Frames in which both films have a face."""

    def value(self, feature: str) -> float:
        """What a target of this feature bounds."""
        if feature == "background":
            return math.nan if self.background is None else self.background.worst
        return self.moved[feature].mean


@dataclass(frozen=True)
class Measured:
    """What all exchanges do."""

    effects: dict[str, Effect]
    """By the names of `EXCHANGES`, without those of tokens that the avatar has not."""
    ranges: dict[str, float]
    """How far each feature moves by itself, from the 5th to the 95th percentile, in its unit."""
    pictures: dict[str, list[Image]]
    """Of `SHOWN` frames: `as filmed`, and by the names of the exchanges."""
    widest: int
    """Number of the frame with the widest mouth."""

    def kept(self, target: Target) -> bool | None:
        """Whether a target is kept; None if that could not be measured."""
        effect = self.effects.get(target.exchange)
        value = effect.value(target.feature) if effect is not None and effect.told else math.nan
        return value <= target.bound if math.isfinite(value) else None


def measure(draw: Draw, drive: Drive, exchanges: Mapping[str, Exchange], progress: Callable[[float], None]) -> Measured:
    """Draw all films, a few frames at a time, and follow the face through them.

    The tracker looks where the face was a frame before, and so remembers: a mouth that opens wider would shift how it sees the
    eyes of the next frame. Here it looks at each frame of every film as it does after having seen that frame of the first one.

    Raises:
        NoFaceError: there is no face in the film as it was filmed.
        ModelMissingError: the tracker's models are not installed.
    """
    told = {name: exchange.of(drive) for name, exchange in exchanges.items()}
    faces: dict[tuple[str, str], list[Face | None]] = {}
    differences: dict[str, list[list[float]]] = {name: [] for name in exchanges}
    shown = np.unique(np.linspace(0, len(drive) - 1, SHOWN).round()).astype(int).tolist()
    pictures: dict[str, list[Image]] = {name: [] for name in (FILMED, *exchanges)}
    regions = {feature: about.region for feature, about in FEATURES.items() if about.region is not None}
    tracker = FaceTracker()
    for index in torch.arange(len(drive)).split(BATCH):
        own = draw(drive[index])
        others = {name: draw(told[name][index]) for name in exchanges}
        for place, number in enumerate(index.tolist()):
            frame = own.rgb[place]
            first = tracker(frame)
            films = {(FILMED, ""): frame, ("noise", ""): _noisy(frame, number)}
            for name, other in others.items():
                picture = films[name, ""] = other.rgb[place]
                for feature, region in regions.items():
                    films[name, feature] = picture if first is None else pasted(frame, picture, first.landmarks, region)
                differences[name].append(_differences(own, other, place))
            for key, picture in films.items():
                faces.setdefault(key, []).append(copy.copy(tracker)(picture))
                if number in shown and key[0] in pictures and key[1] == "":
                    pictures[key[0]].append(picture)
        progress(float(index[-1] + 1) / len(drive))
    tracks = {key: stack(found) for key, found in faces.items()}
    filmed, noise = tracks[FILMED, ""], tracks["noise", ""]
    if not filmed.found.any():
        raise NoFaceError("The tracker finds no face in what the avatar draws, so nothing that moves there can be measured.")
    effects = {}
    for name in exchanges:
        moved = {}
        for feature, about in FEATURES.items():
            own_points = about.read(filmed)
            mean, p95 = moves(own_points, about.read(tracks[name, ""]))
            alone = moves(own_points, about.read(noise))[0]
            around = moves(own_points, about.read(tracks[name, feature]))[0] if feature in regions else math.nan
            moved[feature] = Moved(mean, p95, alone, around)
        both = int((filmed.found & tracks[name, ""].found).sum())
        effects[name] = Effect(not drive.told_as(told[name]), moved, _background(differences[name]), both)
    ranges = {feature: own_range(about.read(filmed)) for feature, about in FEATURES.items()}
    return Measured(effects, ranges, pictures, int(np.nanargmax(lip_opening(_double(filmed.landmarks)))))


def own_range(values: Float[np.ndarray, "frames points numbers"]) -> float:
    """How far points move: the diagonal from their 5th to their 95th percentiles, mean over points.

    Frames with NaN are left out; NaN if there are no others.
    """
    known = values[np.isfinite(values).all((1, 2))]
    if not len(known):
        return math.nan
    low, high = np.percentile(known, [5, 95], axis=0)
    return float(np.linalg.norm(high - low, axis=-1).mean())


def moves(
    own: Float[np.ndarray, "frames points numbers"], other: Float[np.ndarray, "frames points numbers"]
) -> tuple[float, float]:
    """Mean and 95th percentile, over frames, of the mean distance between the points of both; percent of the first one's range.

    NaN if they are nowhere both known, or the first one never moves.
    """
    away, unit = np.linalg.norm(other - own, axis=-1).mean(1), own_range(own)
    away = away[np.isfinite(away)]
    if not len(away) or not unit > 0:
        return math.nan, math.nan
    return float(100 * away.mean() / unit), float(100 * np.percentile(away, 95) / unit)


def pasted(
    frame: UInt8[np.ndarray, "size size 3"],
    other: UInt8[np.ndarray, "size size 3"],
    landmarks: Float[np.ndarray, "468 2"],
    region: tuple[tuple[int, ...], ...],
) -> UInt8[np.ndarray, "size size 3"]:
    """The other frame with regions of this one: the hulls of some landmarks and a fringe of an eighth of the eyes' distance."""
    mask = np.zeros(frame.shape[:2], np.uint8)
    for points in region:
        cv2.fillConvexPoly(mask, cv2.convexHull((landmarks[list(points)] - 0.5).round().astype(np.int32)), 1)
    reach = 2 * max(1, round(float(interocular(landmarks[None])[0]) / 8)) + 1
    kept = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) > 0
    return np.where(kept[..., None], frame, other)


def _noisy(frame: np.ndarray, number: int) -> np.ndarray:
    """One level up, down or none, at random for each value."""
    noise = np.random.default_rng(number).integers(-1, 2, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def _differences(own: Drawn, other: Drawn, place: int) -> list[float]:
    """Of one frame: the sum of differences outside the person and how many pixels that are, the greatest where alpha is 0 and
    the part of the pixels where it is; nothing if there is no alpha."""
    if own.alpha is None or other.alpha is None:
        return []
    differs = np.abs(own.rgb[place].astype(np.float64) - other.rgb[place])  # [S, S, 3]
    most = np.maximum(own.alpha[place], other.alpha[place])
    outside, clear = most < 0.5, most == 0
    found = differs.mean(-1)[outside].sum(), outside.sum(), differs[clear].max(initial=0.0), clear.mean()
    return [float(number) for number in found]


def _background(frames: list[list[float]]) -> Background | None:
    """From the differences of all frames."""
    if not frames[0]:
        return None
    total, pixels, worst, clear = np.array(frames).T
    return Background(
        float(total.sum() / pixels.sum()) if pixels.any() else math.nan,
        float(worst.max()) if clear.any() else math.nan,
        float(clear.mean()),
    )


def _double(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)


# ------------------------------------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class Report:
    """What `bench_tokens` finds out."""

    measured: Measured
    ways: dict[str, Ways]
    """By the names of the exchanges."""
    attention: Attention
    missing: list[str]
    """What was not measured, and why."""
    facts: dict[str, str]
    """What was measured, on what."""


def bench_tokens(
    avatar: Path, truth: Path, output: Path, frames: int, overwrite: bool, progress: Callable[[str, float], None]
) -> Report:
    """Measure what each token of an avatar does, and report.

    Args:
        avatar: the avatar file.
        truth: folder of the Capture it was trained on; frames of its test part are drawn.
        output: folder for `report.html`, `report.json`, `attention.png` and `sheet.png`.
        frames: how many frames are drawn, evenly spread over the test part; all if it has fewer.
        overwrite: replace an existing report.
        progress: called with a stage's name and the part of it that is done, 0..1.

    Raises:
        OutputExistsError: `output` exists, and is not to be replaced or is no such report.
        ArtifactError: `avatar` or `truth` is no such thing, or they do not belong together.
        ConfigError: the avatar was imported, or there are too few frames.
        ModelMissingError: the tracker's models are not installed.
        NoFaceError: the tracker finds no face in what the avatar draws.
    """
    refuse_existing(output, overwrite)
    if output.exists() and not (output / "attention.png").is_file():
        refuse_existing(output, False)
    speaker, capture = Speaker(avatar), Capture.open(truth)
    start, stop = capture.test
    motion = speaker.motion_of(capture, start, stop)
    speaker.artifact.require_parent(capture)
    if min(frames, stop - start) < FEWEST:
        raise ConfigError(
            f"{frames} frames were asked for and the test part has {stop - start}; ranges need {FEWEST} at least. "
            + ("Ask for more." if frames < FEWEST else "Prepare a longer film.")
        )
    FaceTracker()  # whose models may be missing: better to hear of it now
    index = torch.from_numpy(np.unique(np.linspace(0, stop - start - 1, min(frames, stop - start)).round()).astype(np.int64))
    progress("listening", 0.0)
    windows = capture_windows(capture, capture.train, speaker.audio)  # as loud as in training
    around = speaker.network.config.tokens.windows
    drive = Drive(audio_neighbourhood(windows, start + index, around, silent_window(speaker.audio)), motion[index])
    tokens = speaker.network.config.tokens.tokens
    # Sound and blinks also play the expressions, whether there are tokens of them or not.
    exchanges = {n: e for n, e in EXCHANGES.items() if e.token in tokens or e.token in ("audio", "blink")}
    measured = measure(drawing(speaker), drive, exchanges, lambda part: progress("drawing", part))
    through = ways(speaker, drive, exchanges, lambda part: progress("ways", part))
    chosen = [("mouth at its widest", measured.widest, None), ("eyes told to close", int(drive.motion.blink.argmax()), 1.0)]
    attention = attend(speaker, drive.heard, drive.motion, chosen, lambda part: progress("attention", part))
    report = Report(
        measured,
        through,
        attention,
        _missing(measured, drive, [name for name in EXCHANGES if name not in exchanges]),
        {
            "Avatar": f"{avatar.name}, {speaker.artifact.hash[:12]}",
            "Capture": f"{truth.name}, {capture.hash[:12]}",
            "Frames": f"{len(index)} of {start} to {stop - 1}, which it was not trained on",
            "talk3d": __version__,
        },
    )
    with writing_folder(output) as folder:
        write_whole(folder / "report.json", json.dumps(as_json(report), indent=1).encode())
        maps, sheet = attention_sheet(attention), contact_sheet(measured)
        write_png(folder / "attention.png", maps)
        write_png(folder / "sheet.png", sheet)
        write_whole(folder / "report.html", as_html(report, jpeg(maps), jpeg(sheet)).encode())
    return report


def _missing(measured: Measured, drive: Drive, without: list[str]) -> list[str]:
    lines = [f"{EXCHANGES[name].title}: the avatar has no such token" for name in without]
    for name, effect in measured.effects.items():
        if not effect.told:
            lines.append(f"{EXCHANGES[name].title}: it is the same in all frames, so nothing was exchanged")
        if effect.faces < len(drive):
            lines.append(f"{EXCHANGES[name].title}: {len(drive) - effect.faces} of {len(drive)} frames, as no face was found")
        if effect.background is None:
            lines.append(f"{EXCHANGES[name].title}: the background, as the avatar's pictures carry no alpha")
    return lines


def as_json(report: Report) -> dict[str, Any]:
    """All numbers; what could not be measured is null."""
    measured, attention = report.measured, report.attention
    planes = plane_names(attention.axes)
    shares = {
        name: dict(zip(planes, attention.planes[i].mean((1, 2)).round(4).tolist(), strict=True))
        for i, name in enumerate(attention.tokens)
    }
    return _known(
        {
            "effects": {name: asdict(effect) for name, effect in measured.effects.items()},
            "ways": {name: asdict(way) for name, way in report.ways.items()},
            "ranges": measured.ranges,
            "targets": [asdict(target) | {"kept": measured.kept(target)} for target in TARGETS],
            "attention": shares,
            "missing": report.missing,
            "facts": report.facts,
        }
    )


def _known(value: Any) -> Any:
    """The same for JSON, which has no NaN, with four digits."""
    if isinstance(value, dict):
        return {name: _known(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_known(one) for one in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


MARKS = {True: "✓", False: "✗", None: "–"}
"""Of a target: kept, missed, not measured."""


def _mark(measured: Measured, exchange: str, feature: str) -> str:
    marks = [measured.kept(target) for target in TARGETS if (target.exchange, target.feature) == (exchange, feature)]
    return MARKS[marks[0]] if marks else ""


def _number(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def table(report: Report) -> str:
    """The numbers as plain text."""
    measured = report.measured
    lines = [f"{'% of its own range':20}" + "".join(f"{name:>12}" for name in (*FEATURES, "background"))]
    for name, effect in measured.effects.items():
        cells = [f"{_number(effect.moved[feature].mean)} {_mark(measured, name, feature):1}" for feature in FEATURES]
        levels = math.nan if effect.background is None else effect.background.levels
        cells.append(f"{_number(levels, 2)} {_mark(measured, name, 'background'):1}")
        lines.append(f"{name:20}" + "".join(f"{cell:>12}" for cell in cells))
        for words, read in (("95th percentile", lambda m: m.p95), ("of the tracker", _of_the_tracker)):
            lines.append(f"  {words:18}" + "".join(f"{_number(read(effect.moved[feature])):>10}  " for feature in FEATURES))
    ranges = "".join(f"{measured.ranges[feature]:>10.3g}  " for feature in FEATURES)
    lines.append(f"{'its own range':20}" + ranges + ", ".join(feature.unit for feature in FEATURES.values()))
    lines.append("Means over frames; the background in levels of 255.")
    lines += [f"{name:20}{words}" for name, words in _ways(report)]
    lines.append("A mark shows whether a target is kept:")
    return "\n".join([*lines, *_targets(measured), *report.missing])


def _ways(report: Report) -> list[tuple[str, str]]:
    """Each exchange and its ways in words."""
    return [
        (name, f"{way.unet:.2f} levels through the U-Net, {way.expressions:.2f} through expressions")
        for name, way in report.ways.items()
    ]


def _of_the_tracker(moved: Moved) -> float:
    """The greater of the tracker's two own doings."""
    return float(np.fmax(moved.noise, moved.tracker))


def as_html(report: Report, attention: str, sheet: str) -> str:
    """The report as a page.

    Args:
        report: the numbers.
        attention: source of the picture that `attention_sheet` draws.
        sheet: source of what `contact_sheet` draws.
    """
    measured = report.measured
    head = "".join(f"<th>{text(feature.title)} <small>%</small></th>" for feature in FEATURES.values())
    rows = [f"<tr><th>exchanged</th>{head}<th>background <small>levels</small></th></tr>"]
    for name, effect in measured.effects.items():
        cells = []
        for feature in FEATURES:
            moved = effect.moved[feature]
            own = f"noise {_number(moved.noise)}" + (f", tracker {_number(moved.tracker)}" if FEATURES[feature].region else "")
            about = f"<small>p95 {_number(moved.p95)}<br>{own}</small>"
            cells.append(f"<td>{_number(moved.mean)} {_mark(measured, name, feature)}<br>{about}</td>")
        if effect.background is None:
            cells.append("<td>–</td>")
        else:
            worst, clear = _number(effect.background.worst), f"{100 * effect.background.clear:.0f} %"
            cells.append(
                f"<td>{effect.background.levels:.2f} {_mark(measured, name, 'background')}<br>"
                f"<small>at most {worst} in the<br>{clear} without alpha</small></td>"
            )
        rows.append(f"<tr><th>{text(EXCHANGES[name].title)}</th>{''.join(cells)}</tr>")
    ranges = "".join(f"<td>{measured.ranges[name]:.3g} {text(feature.unit)}</td>" for name, feature in FEATURES.items())
    rows.append(f"<tr><th>its own range, as filmed</th>{ranges}<td></td></tr>")
    figure = "<figure><img src='{}' alt=''><figcaption>{}</figcaption></figure>"
    facts = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in report.facts.items())
    return document(
        "What each token does",
        f"""<p>One condition is exchanged and all others stay. What moves is measured by tracking the face, in percent of how
far the same moves in the film as it was filmed (5th to 95th percentile): the mean over the frames, and their 95th percentile.
Below stands what the tracker makes of it without the avatar's doing: “noise” of one grey level, and “tracker” where all but the
measured region was exchanged. What a mean has beyond these is the avatar's.</p>
<table>{"".join(rows)}</table>
<h2>Ways</h2><p>Sound and blinks reach the planes through the tokens of the attention U-Net, and by playing the prior's
expressions. How much does the person's picture change if only one of both is told of the exchange?</p>
{bullets([f"{EXCHANGES[name].title}: {words}" for name, words in _ways(report)], "ways")}
<h2>Targets</h2><p>Of the means, with what the tracker adds to them.</p>{bullets(_targets(measured), "targets")}
{"<h3>Not measured</h3>" + bullets(report.missing, "missing") if report.missing else ""}
<h2>As filmed and exchanged</h2>
{figure.format(sheet, "Below each exchange: where it differs from the first row, four times enlarged.")}
<h2>Attention</h2><p>How the attention of the planes' positions is shared out among the tokens, mean over heads, blocks and
frames. Over the face, each pixel shows the mean of the planes at its point of the surface. Each row has its own
scales, from the 1st to the 99th percentile.</p>
{figure.format(attention, "What is bright attends to the row's token.")}
<h2>How it was made</h2><dl>{facts}</dl>""",
    )


def _targets(measured: Measured) -> list[str]:
    """Each target in words, with what was measured."""
    lines = []
    for target in TARGETS:
        title = EXCHANGES[target.exchange].title
        effect = measured.effects.get(target.exchange)
        value = _number(math.nan if effect is None else effect.value(target.feature))
        if target.feature == "background":
            text = f"{title}: the background is the same wherever alpha is 0; it differs by {value} levels at most"
        else:
            alone = _number(math.nan if effect is None else _of_the_tracker(effect.moved[target.feature]))
            text = (
                f"{title}: {FEATURES[target.feature].title} moves at most {target.bound:g} %; it is {value} (tracker {alone})"
            )
        lines.append(f"{MARKS[measured.kept(target)]} {text}")
    return lines


def contact_sheet(measured: Measured) -> Image:
    """Frames as filmed, and of each exchange the same frames above what differs in them, four times."""
    filmed = measured.pictures[FILMED]
    rows = [(FILMED, filmed)]
    for name in measured.effects:
        pictures = measured.pictures[name]
        differ = [cv2.convertScaleAbs(cv2.absdiff(a, b), alpha=4) for a, b in zip(pictures, filmed, strict=True)]
        rows += [(name, pictures), ("", differ)]
    cells = []
    for name, pictures in rows:
        cells += [cv2.resize(picture, (CELL, CELL), interpolation=cv2.INTER_AREA) for picture in pictures]
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(cells[-len(pictures)], name, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, width, cv2.LINE_AA)
    return in_rows(cells, len(filmed))
