"""Stacks as a user types them, against a daemon with the simulated hypervisor: apply, again, killed, two at once, down."""

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Corral

EXAMPLES = Path(__file__).parents[3] / "examples"
# What each makes: VMs, networks, groups, routers, ports.
COUNTS = {"one-vm.yaml": 1, "web-app-db.yaml": 4, "qa-matrix.yaml": 10, "three-tier.yaml": 11}


@pytest.fixture
def stack(corral: Corral) -> Iterator[str]:
    """A name of its own; whatever a test made under it goes."""
    name = f"s{uuid.uuid4().hex[:6]}"
    yield name
    corral("down", name, "--yes")


def write(directory: Path, document: dict[str, Any]) -> str:
    path = directory / "stack.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def tiers(stack: str, web: int = 2, **defaults: Any) -> dict[str, Any]:
    """VMs whose names nobody else has."""
    return {
        "stack": stack,
        "variables": {"mem": "128M"},
        "defaults": {"image": "micro", "memory": "${mem}", **defaults},
        "vms": {f"{stack}-db": {}, f"{stack}-web": {"count": web, "after": {f"{stack}-db": "agent"}}},
    }


def names(corral: Corral, stack: str) -> list[str]:
    return sorted(corral("list", "--all", "-l", f"corral/stack={stack}", "-o", "name").ok().out.split())


def test_apply_makes_it_and_again_does_nothing(corral: Corral, stack: str, tmp_path: Path) -> None:
    file = write(tmp_path, tiers(stack))
    planned = corral("diff", "-f", file, "--exit-code")
    assert planned.status == 1
    assert f"+ vm {stack}-db: create (new: image micro, 1 vCPU, 128 MiB, disks root)" in planned.out
    assert names(corral, stack) == []
    made = corral("apply", "-f", file).ok().out.splitlines()
    assert made[0] == f"{stack}-db: created"
    assert sorted(made[1:3]) == [f"{stack}-web-1: created", f"{stack}-web-2: created"]
    assert made[3] == f"stack {stack}: 3 done"
    assert names(corral, stack) == [f"{stack}-db", f"{stack}-web-1", f"{stack}-web-2"]
    assert corral("apply", "-f", file).ok().out == f"stack {stack}: 3 unchanged\n"
    assert corral("diff", "-f", file, "--exit-code").ok().out.endswith("nothing to do\n")


def test_changes_are_shown_made_and_pruned(corral: Corral, stack: str, tmp_path: Path) -> None:
    corral("apply", "-f", write(tmp_path, tiers(stack))).ok()
    file = write(tmp_path, tiers(stack, web=1, vcpus=2))
    shown = corral("apply", "-f", file, "--dry-run").ok()
    assert f"~ vm {stack}-db: update (vcpus: 1 → 2)" in shown.out
    assert f"no longer in the document: {stack}-web-2 (--prune deletes them)" in shown.err
    done = corral("apply", "-f", file, "--prune", "-o", "json").json
    assert set(done["done"]) == {f"vm/{stack}-db/update", f"vm/{stack}-web-1/update", f"vm/{stack}-web-2/delete"}
    assert corral("diff", "-f", file, "--exit-code").ok()


def test_variables_are_set_and_standard_input_is_read(corral: Corral, stack: str) -> None:
    text = yaml.safe_dump(tiers(stack, web=1))
    corral("apply", "-f", "-", "--set", "mem=256M", stdin=text).ok()
    assert corral("info", f"{stack}-db", "-o", "json").json["spec"]["memory_mib"] == 256
    exported = corral("export-spec", "--stack", stack).ok()
    assert corral("diff", "-f", "-", "--exit-code", stdin=exported.out).ok()
    wrong = corral("apply", "-f", "-", "--set", "memory=1G", stdin=text)
    assert wrong.status == 2
    assert "the stack has no such variable" in wrong.err


def test_what_cannot_be_changed_is_refused_before_anything_is_done(corral: Corral, stack: str, tmp_path: Path) -> None:
    corral("apply", "-f", write(tmp_path, tiers(stack))).ok()
    document = tiers(stack, vcpus=2)
    document["vms"][f"{stack}-db"] = {"hostname": "other"}
    refused = corral("apply", "-f", write(tmp_path, document))
    assert refused.status == 4
    assert f"! {stack}-db: it cannot be changed in place" in refused.err
    assert corral("info", f"{stack}-web-1", "-o", "json").json["spec"]["vcpus"] == 1
    before = corral("info", f"{stack}-db", "--uid").ok().out
    corral("apply", "-f", write(tmp_path, document), "--replace", f"{stack}-db", "--yes").ok()
    assert corral("info", f"{stack}-db", "--uid").ok().out != before


def test_an_apply_that_was_killed_goes_on_when_it_is_given_again(corral: Corral, stack: str, tmp_path: Path) -> None:
    file = write(tmp_path, tiers(stack, web=12))
    running = corral.start("apply", "-f", file, "--parallel", "1")
    assert running.stdout is not None
    assert running.stdout.readline() == f"{stack}-db: created\n"
    running.stdout.readline()
    running.send_signal(signal.SIGKILL)
    running.communicate()
    made = names(corral, stack)
    assert 2 <= len(made) < 13
    again = corral("apply", "-f", file, "-o", "json").json
    assert again["failed"] == again["skipped"] == []
    assert len(again["done"]) + len(again["unchanged"]) == 13
    assert len(names(corral, stack)) == 13
    states = [vm["status"]["state"] for vm in corral("stack", "show", stack, "-o", "json").json]
    assert states == ["running"] * 13


def test_ctrl_c_leaves_what_was_asked_for_and_says_how_to_go_on(corral: Corral, stack: str, tmp_path: Path) -> None:
    document = {**tiers(stack), "vms": {f"{stack}-a": {}, f"{stack}-b": {"after": {f"{stack}-a": "shutoff"}}}}
    file = write(tmp_path, document)
    running = corral.start("apply", "-f", file)
    assert running.stdout is not None
    assert running.stdout.readline() == f"{stack}-a: created\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "the same command again does what is left" in err
    corral("destroy", f"{stack}-a").ok()
    document["vms"][f"{stack}-a"] = {"start": False}
    refused = corral("apply", "-f", write(tmp_path, document))
    assert "is not started, so it is never shutoff" in refused.err


def test_a_daemon_that_is_killed_meanwhile_is_waited_for(place: Corral, tmp_path: Path) -> None:
    place("daemon", "start", "--hypervisor", "fake").ok()
    place("image", "build", "micro").ok()
    pid = place("daemon", "status", "-o", "json").json["pid"]
    file = write(tmp_path, tiers("s", web=8))
    running = place.start("apply", "-f", file, "--parallel", "1")
    assert running.stdout is not None
    for _ in range(3):
        assert running.stdout.readline().endswith(": created\n")
    os.kill(pid, signal.SIGKILL)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert out.splitlines()[-1] == "stack s: 9 done"
    assert len(names(place, "s")) == 9


def test_two_applies_at_once_make_it_once(corral: Corral, stack: str, tmp_path: Path) -> None:
    file = write(tmp_path, tiers(stack, web=4))
    both = [corral.start("apply", "-f", file, "-o", "json") for _ in range(2)]
    for one in both:
        out, err = one.communicate(timeout=90)
        assert one.returncode == 0, err
        assert json.loads(out)["failed"] == []
    assert len(names(corral, stack)) == 5


def test_one_failure_skips_only_what_needs_it(corral: Corral, stack: str, tmp_path: Path) -> None:
    document = tiers(stack)
    document["vms"] = {"a": {}, "b": {"after": {"a": "shutoff"}}, "c": {"after": {"b": "running"}}, "d": {}}
    document["vms"] = {
        f"{stack}-{name}": {"after": {f"{stack}-{other}": word for other, word in vm.get("after", {}).items()}}
        for name, vm in document["vms"].items()
    }
    ran = corral("apply", "-f", write(tmp_path, document), "--timeout", "1s")
    assert ran.status == 1
    assert "wait-timeout" in ran.err
    assert f"{stack}-c: create skipped: create of {stack}-b failed" in ran.err
    assert names(corral, stack) == [f"{stack}-a", f"{stack}-d"]


def test_bad_stacks_are_refused_and_nothing_is_made(corral: Corral, stack: str, tmp_path: Path) -> None:
    bad: dict[str, Any] = {
        f"{stack}-a": {"nics": ["nowhere"]},
        f"{stack}-b": {"image": "nothing"},
        f"{stack}-c": {"hardware": {"secure_boot": True}},
        f"{stack}-d": {"disks": [{"size": 1, "path": "relative.img"}]},
    }
    refused = corral("apply", "-f", write(tmp_path, {**tiers(stack), "vms": bad}))
    assert refused.status in (2, 3)
    for name in bad:
        assert f"vms.{name}: " in refused.err, refused.err
    circle = {f"{stack}-a": {"after": {f"{stack}-b": "ip"}}, f"{stack}-b": {"after": {f"{stack}-a": "ip"}}}
    refused = corral("apply", "-f", write(tmp_path, {**tiers(stack), "vms": circle}))
    assert refused.status == 2
    assert "in a circle" in refused.err
    assert names(corral, stack) == []


def test_a_vm_of_somebody_elses_is_never_taken_over(corral: Corral, stack: str, tmp_path: Path) -> None:
    corral("create", f"{stack}-db", "--image", "micro", "--memory", "128").ok()
    try:
        refused = corral("apply", "-f", write(tmp_path, tiers(stack)))
        assert refused.status == 4
        assert f"corral tag {stack}-db corral/stack={stack}" in refused.err
        assert names(corral, stack) == []
        corral("tag", f"{stack}-db", f"corral/stack={stack}").ok()
        corral("apply", "-f", write(tmp_path, tiers(stack))).ok()
    finally:
        corral("delete", f"{stack}-db")


def test_down_takes_the_last_first_and_keeps_disks_on_demand(corral: Corral, stack: str, tmp_path: Path) -> None:
    file = write(tmp_path, tiers(stack))
    corral("apply", "-f", file).ok()
    assert stack in corral("stack", "list", "-o", "name").ok().out
    gone = corral("down", "-f", file, "--keep-disks").ok().out.splitlines()
    assert gone[-2:] == [f"{stack}-db: deleted", f"stack {stack}: 6 done"]
    assert names(corral, stack) == []
    kept = [name for name in corral("volume", "list", "-o", "name").ok().out.split() if name.startswith(stack)]
    assert len(kept) == 3
    corral("volume", "delete", *kept).ok()
    assert corral("down", stack).ok().out == f"stack {stack}: nothing to do\n"
    assert corral("stack", "show", stack).status == 3


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_every_example_can_be_planned(corral: Corral, example: str) -> None:
    plan = corral("diff", "-f", str(EXAMPLES / example), "-o", "json").json
    assert plan["blocked"] == []
    creates = [action["name"] for action in plan["actions"] if action["verb"] == "create"]
    assert len(creates) == COUNTS[example]


def test_the_schema_is_printed(corral: Corral) -> None:
    assert corral("stack", "schema").json["title"] == "Corral stack"


def test_a_stack_with_everything_on_its_wires(corral: Corral, stack: str, tmp_path: Path) -> None:
    front, edge, web = f"{stack}-front", f"{stack}-edge", f"{stack}-web"
    document: dict[str, Any] = {
        "stack": stack,
        "networks": [{"name": front, "mode": "isolated"}],
        "security_groups": {web: ["in tcp/80", "out any"]},
        "network_policies": {f"{stack}-apart": {"tiers": [f"network:{front}", "network:default"]}},
        "routers": {edge: {"connect": [front]}},
        "balancers": {f"{stack}-shop": {"router": edge, "listen": 80, "to": [web]}},
        "addresses": {f"{stack}-face": {"router": edge, "vm": f"{web}-1"}},
        "forwards": {"18431": {"balancer": f"{stack}-shop"}},
        "defaults": {"image": "micro", "memory": "128M"},
        "vms": {web: {"count": 2, "nics": [{"network": front, "groups": [web]}]}},
    }
    file = write(tmp_path, document)
    corral("apply", "-f", file).ok()
    again = corral("apply", "-f", file).ok().out
    assert again == f"stack {stack}: 2 unchanged\n"
    document["addresses"][f"{stack}-face"]["vm"] = f"{web}-2"
    document["network_policies"][f"{stack}-apart"]["unless"] = [f"network:default to network:{front} tcp/80"]
    file = write(tmp_path, document)
    planned = corral("diff", "-f", file).ok().out
    assert f"~ address {stack}-face: update (vm: {web}-1 → {web}-2)" in planned
    corral("apply", "-f", file).ok()
    exported = yaml.safe_load(corral("export-spec", "--stack", stack).ok().out)
    assert exported["addresses"][f"{stack}-face"]["vm"] == f"{web}-2"
    assert exported["balancers"][f"{stack}-shop"]["to"] == [f"{web}-1", f"{web}-2"]
    for section in ("network_policies", "balancers", "addresses", "forwards"):
        del document[section]
    file = write(tmp_path, document)
    assert "unchanged" in corral("apply", "-f", file).ok().out
    corral("apply", "-f", file, "--prune").ok()
    for noun in ("network-policy", "balancer", "address", "forward"):
        assert stack not in corral(noun, "list").ok().out
    corral("down", stack, "--yes").ok()
    assert stack not in corral("router", "list").ok().out
