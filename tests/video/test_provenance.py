"""What films say of themselves."""

from pathlib import Path

import numpy as np
import pytest

import talk3d
from talk3d.video.look import probe
from talk3d.video.provenance import consent_carried, provenance
from talk3d.video.write import VideoWriter


def test_a_film_says_that_it_is_none_and_carries_its_consent(tmp_path: Path) -> None:
    said = provenance("permission", {"avatar": "ab12"})
    with VideoWriter(tmp_path / "o.mp4", (32, 32), metadata=said) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    metadata = probe(tmp_path / "o.mp4").metadata
    assert metadata == {
        "generator": f"talk3d {talk3d.__version__}",
        "notice": "AI-generated: this is not a recording.",
        "consent": "permission",
        "talk3d": {"avatar": "ab12"},
    }
    assert consent_carried(metadata) == "permission"


@pytest.mark.parametrize("metadata", [{}, {"consent": "self"}, {"talk3d": {}}, {"talk3d": {}, "consent": 3}])
def test_films_from_elsewhere_carry_none(metadata: dict[str, object]) -> None:
    assert consent_carried(metadata) is None
