"""What `corral create` makes of its options: virt-install's units, disks, networks, keys."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from corral.cli import create, keys
from corral.cli.change import parse_tags
from corral.cli.hardware_options import memory_mib
from corral.cli.main import cli, main
from corral.cli.storage_options import parse_disk, parse_networks
from corral.cli.vm_request import request_body
from corral.errors import CorralError
from corral.names import GIB


def body(**given: Any) -> dict[str, Any]:
    """The request of `corral create web` with the options `given`, as click hands them over."""
    context = create.create.make_context("create", ["web"])
    return request_body("web", {**context.params, **given})


@pytest.mark.parametrize(("text", "mib"), [("1024", 1024), ("2G", 2048), ("512M", 512), ("1.5G", 1536)])
def test_bare_memory_is_mebibytes(text: str, mib: int) -> None:
    assert memory_mib(text) == mib


@pytest.mark.parametrize("text", ["", "-1", "1K", "two", "1G1G"])
def test_memory_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(CorralError) as caught:
        memory_mib(text)
    assert caught.value.code == "invalid-size"


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("20", {"size_bytes": 20 * GIB}),
        ("20G", {"size_bytes": 20 * GIB}),
        ("size=512M,bus=scsi,name=data", {"size_bytes": GIB // 2, "bus": "scsi", "name": "data"}),
        ("size=1,keep=yes", {"size_bytes": GIB, "delete_with_vm": False}),
        ("path=/srv/a.raw,format=raw,read-only=yes", {"path": "/srv/a.raw", "format": "raw", "read_only": True}),
    ],
)
def test_disks(text: str, disk: dict[str, Any]) -> None:
    assert parse_disk(text) == disk


@pytest.mark.parametrize(
    "text", ["size=", "siez=20", "format=raw", "size=1,size=2", "size=1,,", "read_only=maybe,size=1"]
)
def test_disks_that_say_nothing_sensible_are_refused(text: str) -> None:
    with pytest.raises(CorralError) as caught:
        parse_disk(text)
    assert caught.value.exit_status == 2


def test_networks() -> None:
    assert parse_networks(["none"]) == []
    assert parse_networks(["default", "network=default,mac=52:54:00:00:00:01,model=e1000e"]) == [
        {"network": "default"},
        {"network": "default", "mac": "52:54:00:00:00:01", "model": "e1000e"},
    ]
    with pytest.raises(CorralError):
        parse_networks(["none", "default"])


def test_only_what_was_said_is_sent() -> None:
    assert body() == {"name": "web"}
    assert body(vcpus="0") == {"name": "web", "vcpus": 0}
    assert body(no_start=True, force=True, protect=True, labels=("env=test", "old")) == {
        "name": "web",
        "start": False,
        "force": True,
        "protected": True,
        "labels": {"env": "test", "old": ""},
    }
    assert body(priority=10) == {"name": "web", "boot": {"autostart": False, "priority": 10}}


def test_an_image_brings_the_callers_own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text("ssh-ed25519 AAAA ann@laptop\n")
    assert body(image="debian-12")["ssh_keys"] == ["ssh-ed25519 AAAA ann@laptop"]
    assert "ssh_keys" not in body(image="debian-12", no_ssh_key=True)


def test_a_private_key_is_never_sent(tmp_path: Path) -> None:
    private = tmp_path / "id_ed25519"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    with pytest.raises(CorralError) as caught:
        keys.read_public(private)
    assert caught.value.code == "invalid-ssh-key"
    assert "id_ed25519.pub" in caught.value.hint


def test_a_password_comes_from_a_file_and_cannot_stand_in_the_arguments(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\nsecond line\n")
    assert body(password_file=str(file))["password"] == "s3cret"
    assert CliRunner().invoke(cli, ["create", "web", "--password", "s3cret", "extra"]).exit_code == 2
    file.write_text("\n")
    with pytest.raises(CorralError):
        body(password_file=str(file))


def test_documents_are_read_and_refused_when_they_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "user-data"
    file.write_text("#cloud-config\n")
    assert body(user_data=str(file))["user_data"] == "#cloud-config\n"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(CorralError) as caught:
        body(user_data=str(file))
    assert caught.value.code == "invalid-document"
    with pytest.raises(CorralError):
        body(network_config=str(tmp_path / "none"))


def test_tags_are_set_and_removed() -> None:
    assert parse_tags(("env=test", "old", "tier-", "a=b=c")) == ({"env": "test", "old": "", "a": "b=c"}, ["tier"])


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["create"], 2),
        (["create", "web", "--name", "db"], 2),
        (["create", "web", "--memory", "much"], 2),
        (["wait", "web"], 2),
        (["wait", "web", "--for", "ssh", "--timeout", "soon"], 2),
        (["--socket", "/nonexistent/corral.sock", "list"], 6),
        (["--socket", "/nonexistent/corral.sock", "start", "a", "b"], 6),
    ],
)
def test_exit_codes_before_any_daemon_is_asked(argv: list[str], status: int) -> None:
    assert main(argv) == status
