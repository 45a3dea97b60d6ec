"""SyncNet: its sound is heard as the package it was trained with hears it, and distances are those of the plain procedure."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from talk3d.judges.syncnet import SyncDistances, SyncNet, cepstra


@pytest.fixture(scope="module")
def network() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet().eval().requires_grad_(False)


def test_cepstra_are_those_of_python_speech_features() -> None:
    from python_speech_features import mfcc

    rng = np.random.default_rng(0)
    samples = (np.sin(np.arange(20_050) ** 1.3 / 90) * rng.uniform(0, 1, 20_050) * 0.7).astype(np.float32)
    samples[5000:6000] = 0  # digital silence
    found = cepstra(samples)
    expected = mfcc(np.rint(samples.astype(np.float64) * 32767), 16000)
    assert found.shape == (13, len(expected))
    assert np.allclose(found.numpy().T, expected, rtol=1e-4, atol=1e-4)


def test_vectors_have_the_sizes_of_the_paper(network: SyncNet) -> None:
    assert network.hear(torch.zeros(2, 1, 13, 20)).shape == (2, 1024)
    assert network.see(torch.zeros(1, 3, 5, 224, 224)).shape == (1, 1024)
    names = {name.split(".")[0] for name in network.state_dict()}
    assert names == {"netcnnaud", "netcnnlip", "netfcaud", "netfclip"}


def faces(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (224, 224, 3)).astype(np.uint8) for _ in range(count)]


def test_distances_are_those_of_all_windows_at_once(network: SyncNet) -> None:
    """As the original does it: all windows, sound padded by zero vectors, mean over windows for each shift."""
    shown, sound = faces(9), torch.randn(13, 36, generator=torch.Generator().manual_seed(2))
    gathered = SyncDistances(sound, network)
    for face in shown:
        gathered.add(face)
    film = torch.stack([torch.from_numpy(face[..., ::-1].copy()).permute(2, 0, 1).float() for face in shown], 1)
    seen = torch.cat([network.see(film[None, :, k : k + 5]) for k in range(5)])
    heard = torch.cat([network.hear(sound[None, None, :, 4 * k : 4 * k + 20]) for k in range(5)])
    padded = F.pad(heard, (0, 0, 15, 15))
    expected = torch.stack([F.pairwise_distance(seen[k].expand(31, -1), padded[k : k + 31]) for k in range(5)]).mean(0)
    assert gathered.count == 5
    assert gathered.curve is not None
    assert torch.allclose(gathered.curve.float(), expected, rtol=1e-4, atol=1e-5)


def test_windows_with_a_lost_face_are_left_out(network: SyncNet) -> None:
    shown, sound = faces(12), torch.randn(13, 48, generator=torch.Generator().manual_seed(3))
    whole, holed = SyncDistances(sound, network), SyncDistances(sound, network)
    for number, face in enumerate(shown):
        holed.add(None if number == 5 else face)
    for face in shown[:5]:
        whole.add(face)
    first = whole.curve
    assert first is not None
    assert (whole.count, holed.count) == (1, 3)  # frames 0 to 4, and two windows after the lost one
    alone = SyncDistances(sound[:, 24:], network)
    assert alone.curve is None
    empty = SyncDistances(sound[:, :16], network)
    for face in shown[:6]:
        empty.add(face)
    assert empty.count == 0
