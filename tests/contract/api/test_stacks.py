"""Stacks over HTTP: plans are carried out by the routes that they name; what is not a document is refused."""

from typing import Any

import pytest

from corral.client import Client
from corral.errors import CorralError

LAB: dict[str, Any] = {
    "stack": "lab",
    "defaults": {"image": "micro", "memory": "128M"},
    "vms": {"db": {"disks": [2, {"size": 1, "name": "data"}]}, "web": {"count": 2, "after": {"db": "running"}}},
}


def carry_out(client: Client, world: Any, plan: Any) -> None:
    for action in plan["actions"]:
        world.finish(client.carry_out(action)["uid"])


def test_a_plan_is_carried_out_by_the_routes_that_it_names(client: Client, world: Any) -> None:
    plan: Any = client.plan_stack({"document": LAB})
    assert [action["id"] for action in plan["actions"]] == ["vm/db/create", "vm/web-1/create", "vm/web-2/create"]
    first = client.carry_out(plan["actions"][0])
    assert client.carry_out(plan["actions"][0])["uid"] == first["uid"]
    world.finish(first["uid"])
    carry_out(client, world, {"actions": plan["actions"][1:]})
    assert client.plan_stack({"document": LAB})["actions"] == []
    changed = {**LAB, "defaults": {**LAB["defaults"], "vcpus": 2}, "vms": {"db": {"disks": [2], "nics": []}}}
    plan = client.plan_stack({"document": changed, "prune": True})
    verbs = {(action["verb"], action["method"], action["path"]) for action in plan["actions"]}
    assert verbs == {
        ("delete", "DELETE", "/v1/vms/web-1"),
        ("delete", "DELETE", "/v1/vms/web-2"),
        ("update", "PATCH", "/v1/vms/db"),
        ("detach-disk", "DELETE", "/v1/vms/db/disks/data"),
        ("detach-nic", "DELETE", "/v1/vms/db/nics/net0"),
    }
    carry_out(client, world, plan)
    down: Any = client.plan_stack_down({"stack": "lab", "keep_disks": True})
    assert [(action["verb"], action["query"]) for action in down["actions"]][-1:] == [
        ("delete", {"keep_disks": "true"})
    ]


def test_an_export_and_the_schema_are_documents(client: Client, world: Any) -> None:
    carry_out(client, world, client.plan_stack({"document": LAB}))
    exported: Any = client.export_stack({"stack": "lab", "selector": "corral/stack=lab"})
    assert client.plan_stack({"document": exported["document"]})["actions"] == []
    one: Any = client.export_stack({"stack": "other", "vms": ["db"]})
    assert list(one["document"]["vms"]) == ["db"]
    assert "corral tag db corral/stack=other" in one["notes"][0]
    with pytest.raises(CorralError) as refused:
        client.export_stack({"stack": "x", "vms": ["nobody"]})
    assert refused.value.code == "vm-not-found"
    assert set(client.stack_schema()["properties"]) == {
        "stack", "variables", "defaults", "images", "networks", "routers", "forwards", "security_groups",
        "network_policies", "balancers", "addresses", "volumes", "vms",
    }  # fmt: skip


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"document": []}, "invalid-document"),
        ({"document": {}}, "invalid-document"),
        ({"document": {"stack": "lab", "vms": {"a": nested(50)}}}, "invalid-document"),
        ({"document": {"stack": "lab", "vms": nested(150)}}, "invalid-document"),
        ({"document": {"stack": 7}}, "invalid-document"),
        ({"document": LAB, "variables": {"x": "1"}}, "invalid-argument"),
        ({"document": LAB, "replace": ["nobody"]}, "invalid-argument"),
        ({"document": LAB, "prune": True, "prun": True}, "invalid-document"),
        ({"document": {**LAB, "networks": ["x"]}}, "network-not-found"),
        ({"document": {**LAB, "images": ["x"]}}, "image-not-found"),
        ({"document": {"stack": "lab", "vms": {"a": {"description": "x" * 600_000}}}}, "body-too-large"),
    ],
)
def test_what_is_no_document_is_refused(client: Client, body: Any, code: str) -> None:
    with pytest.raises(CorralError) as refused:
        client.plan_stack(body)
    assert refused.value.code == code, str(refused.value)
