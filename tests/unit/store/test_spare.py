"""Space set aside is given up once, and set aside again only where there is enough."""

from pathlib import Path

import pytest

from corral import files
from corral.store.spare import SPARE_BYTES, Spare


def test_it_takes_space_and_gives_it_up_once(tmp_path: Path) -> None:
    spare = Spare(tmp_path / "spare")
    assert not spare.release()
    spare.ensure()
    spare.ensure()
    assert files.allocated_bytes(spare.path) >= SPARE_BYTES
    assert [path.name for path in tmp_path.iterdir()] == ["spare"]
    assert spare.release()
    assert not spare.release()


def test_the_last_space_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _path: SPARE_BYTES * 2)
    Spare(tmp_path / "spare").ensure()
    assert not (tmp_path / "spare").exists()
