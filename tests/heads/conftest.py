"""The head pack, read once."""

from pathlib import Path

import pytest

from talk3d.heads.model import HeadPack


@pytest.fixture(scope="session")
def pack(shared: Path) -> HeadPack:
    return HeadPack(shared / "heads")
