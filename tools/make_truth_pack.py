"""Remake the bench pack: three synthetic people whose lips, poses and side views are known exactly.

`talk3d bench truth` trains on `train.mp4` only; everything else here is for scoring. The voices are espeak-ng's (Debian:
`apt-get install libespeak-ng1`), the faces are synthetic heads. Run: `python tools/make_truth_pack.py --heads DIR`.
"""

import argparse
import hashlib
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from espeak import IPA, RATE, Synthesiser
from voices import phones_of

from talk3d.camera import Orbit
from talk3d.heads.model import HeadPack, HeadParameters, Light
from talk3d.heads.raster import render_head
from talk3d.heads.subject import perform, write_script
from talk3d.video.write import VideoWriter

PACK = Path(__file__).parents[1] / "src" / "talk3d" / "assets" / "truth"
SIZE, FPS, DEPTH_SIZE = 256, 25, 64
ORBIT = Orbit(pivot=(0.0, 0.0, 0.15), focal=2.75)
LEAD = 0.5
"""Seconds of silence before and after speech."""
PAUSE = 0.15
"""Seconds without a sound's shape that count as a pause."""
FEWEST_CLOSURES, FEWEST_PAUSES = 50, 20
MOMENTS = 6
VIEWS = [(yaw, 0) for yaw in (-45, -30, -15, 0, 15, 30, 45)] + [(0, -15), (0, 15)]
"""Yaw and pitch of the side views, degrees."""
MOST_BYTES = 7_000_000
CRF, KEY_FRAMES = 21, 250
BIT_RATE = 32_000
"""Of the sound: at the writer's own choice it would be almost half of the pack."""


@dataclass(frozen=True)
class Film:
    """What is said in one film."""

    voice: str
    speed: int
    text: str


@dataclass(frozen=True)
class Person:
    """One identity of the pack."""

    looks: HeadParameters
    wall: tuple[int, int, int]
    seed: int
    films: dict[str, Film]


def face(*seed: int, scale: float) -> np.ndarray:
    """[57] identity coefficients."""
    return (np.random.default_rng(seed).standard_normal(57) * scale).astype(np.float32)


# Skins, brows and most hair and eyes are held out: no training head of the prior ever wore them. All are painted by hand, since
# the held-out textures alone have no light man and no medium woman.
BEN = HeadParameters(
    identity=face(13, 3, scale=0.7),
    skin="young_lightskinned_female3",
    melanin=0.03,
    haemoglobin=0.2,
    lip_tint=0.2,
    freckles=0.2,
    beard=0.2,
    hair="short04",
    hair_colour=(0.36, 0.24, 0.14),
    brow="eyebrow011",
    eye="ice",
    shirt=(0.16, 0.3, 0.42),
    light=Light(azimuth=-0.5, elevation=0.5, fill=0.15, temperature=5600.0),
)
MIRA = HeadParameters(
    identity=face(12, 4, scale=0.7),
    skin="young_lightskinned_female3",
    second_skin="old_darkskinned_male",
    blend=0.3,
    melanin=0.5,
    lip_tint=0.6,
    makeup=0.4,
    hair="long01",
    hair_colour=(0.11, 0.07, 0.05),
    brow="eyebrow004",
    eye="green",
    eye_value=-0.5,
    shirt=(0.6, 0.33, 0.14),
    light=Light(azimuth=0.6, elevation=0.45, fill=0.2, temperature=4500.0),
)
ABEL = HeadParameters(
    identity=face(9, 4, scale=0.7),
    skin="old_darkskinned_male",
    melanin=0.3,
    haemoglobin=-0.3,
    lip_tint=0.3,
    beard=0.4,
    hair="short04",
    hair_colour=(0.05, 0.045, 0.04),
    brow="eyebrow008",
    eye="brown",
    shirt=(0.7, 0.69, 0.64),
    light=Light(azimuth=0.2, elevation=0.6, key=0.85, fill=0.2),
)

PEOPLE = {
    "ben": Person(
        BEN,
        (104, 112, 106),
        31,
        {
            "train": Film(
                "en-us+robert",
                142,
                "Good morning. My name is Ben, and I am made of numbers. Nobody has ever met me in person, but maybe "
                "you have heard my voice before. I would like to tell you about my boat. It is a small blue boat, "
                "with a brown sail, and it belongs to my mother. Every summer we move it from the bay to the open "
                "water. Five or six of us pull, and the others push. Then we have coffee, bread with butter, and a "
                "few warm apples. Sometimes a thunder storm comes over the village. We watch it from the window, wait "
                "for the rain to stop, and go outside again.",
            ),
            "test": Film(
                "en-us+robert",
                142,
                "Please bring me a map, a pencil, and a piece of paper. The museum opens at about seven, but Bob and "
                "Emma promised to be early. Mix the flour, the pepper, and the milk. Bake it for a bit, then put it "
                "by the lamp. My problem is simple: my computer broke, my phone is empty, and my bus stops at the "
                "bottom of the mountain. Perhaps people improve. Perhaps they remember. A bumblebee hums above the "
                "plum tree, a lamb jumps, a baby claps, and somebody plays the trumpet. May I have some more jam? Of "
                "course, my lamb, but mop up the crumbs, sweep the carpet, and help me pump the pump.",
            ),
            "other": Film(
                "en-us+f3",
                155,
                "Hello there! I am another voice, higher than the first. Let me borrow this face, for a moment, and "
                "talk about nothing much: rain, music, a cup of tea, and the best way to get back home by bicycle.",
            ),
        },
    ),
    "mira": Person(
        MIRA,
        (132, 118, 104),
        32,
        {
            "train": Film(
                "en-us+steph2",
                138,
                "Hi, I am Mira. I was drawn by a computer, so please do not look for me anywhere. I work in a bakery, "
                "at least in this story. We start at four in the morning, when most people are asleep. First I weigh "
                "the flour, then I add water, salt, and a little yeast. While it grows, I sweep the floor, open the "
                "windows, and watch the moon. By six the bread is warm and brown. Children come in for rolls, old men "
                "for a chat, and mothers for both. My favourite time is just before we close: no voice, no music, "
                "only the smell of vanilla and butter.",
            ),
            "test": Film(
                "en-us+steph2",
                138,
                "Maybe tomorrow, maybe in September. My brother bought a piano, a pumpkin, and a pair of purple "
                "boots. Mum, may we camp by the pond? Pam popped a balloon, Tim blew a bubble, and the puppy jumped "
                "up. Imagine an empty room, a broken lamp, and a map of Panama. The bishop hopes for peace, the mob "
                "hopes for beef. Be my member, be my champion, be my companion. A black cab stopped in the middle of "
                "the bridge. Help! Somebody dropped a bomb of paint, pink and plum, upon my best umbrella. Never "
                "mind, it's only beer and pepper. Stop it, wipe it, keep it.",
            ),
            "other": Film(
                "en-gb-x-rp+m3",
                155,
                "Good evening. This is a man's voice, and these are her lips. The five o'clock train to Bath will "
                "leave from platform nine, please mind the gap, and have a very pleasant journey.",
            ),
        },
    ),
    "abel": Person(
        ABEL,
        (112, 120, 134),
        33,
        {
            "train": Film(
                "en-gb-x-rp+marcelo",
                142,
                "My name is Abel. You are looking at a picture that learned to talk. I used to teach geography, in a "
                "school by the river. We had few books, but many maps, and I put them up on every wall. The children "
                "would choose a place, far away, and tell me what people eat there, which music they love, and how "
                "they build a house. Some of it was true. Most of it was better than true. One boy, Samuel, made up "
                "an island with warm snow and blue elephants. Years later he wrote me a long letter, from the coast "
                "of Peru. I have kept it in my pocket ever since.",
            ),
            "test": Film(
                "en-gb-x-rp+marcelo",
                142,
                "Poor Bob Palmer was a member of Parliament, a bad poet, and a brave swimmer. Pick up the rope, grab "
                "the pump, and climb aboard. Bring blankets, bananas, and plenty of bottled beer. My grandmother "
                "planted a palm tree, a plum tree, and a bamboo. In the spring the bees came, humming. In the summer "
                "the birds came, bathing. Maybe it is impossible, maybe it is a bargain. Mark my words: people who "
                "whisper lies also mumble compliments. Boom, boom, beat the drum. Stamp, clap, and jump. Pass the "
                "soup, Pam. Pass the beef, Tom. Keep the lamp above the bed, but beware of the moths.",
            ),
            "other": Film(
                "en-us+iven3",
                150,
                "Testing, one, two, three. I borrowed this gentleman's face, so that you may see how it follows a "
                "stranger. My mouth should move when I move mine, and rest, when I rest.",
            ),
        },
    ),
}  # fmt: skip


def room(wall: tuple[int, int, int], seed: int) -> np.ndarray:
    """[S, S, 3] uint8 background: a wall in uneven light, with a few soft-edged things standing in front of it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    light = 1.1 - 0.35 * y + rng.uniform(-0.25, 0.25) * (x - 0.5)
    picture = np.array(wall) * light[..., None]
    for side in (0.0, 0.8, 0.1, 0.9):
        left, top = side + rng.uniform(-0.05, 0.05), rng.uniform(0.05, 0.6)
        inside = (abs(x - left - 0.06) < rng.uniform(0.04, 0.1)) & (abs(y - top - 0.12) < rng.uniform(0.06, 0.16))
        picture = np.where(inside[..., None], picture * rng.uniform(0.65, 1.2) * rng.uniform(0.85, 1.15, 3), picture)
    return np.clip(cv2.GaussianBlur(picture, (0, 0), 3.0), 0, 255).astype(np.uint8)


def make_film(who: str, name: str, heads: Path | None, folder: Path) -> None:
    """Write one film with its truth, and for the test film its side views.

    To be run in a process of its own: what espeak-ng says depends on what it has said before.
    """
    person, pack = PEOPLE[who], HeadPack(heads)
    film = person.films[name]
    sound, events = Synthesiser(IPA)(film.text, film.voice, film.speed)
    quiet = np.zeros(round(LEAD * RATE), np.float32)
    sound = np.concatenate([quiet, sound, quiet]) * 0.8
    events = [(time + LEAD, sign) for time, sign in events]
    phones = phones_of(events, len(sound) / RATE - LEAD)
    frames = len(sound) * FPS // RATE
    # Each film moves in its own way.
    script = write_script(phones, frames, FPS, pack, seed=1000 * person.seed + sorted(person.films).index(name))
    blink = np.array([row["eyeBlink"] for row in script.expression], np.float32)
    background = room(person.wall, person.seed)
    notice = {"notice": "AI-generated: a synthetic person with a synthetic voice, not a recording.", "consent": "synthetic"}
    gaps, widths = [], []
    with VideoWriter(
        folder / f"{name}.mp4", (SIZE, SIZE), FPS, RATE, notice, CRF, preset="veryslow", gop=KEY_FRAMES, audio_bit_rate=BIT_RATE
    ) as writer:
        writer.write_audio(sound)
        for frame in perform(person.looks, script, pack, ORBIT, background):
            writer.write(frame.rgb)
            gaps.append(frame.lip_gap)
            widths.append(frame.lip_width)
    np.savez_compressed(
        folder / f"{name}.truth.npz",
        yaw=script.yaw.astype(np.float32),
        pitch=script.pitch.astype(np.float32),
        shift=script.shift.astype(np.float32),
        blink=blink,
        lip_gap_cm=np.array(gaps, np.float32),
        lip_width_cm=np.array(widths, np.float32),
        intrinsics=ORBIT.intrinsics().numpy(),
        phone=np.array([sign for _, sign in events]),
        phone_t=np.array([time for time, _ in events], np.float32),
        viseme=np.array([phone.viseme for phone in phones]),
        viseme_start=np.array([phone.start for phone in phones], np.float32),
        viseme_stop=np.array([phone.stop for phone in phones], np.float32),
        fps=FPS,
    )
    if name == "test":
        chosen = moments_of(np.array(gaps), blink)
        moments = [(i, replace(person.looks, expression=script.expression[i], gaze=tuple(script.gaze[i]))) for i in chosen]
        write_views(folder, moments, pack, background)


def moments_of(gaps: np.ndarray, blink: np.ndarray) -> list[int]:
    """One frame of each part of the film, eyes open, from a closed mouth to a wide one."""
    parts = np.array_split(np.arange(len(gaps)), MOMENTS)
    wanted = np.linspace(gaps.min(), gaps.max(), MOMENTS)
    return [int(part[np.argmin(abs(gaps[part] - gap) + blink[part])]) for part, gap in zip(parts, wanted, strict=True)]


def write_views(folder: Path, moments: list[tuple[int, HeadParameters]], pack: HeadPack, background: np.ndarray) -> None:
    """`views.npz`, `views/fIIIII_vK.webp`: moment I from camera K, and `views_depth.npz`: distances along the rays in scene
    units, of the first moment. The background does not move with the camera."""
    yaw, pitch = (np.radians(angles).astype(np.float32) for angles in np.array(VIEWS).T)
    cameras = ORBIT.pose(torch.from_numpy(yaw), torch.from_numpy(pitch)).numpy()
    intrinsics = ORBIT.intrinsics().numpy()
    np.savez_compressed(folder / "views.npz", yaw=yaw, pitch=pitch, cam2world=cameras, intrinsics=intrinsics)
    (folder / "views").mkdir()
    depths = []
    for index, looks in moments:
        head = pack.build(looks)
        for number, camera in enumerate(cameras):
            picture = render_head(head, pack, camera, intrinsics, SIZE)
            if index == moments[0][0]:  # lips hardly change the shape of a head
                depths.append(thinned(picture.depth))
            cover = picture.alpha[..., None].astype(np.float32) / 255
            rgb = np.clip(picture.rgb + (1 - cover) * background + 0.5, 0, 255).astype(np.uint8)
            path = folder / "views" / f"f{index:05d}_v{number}.webp"
            cv2.imwrite(str(path), rgb[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 90])
    np.savez_compressed(folder / "views_depth.npz", depth=np.stack(depths), frame=moments[0][0])


def thinned(depth: np.ndarray) -> np.ndarray:
    """Every fourth distance along the rays, at the middle of four by four pixels; NaN where there is no head."""
    step = SIZE // DEPTH_SIZE
    return np.where(np.isfinite(depth), depth, np.nan)[step // 2 :: step, step // 2 :: step].astype(np.float16)


def facts_of(person: Person, name: str, folder: Path) -> dict[str, object]:
    """What the manifest says of a film, counted in its truth."""
    truth = np.load(folder / f"{name}.truth.npz")
    frames = len(truth["lip_gap_cm"])
    silences = truth["viseme_start"][1:] - truth["viseme_stop"][:-1]
    return {
        "voice": person.films[name].voice,
        "seconds": frames / FPS,
        "frames": frames,
        "closures": int((truth["viseme"] == "PP").sum()),
        "pauses": int((silences >= PAUSE).sum()),
    }


def write_manifest(person: Person, pack: HeadPack, folder: Path) -> None:
    """`manifest.json`: seeds, counts, hashes."""
    films = {name: facts_of(person, name, folder) for name in person.films}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "what": "A synthetic person with exact truth, for `talk3d bench truth`. Made by tools/make_truth_pack.py.",
        "licence": "Apache-2.0",
        "seed": person.seed,
        "head_pack": pack.digest,
        "films": films,
        "degrees_of_views": VIEWS,
        "sha256": {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(folder.name, films)
    assert films["test"]["closures"] >= FEWEST_CLOSURES
    assert films["test"]["pauses"] >= FEWEST_PAUSES


def main() -> None:
    """Write everything about the asked-for people."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=Path, default=None)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--people", nargs="+", choices=list(PEOPLE), default=list(PEOPLE))
    parser.add_argument("--output", type=Path, default=PACK, help="must not hold these people yet")
    arguments = parser.parse_args()
    for name in arguments.people:
        (arguments.output / name).mkdir(parents=True)
    films = [(name, film, arguments.heads, arguments.output / name) for name in arguments.people for film in PEOPLE[name].films]
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, fresh, max_tasks_per_child=1) as pool:
        for made in [pool.submit(make_film, *film) for film in films]:
            made.result()
    for name in arguments.people:
        write_manifest(PEOPLE[name], HeadPack(arguments.heads), arguments.output / name)
    size = sum(path.stat().st_size for path in arguments.output.rglob("*") if path.is_file())
    print(f"{size / 1e6:.2f} MB")
    assert size <= MOST_BYTES


if __name__ == "__main__":
    main()
