"""Portraits for training judges: every synthetic person in several pictures that share nothing but the person.

A person is a shape, a skin with its brows and beard, eyes and hair. Expression, gaze, light, shirt and camera are drawn anew.
Half of the persons have a twin, who looks the same but for the shape of the head: skin and hair alone do not tell them apart.

A shard is a folder of .npy files, a pure function of its number, written under a temporary name and renamed.
Letters: P persons per shard, N pictures, S image size.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..camera import Orbit
from ..heads.latent import LATENT_SIZE, is_female, parameters_from_latent
from ..heads.model import HeadPack, HeadParameters
from ..heads.raster import landmarks68, project, render_head
from ..judges.headnet import READINGS, SIZE
from .dataset import write_shard

PERSONS = 64
"""Persons per shard."""
FACES = 3
"""Expressions of each person."""
VIEWS = 2
"""Pictures of each expression, from other sides and in other light."""
PICTURES = FACES * VIEWS
YAW, PITCH = math.radians(60), math.radians(25)
HELD_OUT_SHARDS = 2
"""The first shards are never trained on."""


@dataclass(frozen=True)
class Portraits:
    """N pictures with what is true of them."""

    images: NDArray[np.uint8]
    """[N, 4, S, S] sRGB premultiplied by alpha, and alpha."""
    landmarks: NDArray[np.float32]
    """[N, 68, 2] of the picture's side, 0..1."""
    readings: NDArray[np.float32]
    """[N, readings] expression weights and gaze, see `judges.headnet.READINGS`."""
    person: NDArray[np.int64]
    """[N] who it is."""
    twins: NDArray[np.int64]
    """[N] the number that a person and the twin share."""
    tone: NDArray[np.float32]
    """[N, 3] mean sRGB albedo of the painted face, 0..1."""
    female: NDArray[np.bool_]
    """[N] whether the skin texture is a woman's."""

    def __len__(self) -> int:
        return len(self.person)


def render_portraits(root: Path, number: int, pack: HeadPack, held_out_textures: bool = False) -> Path:
    """Render shard `number` into `root` unless it is already there; returns its folder.

    Args:
        root: the folder of shards.
        number: of the shard.
        pack: the head pack.
        held_out_textures: dress everyone in skins, hair, eyes and brows that are kept out of all training.
    """
    final = root / f"{'unseen' if held_out_textures else 'portraits'}-{number:05d}"
    if final.is_dir():
        return final
    rng = np.random.default_rng([20240401, number, int(held_out_textures)])
    orbit = Orbit()
    intrinsics = orbit.intrinsics().numpy()
    rows: dict[str, list] = {field.name: [] for field in dataclasses.fields(Portraits)}
    person = HeadParameters(identity=np.zeros(0, np.float32))
    for index in range(PERSONS):
        shape = _draw(rng, pack, held_out_textures)
        twin = index % 2 == 1 and rng.random() < 0.5
        person = dataclasses.replace(person, identity=shape.identity) if twin else shape
        key = number * PERSONS + index
        for _ in range(FACES):
            mood = _draw(rng, pack)
            face = dataclasses.replace(person, expression=mood.expression, gaze=mood.gaze, shirt=mood.shirt)
            head = pack.build(face)
            tone = head.skin[120:400, 130:380].mean((0, 1)) ** (1 / 2.2)
            for _ in range(VIEWS):
                yaw, pitch = _view(rng)
                pose = orbit.pose(torch.tensor([yaw]), torch.tensor([pitch])).numpy()[0]
                lit = dataclasses.replace(head, light=_draw(rng, pack).light)
                picture = render_head(lit, pack, pose, intrinsics, SIZE)
                rows["images"].append(np.concatenate([picture.rgb, picture.alpha[..., None]], 2).transpose(2, 0, 1))
                rows["landmarks"].append(project(landmarks68(head, pack), pose, intrinsics))
                rows["readings"].append(readings_of(face))
                rows["person"].append(key)
                rows["twins"].append(key - 1 if twin else key)
                rows["tone"].append(tone)
                rows["female"].append(is_female(person))
    write_shard(final, {name: np.stack(values) for name, values in rows.items()})
    return final


def load_portraits(folders: list[Path]) -> Portraits:
    """Shards put together, in memory (0.4 MB per person)."""
    names = [field.name for field in dataclasses.fields(Portraits)]
    return Portraits(**{name: np.concatenate([np.load(folder / f"{name}.npy") for folder in folders]) for name in names})


def readings_of(parameters: HeadParameters) -> NDArray[np.float32]:
    """[readings] what `judges.headnet` is to read off a picture of this head."""
    weights = parameters.expression
    values = []
    for name in READINGS[:-2]:
        both = name.removesuffix("_L").removesuffix("_R")
        values.append(weights.get(name, 0.0) + (weights.get(both, 0.0) if both != name else 0.0))
    return np.array([*values, *parameters.gaze], np.float32)


def _draw(rng: np.random.Generator, pack: HeadPack, held_out: bool = False) -> HeadParameters:
    return parameters_from_latent(rng.standard_normal(LATENT_SIZE).astype(np.float32), pack, held_out=held_out)


def _view(rng: np.random.Generator) -> tuple[float, float]:
    """Mostly from the front, where films are taken; one in four from anywhere."""
    if rng.random() < 0.25:
        return float(rng.uniform(-1, 1) * YAW), float(rng.uniform(-1, 1) * PITCH)
    return float(np.clip(rng.normal(0, YAW / 3), -YAW, YAW)), float(np.clip(rng.normal(0, PITCH / 3), -PITCH, PITCH))
