"""Mel filters: even in mel, and all sound between the ends counts once."""

import torch

from talk3d.mel import mel_filters


def test_filters_are_triangles_of_unit_sum_across_the_range() -> None:
    filters = mel_filters(40, 512, 16000, 60.0, 7600.0)
    assert filters.shape == (257, 40)
    torch.testing.assert_close(filters.sum(0), torch.ones(40))
    assert (filters >= 0).all()
    hertz = torch.linspace(0, 8000, 257)
    heard = hertz[filters.sum(1) > 0]
    assert 60 <= heard.min() < 110
    assert 7500 < heard.max() <= 7600
    centres = (filters * hertz[:, None]).sum(0)
    assert (centres.diff() > 0).all()
    # Evenly spaced in mel: by O'Shaughnessy's formula, 1,000 Hz is 1,000 mel.
    mel = 2595 * torch.log10(1 + centres / 700)
    steps = mel.diff()[8:]  # the lowest ones are narrower than a bin
    assert steps.std() < 0.05 * steps.mean()
