"""How well does a subject hold up from the side? PSNR inside the head against true views of a synthetic person.

    python benchmarks/side_views.py SUBJECT TRUTH_FOLDER [SUBJECT ...]

TRUTH_FOLDER holds `views.npz` (yaw, pitch, cam2world, intrinsics of K views) and `views/fIIIII_vK.webp`. The identity planes
are drawn without any speech, so that only the prior and the personalisation are judged; the mouth is part of the error of
everyone alike. The true camera stands closer than the prior's: a similarity between both projections of the canonical
landmarks brings the true picture into the prior's crop, which leaves the difference in perspective in the error.
Truth is used for scoring only.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from talk3d.capture.build import Capture
from talk3d.capture.mask import PersonSegmenter
from talk3d.prior.generator import composite, load_prior
from talk3d.prior.subject import load_subject

FRAMES = 12


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[2, 3]: the least-squares scale, rotation and shift from points [P, 2] to points [P, 2]."""
    a, b = source - source.mean(0), target - target.mean(0)
    z = (a[:, 0] + 1j * a[:, 1]).conj() @ (b[:, 0] + 1j * b[:, 1]) / (np.abs(a) ** 2).sum()
    linear = np.array([[z.real, -z.imag], [z.imag, z.real]])
    return np.concatenate([linear, (target.mean(0) - linear @ source.mean(0))[:, None]], 1)


@torch.no_grad()
def side_views(subject_at: Path, truth_at: Path, canonical: np.ndarray) -> dict[str, list[float]]:
    """PSNR per view name, one number a frame."""
    subject = load_subject(subject_at)
    profile, orbit = subject.generator.profile, subject.generator.profile.orbit
    size = profile.image_resolution
    segment = PersonSegmenter()
    views = np.load(truth_at / "views.npz")
    numbers = sorted({int(p.stem[1:6]) for p in (truth_at / "views").glob("*.webp")})
    scores: dict[str, list[float]] = {}
    for k, (yaw, pitch) in enumerate(zip(views["yaw"], views["pitch"], strict=True)):
        name = f"{np.degrees(yaw):+.0f},{np.degrees(pitch):+.0f}"
        angles = torch.tensor([float(yaw)]), torch.tensor([float(pitch)])
        ours = orbit.project(torch.from_numpy(canonical), *angles)[0].numpy() * size
        camera = (canonical - views["cam2world"][k][:3, 3]) @ views["cam2world"][k][:3, :3]
        true = camera @ views["intrinsics"].T
        raw = subject.generator.render(subject.planes, orbit.pose(*angles), orbit.intrinsics()[None], deterministic=True)
        image = subject.generator.superresolve(raw.features, raw.rgb, raw.alpha, subject.ws)
        for number in numbers[:: max(1, len(numbers) // FRAMES)][:FRAMES]:
            picture = cv2.imread(str(truth_at / "views" / f"f{number:05d}_v{k}.webp"))[..., ::-1]
            points = true[:, :2] / true[:, 2:] * picture.shape[0]
            crop = similarity(points, ours)
            crop[:, 2] += crop[:, :2].sum(1) * 0.5 - 0.5  # OpenCV counts from pixel centres
            warped = cv2.warpAffine(np.ascontiguousarray(picture), crop, (size, size), flags=cv2.INTER_AREA)
            inside = cv2.warpAffine(np.full(picture.shape[:2], 255, np.uint8), crop, (size, size)) > 250
            head = (segment(warped) > 127) & inside
            wanted = torch.from_numpy(warped).permute(2, 0, 1)[None].float() / 127.5 - 1
            # Over grey: a head that is missing somewhere must not be forgiven by the true picture behind it.
            drawn = composite(image, torch.zeros_like(wanted)) if profile.alpha else image
            error = (drawn.clamp(-1, 1) - wanted).square().mean(1)[0].numpy() / 4
            scores.setdefault(name, []).append(float(-10 * np.log10(error[head].mean())))
    return scores


def main() -> None:
    """Print a table: one row a subject, one column a view."""
    first, truth, *more = (Path(argument) for argument in sys.argv[1:])
    for number, path in enumerate([first, *more]):
        capture = Capture.open(load_subject(path).capture_path)
        prior = load_prior(Path(__file__).parents[1] / "src/talk3d/assets/prior")
        canonical = prior.canonical_landmarks
        assert capture.prior_hash == prior.hash, "make the subject with the shipped prior: its landmarks align the views"
        scores = side_views(path, truth, canonical)
        if number == 0:
            frames = len(next(iter(scores.values())))
            print(f"PSNR inside the head, dB, mean of {frames} frames a view (yaw,pitch in degrees)")
            print(f"{'':40}" + "".join(f"{name:>9}" for name in scores))
        print(f"{path!s:40}" + "".join(f"{np.mean(values):9.2f}" for values in scores.values()))


if __name__ == "__main__":
    main()
