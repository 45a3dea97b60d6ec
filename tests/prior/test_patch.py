"""Windows of pictures: what is rendered and enlarged in a window is what the whole picture shows there."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from talk3d.prior import patch as patches
from talk3d.prior.generator import MINI, Generator, composite
from talk3d.prior.patch import BORDER, Patch, Windows, picture_losses, render_patch
from talk3d.prior.superres import SuperResolutionConfig
from talk3d.render.rays import pixel_centres

SIZE = 32
PROFILE = dataclasses.replace(
    MINI,
    name="tiny",
    z_dim=6,
    w_dim=12,
    mapping_features=12,
    plane_resolution=16,
    plane_channels=4,
    channel_base=128,
    channel_max=8,
    decoder_hidden=8,
    decoder_features=5,
    neural_resolution=SIZE,
    superres=SuperResolutionConfig(input_resolution=SIZE, widths=(6, 4), first_up=True, clamp=None),
    render=dataclasses.replace(MINI.render, samples_coarse=6, samples_fine=5),
)


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Generator:
    """With samples in fixed places, so that a window and the whole picture see the same."""
    generator = Generator(PROFILE).eval()
    with torch.no_grad():
        for block in (generator.superresolution.block0, generator.superresolution.block1):
            for parameter in block.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    monkeypatch.setattr(patches, "march", lambda generator, planes, rays, *_: generator.render_rays(planes, rays, True))
    return generator


def windows(top: list[int], left: list[int]) -> Windows:
    return Windows(np.array(top), np.array(left), SIZE // 2, SIZE)


def test_positions_are_the_centres_of_the_windows_pixels() -> None:
    chosen = windows([0, 5], [16, 3])
    centres = pixel_centres(SIZE, dtype=torch.float32, device=torch.device("cpu")).reshape(SIZE, SIZE, 2)
    expected = torch.stack([centres[0:16, 16:32], centres[5:21, 3:19]]).flatten(1, 2)
    torch.testing.assert_close(chosen.positions(), expected)


def test_cutting_works_at_every_multiple_of_the_raw_size() -> None:
    chosen = windows([2, 9], [7, 0])
    raw = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(chosen.cut(raw)[0], raw[0, :, 2:18, 7:23])
    assert torch.equal(chosen.cut(raw)[1], raw[1, :, 9:25, 0:16])
    large = raw.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(chosen.cut(large), chosen.cut(raw).repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert torch.equal(chosen.cut(large, 3), chosen.cut(large)[..., 12:-12, 12:-12])


def test_random_windows_lie_inside_and_all_hold_the_middle() -> None:
    chosen = Windows.random(500, SIZE, np.random.default_rng(0))
    assert chosen.side == SIZE // 2
    for corner in (chosen.top, chosen.left):
        assert corner.min() == 0
        assert corner.max() == SIZE // 2
    same = Windows.random(500, SIZE, np.random.default_rng(0))
    assert np.array_equal(same.top, chosen.top)


def test_windows_around_points_hold_them() -> None:
    rng = np.random.default_rng(1)
    centres = rng.uniform(0, 1, (500, 2))
    chosen = Windows.around(centres, SIZE, rng)
    for corner, centre in ((chosen.left, centres[:, 0]), (chosen.top, centres[:, 1])):  # x, then y
        assert corner.min() >= 0
        assert corner.max() <= SIZE // 2
        assert (corner <= centre * SIZE + 1e-9).all()
        assert (corner + chosen.side >= centre * SIZE - 1e-9).all()


def test_windows_are_chosen_picture_by_picture() -> None:
    one, other = windows([1, 2, 3], [4, 5, 6]), windows([7, 8, 9], [10, 11, 12])
    mixed = one.where(np.array([True, False, True]), other)
    assert (mixed.top.tolist(), mixed.left.tolist()) == ([1, 8, 3], [4, 11, 6])


def test_a_window_equals_the_whole_picture_inside_its_border(generator: Generator) -> None:
    chosen = windows([0, 7, 16], [16, 5, 0])
    with torch.no_grad():
        ws = generator.map(torch.randn(3, PROFILE.z_dim))
        planes = generator.planes(ws)
        angles = torch.tensor([-0.3, 0.0, 0.4])
        cameras = PROFILE.orbit.pose(angles, 0.5 * angles)
        whole = generator.render(planes, cameras, PROFILE.orbit.intrinsics().expand(3, 3, 3), deterministic=True)
        final = generator.superresolve(whole.features, whole.rgb, whole.alpha, ws)
        patch = render_patch(generator, planes, ws, cameras, chosen, np.random.default_rng(0))
    assert patch.final is not None
    raw = torch.cat([whole.rgb, 2 * whole.alpha - 1], 1)
    torch.testing.assert_close(patch.raw, chosen.cut(raw), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(patch.depth, chosen.cut(whole.depth), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(patch.final, chosen.cut(final, BORDER), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_person_in_all_pictures_is_as_many_alike(generator: Generator, dtype: torch.dtype) -> None:
    """They are enlarged by other code."""
    chosen, cameras = windows([0, 7, 16], [16, 5, 0]), PROFILE.orbit.pose(torch.tensor([-0.3, 0.0, 0.4]), torch.zeros(3))
    with torch.no_grad():
        ws = generator.map(torch.randn(1, PROFILE.z_dim))
        planes = generator.planes(ws).expand(3, -1, -1, -1, -1)
        one, each = (
            render_patch(generator, planes, styles, cameras, chosen, np.random.default_rng(0), dtype=dtype)
            for styles in (ws, ws.expand(3, -1, -1))
        )
    torch.testing.assert_close(one.raw, each.raw, atol=0, rtol=0)
    assert one.final is not None
    assert each.final is not None
    near = 1e-5 if dtype == torch.float32 else 0.02
    assert float((one.final - each.final).std()) < near * float(each.final.std())


def test_canary_the_border_is_needed(generator: Generator) -> None:
    """One raw pixel further out, the window's enlargement misses its surroundings."""
    chosen = windows([7], [5])
    with torch.no_grad():
        ws = generator.map(torch.randn(1, PROFILE.z_dim))
        features = torch.randn(1, PROFILE.decoder_features, SIZE, SIZE)
        alpha = torch.rand(1, 1, SIZE, SIZE)
        final = generator.superresolve(features, features[:, :3], alpha, ws)
        part, part_alpha = chosen.cut(features), chosen.cut(alpha)
        enlarged = generator.superresolve(part, part[:, :3], part_alpha, ws, patch=True)
    difference = (enlarged - chosen.cut(final)).abs().amax((0, 1))
    k = PROFILE.image_resolution // SIZE
    margins = [difference[m * k : difference.shape[0] - m * k, m * k : -m * k or None].max() for m in range(BORDER + 1)]
    assert margins[BORDER] < 1e-4 * margins[0]
    assert margins[1] > 1e-3 * margins[0]


def test_losses_vanish_for_the_truth_and_are_per_picture(generator: Generator) -> None:
    chosen = windows([0, 7], [16, 5])
    k = PROFILE.image_resolution // SIZE
    target = torch.rand(2, 4, PROFILE.image_resolution, PROFILE.image_resolution) * 2 - 1
    background = torch.zeros(2, 3, *target.shape[2:])
    raw = chosen.cut(F.avg_pool2d(target, k))
    perfect = Patch(raw, torch.zeros(2, 1, 16, 16), chosen.cut(target, BORDER))
    terms = picture_losses(perfect, target, background, chosen, 0.5)
    assert terms.keys() == {"raw", "raw_structure", "final", "final_structure"}
    for value in terms.values():
        assert value.shape == (2,)
        assert value.abs().max() < 1e-5
    worse = dataclasses.replace(perfect, raw=raw + torch.tensor([0.0, 0.2]).reshape(2, 1, 1, 1))
    assert picture_losses(worse, target, background, chosen, 0.5)["raw"].tolist() == pytest.approx([0.0, 0.2], abs=1e-5)
    assert picture_losses(dataclasses.replace(perfect, final=None), target, background, chosen, 0.5).keys() == {
        "raw", "raw_structure",
    }  # fmt: skip


def test_what_is_not_known_costs_nothing(generator: Generator) -> None:
    chosen = windows([4], [4])
    target = torch.rand(1, 4, PROFILE.image_resolution, PROFILE.image_resolution) * 2 - 1
    background = torch.zeros(1, 3, *target.shape[2:])
    patch = Patch(torch.zeros(1, 4, 16, 16), torch.zeros(1, 1, 16, 16), torch.zeros(1, 4, 40, 40))
    nothing = torch.zeros(1, 1, *target.shape[2:])
    for value in picture_losses(patch, target, background, chosen, 0.5, nothing).values():
        assert value.abs().max() < 1e-6
    everything = picture_losses(patch, target, background, chosen, 0.5, nothing + 1)
    for name, value in picture_losses(patch, target, background, chosen, 0.5).items():
        torch.testing.assert_close(everything[name], value)


def test_the_raw_part_is_compared_before_compositing() -> None:
    """Premultiplied colours under different alphas look alike over black and must still count as different."""
    over_black = torch.full((1, 3, 2, 2), -1.0)
    thin = torch.tensor([0.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1, 1).expand(1, 4, 2, 2)
    solid = torch.tensor([0.0, 0.0, 0.0, 1.0]).reshape(1, 4, 1, 1).expand(1, 4, 2, 2)
    torch.testing.assert_close(composite(thin, over_black), composite(solid, over_black))
    assert (thin - solid).abs().mean() > 0.2


def test_a_part_of_a_batch_is_drawn_as_in_the_whole(tiny_prior):
    """Several processes draw together what one would draw alone, random samples included."""
    generator = tiny_prior.generator
    profile, count = generator.profile, 4
    ws = generator.map(torch.randn(count, profile.z_dim))
    planes, cameras = generator.planes(ws), profile.orbit.pose(torch.linspace(-0.3, 0.3, count), torch.zeros(count))
    windows = Windows.random(count, profile.neural_resolution, np.random.default_rng(0))

    def draw(part: slice, **share: int) -> Patch:
        rng = np.random.default_rng(1)
        return render_patch(generator, planes[part], ws[part], cameras[part], windows[part], rng, **share)

    whole = draw(slice(0, 4))
    for first in (0, 2):
        part = slice(first, first + 2)
        share = draw(part, batch=count, first=first)
        torch.testing.assert_close(share.raw, whole.raw[part], atol=1e-5, rtol=0)
        torch.testing.assert_close(share.final, whole.final[part], atol=1e-4, rtol=0)
    assert (draw(slice(2, 4)).raw - whole.raw[2:]).abs().max() > 1e-3, "other samples are seen"
