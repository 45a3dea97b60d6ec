"""A report in plain sentences: verdicts where intervals carry them, and none where they do not."""

import numpy as np

from talk3d.evaluate import lips
from talk3d.evaluate.lips import Score
from talk3d.evaluate.scores import Curves, Row
from talk3d.evaluate.summary import summarise

BASELINES = ("mean frame", "nearest pose")


def made(count: int, face: float, mouth: float, lag: int = 0, follows: float = 1.0, seed: int = 0) -> tuple[Row, Curves]:
    """A film whose face is `face` dB and whose lips are `mouth` pixels off, and which follows the truth's lips or does not."""
    rng = np.random.default_rng(seed)
    true = np.convolve(np.random.default_rng(99).normal(size=count + 40), np.hanning(7), "valid")[:count]
    own = (
        follows * np.roll(true, lag)
        + (1.0 - follows) * np.convolve(rng.normal(size=count + 40), np.hanning(7), "valid")[:count]
    )
    found = lips.best_lag(own, true)
    curves = Curves(face + rng.normal(0, 0.5, count), np.abs(mouth + rng.normal(0, 0.2, count)), own, np.full(count, 0.03))
    row: Row = {
        "mae_face": Score(6.1, count), "mae_mouth": Score(7.2, count), "ssim_face": Score(0.912, count),
        "psnr": Score(30.0, count), "psnr_face": Score(face, count), "psnr_mouth": Score(face - 3.0, count),
        "psnr_torso": Score(face + 1.0, count), "sharpness": Score(0.5, count), "mouth_distance": Score(mouth, count),
        "headnet_identity": Score(0.97, count), "mouth_opening": lips.correlation(own, true),
        "mouth_opening_at_lag": found.correlation,
        "mouth_lag": Score(None if found.frames is None else float(found.frames), count, found.interval and (-1.0, 2.0)),
    }  # fmt: skip
    return row, curves


def said(count: int = 250, adrift: bool = False, other_sound: bool = False, **own: float | int | Score) -> str:
    changed = {name: own.pop(name) for name in list(own) if isinstance(own[name], Score)}
    films = {"film": made(count, **({"face": 30.0, "mouth": 1.0} | own))}  # type: ignore[arg-type]
    films |= {"mean frame": made(count, 25.0, 3.0, seed=1), "nearest pose": made(count, 31.0, 1.0, seed=2)}
    rows = {name: row for name, (row, _) in films.items()}
    rows["film"] |= changed  # type: ignore[arg-type]
    curves = {name: drawn for name, (_, drawn) in films.items()}
    return "\n".join(summarise("film", rows, BASELINES, curves, 400, adrift, other_sound))


def test_what_carries_a_verdict_is_said_with_it() -> None:
    text = said(lag=2)
    assert "Rests on 250 frames (10.0 s), 400 to 649 of the truth." in text
    assert "6.1 of 255 levels off the true one on average (PSNR 30.0 dB, SSIM 0.912), the mouth 7.2 (PSNR 27.0 dB)" in text
    assert "it looks softer than the truth, with 0.50 of its fine detail" in text
    assert "Lips: they follow the speech; their opening goes with the true lips' at a correlation of 1.00" in text
    assert "in 95 of 100 such films), 2 frames (80 ms) late (-1 to +2 frames)" in text
    assert "it looks like the same person (HeadNet's cosine is 0.97" in text
    assert "On the face (PSNR 30.0 dB) it beats “mean frame” (25.0 dB) and loses to “nearest pose” (31.0 dB)." in text
    assert "On the lips (distance to the true lips 1.00 px) it beats “mean frame” (3.00 px) and cannot be told from" in text
    assert "Worst: the mouth (PSNR 27.0 dB; face 30.0, torso 31.0), and frame " in text
    assert "no verdict" not in text.lower()


def test_the_worst_frame_is_the_one_with_the_worst_face() -> None:
    row, curves = made(250, 30.0, 1.0)
    curves.face_psnr[37] = 12.5
    (line,) = (line for line in summarise("film", {"film": row}, (), {"film": curves}, 400, False, False) if "Worst" in line)
    assert "frame 437 (face 12.5 dB, median 30.0)" in line


def test_lips_that_do_not_follow_are_not_said_to() -> None:
    assert "Lips: they cannot be told from lips that know nothing of the speech" in said(follows=0.0)
    weak = {"mouth_opening": Score(0.4, 250, (0.1, 0.6)), "mouth_lag": Score(None, 250)}
    assert "Lips: they follow the speech loosely; their opening" in said(**weak)
    assert "of 0.40 (0.10 to 0.60 in 95 of 100 such films), and no shift is known to suit them better." in said(**weak)
    assert "Lips: they do not move." in said(mouth_opening=Score(None, 250))
    assert "seen in only 3 frames" in said(mouth_opening=Score(None, 3))


def test_few_frames_carry_no_verdict() -> None:
    text = said(count=45)
    assert "Rests on 45 frames (1.8 s)" in text
    assert "Lips: no verdict, as 25 frames are too few" in text
    assert text.count("cannot be compared on so few frames with “") == 4
    assert not any(word in text for word in ("beats", "loses", "follow the speech", "cannot be told from"))
    assert "Person: no verdict, as 20 frames are too few" in said(headnet_identity=Score(0.99, 20))


def test_a_film_whose_place_or_words_are_not_the_truths_gets_no_verdict_that_needs_them() -> None:
    adrift = said(adrift=True)
    assert "No verdict: it is not known that it shows these frames" in adrift
    assert "Lips: no verdict" in adrift
    assert not any(word in adrift for word in ("beats", "loses", "follow the speech", "Worst"))
    other = said(other_sound=True)
    assert "Lips: no verdict, as its sound is not the truth's" in other
    assert "On the face" in other
    assert "On the lips" not in other


def test_who_it_is_is_left_to_dlib_where_it_was_asked() -> None:
    assert "it is another person (dlib's distance is 0.71" in said(dlib_distance=Score(0.71, 100))
    assert "it is the same person (dlib's distance is 0.31" in said(dlib_distance=Score(0.31, 100))
    assert "it may be taken for another person" in said(headnet_identity=Score(0.91, 250))
    assert "no face was found" in said(headnet_identity=Score(None, 0))


def test_a_film_without_a_face_is_summed_up_by_its_picture_alone() -> None:
    nothing = {name: Score(None, 0) for name in ("mae_face", "mae_mouth", "psnr_face", "psnr_mouth", "psnr_torso")}
    text = said(mouth_opening=Score(None, 0), headnet_identity=Score(None, 0), **nothing)
    assert "there is no face to compare; over the whole picture its PSNR is 30.0 dB" in text
    assert "100" not in text
    assert "Worst" not in text
