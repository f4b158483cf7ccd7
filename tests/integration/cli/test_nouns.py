"""The nouns: images, networks, host, events, audit, tokens, doctor, backup."""

import pytest

from .conftest import Corral


def test_images(corral: Corral) -> None:
    assert "micro" in corral("image", "list", "-o", "name").ok().out.split()
    assert "debian-12" in corral("image", "catalogue", "-o", "name").ok().out.split()
    shown = corral("image", "show", "micro", "-o", "json").json
    assert shown["status"]["state"] == "ready"
    assert "digest:" in corral("image", "show", "micro").ok().out
    assert corral("image", "build").status == 2
    assert corral("image", "build", "nothing-like-it").status == 3


def test_networks_and_hosts(corral: Corral) -> None:
    assert corral("net-list", "-o", "name").ok().out.split() == ["default"]
    assert "subnet:" in corral("network", "show", "default").ok().out
    assert corral("host", "info", "-o", "json").json["kind"] == "host"
    assert "committed memory:" in corral("nodeinfo").ok().out
    assert corral("host", "list").ok().out.startswith("NAME")


def test_events_and_audit(corral: Corral) -> None:
    events = corral("events", "-o", "json").json
    assert {"time", "reason", "object_name", "sequence"} <= set(events[0])
    assert corral("events", "--last", "2").ok().out.count("\n") == 3
    assert corral("audit", "list", "-o", "json").json[0]["action"]
    assert "valid:" in corral("audit", "verify").ok().out
    assert corral("audit", "verify", "-o", "json").json["valid"] is True


@pytest.mark.timeout(60)
def test_events_are_followed_as_they_come(corral: Corral) -> None:
    newest = corral("events", "-o", "json").json[-1]["sequence"]
    process = corral.start("events", "--follow", "--after", str(newest), "-o", "json")
    try:
        corral("create", "followed", "--image", "micro", "--memory", "128").ok()
        assert process.stdout is not None
        assert "followed" in process.stdout.readline()
        corral("delete", "followed").ok()
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_tokens(corral: Corral) -> None:
    secret = (
        corral("admin", "token", "create", "ci", "--role", "operator", "--expires", "90d", "-o", "name")
        .ok()
        .out.strip()
    )
    assert secret.startswith("corral_")
    assert corral("admin", "token", "list", "-o", "json").json[0]["spec"]["role"] == "operator"
    assert secret not in corral("admin", "token", "list", "-o", "json").out
    assert corral("admin", "token", "create", "ci").status == 4
    corral("admin", "token", "revoke", "ci").ok()
    assert corral("admin", "token", "revoke", "ci").status == 3


def test_doctor_says_what_to_do(corral: Corral) -> None:
    ran = corral("doctor", "-o", "json")
    assert ran.status in (0, 1)
    assert corral("doctor").out != ""


def test_adopting_nothing_is_an_error(corral: Corral) -> None:
    ran = corral("adopt", "nobody")
    assert ran.status == 3
    assert "[domain-not-found]" in ran.err
