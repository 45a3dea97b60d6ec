"""Head, eyes and camera, frame by frame: seamless, human, the same however many frames are asked for at a time."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from talk3d.errors import ConfigError
from talk3d.talker.drive import Blinks, Camera, Drive, Motion


def motion_of(yaw):
    count = len(yaw)
    return Motion(yaw, *torch.zeros(2, count), torch.zeros(count, 2, 3), torch.zeros(count, 2), torch.zeros(count, 4))


@pytest.mark.parametrize("text", ["left", "1", "10,200", "a,b", ""])
def test_odd_cameras_are_refused(text):
    with pytest.raises(ConfigError):
        Camera.parse(text)


def test_cameras():
    frames = torch.arange(150)
    assert Camera.parse("source").at(frames) is None
    torch.testing.assert_close(Camera.parse("20,-5").at(frames)[7], torch.tensor([20.0, -5]) * math.pi / 180)
    orbit = Camera.parse("orbit").at(frames)
    assert orbit[:, 0].max() > 0.5
    assert orbit[:, 0].min() < -0.5


def test_ping_pong_is_seamless():
    motion = motion_of(torch.arange(5.0))
    played = motion.ping_pong(torch.arange(20)).yaw
    assert played[:9].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0]
    assert (played.diff().abs() == 1).all()
    alone = motion_of(torch.zeros(1))
    assert alone.ping_pong(torch.arange(3)).yaw.tolist() == [0, 0, 0]


def known_blinks(frames: int, seed: int) -> np.ndarray:
    """A film's blinks drawn all at once; each is shut in a frame."""
    rng = np.random.default_rng([seed, 5])
    track = np.zeros(frames, np.float32)
    time = rng.uniform(0.5, 3.0)
    numbers = np.arange(frames)
    while time * 25 < frames:
        frame = int(time * 25)
        shut = np.where(numbers < frame, 1 - (frame - numbers) / 2, 1 - (numbers - frame) / 4)
        track = np.maximum(track, shut.clip(0, 1))
        time += rng.uniform(2.0, 6.0)
    return track.astype(np.float32)


def test_blinks_have_human_statistics() -> None:
    track = Blinks(seed=3).at(torch.arange(25 * 600))
    closed = (track > 0.5).int()
    onsets = int((closed.diff() == 1).sum())
    assert 600 / 6 <= onsets <= 600 / 2
    assert 0.02 < float(closed.float().mean()) < 0.12
    assert int((track == 1).sum()) == onsets, "in each of them a frame shows the eyes shut"
    assert not torch.equal(track, Blinks(seed=4).at(torch.arange(25 * 600)))


@pytest.mark.parametrize("size", [1, 7, 8, 5000])
def test_blinks_do_not_depend_on_how_many_are_asked_for_at_a_time(size: int) -> None:
    for frames in (999, 1000, 3001):
        known = torch.from_numpy(known_blinks(frames, 3))
        for given in (frames, None):
            blinks = Blinks(3, given)
            track = torch.cat([blinks.at(some) for some in torch.arange(frames).split(size)])
            # A stream does not know that it ends, so a blink may have begun just before.
            assert torch.equal(track[:-2], known[:-2])
            assert given is None or torch.equal(track, known)


def test_a_film_ends_before_a_blink_that_it_cannot_show() -> None:
    begun = next(n for n in range(100, 1000) if Blinks(3).at(torch.arange(n))[-1] > 0 and known_blinks(n, 3)[-1] == 0)
    assert Blinks(3, begun).at(torch.arange(begun))[-1] == 0


def test_blinks_are_forgotten() -> None:
    blinks = Blinks(0)
    for some in torch.arange(25 * 3600).split(1000):
        blinks.at(some)
        assert len(blinks._near) < 25


def test_only_a_camera_that_sees_as_filmed_sees_the_head_move() -> None:
    own, frames = motion_of(torch.tensor([0.0, 0.2, 0.4])), torch.arange(200)
    filmed = Drive(own, Camera.parse("source"), Blinks(0), 1.0, 1.0).at(frames)
    assert torch.equal(filmed.yaw, own.ping_pong(frames).yaw)
    for camera in ("front", "orbit", "10,0"):
        held = Drive(own, Camera.parse(camera), Blinks(0), 0.5, 1.0).at(frames)
        assert (held.yaw == 0.2).all()
        assert torch.equal(held.blink, 0.5 * filmed.blink)
    given = dataclasses.replace(own, blink=torch.tensor([0.0, 0.4, 0.8]))
    assert torch.equal(Drive(own, Camera.parse("front"), Blinks(0), 1.0, 1.0, given).at(torch.arange(3)).blink, given.blink)


def test_calmed_motion_stays_nearer_to_rest():
    motion = dataclasses.replace(motion_of(torch.tensor([0.0, 0.2, 0.4])), blink=torch.tensor([0.0, 1.0, 0.0]))
    rest = motion.still()
    torch.testing.assert_close(motion.calmed(rest, 1.0).yaw, motion.yaw)
    torch.testing.assert_close(motion.calmed(rest, 0.0).yaw, torch.full((3,), 0.2))
    torch.testing.assert_close(motion.calmed(rest, 0.5).yaw, torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(motion.calmed(rest, 0.0).blink, motion.blink), "eyes are scaled on their own"
