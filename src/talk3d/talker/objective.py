"""What the talker's training minimises: every term by name, with its weight (method 7).

Letters: B frames of a step, K numbers of a lip shape.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..capture.frames import Views
from ..errors import ConfigError
from ..judges.headnet import load_headnet
from ..losses import fooling, frame_difference, l2, magnitude, slope, unexplained_change, unlikeness
from ..prior.discriminator import DiscriminatorConfig, DualDiscriminator
from ..prior.generator import Generator, composite
from ..prior.patch import Patch, Windows, picture_losses
from ..prior.superres import BORDER
from ..render.rays import rays_through
from .reader import REACH, LipReader, LipSpace, SyncJudge, cut_mouths, shrink

R1_EVERY, R1_WEIGHT = 8, 1.0
IDENTITY_EVERY = 8
"""Steps from one whole face to the next: that costs as much as all windows of a step."""
OTHER_YAW, OTHER_PITCH = 0.5, 0.2
"""Radians by which the second view of a reprojection may lie off the first."""
VISIBLE = 0.02
"""Scene units (0.7 cm) between two depths that may be the same surface."""


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; 0 switches it off, and judges that only it needs are not asked."""

    picture: float = 1.0
    """L1 of raw and final picture (its perceptual part has a weight of its own)."""
    structure: float = 0.4
    """Perceptual distance without weights, raw and final."""
    perceptual: float = 0.0
    """HeadNet's perceptual distance, final picture."""
    mouth: float = 10.0
    """Squared error inside the lips' outline, final picture."""
    mouth_perceptual: float = 0.0
    """HeadNet's perceptual distance of the mouth alone."""
    mouth_shape: float = 0.0
    """Lip shapes that a reader sees in the drawn mouth, against the tracker's."""
    identity: float = 0.0
    """HeadNet's identity of the whole face, raw picture."""
    sync: float = 0.0
    """The lip-sync expert on the drawn mouth among filmed neighbours."""
    adversarial: float = 0.0
    """A discriminator of finished windows, learnt along."""
    cameras: float = 0.1
    """Size of the corrections to yaw and pitch, which the picture's terms find (reprojection), squared, in degrees."""
    reprojection: float = 0.0
    """Colour of a surface seen from a second camera against that seen from the first."""
    temporal: float = 0.0
    """Changes from frame to frame against those of the film; frames come in pairs then."""
    smoothness: float = 0.0
    """Changes of the delta planes from frame to frame that no condition asks for; frames come in pairs then."""
    delta: float = 0.001
    """Mean size of the delta planes."""
    lips: float = 0.1
    """The audio code's prediction of the lip shape."""

    @classmethod
    def parse(cls, texts: Sequence[str]) -> LossWeights:
        """The command line's form: `NAME=WEIGHT` for each that is not the usual one.

        Raises:
            ConfigError: no such term, or no weight that a term can have.
        """
        names, weights = [field.name for field in fields(cls)], {}
        for text in texts:
            name, _, number = text.partition("=")
            try:
                weight = float(number)
            except ValueError:
                weight = math.nan
            if name not in names or not 0 <= weight < math.inf:
                raise ConfigError(
                    f"`{text}` weighs no loss. Use NAME=WEIGHT, 0 to switch it off; names are {', '.join(names)}."
                )
            weights[name] = weight
        return cls(**weights)

    @property
    def pairs(self) -> bool:
        """Whether frames must come with their successors."""
        return self.temporal > 0 or self.smoothness > 0

    @property
    def reads(self) -> bool:
        """Whether drawn lips are read."""
        return self.mouth_shape > 0 or self.sync > 0


@dataclass(frozen=True)
class Step:
    """What a step has drawn, and what it should look like."""

    number: int
    index: Tensor
    """[B] frames, counted from the first training frame. If they come in pairs, each odd one follows its predecessor."""
    patch: Patch
    windows: Windows
    views: Views
    planes: Float[Tensor, "batch 3 channels side side"]
    """Identity and delta."""
    delta: Float[Tensor, "batch 3 channels side side"]
    """In units of the identity planes' deviation."""
    cam2world: Float[Tensor, "batch 4 4"]
    pose: Float[Tensor, "batch 2"]
    """Yaw and pitch of these cameras, radians."""
    residual: Float[Tensor, "batch 2"]
    """Corrections of yaw and pitch, radians."""
    outline: Float[Tensor, "batch 1 size size"]
    """1 inside the lips' outline; whole frames."""
    mouths: Float[Tensor, "batch 2"]
    """Middle of the mouth, x and y, 0..1 of the frame."""
    tokens: Float[Tensor, "batch tokens width"] | None
    """None if there is no smoothness term."""
    heard: Float[Tensor, "batch shapes"]
    """The lip shapes that the sound says..."""
    shapes: Float[Tensor, "batch shapes"]
    """...and those of the moments it is from."""
    own_sound: Bool[Tensor, " batch"]
    """Whether these are the frames' own. A frame whose mouth is out of the window may hear anything."""

    @cached_property
    def finished(self) -> Finished:
        """Made when the first term asks for it."""
        return Finished.of(self)


@dataclass(frozen=True)
class Finished:
    """Finished windows without their borders, over the filmed background; -1..1."""

    drawn: Float[Tensor, "batch 3 side side"]
    filmed: Float[Tensor, "batch 3 side side"]

    @classmethod
    def of(cls, step: Step) -> Finished:
        """What nobody knows (beyond the filmed frame) is taken from the drawing."""
        assert step.patch.final is not None
        behind = step.windows.cut(step.views.background, BORDER)
        drawn = composite(step.patch.final, behind)
        filmed = composite(step.windows.cut(step.views.target, BORDER), behind)
        return cls(drawn, torch.lerp(drawn.detach(), filmed, step.windows.cut(step.views.known, BORDER)))


class Objective(nn.Module):
    """All terms and those who judge them. Of its modules only the `discriminator` learns while training runs.

    Args:
        weights: of the terms.
        generator: draws whole faces and second views.
        space: the person's lip shapes; None if nothing is read.
        reader: reads them off pictures; None if nothing is read.
        expert: judges them beside the sound; None without the sync term.
        seed: of the discriminator's first weights.
    """

    def __init__(
        self,
        weights: LossWeights,
        generator: Generator,
        space: LipSpace | None = None,
        reader: LipReader | None = None,
        expert: SyncJudge | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.weights = weights
        self.generator, self.space, self.reader, self.expert = generator, space, reader, expert
        # Its own copy: another device must not move everyone's.
        self.headnet = copy.deepcopy(load_headnet())
        self.discriminator: DualDiscriminator | None = None
        if weights.adversarial:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                # The middle of a finished window, as large as a power of two can be.
                profile = generator.profile
                side = (profile.neural_resolution // 2 - 2 * BORDER) * profile.image_resolution // profile.neural_resolution
                sizes = DiscriminatorConfig(2 ** int(math.log2(side)), c_dim=0, channel_base=2048, channel_max=64)
                self.discriminator = DualDiscriminator(sizes)

    def forward(self, step: Step, rng: np.random.Generator) -> dict[str, Float[Tensor, ""]]:
        """Every term that is on, times its weight, a mean over the frames it looks at."""
        w, patch, windows, views = self.weights, step.patch, step.windows, step.views
        assert patch.final is not None
        terms = picture_losses(patch, views.target, views.background, windows, w.structure, views.known, w.picture)
        losses = {name: value.mean() for name, value in terms.items()}
        inside = windows.cut(step.outline, BORDER)
        losses["mouth"] = w.mouth * l2(patch.final[:, :3], windows.cut(views.target, BORDER)[:, :3], inside).mean()
        losses["delta"] = w.delta * magnitude(step.delta).mean()
        losses["lips"] = w.lips * F.mse_loss(step.heard, step.shapes)
        losses["cameras"] = w.cameras * step.residual.rad2deg().square().mean()
        if w.perceptual:
            # Half as fine as the final picture, as HeadNet was trained.
            drawn, filmed = (
                shrink(pictures, views.target.shape[-1]) for pictures in (step.finished.drawn, step.finished.filmed)
            )
            losses["perceptual"] = w.perceptual * self.headnet.distance(drawn, filmed).mean()
        if w.reads or w.mouth_perceptual:
            losses |= self._mouth_losses(step)
        if w.identity and step.number % IDENTITY_EVERY == 0:
            losses["identity"] = IDENTITY_EVERY * w.identity * self._identity_loss(step)
        if w.adversarial:
            losses["adversarial"] = w.adversarial * fooling(self._logits(step, step.finished.drawn)).mean()
        if w.reprojection:
            losses["reprojection"] = w.reprojection * self._reprojection_loss(step, rng)
        if w.pairs:
            losses |= self._pair_losses(step)
        return losses

    def discriminator_losses(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        """What the discriminator learns from a step: to tell drawn windows from filmed ones."""
        logits = self._logits(step, step.finished.drawn.detach(), detach=True)
        real, raw = (picture.detach().requires_grad_() for picture in self._seen(step, step.finished.filmed, filmed=True))
        assert self.discriminator is not None
        real_logits = self.discriminator(real, raw)
        losses = {"fake": fooling(-logits).mean(), "real": fooling(real_logits).mean()}
        if step.number % R1_EVERY == 0:
            losses["r1"] = R1_EVERY * 0.5 * R1_WEIGHT * slope(real_logits, real, raw).mean()
        return losses

    def _mouth_losses(self, step: Step) -> dict[str, Tensor]:
        """Terms of the mouths that lie wholly in their windows."""
        w, size, side = self.weights, step.windows.size, step.windows.side - 2 * BORDER
        final_size = step.views.target.shape[-1]
        corner = np.stack([step.windows.left, step.windows.top], 1) + BORDER
        centres = (step.mouths * size - torch.from_numpy(corner).to(step.mouths)) / side
        reach = REACH * size / side
        drawn, whole = cut_mouths(shrink(step.finished.drawn, final_size), centres, reach)
        names = ("mouth_perceptual", "mouth_shape", "sync")
        losses = {name: drawn.new_zeros(()) for name in names if getattr(w, name)}
        if not whole.any():
            return losses  # all processes that train together log the same terms
        drawn = drawn[whole]
        if w.mouth_perceptual:
            filmed = cut_mouths(shrink(step.finished.filmed, final_size), centres, reach)[0][whole]
            losses["mouth_perceptual"] = w.mouth_perceptual * self.headnet.distance(drawn, filmed).mean()
        if w.reads and self.reader is not None:
            read = self.reader(drawn)
            if w.mouth_shape:
                losses["mouth_shape"] = w.mouth_shape * F.mse_loss(read, step.shapes[whole])
            if w.sync and self.expert is not None and self.space is not None:
                seen, sound = self.expert(step.index[whole], self.space.lips(read))
                losses["sync"] = w.sync * unlikeness(seen, sound).mean()
        return losses

    def _identity_loss(self, step: Step) -> Tensor:
        """Of the whole face of the first frame that hears its own sound, as rough as it is rendered."""
        generator = self.generator
        own = step.own_sound.nonzero()[:1, 0]
        if not len(own):
            return step.planes.new_zeros(())
        intrinsics = generator.profile.orbit.intrinsics().to(step.cam2world)[None]
        seen = generator.render(step.planes[own], step.cam2world[own], intrinsics, deterministic=True)
        k = step.views.target.shape[-1] // seen.rgb.shape[-1]
        behind = F.avg_pool2d(step.views.background[own], k)
        filmed = composite(F.avg_pool2d(step.views.target[own], k), behind)
        drawn = composite(torch.cat([seen.rgb, 2 * seen.alpha - 1], 1), behind)
        return unlikeness(self.headnet(drawn).embedding, self.headnet(filmed).embedding).mean()

    def _reprojection_loss(self, step: Step, rng: np.random.Generator) -> Tensor:
        """Render the first frame's surface again, along rays from another camera to its points.

        A solid surface has one colour and one depth from everywhere; fog has not. Points that the second camera does not see
        (its depth is another) say nothing.
        """
        generator, orbit = self.generator, self.generator.profile.orbit
        intrinsics = orbit.intrinsics().to(step.cam2world)[None]
        first = rays_through(step.cam2world[:1], intrinsics, step.windows.positions()[:1].to(step.cam2world))
        depth = step.patch.depth[:1].flatten(2).mT  # [1, rays, 1]
        points = first.origins + depth * first.directions
        turn = torch.from_numpy(rng.uniform(-1, 1, 2) * [OTHER_YAW, OTHER_PITCH]).to(step.pose)
        angles = (step.pose[0].detach() + turn)[:, None]
        camera = orbit.pose(*angles).to(step.cam2world)
        place = orbit.project(points[0].detach(), *angles.to(points))
        second = rays_through(camera, intrinsics, place)
        seen = generator.render_rays(step.planes[:1], second, deterministic=True)
        far = (points - second.origins).norm(dim=-1, keepdim=True)
        same = ((seen.depth - far).abs() < VISIBLE) & ((place > 0) & (place < 1)).all(-1, keepdim=True)
        solid = ((step.patch.raw[:1, 3:] + 1) / 2).flatten(2).mT * same
        difference = (seen.features[..., :3] - step.patch.raw[:1, :3].flatten(2).mT).abs()
        return (difference * solid).sum() / (3 * solid.sum()).clamp(min=1.0)

    def _pair_losses(self, step: Step) -> dict[str, Tensor]:
        w, losses = self.weights, {}
        if w.temporal:
            drawn, filmed = step.finished.drawn, step.finished.filmed
            losses["temporal"] = w.temporal * frame_difference(drawn[::2], drawn[1::2], filmed[::2], filmed[1::2]).mean()
        if w.smoothness:
            assert step.tokens is not None
            reason = (step.tokens[1::2] - step.tokens[::2]).square().mean(2).sum(1).sqrt().detach()
            losses["smoothness"] = w.smoothness * unexplained_change(step.delta[::2], step.delta[1::2], reason).mean()
        return losses

    def _logits(self, step: Step, pictures: Tensor, detach: bool = False) -> Float[Tensor, " batch"]:
        assert self.discriminator is not None
        image, raw = self._seen(step, pictures, filmed=False)
        return self.discriminator(image, raw.detach() if detach else raw)

    def _seen(self, step: Step, pictures: Tensor, filmed: bool) -> tuple[Tensor, Tensor]:
        """What the discriminator looks at: the middle of finished windows, and of their raw pictures."""
        k = step.views.target.shape[-1] // step.windows.size
        behind = step.windows.cut(F.avg_pool2d(step.views.background, k), BORDER)
        inner = step.patch.raw[..., BORDER:-BORDER, BORDER:-BORDER]
        raw = F.avg_pool2d(pictures, k) if filmed else composite(inner, behind)
        assert self.discriminator is not None
        side = self.discriminator.config.resolution
        return _middle(pictures, side), _middle(raw, max(1, side // k))


def _middle(pictures: Tensor, side: int) -> Tensor:
    top, left = ((length - side) // 2 for length in pictures.shape[-2:])
    return pictures[..., top : top + side, left : left + side]
