"""Image scores against scikit-image, and against what any likeness must obey."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from talk3d.evaluate import image
from talk3d.evaluate.image import (
    BEST_PSNR,
    SMALLEST,
    absolute_error,
    decibels,
    greyed,
    inner,
    masked_mean,
    squared_error,
    ssim_map,
    ssim_published,
)

SETTINGS = {"channel_axis": -1, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}
"""Wang's SSIM, of scikit-image."""


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture and a noisy copy, float64 [60, 70, 3] in 0..1."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 3, 70), np.linspace(0, 2, 60))
    picture = np.stack([np.sin(x + y), np.cos(x * y), np.sin(3 * x) * y / 2], axis=-1) / 2 + 0.5
    return picture.clip(0, 1), (picture + rng.normal(0, 0.08, picture.shape)).clip(0, 1)


@pytest.fixture
def large() -> tuple[torch.Tensor, torch.Tensor]:
    """Texture at all scales and a noisy copy, [1, 3, 180, 200] in 0..1."""
    noise = torch.Generator().manual_seed(0)
    scales = [torch.rand(1, 3, 180 // k, 200 // k, generator=noise, dtype=torch.float64) for k in (1, 2, 4, 10, 20)]
    picture = torch.stack([F.interpolate(x, (180, 200), mode="bilinear") for x in scales]).mean(0)
    return picture, (picture + 0.1 * torch.randn(picture.shape, generator=noise, dtype=picture.dtype)).clamp(0, 1)


def psnr(picture: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    return decibels(squared_error(picture, truth, mask))


def ssim(picture: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    return masked_mean(ssim_map(picture, truth), None if mask is None else inner(mask))


def ms_ssim(picture: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    (score,) = image.ms_ssim(picture, truth, [mask])
    return score


def tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


def test_agreement_with_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    assert psnr(tensor(b), tensor(a)).item() == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-9)
    expected, full = structural_similarity(a, b, full=True, **SETTINGS)
    assert ssim(tensor(b), tensor(a)).item() == pytest.approx(expected, abs=1e-9)
    assert np.allclose(ssim_map(tensor(b), tensor(a))[0].numpy(), full.mean(axis=-1)[5:-5, 5:-5], atol=1e-9)


def test_ms_ssim_is_made_of_what_others_measure_at_each_scale(large: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Contrast from torchmetrics, the last scale from scikit-image (torchmetrics' own counts a mirrored border there)."""
    from torchmetrics.functional.image import structural_similarity_index_measure as contrast

    a, b = large
    expected = 1.0
    for scale, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363)):
        one, other = F.avg_pool2d(a, 2**scale), F.avg_pool2d(b, 2**scale)
        expected *= contrast(other, one, data_range=1.0, return_contrast_sensitivity=True)[1].item() ** exponent
    last = [F.avg_pool2d(x, 16)[0].permute(1, 2, 0).numpy() for x in (a, b)]
    expected *= structural_similarity(*last, **SETTINGS) ** 0.1333
    assert ms_ssim(b, a).item() == pytest.approx(expected, abs=1e-9)
    assert absolute_error(b, a).item() == pytest.approx((b - a).abs().mean().item())


def test_ms_ssim_looks_at_what_blur_leaves(large: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Blur takes fine scales only, so it forgives more of it than SSIM does; and small pictures have no five scales."""
    a, _ = large
    blurred = [F.avg_pool2d(F.pad(a, (k, k, k, k), mode="replicate"), 2 * k + 1, 1) for k in (1, 2, 4)]
    scores = [ms_ssim(x, a).item() for x in blurred]
    assert ms_ssim(a, a).item() == pytest.approx(1)
    assert scores == sorted(scores, reverse=True)
    assert all(score > ssim(x, a).item() for score, x in zip(scores, blurred, strict=True))
    assert ms_ssim(a[..., : SMALLEST - 1], a[..., : SMALLEST - 1]).isnan().all()
    assert ms_ssim(a[..., :SMALLEST], a[..., :SMALLEST]).item() == pytest.approx(1)


def test_the_published_ssim_is_scikit_images_own(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    expected = structural_similarity(2 * a - 1, 2 * b - 1, channel_axis=-1, data_range=2.0)
    assert ssim_published(tensor(b), tensor(a)).item() == pytest.approx(expected, abs=1e-9)


def test_grey_outside_a_region_counts(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """A quarter of the picture carries all of the error: its mean is a quarter, and PSNR 6 dB higher."""
    a, b = map(tensor, pair)
    mask = torch.zeros(1, 60, 70, dtype=a.dtype)
    mask[:, :30, :35] = 1
    on_grey = psnr(greyed(b, mask), greyed(a, mask)).item()
    assert on_grey == pytest.approx(psnr(b, a, mask).item() + 10 * np.log10(4), abs=1e-9)
    assert greyed(a, mask)[0, 1, 40, 40].item() == 0.5
    assert torch.equal(greyed(a, mask)[..., :30, :35], a[..., :30, :35])


def test_ms_ssim_of_a_region(large: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = large
    everywhere = torch.ones(1, 180, 200, dtype=a.dtype)
    assert ms_ssim(b, a, everywhere).item() == pytest.approx(ms_ssim(b, a).item(), abs=1e-12)
    left = everywhere.clone()
    left[..., 100:] = 0
    half = torch.where(left[:, None] > 0, a, b)
    assert ms_ssim(half, a, left).item() > ms_ssim(b, a, left).item()
    assert ms_ssim(half, a, 1 - left).item() < ms_ssim(half, a, left).item()
    assert ms_ssim(b, a, 0 * left).isnan().all()
    together = image.ms_ssim(b, a, [None, left, 1 - left])
    assert [x.item() for x in together] == [ms_ssim(b, a, mask).item() for mask in (None, left, 1 - left)]


def test_single_precision_is_enough(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = map(tensor, pair)
    assert ssim(b.float(), a.float()).item() == pytest.approx(ssim(b, a).item(), abs=1e-5)


def test_equal_pictures_score_perfectly(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a = tensor(pair[0])
    assert psnr(a, a).item() == BEST_PSNR
    assert ssim(a, a).item() == pytest.approx(1)


def test_more_noise_is_always_worse(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a = tensor(pair[0])
    noise = torch.randn(a.shape, dtype=a.dtype)
    pictures = [a + level * noise for level in (0.01, 0.03, 0.1, 0.3)]
    for score in (psnr, ssim):
        values = [score(picture, a).item() for picture in pictures]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1] * 1.5


def test_only_the_mask_counts(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = map(tensor, pair)
    mask = torch.zeros(1, 60, 70, dtype=a.dtype)
    mask[:, 20:40, 25:50] = 1
    mixed = torch.where(mask[:, None] > 0, b, a)
    assert squared_error(mixed, a, mask).item() == pytest.approx(squared_error(b, a, mask).item())
    assert squared_error(mixed, a, 1 - mask).item() == 0
    ruined = torch.where(mask[:, None] > 0, a, torch.zeros_like(a))
    assert psnr(ruined, a, mask).item() == BEST_PSNR
    core = torch.zeros_like(mask)
    core[:, 28:32, 33:42] = 1  # five pixels and more away from what was ruined
    assert ssim(ruined, a, core).item() == pytest.approx(1)
    assert ssim(ruined, a).item() < 0.9
    assert psnr(b, a, torch.ones_like(mask)).item() == pytest.approx(psnr(b, a).item())


def test_an_empty_mask_is_not_a_number(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = map(tensor, pair)
    assert psnr(b, a, torch.zeros(1, 60, 70, dtype=a.dtype)).isnan().all()


def test_pictures_of_a_batch_do_not_mix(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = map(tensor, pair)
    both = ssim(torch.cat([a, b]), torch.cat([a, a]))
    assert both.tolist() == pytest.approx([1.0, ssim(b, a).item()])
