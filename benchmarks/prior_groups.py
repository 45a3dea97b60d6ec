"""How well does a prior draw the heads it never saw? From their true parameters, by skin tone and sex.

    python benchmarks/prior_groups.py [--prior DIR] [--heads DIR] [--count 96]

Prints a table for the model card: PSNR inside the head, HeadNet's perceptual distance and depth error, means over four views
(yaw 0, 20, -40; pitch 15). The heads are unseen; their textures are those of training, as no latent can name another.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from talk3d.bench.prior import score, unseen_head, unseen_parameters
from talk3d.heads.latent import TONES, HeadEmbedding, is_female, tone_of
from talk3d.heads.model import HeadPack
from talk3d.prior.generator import load_prior

FIRST = 10_000
"""Numbers of the heads begin here: the first ones are those that `talk3d prior evaluate` inverts."""
VIEWS = ((0, 0), (20, 0), (-40, 0), (0, 15))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", type=Path, default=Path(__file__).parents[1] / "src/talk3d/assets/prior")
    parser.add_argument("--heads", type=Path)
    parser.add_argument("--count", type=int, default=96)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pack, generator = HeadPack(options.heads), load_prior(options.prior).generator
    embedding = HeadEmbedding(pack)
    rows: dict[str, list[list[float]]] = {"all": []}
    for number in range(options.count):
        parameters = unseen_parameters(FIRST + number, pack, held_out=False)
        z = torch.from_numpy(embedding(parameters))[None]
        measured, _ = score(generator, generator.map(z), unseen_head(parameters, VIEWS, pack, generator))
        row = [float(np.mean(measured[name])) for name in ("psnr", "headnet", "depth")]
        for group in ("all", tone_of(parameters, pack), "women" if is_female(parameters) else "men"):
            rows.setdefault(group, []).append(row)
    print("| | heads | PSNR, dB | HeadNet distance | depth error, cm |\n|---|---|---|---|---|")
    for group in ("all", *TONES, "women", "men"):
        psnr, distance, depth = np.mean(rows[group], 0)
        print(f"| {group} | {len(rows[group])} | {psnr:.1f} | {distance:.3f} | {depth:.2f} |")


if __name__ == "__main__":
    main()
