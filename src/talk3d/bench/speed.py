"""How long a frame takes, plain and fast, measured in turn in one run: stages, whole frames, films, memory.

Times are processor time, of all threads together, per frame: what else the machine does changes them least.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..artifacts import Avatar
from ..errors import ConfigError
from ..prior import fast as fast_twins
from ..prior.fast import FastPainter
from ..prior.generator import FULL, Generator, Picture
from ..talker import folded
from ..talker.audio import Loudness, frame_windows, silent_window
from ..talker.clip import audio_neighbourhood
from ..talker.speak import BATCH, SpeakConfig, Speaker, speak
from ..video.clock import FPS
from ..video.read import read_audio
from ..video.write import VideoWriter
from .budget import Ceilings, Work, measure_ceilings, module_work, rendering_work
from .speed_report import Film, Memory, SpeedReport, Timing, this_machine
from .views import DRIVE

REPEATS = 9
"""Of each stage, in turn with its twin."""
FULL_REPEATS = 3
"""Of the full profile's frame, which takes seconds."""
SEED = 1
"""Of the full profile's random weights."""


Stage = tuple[str, Callable[[], object], Work | None, torch.dtype, float | None]
"""Path, what to time, its work, precision, and the picture's PSNR."""


def in_turn(
    profile: str, stage: str, frames: int, paths: Sequence[Stage], ceilings: Ceilings, repeats: int = REPEATS
) -> list[Timing]:
    """Time twins one after the other, again and again; the first is the plain one."""
    for _, run, *_ in paths:
        run()
    seconds: list[list[float]] = [[] for _ in paths]
    for _ in range(repeats):
        for taken, (_, run, *_) in zip(seconds, paths, strict=True):
            start = time.process_time()
            run()
            taken.append((time.process_time() - start) / frames)
    plain = statistics.median(seconds[0])
    timings = []
    for taken, (path, _, work, dtype, psnr) in zip(seconds, paths, strict=True):
        median = statistics.median(taken)
        low, _, high = statistics.quantiles(taken, n=4)
        operations, moved, floor = (work.operations, work.bytes, 1e3 * ceilings.floor(work, dtype)) if work else (None,) * 3
        timings.append(
            Timing(
                profile, stage, path, 1e3 * median, (high - low) / 2 / median, operations, moved, floor, psnr, plain / median
            )
        )
    return timings


def psnr(picture: np.ndarray, plain: np.ndarray, full_scale: float) -> float:
    """Of one picture against another, dB."""
    error = float(np.square(picture.astype(np.float64) - plain).mean())
    return 10 * np.log10(full_scale**2 / max(error, 1e-12))


def some_speech(speaker: Speaker) -> Float[Tensor, "batch windows channels columns"]:
    """What is heard around `BATCH` frames of the sound that the package brings, from its second second on."""
    sound = read_audio(DRIVE)
    windows = torch.cat(list(frame_windows([sound], Loudness.of([sound]).gain, speaker.audio)))
    frames = torch.arange(FPS, FPS + BATCH)
    return audio_neighbourhood(windows, frames, speaker.network.config.tokens.windows, silent_window(speaker.audio))


@torch.inference_mode()
def time_avatar(avatar: Path, ceilings: Ceilings, scratch: Path) -> list[Timing]:
    """All stages of an avatar's frames: moving its planes, looking, finishing, writing; and whole frames."""
    plain, fast = Speaker(avatar, plain=True), Speaker(avatar)
    if not isinstance(fast.painter, FastPainter) or fast.mover is None:
        raise ConfigError(
            f"`{avatar}` is not drawn by the fast code, so there is nothing to compare: "
            f"{fast.slow or folded.why_not(fast.network.config.unet)}. Use an avatar trained with the shipped prior, and numba."
        )
    name, dtype = plain.profile.name, fast.painter.dtype
    single = torch.float32
    path = f"fast, {_name(dtype)}"
    motion = plain.motion.ping_pong(torch.arange(BATCH))
    heard, frames = some_speech(plain), BATCH
    told = plain.conditions(heard, motion)
    network, generator, ws = plain.network, plain.generator, plain.ws.expand(frames, -1, -1)
    planes, moved = plain.move(heard, motion), fast.move(heard, motion)
    orbit = plain.profile.orbit
    camera = orbit.pose(motion.yaw, motion.pitch), orbit.intrinsics().expand(frames, 3, 3)
    seen = plain.look(planes, motion.yaw, motion.pitch)
    raw = seen.raw
    skip = torch.cat([raw.rgb, 2 * raw.alpha - 1], 1) if plain.profile.alpha else raw.rgb
    finished, finished_fast = plain.draw(heard, motion), fast.draw(heard, motion)
    weights = [sum(p.numel() for p in module.parameters()) for module in (network, generator.superresolution)]
    move_work = module_work(lambda: network(plain.trunk, told), weights[0], plain.planes.numel(), frames)
    enlarge_work = module_work(
        lambda: generator.superresolve(raw.features, raw.rgb, raw.alpha, ws), weights[1], raw.features.numel(), frames
    )
    look_work = rendering_work(plain.profile)
    painter = fast.painter

    def enlarge() -> None:
        for one in zip(raw.features.split(1), skip.split(1), strict=True):
            painter.enlarge(*one)

    def write(pictures: np.ndarray) -> None:
        with VideoWriter(scratch / "film.mp4", (plain.size, plain.size), overwrite=True) as writer:
            for _ in range(4):
                for picture in pictures:
                    writer.write(picture)

    timings = in_turn(
        name, "planes", frames,
        [("plain", lambda: plain.move(heard, motion), move_work, single, None),
         (path, lambda: fast.move(heard, motion), move_work, dtype, None)], ceilings,
    )  # fmt: skip
    timings += in_turn(
        name, "rendering", frames,
        [("plain", lambda: generator.render(planes, *camera, deterministic=True), look_work, single, None),
         (path, lambda: painter.render(moved, *camera), look_work, single, None)], ceilings,
    )  # fmt: skip
    timings += in_turn(
        name, "super-resolution", frames,
        [("plain", lambda: generator.superresolve(raw.features, raw.rgb, raw.alpha, ws), enlarge_work, single, None),
         (path, enlarge, enlarge_work, dtype, None)], ceilings,
    )  # fmt: skip
    timings += in_turn(name, "finishing", frames, [("both", lambda: plain.finish(seen, motion), None, single, None)], ceilings)
    timings += in_turn(name, "writing", 4 * frames, [("both", lambda: write(finished), None, single, None)], ceilings)
    quality = psnr(finished_fast, finished, 255.0)
    total = Work(
        sum(w.operations for w in (move_work, look_work, enlarge_work)),
        sum(w.bytes for w in (move_work, look_work, enlarge_work)),
    )
    return timings + in_turn(
        name, "frame", frames,
        [("plain", lambda: plain.draw(heard, motion), total, single, None),
         (path, lambda: fast.draw(heard, motion), total, dtype, quality)], ceilings,
    )  # fmt: skip


Person = tuple[Generator, Tensor, Tensor, tuple[Tensor, Tensor]]
"""A generator, style vectors, planes, and the camera that looks at them."""


@torch.inference_mode()
def full_person() -> Person:
    """Somebody of the full profile with random weights, always the same."""
    torch.manual_seed(SEED)
    generator = Generator(FULL).eval().requires_grad_(False)
    ws = generator.map(torch.randn(1, FULL.z_dim), generator.frontal_label(1))
    camera = FULL.orbit.pose(torch.tensor([0.2]), torch.zeros(1)), FULL.orbit.intrinsics()[None]
    return generator, ws, generator.planes(ws), camera


def full_picture(path: str, person: Person) -> Callable[[], Picture]:
    """What draws the full profile's frame, its planes made already, by a path's name."""
    generator, ws, planes, camera = person
    if path == "plain":

        @torch.inference_mode()
        def draw() -> Picture:
            raw = generator.render(planes, *camera, deterministic=True)
            return Picture(generator.superresolve(raw.features, raw.rgb, raw.alpha, ws), raw)

        return draw
    painter, texels = FastPainter(generator, ws, _dtype(path)), _texels(planes)
    return lambda: painter(texels, *camera)


def _texels(planes: Tensor) -> Tensor:
    """Planes as the fast renderer reads them."""
    return fast_twins.fused.texel_planes(*planes.shape[:1], *planes.shape[2:]).copy_(planes)


@torch.inference_mode()
def time_full(ceilings: Ceilings) -> list[Timing]:
    """The full profile with random weights, identity planes made already."""
    person = full_person()
    generator, ws, planes, camera = person
    texels = _texels(planes)
    raw = generator.render(planes, *camera, deterministic=True)
    image = generator.superresolve(raw.features, raw.rgb, raw.alpha, ws)
    count = sum(p.numel() for p in generator.superresolution.parameters())
    enlarge_work = module_work(
        lambda: generator.superresolve(raw.features, raw.rgb, raw.alpha, ws), count, raw.features.numel(), 1
    )
    look_work = rendering_work(FULL)
    total = Work(look_work.operations + enlarge_work.operations, look_work.bytes + enlarge_work.bytes)
    painters = [FastPainter(generator, ws, dtype) for dtype in (torch.float32, torch.bfloat16)]
    looks: list[Stage] = [
        ("plain", lambda: generator.render(planes, *camera, deterministic=True), look_work, torch.float32, None),
        ("fast, float32", lambda: painters[0].render(texels, *camera), look_work, torch.float32, None),
    ]
    enlarges: list[Stage] = [
        ("plain", lambda: generator.superresolve(raw.features, raw.rgb, raw.alpha, ws), enlarge_work, torch.float32, None)
    ]
    frames: list[Stage] = [("plain", full_picture("plain", person), total, torch.float32, None)]
    for painter in painters:
        name = f"fast, {_name(painter.dtype)}"
        enlarges.append((name, lambda p=painter: p.enlarge(raw.features, raw.rgb), enlarge_work, painter.dtype, None))
        quality = psnr(painter(texels, *camera).image.numpy(), image.numpy(), 2.0)
        frames.append((name, lambda p=painter: p(texels, *camera), total, painter.dtype, quality))
    stages = (("rendering", looks), ("super-resolution", enlarges), ("frame", frames))
    return [t for stage, paths in stages for t in in_turn(FULL.name, stage, 1, paths, ceilings, FULL_REPEATS)]


def time_films(avatar: Path, scratch: Path, repeats: int = 3) -> list[Film]:
    """Whole films of the sound that the package brings, in turn: plain, and fast with one of torch's threads and with all."""
    threads = torch.get_num_threads()
    plain, fast = Speaker(avatar, plain=True), Speaker(avatar)
    ways = [("plain", plain, threads), *(("fast", fast, count) for count in sorted({1, threads}))]
    taken: list[list[tuple[float, float]]] = [[] for _ in ways]  # seconds a frame, by the clock and of the processor
    frames = 0
    try:
        for _ in range(repeats):
            for found, (_, speaker, count) in zip(taken, ways, strict=True):
                torch.set_num_threads(count)
                start, used = time.perf_counter(), time.process_time()
                frames = speak(speaker, DRIVE, scratch / "film.mp4", SpeakConfig(), True, lambda done, total: None)
                found.append(((time.perf_counter() - start) / frames, (time.process_time() - used) / frames))
    finally:
        torch.set_num_threads(threads)
    films: list[Film] = []
    for found, (path, _, count) in zip(taken, ways, strict=True):
        wall, busy = (statistics.median(seconds) for seconds in zip(*found, strict=True))
        ratio = films[0].milliseconds / (1e3 * busy) if films else 1.0
        films.append(Film(path, count, frames, 1 / wall, 1e3 * busy, ratio))
    return films


def measure_memory(avatar: Path) -> list[Memory]:
    """Peak memory of each path and profile."""
    found: list[Memory] = []
    for profile, paths in (("mini", ("plain", "fast")), (FULL.name, ("plain", "float32", "bfloat16"))):
        grown = 0.0
        for path in paths:
            code = f"from talk3d.bench.speed import report_memory; report_memory({profile!r}, {path!r}, {str(avatar)!r})"
            run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
            before, peak = json.loads(run.stdout.splitlines()[-1])
            grown = grown or peak - before
            found.append(Memory(profile, path, before, peak, grown / max(peak - before, 1.0)))
    return found


def report_memory(profile: str, path: str, avatar: str) -> None:
    """Draw a few frames and print the memory before and after; run in a process of its own."""
    if profile == "mini":
        speaker = Speaker(Path(avatar), plain=path == "plain")
        heard, motion = some_speech(speaker), speaker.motion.ping_pong(torch.arange(BATCH))

        def draw() -> object:
            return speaker.draw(heard, motion)
    else:
        draw = full_picture(path, full_person())
    before = _most_resident()
    for _ in range(3):
        draw()
    print(json.dumps([before, _most_resident()]))


def bench_speed(avatar: Path, report: Callable[[float, str], None]) -> SpeedReport:
    """Measure all of it, in about five minutes of one core.

    Args:
        avatar: whose frames are drawn; of the mini profile.
        report: called with the part done and what is next.

    Raises:
        ArtifactError: there is no such avatar.
        ConfigError: the avatar is not drawn by the fast code.
    """
    Avatar.open(avatar)
    with tempfile.TemporaryDirectory() as folder:
        report(0.0, "ceilings")
        ceilings = measure_ceilings()
        report(0.05, "stages of the avatar's frames")
        timings = time_avatar(avatar, ceilings, Path(folder))
        report(0.3, "the full profile")
        timings += time_full(ceilings)
        report(0.6, "films")
        films = time_films(avatar, Path(folder))
        report(0.85, "memory")
        memory = measure_memory(avatar)
    report(1.0, "done")
    return SpeedReport(this_machine(), ceilings, timings, films, memory)


def _most_resident() -> float:
    """Megabytes that this process had resident at most; where Linux does not say it, its parent's may count as well."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
