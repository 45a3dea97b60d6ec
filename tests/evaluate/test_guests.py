"""Judges of others: what they say where it can be known by hand, and plain words where they are missing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from talk3d.capture.track import EYE_CORNERS
from talk3d.errors import ConfigError, ModelMissingError
from talk3d.evaluate import guests
from talk3d.evaluate.follow import MOUTH_CORNERS, NOSE_TIP
from talk3d.evaluate.guests import ARCFACE_POINTS, Fid, Framewise, Look, for_arcface, invite
from talk3d.judges import inception
from talk3d.judges.foreign import ArcFaceIrSe50, LpipsAlex
from talk3d.judges.inception import InceptionFid


@pytest.fixture
def look() -> Look:
    """Two frames with faces somewhere, and noisier copies."""
    rng = np.random.default_rng(0)
    truth = rng.integers(60, 180, (2, 64, 64, 3)).astype(np.uint8)
    frames = np.clip(truth + rng.normal(0, 10, truth.shape), 0, 255).astype(np.uint8)
    points = rng.uniform(10, 54, (2, 468, 2)).astype(np.float32)
    return Look(frames, truth, points, points)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("talk3d.judges.foreign.cache_dir", lambda: tmp_path)
    return tmp_path


def test_what_is_missing_is_said_and_never_replaced(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "_package", lambda name, extra: (_ for _ in ()).throw(guests._not_installed(name, extra)))
    fresh, missing = invite(50)
    assert fresh(None) == []
    told = {line.split(" was not measured")[0]: line for line in missing}
    assert set(told) >= {
        "FLIP",
        "LPIPS",
        "FID",
        "SyncNet's LSE",
        "ArcFace's identity",
        "dlib's identity",
        "The landmark distance of 68 points",
    }
    assert "pip install 'talk3d[eval]'" in told["FLIP"]
    assert "pip install 'talk3d[identity]'" in told["dlib's identity"]
    assert "alex.pth" in told["LPIPS"]
    assert "pt_inception" in told["FID"]
    assert "--shape-predictor" in told["The landmark distance of 68 points"]


def test_weights_in_the_cache_are_used(empty_cache: Path, look: Look) -> None:
    import safetensors.torch

    (empty_cache / "models").mkdir()
    torch.manual_seed(0)
    for name, network in (("lpips_alex", LpipsAlex()), ("arcface_ir_se50", ArcFaceIrSe50()), ("inception_fid", InceptionFid())):
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.constant_(module.weight, 2.5)  # or random layers make everything vanish
        state = {k: v for k, v in network.state_dict().items() if "shift" not in k and "scale" not in k}
        safetensors.torch.save_file(state, empty_cache / "models" / f"{name}.safetensors")
    fresh, missing = invite(2)
    assert not any("LPIPS" in line or "FID" in line or "ArcFace" in line for line in missing)
    same = Look(look.truth, look.truth, look.true_landmarks, look.true_landmarks)
    scores: list[dict] = []
    for shown in (same, look):
        found = {}
        for guest in fresh(None):
            with torch.no_grad():
                guest.look(shown)
            found |= guest.scores()
        scores.append(found)
    equal, noisy = scores
    assert equal["lpips"].value == pytest.approx(0, abs=1e-6)
    assert equal["arcface_identity"].value == pytest.approx(1, abs=1e-5)
    assert noisy["fid"].value > 1000 * abs(equal["fid"].value)
    assert noisy["arcface_identity"].value < 1
    assert noisy["lpips"].frames == 2


def test_slow_judges_see_at_most_a_hundred_frames() -> None:
    pytest.importorskip("flip_evaluator")
    assert next(guest.every for guest in invite(101)[0](None) if isinstance(guest, Framewise)) == 2
    assert next(guest.every for guest in invite(100)[0](None) if isinstance(guest, Framewise)) == 1
    assert next(guest.every for guest in invite(90_000)[0](None) if isinstance(guest, Framewise)) == 900


def test_flip_is_none_for_equal_pictures_and_grows(look: Look) -> None:
    pytest.importorskip("flip_evaluator")
    judge = guests.flip()
    assert judge(Look(look.truth, look.truth, look.landmarks, look.landmarks)) == pytest.approx([0, 0], abs=1e-6)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=look.truth.shape)
    means = []
    for level in (5, 20, 60):
        frames = np.clip(look.truth + level * noise, 0, 255).astype(np.uint8)
        means.append(np.mean(judge(Look(frames, look.truth, look.landmarks, look.landmarks))))
    assert means == sorted(means)
    assert 0 < means[0] < means[2] < 1


def test_frames_without_what_is_needed_do_not_count(look: Look) -> None:
    judge = Framewise("anything", 1, lambda shown: [1.0, float("nan")])
    judge.look(look)
    judge.look(look)
    assert (judge.scores()["anything"].value, judge.scores()["anything"].frames) == (1.0, 2)
    nobody = Framewise("anything", 1, lambda shown: [float("nan")])
    nobody.look(look)
    assert nobody.scores()["anything"].value is None


def test_faces_are_cut_out_where_arcface_wants_them() -> None:
    """Five dots, painted where a turned face has eyes, nose and mouth corners, end up on the template."""
    angle, scale, shift = 0.2, 1.7, np.array([60.0, 40.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = ARCFACE_POINTS @ turn.T + shift
    landmarks = np.full((468, 2), 100.0)
    for eye, place in zip(EYE_CORNERS, points[:2], strict=True):
        landmarks[list(eye)] = place + np.array([[-6, 0], [6, 0]])
    landmarks[NOSE_TIP], landmarks[list(MOUTH_CORNERS)] = points[2], points[3:]
    frame = np.zeros((300, 300, 3), np.uint8)
    for x, y in points:
        frame[round(y) - 3 : round(y) + 3, round(x) - 3 : round(x) + 3] = 255
    face = for_arcface(frame, landmarks)
    assert face.shape == (112, 112, 3)
    for x, y in ARCFACE_POINTS:
        assert face[int(y), int(x), 0] > 150
    assert (face > 150).all(2).mean() < 0.02


def test_dlibs_embedding_knows_persons(shared: Path) -> None:
    """Two drawings of one person are nearer than those of two."""
    pytest.importorskip("dlib")
    from talk3d.camera import Orbit
    from talk3d.capture.track import FaceTracker
    from talk3d.heads.latent import LATENT_SIZE, parameters_from_latent
    from talk3d.heads.model import HeadPack
    from talk3d.heads.raster import render_head

    pack, orbit = HeadPack(shared / "heads"), Orbit()
    try:
        judge = guests.dlib_identity()
    except ModelMissingError as error:
        pytest.skip(str(error))
    pictures, points = [], []
    for seed in (3, 4):
        rng = np.random.default_rng(seed)
        head = pack.build(parameters_from_latent(rng.standard_normal(LATENT_SIZE).astype(np.float32), pack))
        for yaw in (0.0, 0.2):
            pose = orbit.pose(torch.tensor([yaw]), torch.zeros(1))[0].numpy()
            picture = render_head(head, pack, pose, orbit.intrinsics().numpy(), 256)
            shown = np.clip(picture.rgb + (1 - picture.alpha[..., None] / 255.0) * 128, 0, 255).astype(np.uint8)
            face = FaceTracker()(shown)
            assert face is not None
            pictures.append(shown)
            points.append(face.landmarks.astype(np.float32))

    def apart(i: int, j: int) -> float:
        (value,) = judge(Look(pictures[i][None], pictures[j][None], points[i][None], points[j][None]))
        return value

    assert apart(0, 0) == 0
    assert max(apart(0, 1), apart(2, 3)) < min(apart(0, 2), apart(1, 3))
    lost = np.full((1, 468, 2), np.nan, np.float32)
    assert np.isnan(judge(Look(pictures[0][None], pictures[1][None], lost, points[1][None]))[0])


def test_a_file_that_is_no_shape_predictor_is_refused_first(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.dat"
    wrong.write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match="cannot be used as a shape predictor"):
        invite(10, wrong)


def test_inception_has_the_size_of_the_public_file() -> None:
    """23,851,784 weights of Inception v3 with 1,000 classes; the public file has 1,008, and no auxiliary classifier."""
    network = InceptionFid()
    classes = 8 * (inception.FEATURES + 1)
    auxiliary_free = sum(weight.numel() for weight in network.parameters())
    assert auxiliary_free == 23_834_568 + classes
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 3, 64, 48)).shape == (1, 2048)


def test_fid_gathers_both_sides(look: Look) -> None:
    """On a stand-in with known features, the distance is that of the formula: means three apart."""

    class Three(InceptionFid):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.mean((1, 2, 3))[:, None] * 3, torch.zeros(len(x), inception.FEATURES - 1)], 1)

    judge = Fid(Three())
    black, white = np.zeros_like(look.truth), np.full_like(look.truth, 255)
    judge.look(Look(white, black, look.landmarks, look.landmarks))
    assert judge.scores()["fid"].value == pytest.approx(9, abs=1e-6)


def test_syncnet_sees_the_mouth_and_hears_the_film(empty_cache: Path, look: Look) -> None:
    """Eight frames and their sound give four windows; a silent film has no such judge."""
    import safetensors.torch

    from talk3d.judges.syncnet import SyncNet

    torch.manual_seed(0)
    (empty_cache / "models").mkdir()
    safetensors.torch.save_file(SyncNet().state_dict(), empty_cache / "models" / "syncnet_v2.safetensors")
    fresh, missing = invite(8)
    assert not any("SyncNet" in line for line in missing)
    assert not any(isinstance(guest, guests.SyncNetGuest) for guest in fresh(None))
    asked: list[tuple[int, int]] = []

    def sound(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return np.random.default_rng(0).normal(0, 0.1, (stop - start) * 640).astype(np.float32)

    (judge,) = (guest for guest in fresh(sound) if isinstance(guest, guests.SyncNetGuest))
    assert asked == [(0, 9)]
    for _ in range(4):
        judge.look(look)
    scores = judge.scores()
    assert scores["lse_d"].frames == 4
    assert scores["lse_d"].value > 0
    assert scores["lse_c"].value >= 0


def test_syncnets_picture_has_the_mouth_below_the_middle(look: Look) -> None:
    frame = np.zeros((256, 256, 3), np.uint8)
    points = np.random.default_rng(0).uniform(0, 1, (468, 2)) * [60, 80] + [100, 90]
    points[0], points[1] = (100, 90), (160, 170)
    frame[140:160, 115:145] = 255  # a mouth
    face = guests.for_syncnet(frame, points.astype(np.float32))
    assert face.shape == (224, 224, 3)
    rows, columns = np.nonzero(face[..., 0] > 200)
    assert 112 < rows.mean() < 170
    assert columns.mean() == pytest.approx(112, abs=3)
    outside = guests.for_syncnet(frame, (points + np.array([90, 70])).astype(np.float32))
    assert (outside == 110).mean() > 0.2
