"""Whole frames of a talker in training are those of the avatar that is made of it."""

import dataclasses
import math

import torch

from talk3d.talker.clip import audio_neighbourhood, training_conditions
from talk3d.talker.config import TrainConfig
from talk3d.talker.draw import draw_frames
from talk3d.talker.speak import Speaker, save_avatar
from talk3d.talker.train import train_talker


def test_frames_are_those_of_the_avatar(tiny_subject, tiny_capture, tmp_path):
    config = TrainConfig(steps=2, minutes=None, frames_per_step=2, listen_steps=2)
    talker = train_talker(tiny_subject, tiny_capture, tmp_path / "run", config, lambda part, text: None)
    save_avatar(tmp_path / "a.talk3d", tiny_subject, tiny_capture, talker, config, False)
    speaker = Speaker(tmp_path / "a.talk3d", plain=True)
    conditions, _ = training_conditions(tiny_capture, tiny_subject, config.audio)
    index = torch.tensor([7, 20])
    ours = draw_frames(talker, tiny_subject, conditions, index, turn=math.radians(10))

    audio = audio_neighbourhood(conditions.audio, index, config.tokens.windows, conditions.silence)
    motion = speaker.motion[index]
    planes = speaker.move(audio, motion)
    theirs = speaker.look(planes, motion.yaw + math.radians(10), motion.pitch).image
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # an avatar stores its largest weights in half precision
    straight = draw_frames(talker, tiny_subject, conditions, index)
    assert not torch.allclose(straight, ours, atol=0.01)
    with torch.no_grad():
        talker.network.modes.sound.normal_()  # two steps of training have taught it next to nothing
    heard = draw_frames(talker, tiny_subject, conditions, index)
    quiet = dataclasses.replace(conditions, audio=conditions.silence.expand_as(conditions.audio))
    assert not torch.allclose(draw_frames(talker, tiny_subject, quiet, index), heard, atol=0.01)
    other = dataclasses.replace(conditions, blink=1 - conditions.blink)
    assert not torch.equal(draw_frames(talker, tiny_subject, other, index), straight)
