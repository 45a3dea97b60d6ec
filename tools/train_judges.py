"""Make the judges that ship: render and speak synthetic people, train HeadNet, the lip-sync expert and the ear on them.

    python tools/train_judges.py --heads DIR --work DIR [--minutes M] [--output DIR]

Everything is kept in the work folder and continued from there: stop it whenever you like, or let `--minutes` stop each
training, and run it again. Needs numba, espeak-ng's library and the tracker's models (`talk3d models install`). Weights
and the numbers of `benchmarks/judges.py` go into the package's assets, or to `--output`.
"""

import argparse
import math
import subprocess
import sys
from pathlib import Path

import cv2
import torch
from espeak import IPA, Synthesiser
from voices import VISEMES, make_recordings

from talk3d.heads.model import HeadPack
from talk3d.judges.ear import save_ear
from talk3d.judges.headnet import WEIGHTS, save_headnet
from talk3d.judges.sync import save_sync
from talk3d.pretrain.ear import EAR, train_ear
from talk3d.pretrain.judges import CLOSEUP, GLANCE, SYNC, train_headnet, train_sync
from talk3d.pretrain.portraits import HELD_OUT_SHARDS, load_portraits, render_portraits
from talk3d.pretrain.speakers import Rig, TrackerModel, load_recordings, measure_tracker, save_recordings

SHARDS = 34
"""Of portraits, with those that are held out; 2,048 people to train on."""
RECORDINGS, UNSEEN, SEED = 900, 24, 1
"""Of about ten seconds each; by voices to train on, and by others to be scored on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", default=None, help="folder of the head pack")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=math.inf, help="of each training in this run")
    parser.add_argument("--output", type=Path, default=WEIGHTS.parent)
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    pack = HeadPack(arguments.heads)
    # One thread each: results do not depend on how many cores there are.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    for number in range(SHARDS):
        report("portraits", number + 1, SHARDS)
        render_portraits(work / "portraits", number, pack)
    folders = sorted((work / "portraits").glob("portraits-*"))[HELD_OUT_SHARDS:SHARDS]
    headnet = train_headnet(
        load_portraits(folders), work / "headnet", GLANCE, CLOSEUP, lambda *now: report("headnet", *now), arguments.minutes
    )

    speech, tracker = work / "speech.npz", work / "tracker.safetensors"
    if not speech.exists():
        speak = Synthesiser(IPA)
        unseen = make_recordings(speak, UNSEEN, SEED, unseen=True)
        save_recordings(work / "speech_unseen.npz", unseen, sorted(VISEMES))
        save_recordings(speech, make_recordings(speak, RECORDINGS, SEED), sorted(VISEMES))
    recordings = load_recordings(speech)
    if not tracker.exists():
        measure_tracker(pack, recordings, lambda done, of: report("tracker", done, of)).save(tracker)
    sync = train_sync(
        recordings, Rig(pack), TrackerModel.load(tracker), work / "sync", SYNC, lambda *now: report("sync", *now),
        arguments.minutes,
    )  # fmt: skip

    ear = train_ear(recordings, work / "ear", EAR, lambda *now: report("ear", *now), arguments.minutes)

    if headnet is None or sync is None or ear is None:
        print("Not finished; run the same command again to go on.")
        return
    save_headnet(headnet, arguments.output / "headnet.safetensors")
    save_sync(sync, arguments.output / "sync.safetensors")
    save_ear(ear, arguments.output / "ear.safetensors")
    print(f"Wrote headnet.safetensors, sync.safetensors and ear.safetensors into {arguments.output}.")
    benchmark = Path(__file__).parents[1] / "benchmarks" / "judges.py"
    command = [sys.executable, str(benchmark), "--heads", str(pack.root), "--work", str(work)]
    command += ["--weights", str(arguments.output), "--json", str(arguments.output / "judges.json")]
    subprocess.run(command, check=True)


def report(stage: str, done: int, of: int, text: str = "") -> None:
    print(f"\r{stage} {done}/{of} {text}\033[K", end="" if done < of else "\n", flush=True)


if __name__ == "__main__":
    main()
