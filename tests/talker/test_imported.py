"""A person of Talk3D's as an avatar: the golden tensors come out of it again, and it speaks like any other."""

import dataclasses
import importlib.util
import json
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from talk3d.artifacts import Avatar
from talk3d.camera import Orbit, eg3d_elevation, eg3d_look_at
from talk3d.cli import import_talker as command
from talk3d.errors import CheckpointError, ConfigError, ModelMissingError, OutputExistsError
from talk3d.prior.convert import read_talk3d
from talk3d.prior.generator import Generator, Profile, load_weights
from talk3d.talker import audio, imported
from talk3d.talker.clip import audio_neighbourhood
from talk3d.talker.delta import DeltaConfig, DeltaNetwork
from talk3d.talker.drive import Motion
from talk3d.talker.imported import Talk3DFiles, import_talker, save_imported
from talk3d.talker.logits import STEP, LogitsConfig
from talk3d.talker.official import load_official, to_official
from talk3d.talker.speak import SpeakConfig, Speaker, speak
from talk3d.talker.tokens import TokenConfig
from talk3d.talker.unet import OFFICIAL
from talk3d.video.look import probe
from talk3d.video.read import read_frames

FUZZER = Path(__file__).parents[2] / "benchmarks" / "fuzz_convert.py"
FRAMES = 6


def _load(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


fuzz = _load(FUZZER)
ALIGNED = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [0, 1, 0], [1, 0, 0]]]
"""The corrected axes as the renderer's matrices."""


def talker(plane_channels: int = 32) -> DeltaNetwork:
    """Talk3D's layout for EG3D's planes, as narrow as it can be, with all weights awake."""
    unet = dataclasses.replace(OFFICIAL, plane_channels=plane_channels, down=(4, 4, 64), up=(4, 4, plane_channels), heads=1)
    config = DeltaConfig(LogitsConfig("hf:unknown", channels=5), TokenConfig(encoder="official"), unet, ())
    network = DeltaNetwork(config).eval()
    with torch.no_grad():
        network.unet.up3.conv1.weight.normal_(std=0.2)
    return network


def saved_talker(path: Path, network: DeltaNetwork, **more: Any) -> Path:
    states, null_vector = to_official(network)
    torch.save({**states, "null_vector": null_vector, "epoch": 3, "iter": 7, **more}, path)
    return path


@pytest.fixture(scope="module")
def network() -> DeltaNetwork:
    torch.manual_seed(4)
    return talker()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, network: DeltaNetwork) -> Talk3DFiles:
    """Everything of one person, as Talk3D and its preparation would have written it."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("talk3d")
    state = {name: value + 0.1 * torch.randn_like(value) for name, value in fuzz.small_generator().state_dict().items()}
    with fuzz.foreign_classes() as make:
        written = pickle.dumps(fuzz.network(make, state, plane_axes=ALIGNED), 4)
    (folder / "G_tune.pkl").write_bytes(written)
    tensors = {
        "inversion_w_person.pt": torch.randn(1, 4),
        "inversion_0-0_angles.pt": 0.3 * torch.randn(FRAMES, 2),
        "angles.pt": 40 * torch.randn(FRAMES, 3),
        "landmarks.pt": torch.rand(FRAMES, 6, 2) - 0.5,
    }
    for name, tensor in tensors.items():
        torch.save(tensor, folder / name)
    return Talk3DFiles(saved_talker(folder / "talker.pt", network), folder / "G_tune.pkl", *[folder / n for n in tensors])


@pytest.fixture(scope="module")
def avatar(files: Talk3DFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avatar") / "person.talk3d"
    import_talker(files, path, "hf:some/model", "permission")
    return path


def recognised(sound: np.ndarray) -> torch.Tensor:
    """Five numbers of each step that change with the sound."""
    steps = torch.from_numpy(sound.reshape(-1, STEP).astype(np.float32))
    return torch.stack([steps.mean(1), steps.std(1), steps[:, 0], steps[:, 5], steps.amax(1)], 1)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "hub_recogniser", lambda config: recognised)


# The golden tensors, out of an avatar.


@pytest.mark.parametrize("sample", [0, 1])
def test_sound_and_pose_become_talk3ds_own_delta_planes(shared: Path, tmp_path: Path, sample: int) -> None:
    """From windows of logits to the delta, through the file of weights and the Avatar's."""
    golden = shared / "golden"
    encoders = load_file(golden / "talk3d" / "encoders" / "io.safetensors")
    delta = load_file(golden / "talk3d" / "deltaplane" / "io.safetensors")
    settings = json.loads((golden / "talk3d" / "deltaplane" / "config.json").read_text())
    network = load_official(read_talk3d(golden / "checkpoints" / "talk3d-sample.pt"), "hf:unknown")
    planes = waves(settings["input_coefficients"], sample, settings["img_channels"], settings["plane_res"])
    own = slice(sample, sample + 1)
    motion = Motion(
        torch.zeros(1), torch.zeros(1), encoders["eye"][own, 0] / 2, torch.eye(2, 3)[None],
        encoders["angle"][own], encoders["landmark"][own].flatten(1),
    )  # fmt: skip
    profile = dataclasses.replace(fuzz.small_generator().profile, plane_channels=8, decoder_features=32)
    generator = Generator(profile)
    ws = torch.zeros(1, profile.num_ws, profile.w_dim)
    save_imported(tmp_path / "a.talk3d", generator, network, ws, planes.unflatten(1, (3, -1)), motion, "synthetic", {})

    speaker = Speaker(tmp_path / "a.talk3d")
    moved = speaker.move(encoders["audio_windows"][own], speaker.motion)
    found = (moved - speaker.planes).flatten(1, 2)
    for name, part in {"crop": found[:, :, 120:144, 96:120], "corner": found[:, :, :12, -12:]}.items():
        torch.testing.assert_close(part, delta[f"output_{name}"][own], atol=1e-4, rtol=1e-4)
    # Canary: another frame's sound gives something else.
    other = speaker.move(encoders["audio_windows"][2:3], speaker.motion)
    assert (other - moved).abs().max() > 1e-2


def test_moved_planes_become_talk3ds_own_picture(shared: Path, tmp_path: Path, network: DeltaNetwork) -> None:
    """Through the Avatar's file, and with EG3D's pitch made an elevation."""
    golden = shared / "golden"
    seen = load_file(golden / "talk3d" / "render" / "io.safetensors")
    settings = json.loads((golden / "talk3d" / "render" / "config.json").read_text())
    folder = (golden / settings["state"]).parent
    arguments = json.loads((folder / "config.json").read_text())["init_kwargs"]
    profile = dataclasses.replace(
        Profile.from_eg3d(arguments, plane_axes="aligned", neural_resolution=settings["neural_rendering_resolution"]),
        orbit=Orbit(settings["radius"], tuple(map(float, settings["pivot"])), settings["focal_length"]),
    )
    generator = Generator(profile).eval()
    state = load_file(folder / "state.safetensors")
    load_weights(generator, {name: value for name, value in state.items() if name != "dataset_label_std"}, "golden")
    yaw, pitch = seen["yaw_pitch"].float().unbind(-1)
    count = len(yaw)
    motion = Motion(
        yaw, eg3d_elevation(pitch), torch.zeros(count), torch.eye(2, 3).expand(count, 2, 3), torch.zeros(count, 3),
        torch.zeros(count, 6),
    )  # fmt: skip
    with torch.inference_mode():
        planes = generator.planes(seen["ws"])
    save_imported(tmp_path / "a.talk3d", generator, network, seen["ws"], planes, motion, "synthetic", {})

    speaker = Speaker(tmp_path / "a.talk3d", plain=True)  # the fast twin rounds to half precision
    frame = 1
    delta = waves(settings["delta_coefficients"], frame, 96, 256)
    moves = speaker.motion[torch.tensor([frame])]
    picture = speaker.look(speaker.planes + delta.unflatten(1, (3, -1)), moves.yaw, moves.pitch)
    # Cameras are rounded in another order here, which fine texture shows.
    torch.testing.assert_close(picture.raw.rgb, seen["image_raw"][frame, None], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(picture.raw.depth, seen["image_depth"][frame, None], atol=1e-3, rtol=1e-3)
    crop = picture.image[:, :, 200:264, 224:288]
    torch.testing.assert_close(crop, seen["image_crop"][frame, None], atol=2e-3, rtol=2e-3)


def waves(coefficients: dict[str, float], first: int, channels: int, side: int) -> torch.Tensor:
    """The formula of the golden planes [1, channels, side, side]."""
    axes = [torch.arange(n, dtype=torch.float64) for n in (channels, side, side)]
    channel, row, column = torch.meshgrid(*axes, indexing="ij")
    k = [coefficients[f"k{i}"] for i in range(5)]
    wave = torch.sin(k[0] * first + k[1] * channel + k[2] * row + k[3] * column + k[4] * row * column)
    return (coefficients["A"] * wave).float()[None]


# The whole import.


def test_the_avatar_holds_all_that_speaking_needs(avatar: Path, files: Talk3DFiles, network: DeltaNetwork) -> None:
    speaker = Speaker(avatar)
    artifact = speaker.artifact
    assert artifact.consent == "permission"
    assert "CC BY-NC 4.0" in artifact.manifest["licence"]
    assert dict(artifact.parents) == {}
    assert artifact.config["imported"]["generator"]["file"] == "G_tune.pkl"
    assert set(artifact.config["imported"]) == {field.name for field in dataclasses.fields(files)}
    assert speaker.audio == LogitsConfig("hf:some/model", channels=5)
    assert speaker.profile.neural_resolution == speaker.profile.superres.input_resolution
    expected = network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in speaker.network.state_dict().items())
    landmarks = torch.load(files.landmarks, weights_only=True)
    assert torch.equal(speaker.motion.landmark[2], landmarks[2, [0, 2, 3]].flatten())
    assert torch.equal(speaker.motion.rotation, torch.load(files.angles, weights_only=True))


def test_it_looks_from_talk3ds_cameras(avatar: Path, files: Talk3DFiles) -> None:
    yaw, pitch = torch.load(files.cameras, weights_only=True).unbind(-1)
    speaker = Speaker(avatar)
    own = speaker.profile.orbit.pose(speaker.motion.yaw, speaker.motion.pitch)
    theirs = eg3d_look_at(yaw, pitch, torch.tensor([0.0, 0.05, 0.2]), 2.7)
    torch.testing.assert_close(own, theirs, atol=1e-5, rtol=0)
    assert speaker.profile.orbit.focal == 3.6


@pytest.mark.usefixtures("heard")
def test_it_speaks(avatar: Path, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 16000 // 10).astype(np.float32)
    soundfile.write(tmp_path / "s.wav", sound, 16000)
    config = SpeakConfig(mark=False)
    assert speak(Speaker(avatar), tmp_path / "s.wav", tmp_path / "o.mp4", config, False, lambda done, total: None) == 3
    assert sum(1 for _ in read_frames(tmp_path / "o.mp4")) == 3
    assert "AI-generated" in str(probe(tmp_path / "o.mp4"))


@pytest.mark.usefixtures("heard")
def test_what_lies_outside_the_sound_is_silence(avatar: Path) -> None:
    """Zeros for a recogniser: as Talk3D pads, and not as our own features do."""
    speaker = Speaker(avatar)
    sound = np.random.default_rng(0).normal(0, 0.1, 6400).astype(np.float32)
    windows = torch.cat(list(audio.frame_windows([sound], 1.0, speaker.audio)))
    around = audio_neighbourhood(windows, torch.tensor([0]), 8, torch.zeros(speaker.audio.channels, speaker.audio.columns))
    assert around[0, :4].abs().max() == 0
    assert torch.equal(around[0, 4:], windows[:4])


def test_without_its_recogniser_it_says_what_is_missing(avatar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    soundfile.write(tmp_path / "s.wav", np.zeros(1600), 16000)
    with pytest.raises(ModelMissingError, match="hears through `hf:some/model`"):
        speak(Speaker(avatar), tmp_path / "s.wav", tmp_path / "o.mp4", SpeakConfig(), False, lambda done, total: None)
    assert not (tmp_path / "o.mp4").exists()


def test_a_capture_cannot_move_it(avatar: Path, tiny_capture: Any) -> None:
    with pytest.raises(ConfigError, match=r"was imported.* Give a sound file"):
        Speaker(avatar).motion_of(tiny_capture, 0, 3)


def test_tuned_super_resolution_is_taken(files: Talk3DFiles, network: DeltaNetwork, tmp_path: Path) -> None:
    state = {name: torch.full_like(value, 0.5) for name, value in fuzz.small_generator().superresolution.state_dict().items()}
    tuned = saved_talker(tmp_path / "talker_tune.pt", network, superresolution=state)
    import_talker(dataclasses.replace(files, talker=tuned), tmp_path / "a.talk3d", "hf:unknown", "self")
    weights = Avatar.open(tmp_path / "a.talk3d").tensors("weights.safetensors")
    assert torch.equal(weights["superresolution.block0.conv0.weight"], state["block0.conv0.weight"])

    saved_talker(tuned, network, superresolution=dict(list(state.items())[1:]))
    with pytest.raises(CheckpointError, match="missing: superresolution"):
        import_talker(dataclasses.replace(files, talker=tuned), tmp_path / "b.talk3d", "hf:unknown", "self")
    saved_talker(tuned, network, superresolution={"conv_body_first.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"GFPGAN\. That is not supported: .* from before the tuning"):
        import_talker(dataclasses.replace(files, talker=tuned), tmp_path / "b.talk3d", "hf:unknown", "self")


@pytest.mark.parametrize(
    ("which", "content", "message"),
    [
        ("latent", torch.zeros(1, 5), "one vector of 4"),
        ("latent", torch.full((1, 4), torch.nan), "one vector of 4"),
        ("cameras", torch.zeros(FRAMES, 3), "2 finite ones a frame"),
        ("cameras", torch.zeros(FRAMES + 1, 2), "not of the same film: there are 7 in"),
        ("angles", torch.full((FRAMES, 3), torch.inf), "3 finite ones a frame"),
        ("landmarks", torch.zeros(FRAMES, 12), "6 x 2 finite ones a frame"),
        ("landmarks", torch.zeros(0, 6, 2), "6 x 2 finite ones a frame"),
        ("angles", {"angles": torch.zeros(FRAMES, 3)}, "not a single tensor"),
        ("talker", torch.zeros(3), "not a talker's checkpoint"),
    ],
)
def test_files_that_do_not_fit_are_named(files: Talk3DFiles, tmp_path: Path, which: str, content: object, message: str) -> None:
    path = tmp_path / "odd.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"odd.pt.*{message}|{message}.*odd.pt"):
        import_talker(dataclasses.replace(files, **{which: path}), tmp_path / "a.talk3d", "hf:unknown", "self")
    assert not (tmp_path / "a.talk3d").exists()


def test_a_talker_for_other_planes_is_refused(files: Talk3DFiles, tmp_path: Path) -> None:
    other = saved_talker(tmp_path / "other.pt", talker(plane_channels=8))
    with pytest.raises(CheckpointError, match=r"moves planes of 8 channels and 256 texels, but those of `G_tune\.pkl` have 32"):
        import_talker(dataclasses.replace(files, talker=other), tmp_path / "a.talk3d", "hf:unknown", "self")


def test_an_unknown_extractor_is_refused(files: Talk3DFiles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Use `hf:MODEL`"):
        import_talker(files, tmp_path / "a.talk3d", "deepspeech", "self")


def test_the_command(files: Talk3DFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given: dict[str, Any] = {f.name: getattr(files, f.name) for f in dataclasses.fields(files)}
    run: Callable[..., None] = command
    output = tmp_path / "me.talk3d"
    run(given.pop("talker"), output=output, extractor="hf:unknown", consent="self", **given)
    assert imported.LICENCE in capsys.readouterr().out
    assert Speaker(output).size == fuzz.small_generator().profile.image_resolution
    with pytest.raises(OutputExistsError):
        run(files.talker, output=output, extractor="hf:unknown", consent="self", **given)
