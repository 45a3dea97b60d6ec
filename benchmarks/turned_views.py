"""How well does a person known from the front alone turn? A real film has frames from the side to compare with, if few.

    python benchmarks/turned_views.py CAPTURE -o FOLDER [--seen 3] [--judged 7]

The shipped prior is personalised from frames of the capture that look nearly straight at the camera, and judged by those that
look away most; the same pictures and camera poses are given to random weights, for as many steps at three learning rates, and
once for four times as many. What both are compared with, too, is the frontal frame itself, the one with the landmarks most like
the judged frame's: who does not turn at all must be beaten. Cameras of judged frames are the tracked ones; expressions of
judged frames are unknown to all, so that the mouth costs all of them alike.

Writes sheet.png, turned.json, and a table to the terminal. HeadNet's distance is 0 for equal pictures; its likeness is the mean
cosine to the frames that were seen.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import talk3d
from talk3d.bench.prior import PriorBenchConfig, draw, from_random_weights
from talk3d.capture.artifact import Capture
from talk3d.capture.frames import PersonFrames, Views
from talk3d.capture.mask import hull_mask
from talk3d.capture.track import FACE_OVAL
from talk3d.judges.headnet import load_headnet
from talk3d.partials import write_whole
from talk3d.personalize.invert import InvertConfig, invert
from talk3d.personalize.subject import choose_frames
from talk3d.personalize.tune import TuneConfig, tune
from talk3d.pictures import as_image, captioned, in_rows, write_png
from talk3d.prior.generator import Generator, composite, load_prior

ANGLES = (-45, -30, -15, 0, 15, 30, 45)
RANDOM = ((1e-3, 1), (3e-3, 1), (1e-2, 1), (3e-3, 4))
"""Learning rates of random weights, and how many times the steps they get."""
CONFIG = PriorBenchConfig(invert=InvertConfig(), tune=TuneConfig())
"""The efforts of `talk3d personalize`."""


@dataclass(frozen=True)
class Judged:
    """Frames that nobody was shown."""

    views: Views
    face: Tensor
    """[N, 1, S, S], 1 inside the face's oval."""
    embedding: Tensor
    """[M, E], of the frames that were shown."""

    @torch.no_grad()
    def scores(self, pictures: Tensor) -> dict[str, float]:
        """Of pictures [N, 3, S, S] of these frames, over their backgrounds."""
        filmed = composite(self.views.target, self.views.background)
        error = (pictures.clamp(-1, 1) - filmed).square() * self.face
        psnr = 10 * torch.log10(4 / (error.sum((1, 2, 3)) / (3 * self.face.sum((1, 2, 3)))))
        distance = load_headnet().distance(pictures.clamp(-1, 1), filmed)
        return {
            "face PSNR": float(psnr.mean()),
            "HeadNet distance": float(distance.mean()),
            "likeness": self.likeness(pictures),
        }

    @torch.no_grad()
    def likeness(self, pictures: Tensor) -> float:
        """Mean cosine of their embeddings to those of the frames that were shown."""
        return float((load_headnet()(pictures.clamp(-1, 1)).embedding @ self.embedding.T).mean())


def nearest(capture: Capture, judged: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """For each judged frame, the one of `seen` whose landmarks are most like its own."""
    points = capture.landmarks
    distance = [[np.abs(points[a] - points[b]).mean() for b in seen] for a in judged]
    return seen[np.argmin(distance, 1)]


def main() -> None:
    """Personalise, draw, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seen", type=float, default=3.0, help="frames turned by less than so many degrees may be learnt from")
    parser.add_argument("--judged", type=float, default=7.0, help="frames turned by more than so many degrees are judged")
    parser.add_argument("--most", type=int, default=60, help="how many of them at most, evenly spread")
    options = parser.parse_args()
    torch.set_num_threads(1)
    capture, prior = Capture.open(options.capture), load_prior(Path(talk3d.__file__).parent / "assets" / "prior")
    turned = np.abs(np.degrees(capture.yaw))
    front, sides = np.flatnonzero(turned < options.seen), np.flatnonzero(turned > options.judged)
    if len(front) < 5 or not len(sides):
        parser.error(f"{len(front)} frames are frontal and {len(sides)} turned: at least five and one are needed")
    judged = sides[np.unique(np.linspace(0, len(sides) - 1, options.most).astype(int))]
    chosen = choose_frames(capture, 5, front)
    frames = PersonFrames.cached(capture, options.output / "frames", 0, capture.count)
    yaw, pitch = torch.from_numpy(capture.yaw).float(), torch.from_numpy(capture.pitch).float()
    views, truth = frames.views(chosen), frames.views(judged)
    size = capture.resolution
    face = np.stack([hull_mask(capture.landmarks[i][list(FACE_OVAL)] * size, (size, size)) for i in judged])
    known = torch.from_numpy(face)[:, None].float() * truth.known
    with torch.no_grad():
        embedding = load_headnet()(composite(views.target, views.background)).embedding
    judge = Judged(truth, known, embedding)
    print(f"{len(front)} frontal frames, {len(chosen)} of them seen; {len(sides)} turned ones, {len(judged)} of them judged")

    results: dict[str, dict[str, object]] = {}
    rows: list[np.ndarray] = []
    shown = np.linspace(0, len(judged) - 1, len(ANGLES)).astype(int)

    def enter(name: str, generator: Generator, ws: Tensor, began: float) -> None:
        drawn = composite(draw(generator, ws, yaw[judged], pitch[judged])[0], truth.background)
        around = torch.tensor(ANGLES).float().deg2rad()
        plain = torch.full((len(ANGLES), 3, size, size), 0.2)
        circle = composite(draw(generator, ws, around, torch.full_like(around, float(pitch[chosen].mean())))[0], plain)
        alike = [round(judge.likeness(picture[None]), 3) for picture in circle]
        results[name] = judge.scores(drawn) | {"likeness by angle": dict(zip(map(str, ANGLES), alike, strict=True))}
        results[name]["core_seconds"] = round(time.process_time() - began)
        print(name, json.dumps(results[name]), flush=True)
        rows.extend(captioned(as_image(p), f"{name}, {a}") for p, a in zip(circle, ANGLES, strict=True))
        rows.extend(
            captioned(as_image(drawn[i]), f"frame {judged[i]}, {np.degrees(capture.yaw[judged[i]]):.0f}") for i in shown
        )

    def told(name: str) -> Callable[[float], None]:
        last = [0.0]

        def tell(part: float) -> None:
            if time.monotonic() - last[0] > 20:
                last[0] = time.monotonic()
                print(f"{name} {part:.0%}", flush=True)

        return tell

    still = frames.views(nearest(capture, judged, front))
    results["nearest frontal frame"] = dict(judge.scores(composite(still.target, still.background)))
    print("nearest frontal frame", json.dumps(results["nearest frontal frame"]), flush=True)
    began = time.process_time()
    say = told("shipped prior")
    found = invert(prior.generator, views, yaw[chosen], pitch[chosen], CONFIG.invert, lambda i, n: say(i / n / 3))
    tuned = tune(prior.generator, views, found, CONFIG.tune, lambda i, n: say((1 + 2 * i / n) / 3))
    w = found.w + found.offsets.mean(0)
    enter("shipped prior", tuned, w.expand(1, prior.profile.num_ws, -1), began)
    cameras = prior.profile.orbit.pose(yaw[chosen], pitch[chosen])
    for rate, times in RANDOM:
        began, name = time.process_time(), f"random weights, rate {rate:g}, {times} times the steps"
        more = (times - 1) * (CONFIG.invert.steps + CONFIG.tune.steps)
        config = replace(CONFIG, tune=replace(CONFIG.tune, steps=CONFIG.tune.steps + more))
        enter(name, *from_random_weights(prior.profile, views, cameras, config, rate, 0, told(name)), began)
    filmed = composite(truth.target, truth.background)
    rows.extend(captioned(as_image(filmed[i]), f"filmed, frame {judged[i]}") for i in shown)
    write_png(options.output / "sheet.png", in_rows(rows, len(ANGLES)))
    facts = {"frontal": len(front), "seen": chosen.tolist(), "turned": len(sides), "judged": len(judged), "ways": results}
    write_whole(options.output / "turned.json", (json.dumps(facts, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
