"""Fixtures shared by all rooms."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden vectors, the head pack and clips, which lies beside the repository where it exists."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the reference data, and there is none beside the repository ({SHARED.name}/)")
    return SHARED


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
