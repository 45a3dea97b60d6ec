"""How much does a prior know? Unseen heads are inverted from one or five views, and judged from nine against exact truth.

The heads come from fixed seeds and wear only textures that no training head ever wore. Each is inverted and tuned by the means
of `talk3d personalize`, with more steps. The same is done to a generator with random weights, at the best of three learning
rates: what remains of the difference at the side is what the prior is worth.

Letters: K views, S side of the pictures, R side of the raw pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..capture.frames import Views
from ..errors import ConfigError, OutputExistsError
from ..heads.latent import LATENT_SIZE, parameters_from_latent
from ..heads.model import SCALE, HeadPack, HeadParameters
from ..heads.raster import render_head
from ..judges.headnet import perceptual_distance
from ..partials import write_whole
from ..personalize.invert import InvertConfig, invert
from ..personalize.tune import TuneConfig, tune
from ..pictures import as_image, write_png
from ..prior.generator import Generator, LoadedPrior, Profile, composite
from ..prior.patch import Windows, picture_losses, render_patch

Start = Literal["one view", "five views", "random weights"]
STARTS: tuple[Start, ...] = ("one view", "five views", "random weights")

VIEWS = ((0, 0), (-45, 0), (-30, 0), (-15, 0), (15, 0), (30, 0), (45, 0), (0, -15), (0, 15))
"""Yaw and pitch of the nine judged views, degrees; the first is the one that is inverted."""
FIVE = ((0, 0), (-13, -5), (13, 5), (-6, 12), (6, -12))
"""Five views within 15 degrees; all but the first differ from the judged ones."""
RANDOM_RATES = (1e-3, 3e-3, 1e-2)
SEED = 77001


@dataclass(frozen=True)
class PriorBenchConfig:
    """How many heads are inverted, and with how much effort."""

    one_view: int = 24
    """Heads inverted from one view."""
    five_views: int = 8
    random_weights: int = 8
    invert: InvertConfig = field(default_factory=InvertConfig)
    tune: TuneConfig = field(default_factory=lambda: TuneConfig(steps=200, learning_rate=8e-3, ball_weight=0.2))

    def heads(self, start: Start) -> int:
        """How many heads start so."""
        return {"one view": self.one_view, "five views": self.five_views, "random weights": self.random_weights}[start]


@dataclass(frozen=True)
class Truth:
    """One head from K views."""

    yaw: Float[Tensor, " views"]
    """Radians."""
    pitch: Float[Tensor, " views"]
    """Radians."""
    images: Float[Tensor, "views 4 size size"]
    """Premultiplied colour and alpha, -1..1."""
    depth: Float[Tensor, "views 1 raw raw"]
    """Distance along the ray, scene units, inf where the head does not fill the raw pixel."""


def unseen_parameters(number: int, pack: HeadPack, held_out: bool = True) -> HeadParameters:
    """Head `number` of the fixed evaluation set, in held-out textures or in those of training."""
    latent = np.random.default_rng([SEED, number]).standard_normal(LATENT_SIZE).astype(np.float32)
    return parameters_from_latent(latent, pack, held_out=held_out)


def unseen_head(parameters: HeadParameters, angles: tuple[tuple[int, int], ...], pack: HeadPack, generator: Generator) -> Truth:
    """A head from views (yaw, pitch) in degrees."""
    profile, head = generator.profile, pack.build(parameters)
    yaw, pitch = torch.tensor(angles).float().deg2rad().T
    poses, intrinsics = profile.orbit.pose(yaw, pitch).numpy(), profile.orbit.intrinsics().numpy()
    size, raw = profile.image_resolution, profile.neural_resolution
    drawn = [render_head(head, pack, pose, intrinsics, size) for pose in poses]
    pictures = np.stack([np.concatenate([p.rgb, p.alpha[..., None]], 2) for p in drawn])
    cells = np.stack([p.depth for p in drawn]).reshape(len(drawn), raw, size // raw, raw, size // raw)
    return Truth(
        yaw,
        pitch,
        torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1,
        torch.from_numpy(cells.mean((2, 4)))[:, None],
    )


def as_views(truth: Truth, seed: int) -> Views:
    """What personalisation is given: the pictures over one plain background each."""
    colours = np.random.default_rng([SEED, seed]).uniform(-1, 1, (len(truth.yaw), 3, 1, 1))
    background = torch.from_numpy(colours).float().expand(-1, -1, *truth.images.shape[2:])
    return Views(truth.images, background, torch.ones_like(truth.images[:, 3:]))


@torch.no_grad()
def draw(
    generator: Generator, ws: Float[Tensor, "one layers w"], yaw: Float[Tensor, " views"], pitch: Float[Tensor, " views"]
) -> tuple[Float[Tensor, "views 4 size size"], Float[Tensor, "views 1 raw raw"]]:
    """The generator's pictures of a head from these angles (radians), and their depth."""
    profile = generator.profile
    planes = generator.planes(ws)
    images, depths = [], []
    for camera in profile.orbit.pose(yaw, pitch):
        raw = generator.render(planes, camera[None], profile.orbit.intrinsics()[None], deterministic=True)
        images.append(generator.superresolve(raw.features, raw.rgb, raw.alpha, ws))
        depths.append(raw.depth)
    return torch.cat(images), torch.cat(depths)


def psnr_inside(
    images: Float[Tensor, "views 4 size size"], truth: Float[Tensor, "views 4 size size"]
) -> Float[Tensor, " views"]:
    """PSNR in dB over the pixels that the true head covers, both composited over mid grey."""
    inside = (truth[:, 3:] > 0).float()  # what the head covers more than half
    grey = torch.zeros_like(truth[:, :3])
    error = (composite(images, grey).clamp(-1, 1) - composite(truth, grey)).square() * inside
    return 10 * torch.log10(4 / (error.sum((1, 2, 3)) / (3 * inside.sum((1, 2, 3)))))


def depth_error(depth: Float[Tensor, "views 1 raw raw"], truth: Float[Tensor, "views 1 raw raw"]) -> Float[Tensor, " views"]:
    """Mean absolute error of the depth where the head fills the pixel, in centimetres."""
    known = torch.isfinite(truth)
    error = torch.where(known, (depth - torch.where(known, truth, 0.0)).abs(), 0.0)
    return error.sum((1, 2, 3)) / known.sum((1, 2, 3)) / SCALE


def personalized(
    generator: Generator, truth: Truth, config: PriorBenchConfig, number: int, progress: Callable[[float], None]
) -> tuple[Generator, Float[Tensor, "1 layers w"]]:
    """Invert the head from the given views, then tune the generator to it."""
    views, total = as_views(truth, number), config.invert.steps + config.tune.steps
    found = invert(generator, views, truth.yaw, truth.pitch, config.invert, lambda i, _: progress(i / total))
    tuned = tune(generator, views, found, config.tune, lambda i, _: progress((config.invert.steps + i) / total))
    w = found.w + found.offsets.mean(0)
    return tuned, w.expand(1, generator.profile.num_ws, -1)


def from_random_weights(
    profile: Profile,
    views: Views,
    cameras: Float[Tensor, "views 4 4"],
    config: PriorBenchConfig,
    rate: float,
    number: int,
    progress: Callable[[float], None],
) -> tuple[Generator, Float[Tensor, "1 layers w"]]:
    """As many steps on the same pictures as `personalized` takes, but all weights start at random, super-resolution included.

    Args:
        profile: of the generator.
        views: pictures of the person.
        cameras: of the pictures.
        config: says how many steps.
        rate: of learning.
        number: of the person; a seed.
        progress: called with the part done, 0..1.
    """
    steps = config.invert.steps + config.tune.steps
    torch.manual_seed(SEED + number)
    fresh = Generator(profile)
    ws = fresh.map(torch.randn(1, profile.z_dim), fresh.frontal_label(1)).detach()
    optimizer = torch.optim.Adam(fresh.parameters(), lr=rate, betas=(0.9, 0.99))
    for step in range(steps):
        rng = np.random.default_rng([SEED, number, step])
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (1 - step / steps) / 0.5)
        count = config.tune.windows
        chosen = np.resize(rng.permutation(len(views)), count)
        windows = Windows.random(count, profile.neural_resolution, rng)
        planes = fresh.planes(ws).expand(count, -1, -1, -1, -1)
        patch = render_patch(fresh, planes, ws, cameras[chosen], windows, rng)
        batch = views[chosen]
        terms = picture_losses(patch, batch.target, batch.background, windows, config.tune.structure_weight, batch.known)
        loss = torch.stack([value.mean() for value in terms.values()]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress((step + 1) / steps)
    return fresh.eval().requires_grad_(False), ws


def bench_prior(
    prior: LoadedPrior,
    pack: HeadPack,
    output: Path,
    config: PriorBenchConfig,
    progress: Callable[[float, str], None],
) -> dict[str, dict[str, list[list[float]]]]:
    """Invert, judge and report; heads that are already judged in `output` are not done again.

    Args:
        prior: whose knowledge is measured.
        pack: the head model.
        output: folder for `heads/`, `report.json`, `table.txt`, `curves.png` and `sheet.png`.
        config: how many heads, how many steps.
        progress: called with (part done 0..1, what is done).

    Returns:
        {start: {measure: [heads][views]}} with measures `psnr` (dB), `depth` (cm) and `headnet` (perceptual distance).

    Raises:
        ConfigError: the prior's pictures carry no alpha, or `output` holds results of another prior or effort.
        OutputExistsError: `output` holds something else.
    """
    generator = prior.generator
    if config.one_view < 1:
        raise ConfigError("At least one head must be inverted from one view.")
    if not generator.profile.alpha:
        raise ConfigError("This prior's pictures carry no alpha, so the head cannot be told from the background in them.")
    effort = {"invert": asdict(config.invert), "tune": asdict(config.tune)}
    same_run(output, {"prior": prior.hash, "heads": pack.digest, **effort})  # the number of heads may grow
    jobs = [(start, number) for start in STARTS for number in range(config.heads(start))]
    results: dict[str, dict[str, list[list[float]]]] = {}
    for done, (start, number) in enumerate(jobs):
        path = output / "heads" / f"{start.replace(' ', '-')}-{number:03d}.json"
        if not path.exists():

            def report(part: float, done: int = done, text: str = f"{start}, head {number + 1}") -> None:
                progress((done + part) / len(jobs), text)

            scores, images = _judge(generator, pack, start, number, config, report)
            if images is not None:
                write_png(path.with_suffix(".png"), images)
            write_json(path, scores)
        for name, values in json.loads(path.read_text()).items():
            results.setdefault(start, {}).setdefault(name, []).append(values)
    write_json(output / "report.json", {"views": VIEWS, "config": asdict(config), "results": results})
    write_whole(output / "table.txt", (table(results) + "\n").encode())
    write_png(output / "curves.png", curves(results))
    pictures = [np.asarray(cv2.imread(str(p)))[..., ::-1] for p in sorted((output / "heads").glob("one-view-*.png"))[:8]]
    write_png(output / "sheet.png", np.concatenate(pictures))
    return results


def table(results: dict[str, dict[str, list[list[float]]]]) -> str:
    """The results as text: for each start and measure the mean over heads at each view."""
    names = [f"{yaw:+d},{pitch:+d}" for yaw, pitch in VIEWS]
    lines = [f"{'':16}{'':12}{'heads':>6}" + "".join(f"{name:>9}" for name in names)]
    for start, measures in results.items():
        for name, values in measures.items():
            mean = np.mean(values, 0)
            digits = 1 if name == "psnr" else 2 if name == "depth" else 3
            lines.append(f"{start:16}{name:12}{len(values):6}" + "".join(f"{value:9.{digits}f}" for value in mean))
    return "\n".join(lines)


def curves(results: dict[str, dict[str, list[list[float]]]]) -> np.ndarray:
    """PSNR against yaw as an [H, W, 3] uint8 picture: the mean over heads, and a band from the worst to the best quarter."""
    width, height, left, bottom, low, high = 720, 420, 60, 50, 8.0, 32.0
    image = np.full((height, width, 3), 255, np.uint8)
    yaws = sorted((yaw, index) for index, (yaw, pitch) in enumerate(VIEWS) if pitch == 0)

    def place(yaw: float | int, value: float | int) -> tuple[int, int]:
        x = left + (yaw + 45) / 90 * (width - left - 30)
        y = height - bottom - (min(max(value, low), high) - low) / (high - low) * (height - bottom - 40)
        return round(x), round(y)

    def write(text: str, at: tuple[int, int], colour: tuple[int, int, int] = (60, 60, 60)) -> None:
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)

    for value in range(int(low), int(high) + 1, 4):
        cv2.line(image, place(-45, value), place(45, value), (225, 225, 225))
        write(str(value), (28, place(0, value)[1] + 4))
    for yaw, _ in yaws:
        write(f"{yaw:+d}", (place(yaw, 0)[0] - 14, height - bottom + 20))
    write("PSNR inside the head (dB) against yaw (degrees)", (left, height - 10))
    for (start, measures), colour, row in zip(
        results.items(), ((30, 90, 200), (20, 140, 60), (200, 60, 40)), range(3), strict=False
    ):
        values = np.array(measures["psnr"])
        quarters = np.quantile(values, [0.25, 0.75], axis=0)
        band = [place(yaw, quarters[0, i]) for yaw, i in yaws] + [place(yaw, quarters[1, i]) for yaw, i in reversed(yaws)]
        shade = image.copy()
        cv2.fillPoly(shade, [np.array(band)], colour)
        image[:] = cv2.addWeighted(shade, 0.15, image, 0.85, 0)
        points = np.array([place(yaw, values.mean(0)[i]) for yaw, i in yaws])
        cv2.polylines(image, [points], False, colour, 2, cv2.LINE_AA)
        write(f"{start} ({len(values)} heads)", (left + 10 + 210 * row, 22), colour)
    return image


def _judge(
    generator: Generator,
    pack: HeadPack,
    start: Start,
    number: int,
    config: PriorBenchConfig,
    progress: Callable[[float], None],
) -> tuple[dict[str, list[float]], np.ndarray | None]:
    """Scores of one head from one start and, if the prior drew it, its pictures below the true ones."""
    parameters = unseen_parameters(number, pack)
    truth = unseen_head(parameters, VIEWS, pack, generator)
    given = unseen_head(parameters, FIVE if start == "five views" else VIEWS[:1], pack, generator)
    if start == "random weights":
        sides = [index for index, (yaw, _) in enumerate(VIEWS) if abs(yaw) == 45]
        tries, views, cameras = [], as_views(given, number), generator.profile.orbit.pose(given.yaw, given.pitch)
        for index, rate in enumerate(RANDOM_RATES):
            found = from_random_weights(
                generator.profile,
                views,
                cameras,
                config,
                rate,
                number,
                lambda part, index=index: progress((index + part) / len(RANDOM_RATES)),
            )
            scores, _ = score(*found, truth)
            tries.append((np.mean([scores["psnr"][side] for side in sides]), scores))
        return max(tries, key=lambda one: one[0])[1], None
    scores, images = score(*personalized(generator, given, config, number, progress), truth)
    grey = torch.full_like(truth.images[:, :3], 0.2)
    rows = [composite(pictures, grey).clamp(-1, 1) for pictures in (truth.images, images)]
    return scores, as_image(torch.cat([torch.cat(list(row), 2) for row in rows], 1)[:, ::2, ::2])


@torch.no_grad()
def score(
    generator: Generator, ws: Float[Tensor, "1 layers w"], truth: Truth
) -> tuple[dict[str, list[float]], Float[Tensor, "views 4 size size"]]:
    """Measures of a head at each view, and the pictures."""
    images, depth = draw(generator, ws, truth.yaw, truth.pitch)
    grey = torch.zeros_like(truth.images[:, :3])
    scores = {
        "psnr": psnr_inside(images, truth.images),
        "headnet": perceptual_distance(composite(images, grey).clamp(-1, 1), composite(truth.images, grey)),
        "depth": depth_error(depth, truth.depth),
    }
    return {name: [round(value, 4) for value in values.tolist()] for name, values in scores.items()}, images


def same_run(output: Path, key: dict[str, object]) -> None:
    """Results of another prior, other data or another effort must not be mixed in.

    Args:
        output: the folder of results, which need not exist.
        key: what must be the same as when the folder was begun; kept in its `run.json`.

    Raises:
        OutputExistsError: the folder holds something else.
        ConfigError: it was begun with another key.
    """
    path = output / "run.json"
    if not path.exists() and output.exists() and any(output.iterdir()):
        raise OutputExistsError(f"`{output}` holds something else than an earlier run of this. Choose another folder.")
    if path.exists() and json.loads(path.read_text()) != json.loads(json.dumps(key)):
        raise ConfigError(
            f"`{output}` holds results of another prior or of other settings. Write into another folder, or remove that one."
        )
    write_json(path, key)


def write_json(path: Path, value: object) -> None:
    """Write a whole file or none."""
    write_whole(path, json.dumps(value, indent=1).encode())
