"""The field's own judges, for users who have their weights: LPIPS on AlexNet, and ArcFace's IR-SE50.

Neither ships with talk3d, and nothing of ours ever answers under their names. The weights are read as safetensors from
the model cache, with the tensor names of the public files.

Letters: B pictures, C channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import CheckpointError, ModelMissingError
from ..frozen import cache_dir

Picture = Float[Tensor, "batch 3 height width"]
Network = TypeVar("Network", bound=nn.Module)


class LpipsAlex(nn.Module):
    """LPIPS v0.1 on AlexNet (Zhang et al., "The Unreasonable Effectiveness of Deep Features", 2018).

    Tensors: `features.N.weight` and `.bias` of torchvision's AlexNet, `linK.model.1.weight` of the LPIPS weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        for index, channels in enumerate((64, 192, 384, 256, 256)):
            lin = nn.Module()
            # The dropout of training, which the public names count, has no weights.
            lin.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))
            self.add_module(f"lin{index}", lin)
        # LPIPS takes pictures in -1..1 and brings them to its own variant of ImageNet's statistics.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)

    def forward(self, x: Picture, y: Picture) -> Float[Tensor, " batch"]:
        """Distance of each pair of pictures in -1..1, at least 32 x 32; 0 for equal ones."""
        total = x.new_zeros(len(x))
        for index, (one, other) in enumerate(zip(self._activations(x), self._activations(y), strict=True)):
            weights = self.get_submodule(f"lin{index}.model.1")
            total = total + weights((_unit(one) - _unit(other)).square()).mean((1, 2, 3))
        return total

    def _activations(self, x: Tensor) -> list[Tensor]:
        x = (x - self.get_buffer("shift")) / self.get_buffer("scale")
        kept = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                kept.append(x)
        return kept


def _unit(activations: Tensor) -> Tensor:
    # Under the root, unlike the original, the small number keeps the gradient finite where nothing is active.
    return activations / (activations.square().sum(1, keepdim=True) + 1e-20).sqrt().clamp(min=1e-10)


class ArcFaceIrSe50(nn.Module):
    """ArcFace's 50-layer residual network with squeeze-and-excitation (Deng et al., 2019; the public `model_ir_se50.pth`)."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks, before = [], 64
        for channels, units in ((64, 3), (128, 4), (256, 14), (512, 3)):
            for unit in range(units):
                blocks.append(_IrSeBlock(before, channels, 2 if unit == 0 else 1))
                before = channels
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)
        )

    def forward(self, x: Float[Tensor, "batch 3 112 112"]) -> Float[Tensor, "batch 512"]:
        """Unit vectors of upright, tightly cropped faces in -1..1; their dot product is the likeness of two persons."""
        return F.normalize(self.output_layer(self.body(self.input_layer(x))), dim=1)


class _IrSeBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), _Excitation(after),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class _Excitation(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


def load_lpips_alex() -> LpipsAlex:
    """LPIPS, if its weights are in the cache as `models/lpips_alex.safetensors`; frozen.

    Raises:
        ModelMissingError: they are not; the message says what to fetch.
        CheckpointError: the file holds something else.
    """
    fetch = (
        "fetch `alex.pth` of LPIPS v0.1 (github richzhang/PerceptualSimilarity, lpips/weights/v0.1) and torchvision's "
        "`alexnet-owt-7be5be79.pth`, keep the latter's `features.*`, and save both sets of tensors"
    )
    return load_foreign(LpipsAlex(), "lpips_alex", fetch)


def load_arcface() -> ArcFaceIrSe50:
    """ArcFace, if its weights are in the cache as `models/arcface_ir_se50.safetensors`; frozen.

    Raises:
        ModelMissingError: they are not; the message says what to fetch.
        CheckpointError: the file holds something else.
    """
    fetch = "fetch `model_ir_se50.pth` (github TreB1eN/InsightFace_Pytorch) and save its tensors"
    return load_foreign(ArcFaceIrSe50(), "arcface_ir_se50", fetch)


def load_foreign(network: Network, name: str, fetch: str) -> Network:
    import safetensors
    import safetensors.torch

    path: Path = cache_dir() / "models" / f"{name}.safetensors"
    if not path.is_file():
        raise ModelMissingError(
            f"The judge `{name}` is not installed: `{path}` does not exist. talk3d cannot ship its weights. To use it, "
            f"{fetch} under their own names as safetensors there: `safetensors.torch.save_file(tensors, path)`. Mind the "
            "weights' own licence. Pickled files (.pth) are not read here, as they can run code."
        )
    try:
        network.load_state_dict({key: value.float() for key, value in safetensors.torch.load_file(path).items()})
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"`{path}` does not hold the weights of `{name}`: {str(error).splitlines()[-1].strip()} To replace it, {fetch} as "
            "safetensors there."
        ) from error
    return network.eval().requires_grad_(False)
