"""What others have published, to be shown beside a report and never compared with it.

Read from the table images of the Talk3D project page (ku-cvlab.github.io/Talk3D; its repository's branch gh-pages,
`imgs_talk3d/quan`). AD-NeRF's Sync is printed as its LMD there, probably by mistake.
"""

from dataclasses import dataclass

WARNING = (
    "Published numbers, for orientation only. They come from other films (AD-NeRF, GeneFace, HDTF; three to five minutes "
    "each), crops, landmarks and networks, and rest on other definitions; none of them compares with a number above."
)


@dataclass(frozen=True)
class Table:
    """A published table; None where it says nothing."""

    title: str
    columns: tuple[str, ...]
    """With an arrow towards the better."""
    rows: dict[str, tuple[float | None, ...]]


SOURCE = "Talk3D: High-Fidelity Talking Portrait Synthesis via Personalized 3D Generative Prior, project page, 2024"
TABLES = (
    Table(
        "Self-driven",
        ("PSNR↑", "SSIM↑", "LPIPS↓", "FID↓", "LMD↓", "AUE↓", "Sync↑", "IDSIM↑"),
        {
            "ground truth": (None, None, 0.0, 0.0, 0.0, 0.0, 9.077, 1.0),
            "Wav2Lip": (28.678, 0.862, 0.053, 33.074, 4.658, 3.040, 10.096, 0.893),
            "PC-AVS": (20.729, 0.638, 0.112, 42.646, 3.419, 2.497, 8.945, 0.520),
            "AD-NeRF": (27.611, 0.877, 0.049, 20.243, 5.692, 2.331, 5.692, 0.904),
            "RAD-NeRF": (28.797, 0.886, 0.038, 14.218, 3.467, 2.163, 6.316, 0.921),
            "ER-NeRF": (29.284, 0.891, 0.032, 11.860, 3.417, 2.025, 6.724, 0.940),
            "Talk3D": (30.185, 0.895, 0.027, 8.626, 2.932, 1.920, 7.383, 0.944),
        },
    ),
    *(
        Table(
            f"Novel view, yaw {yaw}°, pitch {pitch}°",
            ("Sync↑", "FID↓", "IDSIM↑"),
            dict(zip(("AD-NeRF", "RAD-NeRF", "ER-NeRF", "Talk3D"), rows, strict=True)),
        )
        for yaw, pitch, rows in (
            (-30, -20, ((2.236, 212.845, 0.068), (4.938, 167.834, 0.186), (4.774, 198.291, 0.226), (7.201, 81.113, 0.611))),
            (-15, -10, ((3.474, 175.978, 0.280), (5.543, 123.924, 0.378), (7.335, 87.594, 0.575), (7.932, 37.774, 0.766))),
            (15, 10, ((3.821, 152.018, 0.481), (6.831, 94.674, 0.607), (6.652, 80.562, 0.503), (8.144, 39.971, 0.797))),
            (30, 20, ((2.523, 193.343, 0.034), (5.447, 185.718, 0.283), (2.702, 141.625, 0.022), (7.766, 68.680, 0.643))),
        )
    ),
    Table(
        "Driven by another's speech",
        ("Sync A↑", "LMD A↓", "AUE A↓", "Sync B↑", "LMD B↓", "AUE B↓"),
        {
            "ground truth": (7.850, 0.0, 0.0, 6.976, 0.0, 0.0),
            "Wav2Lip": (8.272, 7.039, 4.154, 7.907, 5.561, 3.967),
            "PC-AVS": (8.408, 7.754, 6.278, 7.533, 6.560, 4.518),
            "AD-NeRF": (5.670, 7.378, 4.736, 5.076, 5.542, 3.711),
            "RAD-NeRF": (6.532, 5.848, 4.717, 5.472, 5.599, 3.666),
            "ER-NeRF": (6.507, 6.181, 4.489, 5.160, 5.374, 3.519),
            "Talk3D": (6.827, 5.352, 4.693, 5.780, 4.814, 3.132),
        },
    ),
)
