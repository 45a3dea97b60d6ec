"""The gallery of heads."""

from pathlib import Path

import cv2
import pytest

from talk3d.errors import ConfigError, OutputExistsError
from talk3d.heads import sheet
from talk3d.heads.model import HeadPack
from talk3d.heads.sheet import COLUMNS, SIZE, write_sheet


def test_a_sheet_has_its_heads_and_a_row_of_truths(pack: HeadPack, tmp_path: Path) -> None:
    parts: list[float] = []
    write_sheet(pack, tmp_path / "new" / "sheet.png", 3, 1, False, lambda part, _: parts.append(part))
    image = cv2.imread(str(tmp_path / "new" / "sheet.png"))
    assert image.shape == (2 * SIZE, COLUMNS * SIZE, 3)
    assert parts == sorted(parts)
    assert parts[-1] == 1
    cells = [image[:SIZE, i * SIZE : (i + 1) * SIZE] for i in range(COLUMNS)]
    assert all((cell == 255).all() for cell in cells[3:])
    assert all(cell.std() > 20 for cell in cells[:3])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_nothing_is_overwritten_or_half_written(pack: HeadPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sheet.png").write_text("precious")
    with pytest.raises(OutputExistsError):
        write_sheet(pack, tmp_path / "sheet.png", 1, 0, False, lambda *_: None)
    with pytest.raises(ConfigError, match="at least one"):
        write_sheet(pack, tmp_path / "other.png", 0, 0, False, lambda *_: None)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sheet, "render_flow", fail)
    with pytest.raises(KeyboardInterrupt):
        write_sheet(pack, tmp_path / "other.png", 1, 0, False, lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert (tmp_path / "sheet.png").read_text() == "precious"
