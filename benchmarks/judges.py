"""What the judges are worth, on heads and voices that they were never trained on.

    python benchmarks/judges.py --heads DIR --work DIR [--clips FILM[:SOUND] ...] [--weights DIR] [--json FILE]

`--work` is the folder of tools/train_judges.py: its held-out portraits are read, what is missing is drawn. `--clips` are films
whose lip-sync is measured too, each with its sound at 16 kHz (default: `FILM` with the ending .flac).
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from talk3d.capture.track import interocular, lip_gap, track
from talk3d.heads.model import HeadPack
from talk3d.heads.subject import write_script
from talk3d.judges.headnet import READINGS, SIZE, WEIGHTS, HeadNet, load_headnet
from talk3d.judges.sync import SyncExpert, load_sync, sound_features, sync_offset
from talk3d.pretrain.judges import random_background
from talk3d.pretrain.portraits import PICTURES, VIEWS, Portraits, load_portraits, render_portraits
from talk3d.pretrain.speakers import film_landmarks, load_recordings, random_person
from talk3d.video.clock import AUDIO_RATE, FPS

FILMS, FILM_FRAMES, PIECE = 6, 250, 125
PLANTED = range(-10, 11)
BLURS, NOISES, SHIFTS = (0.5, 1, 2, 4), (0.02, 0.05, 0.1, 0.2), (1, 2, 4, 8)
LIGHT, DARK = 0.6, 0.4
"""Mean albedo (sRGB 0..1) of the painted face above which a skin counts as light, and below which as dark."""


def shown(data: Portraits, seed: int) -> torch.Tensor:
    """[N, 3, S, S] in -1..1: every portrait over another background."""
    rng = np.random.default_rng(seed)
    pictures = []
    for image in data.images:
        cover = image[3:].transpose(1, 2, 0).astype(np.float32) / 255
        pictures.append(image[:3].transpose(1, 2, 0) + (1 - cover) * random_background(data, rng))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def auc(same: np.ndarray, other: np.ndarray) -> float:
    """Chance that a pair of one person is more alike than a pair of two."""
    order = np.concatenate([same, other]).argsort().argsort() + 1.0
    return float((order[: len(same)].sum() - len(same) * (len(same) + 1) / 2) / (len(same) * len(other)))


def identity(likeness: np.ndarray, data: Portraits, members: np.ndarray | None = None) -> dict[str, float]:
    """AUC of a likeness [N, N]: one person in two expressions, lights and views against strangers, and against twins."""
    member = np.ones(len(data), bool) if members is None else members
    expression = np.arange(len(data)) // VIEWS
    pairs = np.triu(np.outer(member, member), 1).astype(bool)
    one = data.person[:, None] == data.person
    twins = (data.twins[:, None] == data.twins) & ~one
    same = pairs & one & (expression[:, None] != expression)
    scores = {"strangers": auc(likeness[same], likeness[pairs & ~one & ~twins]), "persons": len(set(data.person[member]))}
    if (pairs & twins).any():
        scores["twins"] = auc(likeness[same], likeness[pairs & twins])
    return scores


def groups(data: Portraits) -> dict[str, np.ndarray]:
    tone = data.tone.mean(1)
    return {
        "all": np.ones(len(data), bool),
        "light": tone > LIGHT, "medium": (tone <= LIGHT) & (tone >= DARK), "dark": tone < DARK,
        "female": data.female, "male": ~data.female,
    }  # fmt: skip


@torch.no_grad()
def judge_heads(network: HeadNet, data: Portraits) -> dict:
    pictures = shown(data, 0)
    read = [network(batch) for batch in pictures.split(64)]
    embedding = torch.cat([r.embedding for r in read]).numpy()
    values = torch.cat([r.readings for r in read]).numpy()
    points = torch.cat([r.landmarks for r in read]).numpy()
    eyes = np.linalg.norm(data.landmarks[:, 36] - data.landmarks[:, 45], axis=1)
    distance = 100 * np.linalg.norm(points - data.landmarks, axis=2).mean(1) / eyes
    # Near-frontal: the nose's tip stands between the eyes.
    middle = (data.landmarks[:, 30] - data.landmarks[:, 36])[:, 0] / eyes
    frontal = (middle > 0.25) & (middle < 0.75)
    small = F.normalize(F.avg_pool2d(pictures, 16).flatten(1) - pictures.mean((2, 3)).repeat_interleave(64, 1), dim=1).numpy()
    cover = torch.from_numpy(data.images[:, 3:]).float() / 255
    colour = ((pictures + 1) * cover).sum((2, 3)).numpy() / cover.sum((2, 3)).numpy()
    result: dict = {"pictures": len(data)}
    for name, member in groups(data).items():
        if member.sum() < 2 * PICTURES:
            continue
        likeness = embedding @ embedding.T
        result[name] = {
            "identity": identity(likeness, data, member),
            "landmarks_percent": float(distance[member].mean()),
            "landmarks_percent_frontal": float(distance[member & frontal].mean()),
            "frontal_pictures": int((member & frontal).sum()),
            "reading_error": float(np.abs(values[member, :-2] - data.readings[member, :-2]).mean()),
            "reading_correlation": float(np.mean(correlations(values[member, :-2], data.readings[member, :-2]))),
            "gaze_error_degrees": float(np.degrees(np.abs(values[member, -2:] - data.readings[member, -2:]).mean())),
        }
    result["each_reading"] = dict(zip(READINGS, correlations(values, data.readings), strict=True))
    result["baseline_pixels"] = identity(small @ small.T, data)
    result["baseline_colour_of_head"] = identity(-np.linalg.norm(colour[:, None] - colour, axis=2), data)
    return result


def correlations(a: np.ndarray, b: np.ndarray) -> list[float]:
    return [float(np.corrcoef(a[:, k], b[:, k])[0, 1]) for k in range(a.shape[1])]


@torch.no_grad()
def responses(network: HeadNet, data: Portraits) -> dict[str, list[float]]:
    """Mean perceptual distance of 32 portraits to themselves, blurred (deviation, pixels), noisy (of 2), shifted (pixels)."""
    pictures = shown(data, 1)[:: len(data) // 32][:32]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(pictures.shape, generator=generator)

    def blurred(deviation: float) -> torch.Tensor:
        rows = [cv2.GaussianBlur(p.permute(1, 2, 0).numpy(), (0, 0), deviation) for p in pictures]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)

    def mean(changed: torch.Tensor) -> float:
        return float(network.distance(pictures, changed).mean())

    return {
        "blur": [mean(blurred(d)) for d in BLURS],
        "noise": [mean(pictures + 2 * d * noise) for d in NOISES],
        "shift": [mean(pictures.roll(d, 3)) for d in SHIFTS],
        "another_person": [mean(pictures.roll(1, 0))],
    }


@torch.no_grad()
def milliseconds(network: HeadNet) -> float:
    """Processor time of one picture, one thread."""
    picture, times = torch.zeros(1, 3, SIZE, SIZE), []
    for _ in range(30):
        start = time.process_time()
        network(picture)
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times[5:])


def films(work: Path, pack: HeadPack) -> list[tuple[np.ndarray, np.ndarray]]:
    """Landmarks and sound of people and voices of no training, drawn, then tracked by the real tracker; kept in `work`."""
    recordings = [one for one in load_recordings(work / "speech_unseen.npz") if one.frames >= FILM_FRAMES][:FILMS]
    result = []
    for index, recording in enumerate(recordings):
        path = work / f"film-{index}.npy"
        if not path.exists():
            rng = np.random.default_rng([99, index])
            script = write_script(recording.phones, FILM_FRAMES, float(FPS), pack, seed=1000 + index)
            np.save(path, film_landmarks(random_person(rng, pack), script, pack, rng).astype(np.float32))
        result.append((np.load(path), recording.samples))
    return result


def clip(path: Path, sound_path: Path, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks and sound of a film on disk; landmarks are kept in `work`."""
    import av
    import soundfile

    tracked = work / f"tracked-{path.stem}.npy"
    if not tracked.exists():
        with av.open(str(path)) as container:
            np.save(tracked, track(frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)).landmarks)
    landmarks = np.load(tracked)
    sound, rate = soundfile.read(sound_path, dtype="float32")
    if rate != AUDIO_RATE:
        raise SystemExit(f"{sound_path} must be at {AUDIO_RATE} Hz.")
    return landmarks, sound


def delayed(samples: np.ndarray, frames: int) -> np.ndarray:
    """The sound, so many frames late (or early, if negative)."""
    step = frames * AUDIO_RATE // FPS
    return np.concatenate([np.zeros(step, np.float32), samples]) if step >= 0 else samples[-step:]


def planted(network: SyncExpert, films: list[tuple[np.ndarray, np.ndarray]], length: int | None = None) -> dict:
    """Errors in frames of offsets planted into films, over whole films or over pieces of `length` frames."""
    errors, confidences, as_they_are = [], [], []
    for landmarks, samples in films:
        span = length or len(landmarks)
        for begin in range(0, len(landmarks) - span + 1, span):
            for offset in PLANTED:
                late = delayed(samples, offset)[begin * AUDIO_RATE // FPS : (begin + span) * AUDIO_RATE // FPS]
                found = sync_offset(landmarks[begin : begin + span], late, network=network)
                errors.append(found.offset - offset)
                confidences.append(found.confidence)
                if offset == 0:
                    as_they_are.append(found.offset)
    size = np.abs(errors)
    return {
        "tries": len(errors), "pieces": len(as_they_are), "median": float(np.median(size)), "worst": float(size.max()),
        "within_1": float((size <= 1).mean()), "as_it_is": float(np.median(as_they_are)),
        # How well planted offsets are told, whatever the film's own: errors less their median.
        "median_relative": float(np.median(np.abs(errors - np.median(errors)))),
        "worst_relative": float(np.abs(errors - np.median(errors)).max()),
        "within_1_relative": float((np.abs(errors - np.median(errors)) <= 1).mean()),
        "confidence": float(np.median(confidences)),
    }  # fmt: skip


def by_regression(landmarks: np.ndarray, samples: np.ndarray) -> float:
    """The offset without the expert: where the lips' opening is best predicted from sound that was moved by so much.

    For every shift, ridge regression from five frames of log-mel to the opening (less its mean over two seconds), correlation
    on held-out fifths. Its curve has a flat top, as five frames hear a shift of two; the middle of its half height is taken.
    """
    opening = lip_gap(landmarks.astype(np.float64)) / interocular(landmarks.astype(np.float64))
    opening = np.where(np.isfinite(opening), opening, np.nanmedian(opening))
    slow = np.convolve(np.pad(opening, 25, mode="edge"), np.ones(51) / 51, "valid")
    heard = sound_features(samples, len(opening)).T.numpy()
    heard = np.concatenate([np.roll(heard, shift, 0) for shift in range(-2, 3)], 1)
    frames = np.arange(20, len(opening) - 20)
    target, fifth = (opening - slow)[frames], np.arange(len(frames)) * 5 // len(frames)
    curve = []
    for shift in range(-15, 16):
        predicted = np.zeros(len(frames))
        for part in range(5):
            x, y, known = heard[frames + shift], target, fifth != part
            centred = x[known] - x[known].mean(0)
            weights = np.linalg.solve(centred.T @ centred + 300 * np.eye(x.shape[1]), centred.T @ (y[known] - y[known].mean()))
            predicted[~known] = (x[~known] - x[known].mean(0)) @ weights
        curve.append(np.corrcoef(predicted, target)[0, 1])
    best = int(np.argmax(curve))
    below = np.flatnonzero(np.array(curve) < max(curve) / 2)
    left, right = max(below[below < best], default=0), min(below[below > best], default=30)
    crossings = [
        low + (max(curve) / 2 - curve[low]) / (curve[high] - curve[low]) * (high - low)
        for low, high in ((left, left + 1), (right, right - 1))
    ]
    return float(np.mean(crossings) - 15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", default=None)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--clips", nargs="*", default=[], metavar="FILM[:SOUND]")
    parser.add_argument("--weights", type=Path, default=WEIGHTS.parent)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pack = HeadPack(arguments.heads)
    headnet, expert = load_headnet(arguments.weights / "headnet.safetensors"), load_sync(arguments.weights / "sync.safetensors")

    folder = arguments.work / "portraits"
    known = load_portraits([render_portraits(folder, number, pack) for number in (0, 1)])
    unseen = load_portraits([render_portraits(folder, 0, pack, held_out_textures=True)])
    result: dict = {"machine": f"{platform.machine()}, one thread, Python {sys.version.split()[0]}, torch {torch.__version__}"}
    result["headnet"] = {
        "unseen_heads": judge_heads(headnet, known), "unseen_textures": judge_heads(headnet, unseen),
        "perceptual": responses(headnet, known), "milliseconds": milliseconds(headnet),
    }  # fmt: skip
    for name in ("unseen_heads", "unseen_textures"):
        show_heads(name, result["headnet"][name])
    print(f"perceptual distance: {json.dumps(rounded(result['headnet']['perceptual']))}")
    print(f"one picture of {SIZE} x {SIZE}: {result['headnet']['milliseconds']:.1f} ms of one processor\n")

    drawn = films(arguments.work, pack)
    sync = {"drawn films": planted(expert, drawn), "drawn films, 5-s pieces": planted(expert, drawn, PIECE)}
    for words in arguments.clips:
        film, _, sound = words.partition(":")
        path = Path(film)
        one = [clip(path, Path(sound) if sound else path.with_suffix(".flac"), arguments.work)]
        sync |= {path.stem: planted(expert, one), f"{path.stem}, 5-s pieces": planted(expert, one, PIECE)}
        sync[path.stem]["by_regression"] = by_regression(*one[0])
    result["sync"] = sync
    titles = ["tries", "median", "worst", "<=1", "own", "worst rel", "conf", "regr"]
    print(f"{'planted -10..10':32}" + "".join(f"{title:>10}" for title in titles))
    for name, row in sync.items():
        keys = ["median", "worst", "within_1", "as_it_is", "worst_relative", "confidence", "by_regression"]
        print(f"{name:32}{row['tries']:10}" + "".join(f"{row[key]:10.2f}" for key in keys if key in row))
    if arguments.json:
        arguments.json.write_text(json.dumps(rounded(result), indent=1) + "\n")


def show_heads(title: str, scores: dict) -> None:
    print(f"{title} ({scores['pictures']} pictures)")
    print(f"{'':10}{'persons':>8}{'AUC':>7}{'twins':>7}{'lm %':>7}{'front':>7}{'expr err':>9}{'corr':>6}{'gaze°':>7}")
    for name, row in scores.items():
        if isinstance(row, dict) and "landmarks_percent" in row:
            who = row["identity"]
            print(
                f"{name:10}{who['persons']:8}{who['strangers']:7.3f}{who.get('twins', float('nan')):7.3f}"
                f"{row['landmarks_percent']:7.2f}{row['landmarks_percent_frontal']:7.2f}{row['reading_error']:9.3f}"
                f"{row['reading_correlation']:6.2f}{row['gaze_error_degrees']:7.2f}"
            )
    for name in ("baseline_pixels", "baseline_colour_of_head"):
        print(f"{name}: {json.dumps(rounded(scores[name]))}")
    print(f"correlation of each reading: {json.dumps(rounded(scores['each_reading']))}\n")


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
