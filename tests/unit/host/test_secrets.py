"""What `doctor` says of guests' memory that lies on disk, and of templates that this host cannot use."""

import os
from datetime import UTC, datetime
from pathlib import Path

from corral.host.machine import Machine
from corral.host.secrets import KeptMemory, check_memories, check_stale
from corral.model.doctor import Level
from corral.model.template import Template, TemplateSpec, TemplateStatus
from corral.names import new_uid


def _kept(tmp_path: Path, mode: int = 0o600, directory_mode: int = 0o700) -> KeptMemory:
    directory = tmp_path / "t"
    directory.mkdir()
    memory = directory / "memory"
    memory.write_bytes(b"secret")
    memory.chmod(mode)
    directory.chmod(directory_mode)
    return KeptMemory("template base", (Path("/t"), Path("/t/memory")), 200 << 20)


def _levels(machine: Machine, *memories: KeptMemory) -> dict[str, Level]:
    return {finding.id: finding.level for finding in check_memories(machine, memories)}


def _device(tmp_path: Path) -> Path:
    device = tmp_path.stat().st_dev
    path = tmp_path / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    path.mkdir(parents=True)
    return path


def test_where_nothing_is_kept_all_is_well(tmp_path: Path) -> None:
    assert _levels(Machine(tmp_path)) == {"memory-at-rest": Level.OK}


def test_what_lies_there_plainly_is_named_with_what_to_do(tmp_path: Path) -> None:
    found = {
        one.id: one
        for one in check_memories(Machine(tmp_path), [_kept(tmp_path), KeptMemory("saved memory of web", ())])
    }
    assert found["memory-permissions"].level is Level.OK
    finding = found["memory-at-rest"]
    assert finding.level is Level.WARNING
    assert "template base (200" in finding.found
    assert "saved memory of web" in finding.found
    assert "corral template delete" in finding.action


def test_what_others_may_read_is_an_error(tmp_path: Path) -> None:
    memory = _kept(tmp_path, mode=0o644)
    found = {one.id: one for one in check_memories(Machine(tmp_path), [memory])}
    assert found["memory-permissions"].level is Level.ERROR
    assert "/t/memory has mode 0644" in found["memory-permissions"].found
    (tmp_path / "t/memory").chmod(0o600)
    assert _levels(Machine(tmp_path), memory)["memory-permissions"] is Level.OK
    (tmp_path / "t").chmod(0o711)
    assert _levels(Machine(tmp_path), memory)["memory-permissions"] is Level.ERROR


def test_a_file_of_somebody_elses_is_an_error(tmp_path: Path) -> None:
    memory = _kept(tmp_path)
    os.chown(tmp_path / "t/memory", 1234, 1234)
    assert _levels(Machine(tmp_path), memory)["memory-permissions"] is Level.ERROR


def test_an_encrypted_device_is_enough_however_deep_it_lies(tmp_path: Path) -> None:
    memory, device = _kept(tmp_path), _device(tmp_path)
    (device / "dm").mkdir()
    (device / "dm/uuid").write_text("LVM-abc")
    assert _levels(Machine(tmp_path), memory)["memory-at-rest"] is Level.WARNING
    below = device / "slaves/dm-0/dm"
    below.mkdir(parents=True)
    (below / "uuid").write_text("CRYPT-LUKS2-abc-root")
    assert _levels(Machine(tmp_path), memory)["memory-at-rest"] is Level.OK
    (device / "slaves/sdb").mkdir()  # a mirror half of which is plain
    assert _levels(Machine(tmp_path), memory)["memory-at-rest"] is Level.WARNING


def test_stale_templates_are_named() -> None:
    spec = TemplateSpec(hot=True, source="web", source_uid=new_uid(), snapshot_uid=new_uid())
    made = [
        Template(
            name=name,
            uid=new_uid(),
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            spec=spec,
            status=TemplateStatus(ready=True, stale=stale),
        )
        for name, stale in (("base", "another QEMU"), ("fine", ""))
    ]
    finding = check_stale(made)
    assert (finding.level, finding.action) == (Level.WARNING, "corral template refresh base")
    assert "fine" not in finding.found
    assert check_stale(made[1:]).level is Level.OK
