"""Stack documents: variables, defaults, counts and sizes; and everything that is refused, with its place."""

from typing import Any

import pytest

from corral.errors import CorralError
from corral.model import limits
from corral.model.stack import StackDocument, stack_schema
from corral.services.stack_document import Stack, read_stack


def read(vms: dict[str, Any] | None = None, overrides: dict[str, str] | None = None, **rest: Any) -> Stack:
    return read_stack({"stack": "lab", "vms": {"web": None} if vms is None else vms, **rest}, overrides or {})


def refusal(**document: Any) -> CorralError:
    overrides = document.pop("overrides", {})
    with pytest.raises(CorralError) as refused:
        read_stack({"stack": "lab", **document}, overrides)
    return refused.value


def test_a_vm_of_which_nothing_is_said_has_the_defaults() -> None:
    (web,) = read(defaults={"image": "micro", "memory": 256, "labels": {"a": "1"}}).vms
    assert web.request.image == "micro"
    assert web.request.memory_mib == 256
    assert web.request.labels == {"a": "1", "corral/stack": "lab"}
    assert not web.names("vcpus", "ssh_keys", "boot")


def test_sizes_read_as_on_the_command_line() -> None:
    disks = [20, "5G", "512M", 1.5, {"size": "1T", "name": "big", "bandwidth": "10M", "keep": True}]
    (web,) = read({"web": {"memory": "1.5G", "disks": disks, "delay": "1m"}}).vms
    assert web.request.memory_mib == 1536
    assert [disk.size_bytes for disk in web.request.disks] == [
        20 * 2**30, 5 * 2**30, 2**29, 3 * 2**29, 2**40,
    ]  # fmt: skip
    assert web.request.disks[4].bytes_per_s_max == 10 * 2**20
    assert web.request.disks[4].delete_with_vm is False
    assert web.request.boot.delay_s == 60


def test_mappings_of_defaults_are_merged_and_all_else_is_replaced() -> None:
    defaults = {"labels": {"a": "1", "b": "1"}, "hardware": {"cpu": {"nested": True}}, "disks": [1, 2]}
    own = {"labels": {"b": "2"}, "hardware": {"cpu": {"quota_percent": 5}}, "disks": [3]}
    (web,) = read({"web": own}, defaults=defaults).vms
    assert web.request.labels == {"a": "1", "b": "2", "corral/stack": "lab"}
    assert (web.request.hardware.cpu.nested, web.request.hardware.cpu.quota_percent) == (True, 5)
    assert len(web.request.disks) == 1


def test_variables_stand_for_texts_and_for_values() -> None:
    variables = {"cpus": 3, "tier": "front", "on": False, "half": "1"}
    vm = {
        "count": 2,
        "vcpus": "${cpus}",
        "protected": "${on}",
        "description": "${tier} ${index} of ${vm}: $${HOME} $5 ${cpus}",
        "nics": [{"address": "10.0.0.${half}${index}"}],
    }
    first, second = read({"web": vm}, variables=variables).vms
    assert first.request.vcpus == 3
    assert first.request.protected is False
    assert second.request.description == "front 2 of web-2: ${HOME} $5 3"
    assert [one.request.nics[0].address for one in (first, second) if one.request.nics] == ["10.0.0.11", "10.0.0.12"]


def test_overrides_go_over_the_documents_own() -> None:
    vms = read(
        {"web": {"vcpus": "${cpus}", "count": "${webs}"}}, {"cpus": "7", "webs": "2"}, variables={"cpus": 3, "webs": 1}
    ).vms
    assert [web.request.vcpus for web in vms] == [7, 7]


def test_the_order_is_that_of_the_dependencies() -> None:
    vms = {"a": {"after": {"b": "running"}}, "b": {"count": 2, "after": {"c": "agent"}}, "c": None, "d": None}
    found = read(vms).vms
    assert [wish.name for wish in found] == ["c", "d", "b-1", "b-2", "a"]
    assert {name: word.value for name, word in found[-1].after.items()} == {"b-1": "running", "b-2": "running"}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no VMs' mapping": ({"vms": ["web"]}, "vms: it is no mapping"),
    "a VM that is a list": ({"vms": {"web": []}}, "vms.web: it is no mapping"),
    "an unknown field": ({"vms": {"web": {"memroy": 1}}}, "vms.web.memroy: Extra inputs"),
    "an unknown section": ({"vm": {}}, "vm: Extra inputs"),
    "an unknown field of hardware": ({"vms": {"web": {"hardware": {"cpu": {"x": 1}}}}}, "vms.web.hardware.cpu.x"),
    "a bad name": ({"vms": {"We b": {}}}, "vms.We b"),
    "a bad stack's name": ({"stack": "A!"}, "stack: String should match"),
    "count 0": ({"vms": {"web": {"count": 0}}}, "vms.web.count"),
    "count true": ({"vms": {"web": {"count": True}}}, "vms.web.count"),
    "a count of a text": ({"vms": {"web": {"count": "many"}}}, "vms.web.count"),
    "too many at once": ({"vms": {"web": {"count": limits.STACK_VMS_MAX + 1}}}, "vms.web.count"),
    "too many together": ({"vms": {"a": {"count": 100}, "b": {"count": 100}}}, "more than 128 VMs"),
    "a circle": ({"vms": {"a": {"after": {"b": "ip"}}, "b": {"after": {"a": "ip"}}}}, "circle: a after b after a"),
    "after itself": ({"vms": {"a": {"count": 2, "after": {"a": "ip"}}}}, "circle"),
    "after nobody": ({"vms": {"a": {"after": {"x": "ip"}}}}, "vms.a.after.x: the stack has no VM 'x'"),
    "after nothing known": ({"vms": {"a": {"after": {"b": "awake"}}, "b": {}}}, "vms.a.after.b"),
    "after what never starts": (
        {"vms": {"a": {"after": {"b": "agent"}}, "b": {"start": False}}},
        "vms.a.after.b: b is not started",
    ),
    "after what has no network": (
        {"vms": {"a": {"after": {"b": "ssh"}}, "b": {"nics": []}}},
        "vms.a.after.b: b has no network card",
    ),
    "a name twice": ({"vms": {"web": {"count": 2}, "web-1": {}}}, "vms.web makes a VM 'web-1' as well"),
    "an address twice": ({"vms": {"web": {"count": 2, "nics": [{"address": "10.0.0.9"}]}}}, "web-1 has 10.0.0.9"),
    "an unknown variable": ({"vms": {"web": {"image": "${os}"}}}, "vms.web.image: there is no variable ${os}"),
    "an open variable": ({"vms": {"web": {"image": "${os"}}}, "there is no variable ${os"),
    "a variable that is a list": ({"variables": {"x": [1]}}, "variables.x"),
    "a variable of a bad name": ({"variables": {"X-1": 1}}, "variables.X-1"),
    "no size": ({"vms": {"web": {"memory": "lots"}}}, "vms.web.memory: not a size"),
    "half a mebibyte": ({"vms": {"web": {"memory": "1500K"}}}, "no whole number of MiB"),
    "too little memory": ({"vms": {"web": {"memory": 1}}}, "vms.web.memory"),
    "a disk of nothing": ({"vms": {"web": {"disks": [0]}}}, "vms.web.disks.0"),
    "a negative disk": ({"vms": {"web": {"disks": [-5]}}}, "vms.web.disks.0"),
    "a truth for a disk": ({"vms": {"web": {"disks": [True]}}}, "vms.web.disks.0"),
    "a number for a label": ({"vms": {"web": {"labels": {"a": 1}}}}, "vms.web.labels.a"),
    "a file": ({"vms": {"web": {"user_data_file": "x"}}}, "files are read by the command line"),
    "an override of nothing": ({"overrides": {"x": "1"}}, "--set x"),
    "no stack": ({"stack": None}, "stack"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_documents_are_refused_with_their_place(case: str) -> None:
    document, expected = BAD[case]
    error = refusal(**document)
    assert error.code in ("invalid-document", "invalid-argument")
    assert expected in str(error), str(error)


def test_depth_and_growth_are_bounded() -> None:
    nest: Any = 1
    for _ in range(200):
        nest = {"x": nest}
    assert "nested deeper" in refusal(vms={"web": {"hardware": nest}}).reason
    many = {"x": "a" * 4096}
    text = "${x}" * 1000
    assert "too large" in refusal(variables=many, vms={"web": {"description": text}}).reason


def test_the_schema_knows_every_field_and_allows_variables_in_place_of_numbers() -> None:
    schema = stack_schema()
    assert set(schema["properties"]) == set(StackDocument.model_fields)
    vcpus = schema["$defs"]["StackVm"]["properties"]["vcpus"]
    assert {option["type"] for option in vcpus["anyOf"]} == {"integer", "string"}
