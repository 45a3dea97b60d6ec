"""What drives the frames of a clip."""

import numpy as np
import torch

from talk3d.talker.audio import AudioConfig, Loudness, frame_windows, silent_window
from talk3d.talker.clip import CameraCorrections, audio_neighbourhood, capture_windows, place_token


def test_corrections_share_nothing_and_move_only_what_was_seen() -> None:
    """Of ten frames three are never learnt from; an optimiser that takes steps of one size must not move them, nor a sum."""
    learnt = np.array([0, 1, 2, 4, 5, 6, 8])
    corrections = CameraCorrections(10, learnt)
    optimizer = torch.optim.Adam(corrections.parameters(), 0.1)
    for step in range(40):
        seen = torch.from_numpy(learnt[[step % 5, (step + 1) % 5]])  # never the last two
        optimizer.zero_grad()
        (corrections(seen) - torch.tensor([1.0, -1.0]) * seen[:, None]).square().mean().backward()
        optimizer.step()
    assert corrections.angles[[3, 6, 7, 8, 9]].abs().max() == 0
    found = corrections(torch.from_numpy(learnt))
    assert found.abs().max() > 0.5
    torch.testing.assert_close(found.mean(0), torch.zeros(2), atol=1e-6, rtol=0)


def test_frames_outside_of_a_clip_are_silence() -> None:
    audio, silence = torch.arange(5.0)[:, None, None].expand(5, 2, 3), torch.full((2, 3), -7.0)
    around = audio_neighbourhood(audio, torch.tensor([0, 4]), 4, silence)[:, :, 0, 0]
    assert around.tolist() == [[-7, -7, 0, 1], [2, 3, 4, -7]]


def test_silence_is_what_silence_sounds_like() -> None:
    """To bands, phones and ear alike, in the middle of a pause as beside the recording."""
    config = AudioConfig()
    rng = np.random.default_rng(0)
    speech = (rng.standard_normal(16000) * 0.1).astype(np.float32)
    windows = torch.cat(list(frame_windows([speech, np.zeros(6 * 16000, np.float32)], 1.0, config)))
    torch.testing.assert_close(windows[-60], silent_window(config), atol=1e-4, rtol=0)
    assert (windows[5] - silent_window(config)).abs().max() > 0.5


def test_a_capture_is_as_loud_as_the_frames_that_are_named(tiny_capture) -> None:
    config, sound = AudioConfig(phones=False, ear=False), tiny_capture.audio()
    windows = capture_windows(tiny_capture, (0, 30), config)
    assert len(windows) == tiny_capture.count
    gain = Loudness.of([sound[: 30 * 640]]).gain
    assert gain != Loudness.of([sound]).gain
    torch.testing.assert_close(windows, torch.cat(list(frame_windows([sound], gain, config))))


def test_a_place_is_told_in_units_of_its_spread() -> None:
    """A crop half a crop's width to the right of the mean, where half of that is usual; far away counts as four times that."""
    crops = np.array([[[1.0, 0, -10], [0, 1, 0]], [[1.0, 0, -1000], [0, 1, 0]]])
    scale = torch.tensor([[0.1, 0.5, 0, 0], [0.2, 1, 1, 1]])  # mean and deviation of x, y, log scale, roll
    told = place_token(crops, 20, scale)  # centres at x = 20 and 1010 pixels: 1 and 50.5 widths
    torch.testing.assert_close(told, torch.tensor([[4.0, 0, 0, 0], [4.0, 0, 0, 0]]))
    nearer = place_token(crops + np.array([[0, 0, 14.0], [0, 0, 0]]), 20, scale)[0]
    torch.testing.assert_close(nearer, torch.tensor([1.0, 0, 0, 0]))
