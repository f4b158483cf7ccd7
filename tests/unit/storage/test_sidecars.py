"""Sidecars of objects: whole or not there, of a history, and read again as they were written."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral import files
from corral.errors import CorralError
from corral.model.security_group import SecurityGroup, SecurityGroupSpec
from corral.names import new_uid
from corral.storage.sidecars import Sidecar, Sidecars, document_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def group(name: str) -> SecurityGroup:
    return SecurityGroup(
        name=name, uid=new_uid(), created_at=NOW, revision=9, spec=SecurityGroupSpec(description="für Übung")
    )


def test_what_is_written_is_found_as_it_was(tmp_path: Path) -> None:
    sidecars, web = Sidecars(tmp_path), group("web")
    assert sidecars.found() == ()
    one = Sidecar("security-groups", web.uid, "h1", document_of(web))
    sidecars.write((one,))
    (found,) = sidecars.found()
    assert (found.kind, found.uid, found.history, found.document) == (one.kind, one.uid, "h1", one.document)
    assert SecurityGroup.model_validate_json(found.document) == web.model_copy(update={"revision": 0})
    assert (tmp_path / "objects" / "security-groups" / f"{web.uid}.json").stat().st_mode & 0o777 == 0o600
    sidecars.remove((("security-groups", web.uid), ("security-groups", "never-there")))
    assert sidecars.found() == ()


def test_the_place_is_durable_before_the_file_is_answered_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync = list[Path](), files.fsync_dir

    def spy(path: Path) -> None:
        synced.append(path)
        sync(path)

    monkeypatch.setattr(files, "fsync_dir", spy)
    for uid in ("x", "y"):
        Sidecars(tmp_path).write((Sidecar("routers", uid, "h", "{}"),))
    place = tmp_path / "objects" / "routers"
    assert synced == [tmp_path, tmp_path / "objects", place, place], "what was there costs nothing"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"history":1,"object":{}}', '{"history":"h","object":{"uid":"other"}}']
)
def test_what_cannot_be_read_is_known_to_be_there(tmp_path: Path, text: str) -> None:
    place = tmp_path / "objects" / "routers" / "x.json"
    place.parent.mkdir(parents=True)
    place.write_text(text)
    place.with_name(".y.json.0000.tmp").write_text("half")
    assert Sidecars(tmp_path).found() == (Sidecar("routers", "x"),)
    Sidecars(tmp_path).clean()
    assert [path.name for path in place.parent.iterdir()] == ["x.json"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file")
    with pytest.raises(CorralError) as refused:
        Sidecars(tmp_path).write((Sidecar("routers", "x", "h", "{}"),))
    assert refused.value.code == "storage-error"
