"""HeadNet: a small network that looks at a head and says how it is held, who it is, and how far two pictures are apart.

A glance at the whole picture finds the landmarks and says who it is; its activations are what pictures are compared by. A
close-up of the face, cut where the glance found eyes and nose, reads the expression.

It is trained on rendered synthetic heads only (`pretrain/judges.py`) and ships with the package. Pictures are RGB in -1..1 of a
head that is placed as a prior's pictures are (camera.Orbit); any background.

Letters: B pictures, C channels, R readings, E size of the embedding.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from .weights import read_weights, save_weights

SIZE = 128
"""Side of the pictures that the network reads; others are resized."""
READINGS = (
    "jawOpen", "mouthPucker", "mouthFunnel", "mouthSmile", "mouthFrown", "mouthStretch", "mouthUpperUp", "mouthLowerDown",
    "mouthRollLower", "mouthPress", "eyeBlink_L", "eyeBlink_R", "browInnerUp", "browOuterUp", "browDown", "eyeSquint",
    "gaze_yaw", "gaze_pitch",
)  # fmt: skip
"""What is read off a face: expression weights 0..1 by the head pack's names, then the eyes' direction in radians."""
ANCHORS = (36, 39, 42, 45, 27, 28, 29, 30, 31, 33, 35)
"""Of the 68 points, those that hardly move with the expression: eye corners from the viewer's left to the right, and nose."""
CLOSE = 64
"""Side of the close-up, pixels."""
CLOSE_REACH, CLOSE_DROP = 2.4, 0.4
"""Half the close-up's side, and how far its middle lies below that of the anchors, in units of the anchors' spread."""
WEIGHTS = Path(__file__).parents[1] / "assets" / "judges" / "headnet.safetensors"

Picture = Float[Tensor, "batch 3 height width"]


@dataclass(frozen=True)
class HeadNetDims:
    """Sizes of the network; they are stored beside its weights."""

    widths: tuple[int, ...] = (24, 48, 96, 144, 160)
    """Channels of the glance's stages; each halves the side."""
    blocks: tuple[int, ...] = (0, 1, 2, 2, 1)
    """Residual blocks of each stage."""
    squeeze: int = 48
    """Channels per place that the glance's heads read."""
    hidden: int = 256
    embedding: int = 64
    close_widths: tuple[int, ...] = (24, 48, 80, 96)
    """Channels of the close-up's stages."""
    close_blocks: tuple[int, ...] = (0, 1, 1, 0)
    close_hidden: int = 96


@dataclass(frozen=True)
class HeadReading:
    """What HeadNet says of B pictures."""

    embedding: Float[Tensor, "batch embedding"]
    """Who it is: unit vectors, whose dot product is high for one person and low for two."""
    readings: Float[Tensor, "batch readings"]
    """See `READINGS`."""
    landmarks: Float[Tensor, "batch 68 2"]
    """Multi-PIE points, x to the right and y down, 0..1 of the picture's side."""


class ConvNorm(nn.Module):
    """A convolution and batch norm, which `HeadNet.folded` makes one convolution of."""

    def __init__(self, before: int, after: int, kernel: int = 3, stride: int = 1, folded: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=folded)
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Residual(nn.Module):
    """Two convolutions around which the picture may pass."""

    def __init__(self, channels: int, folded: bool):
        super().__init__()
        self.first = ConvNorm(channels, channels, folded=folded)
        self.second = ConvNorm(channels, channels, folded=folded)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


def _stages(widths: tuple[int, ...], blocks: tuple[int, ...], folded: bool) -> nn.ModuleList:
    """Each halves the side; the first one looks at 5 x 5 pixels."""
    stages, before = nn.ModuleList(), 3
    for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        down = ConvNorm(before, width, kernel=3 if index else 5, stride=2, folded=folded)
        stages.append(nn.Sequential(down, nn.ReLU(), *(Residual(width, folded) for _ in range(count))))
        before = width
    return stages


class Glance(nn.Module):
    """The whole picture: five stages, the last one a map of 4 x 4 places that two small heads read."""

    def __init__(self, dims: HeadNetDims, folded: bool = False):
        super().__init__()
        self.stages = _stages(dims.widths, dims.blocks, folded)
        places = (SIZE >> len(dims.widths)) ** 2
        self.squeeze = ConvNorm(dims.widths[-1], dims.squeeze, kernel=1, folded=folded)
        self.pose = nn.Sequential(
            nn.Linear(dims.squeeze * places, dims.hidden), nn.ReLU(), nn.Linear(dims.hidden, 68 * 2 + len(READINGS))
        )
        self.identity = nn.Sequential(
            nn.Linear(dims.squeeze * places, dims.hidden), nn.ReLU(), nn.Linear(dims.hidden, dims.embedding)
        )

    def features(self, x: Picture) -> list[Tensor]:
        """Activations after each stage [B, C, height / 2^i, width / 2^i]; pictures of any size from 32 x 32 on."""
        activations = []
        for stage in self.stages:
            x = stage(x)
            activations.append(x)
        return activations

    def forward(self, x: Float[Tensor, "batch 3 128 128"]) -> HeadReading:
        """The readings are a guess from afar, asked for in training only, where they teach the features."""
        flat = F.relu(self.squeeze(self.features(x)[-1])).flatten(1)
        # Heads in single precision: half the digits of a landmark would be lost below.
        with torch.autocast(x.device.type, enabled=False):
            pose = self.pose(flat.float())
            embedding = F.normalize(self.identity(flat.float()), dim=1)
        landmarks = 0.5 + 0.1 * pose[:, : 68 * 2].unflatten(1, (68, 2))
        return HeadReading(embedding, pose[:, 68 * 2 :], landmarks)


class CloseUp(nn.Module):
    """The face, upright and at one size, to readings."""

    def __init__(self, dims: HeadNetDims, folded: bool = False):
        super().__init__()
        self.stages = _stages(dims.close_widths, dims.close_blocks, folded)
        places = (CLOSE >> len(dims.close_widths)) ** 2
        self.read = nn.Sequential(
            nn.Linear(dims.close_widths[-1] * places, dims.close_hidden), nn.ReLU(), nn.Linear(dims.close_hidden, len(READINGS))
        )

    def forward(self, x: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch readings"]:
        for stage in self.stages:
            x = stage(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.read(x.flatten(1).float())


class HeadNet(nn.Module):
    """The glance and the close-up.

    Args:
        dims: sizes.
        folded: without batch norm, as shipped.
    """

    def __init__(self, dims: HeadNetDims | None = None, folded: bool = False):
        super().__init__()
        self.dims = dims = dims or HeadNetDims()
        self.glance, self.closeup = Glance(dims, folded), CloseUp(dims, folded)

    def forward(self, x: Picture) -> HeadReading:
        """Read pictures; those of another size than 128 x 128 are resized first."""
        if x.shape[-2:] != (SIZE, SIZE):
            x = F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        seen = self.glance(x)
        return dataclasses.replace(seen, readings=self.closeup(close_up(x, seen.landmarks)))

    def distance(self, x: Picture, y: Picture) -> Float[Tensor, " batch"]:
        """Perceptual distance of each pair of pictures: 0 for equal ones, symmetric, differentiable.

        As LPIPS (Zhang et al. 2018), but without learnt weights of channels: at every stage of the glance and every place,
        activations are brought to unit length, and their squared distance is averaged over places and stages. At most 2.
        Pictures are compared at the size they have, at least 32 x 32; the network was trained on heads of 128 x 128.
        """
        total = x.new_zeros(len(x))
        for one, other in zip(self.glance.features(x), self.glance.features(y), strict=True):
            total = total + (_unit(one) - _unit(other)).square().sum(1).mean((1, 2))
        return total / len(self.glance.stages)

    def folded(self) -> HeadNet:
        """The same function without batch norm: its statistics become part of the convolutions."""
        plain = HeadNet(self.dims, folded=True).eval()
        tensors = {name: value for name, value in self.state_dict().items() if ".norm." not in name}
        for name, module in self.named_modules():
            if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(module.conv.eval(), module.norm.eval())
                tensors |= {f"{name}.conv.weight": fused.weight, f"{name}.conv.bias": fused.bias}
        plain.load_state_dict(tensors)
        return plain.requires_grad_(False)


def close_up(x: Float[Tensor, "batch 3 128 128"], landmarks: Float[Tensor, "batch 68 2"]) -> Float[Tensor, "batch 3 64 64"]:
    """Cut faces out, upright and at one size; beyond the picture, its border is continued."""
    frame = face_frame(landmarks)
    # From 0..1 of either side to -1..1, which `affine_grid` counts in.
    frame = torch.cat([frame[:, :, :2], 2 * frame[:, :, 2:] + frame[:, :, :2].sum(2, keepdim=True) - 1], 2)
    grid = F.affine_grid(frame, [len(x), 3, CLOSE, CLOSE], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def face_frame(landmarks: Float[Tensor, "batch 68 2"]) -> Float[Tensor, "batch 2 3"]:
    """Maps from places in the close-up to places in the picture, both 0..1 from their upper left corner."""
    points = landmarks[:, list(ANCHORS)]
    middle = points.mean(1)
    spread = (points - middle[:, None]).square().sum(2).mean(1).clamp(min=1e-6).sqrt()
    x = F.normalize(points[:, 2:4].mean(1) - points[:, :2].mean(1), dim=1) * spread[:, None]
    axes = torch.stack([x, torch.stack([-x[:, 1], x[:, 0]], 1)], 2)  # [B, 2, 2]: columns are the close-up's axes
    corner = middle + (axes @ axes.new_tensor([[-CLOSE_REACH], [CLOSE_DROP - CLOSE_REACH]]))[..., 0]
    return torch.cat([2 * CLOSE_REACH * axes, corner[..., None]], 2)


def _unit(activations: Tensor) -> Tensor:
    # The small number keeps places where nothing is active at 0, with a gradient of 0.
    return activations / (activations.square().sum(1, keepdim=True) + 1e-6).sqrt()


def save_headnet(network: HeadNet, path: Path) -> None:
    """Write a folded network in half precision, with its sizes."""
    save_weights(network, network.dims, path)


@lru_cache
def load_headnet(path: Path = WEIGHTS) -> HeadNet:
    """The shipped HeadNet, or another one that `save_headnet` wrote; frozen, single precision, read once.

    Raises:
        CheckpointError: the file is missing, damaged, or holds another network.
    """
    return read_weights(path, lambda dims: HeadNet(HeadNetDims(**dims), folded=True), "HeadNet")


def perceptual_distance(x: Picture, y: Picture) -> Float[Tensor, " batch"]:
    """`HeadNet.distance` by the shipped network."""
    return load_headnet().distance(x, y)
