"""All measures of a report by name, in the order of its table: what they are called, their unit, and which value is best."""

from dataclasses import dataclass
from typing import Literal

Best = Literal["high", "low", "one", "zero", "truth"]
"""`truth`: the one nearest to what the true film itself has."""


@dataclass(frozen=True)
class Measure:
    """How a score is called, which value is best, and what it is."""

    group: str
    title: str
    unit: str
    best: Best
    about: str


_GREY = "as Talk3D's code has it: outside the region both pictures are mid grey, which counts, so numbers are higher"
_FLAT = "as Talk3D's code has it: scikit-image's flat window of 7 pixels"
_PICTURE, _LIPS, _PERSON = "Picture", "Lips", "Person and motion"

MEASURES: dict[str, Measure] = {
    "psnr": Measure(_PICTURE, "PSNR, whole", "dB", "high", "squared error pooled over all frames, values 0 to 255"),
    "psnr_face": Measure(_PICTURE, "PSNR, face", "dB", "high", "only pixels in the hull of the true frame's landmarks count"),
    "psnr_mouth": Measure(_PICTURE, "PSNR, mouth", "dB", "high", "the hull of the true lips, half as large again"),
    "psnr_torso": Measure(_PICTURE, "PSNR, torso", "dB", "high", "the true person below the jaw line"),
    "psnr_face_published": Measure(_PICTURE, "PSNR, face, as published", "dB", "high", _GREY),
    "psnr_torso_published": Measure(_PICTURE, "PSNR, torso, as published", "dB", "high", _GREY),
    "mae": Measure(_PICTURE, "Mean absolute error, whole", "of 255", "low", "all pixels and channels"),
    "mae_face": Measure(_PICTURE, "Mean absolute error, face", "of 255", "low", "in the face only"),
    "mae_mouth": Measure(_PICTURE, "Mean absolute error, mouth", "of 255", "low", "at the mouth only"),
    "mae_torso": Measure(_PICTURE, "Mean absolute error, torso", "of 255", "low", "on the torso only"),
    "ssim": Measure(_PICTURE, "SSIM, whole", "", "high", "Wang et al. 2004, Gaussian window, each colour channel"),
    "ssim_face": Measure(_PICTURE, "SSIM, face", "", "high", "mean of the map over the face"),
    "ssim_mouth": Measure(_PICTURE, "SSIM, mouth", "", "high", "mean of the map over the mouth"),
    "ssim_torso": Measure(_PICTURE, "SSIM, torso", "", "high", "mean of the map over the torso"),
    "ssim_published": Measure(_PICTURE, "SSIM, whole, as published", "", "high", _FLAT),
    "ssim_face_published": Measure(_PICTURE, "SSIM, face, as published", "", "high", _FLAT + "; " + _GREY),
    "ssim_torso_published": Measure(_PICTURE, "SSIM, torso, as published", "", "high", _FLAT + "; " + _GREY),
    "ms_ssim": Measure(_PICTURE, "MS-SSIM, whole", "", "high", "Wang et al. 2003, five scales; sides of 176 pixels and more"),
    "ms_ssim_face": Measure(_PICTURE, "MS-SSIM, face", "", "high", "means of the maps over the face, scale by scale"),
    "ms_ssim_mouth": Measure(_PICTURE, "MS-SSIM, mouth", "", "high", "the same; a small mouth has no coarsest scale"),
    "ms_ssim_torso": Measure(_PICTURE, "MS-SSIM, torso", "", "high", "the same"),
    "flip": Measure(_PICTURE, "FLIP, whole", "", "low", "Andersson et al. 2020, up to 100 frames"),
    "headnet_distance": Measure(
        _PICTURE, "HeadNet distance", "", "low", "perceptual distance of the heads, talk3d's own network"
    ),
    "lpips": Measure(_PICTURE, "LPIPS (AlexNet), whole", "", "low", "Zhang et al. 2018"),
    "fid": Measure(_PICTURE, "FID", "", "low", "to the true frames compared here, and not to all of the person"),
    "sharpness": Measure(_PICTURE, "Sharpness, of the truth's", "", "one", "fine detail of the face; less is blurred"),
    "mouth_distance": Measure(
        _LIPS, "Lip distance (LMD)", "px", "low", "40 lip points of the 468, centred, true picture's pixels"
    ),
    "mouth_distance_percent": Measure(_LIPS, "Lip distance (LMD)", "% of the eye distance", "low", "the same, free of size"),
    "face_distance": Measure(_LIPS, "Face distance (LMD-468)", "px", "low", "all 468 landmarks, centred"),
    "mouth_distance_68": Measure(_LIPS, "Lip distance, 68 points", "px", "low", "points 48 to 67 of the user's detector"),
    "mouth_opening": Measure(_LIPS, "Lip opening, correlation", "", "high", "over time, without any shift"),
    "mouth_lag": Measure(
        _LIPS, "Lip opening, best lag", "frames", "zero", "shift of the highest correlation; positive is late"
    ),
    "mouth_opening_at_lag": Measure(_LIPS, "Lip opening, correlation there", "", "high", "at that shift"),
    "closure_recall": Measure(
        _LIPS, "Closures of /p b m/", "", "high", "part of those the truth closes in that close here too"
    ),
    "wrongly_closed": Measure(
        _LIPS, "Closed where the truth is open", "", "low", "part of the frames with clearly open true lips"
    ),
    "silent_aperture": Measure(_LIPS, "Opening in pauses", "% of the truth's range", "truth", "mean over silent frames"),
    "silent_jitter": Measure(_LIPS, "Lip tremor in pauses", "% of the face size", "truth", "second difference over time"),
    "sync_offset": Measure(_LIPS, "talk3d sync expert, offset", "frames", "zero", "by which the sound is late"),
    "sync_confidence": Measure(_LIPS, "talk3d sync expert, confidence", "", "high", "0 to 4; high by chance below 90 frames"),
    "lse_d": Measure(_LIPS, "SyncNet LSE-D", "", "low", "Chung and Zisserman 2016, faces cut out by our tracker"),
    "lse_c": Measure(_LIPS, "SyncNet LSE-C", "", "high", "the same"),
    "headnet_identity": Measure(
        _PERSON, "HeadNet identity", "cosine", "high", "talk3d's own network; knows looks, hardly shape"
    ),
    "dlib_distance": Measure(_PERSON, "dlib identity distance", "", "low", "five-point alignment; above 0.6: another person"),
    "arcface_identity": Measure(_PERSON, "ArcFace identity", "cosine", "high", "Deng et al. 2019, IR-SE50"),
    "expression_error": Measure(
        _PERSON, "Expression error", "", "low", "seven landmark measurements; 1 is a face that never moves"
    ),
    "eye_opening": Measure(_PERSON, "Eye opening, correlation", "", "high", "over time"),
    "blink_rate": Measure(_PERSON, "Blinks", "a minute", "truth", "eyes below 65 % of their usual opening"),
    "blink_duration": Measure(_PERSON, "Blinks, duration", "ms", "truth", "below 85 %"),
    "blink_depth": Measure(_PERSON, "Blinks, completeness", "", "truth", "part of the usual opening that is lost"),
    "motion_spectrum": Measure(
        _PERSON, "Head motion, spectral distance", "dB", "low", "as much motion at each speed, not the same"
    ),
    "neck_seam": Measure(
        _PERSON, "New edges at the neck", "levels a pixel", "low", "edges below the jaw that the truth has not"
    ),
    "flicker": Measure(_PERSON, "Flicker, of the truth's", "", "one", "second difference over time; less is frozen"),
    "face_found": Measure(_PERSON, "Frames with a face", "", "high", "in which the tracker sees one"),
}
