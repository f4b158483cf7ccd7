"""Who may make VMs of a template: a right of its own, and another project only where it was published to."""

import time
from typing import Any

import pytest

from corral.client import Client
from corral.errors import CorralError
from corral.model.identity import Project
from corral.model.layer import Layer, LayerSpec, LayerStatus
from corral.model.network import Network
from corral.model.operation import Operation
from corral.model.snapshot import Snapshot, SnapshotSpec, SnapshotStatus
from corral.model.template import Template, TemplateDisk, TemplateSpec, TemplateStatus
from corral.model.vm import DiskSpec, NicSpec, Vm, VmSpec
from corral.names import new_mac, new_uid

from .conftest import WAIT_S


async def _put(world: Any, *values: Any) -> None:
    transaction = world.context.objects.transaction()
    for value in values:
        transaction.create(value)
    await transaction.commit()


def _template(world: Any, name: str = "base", *, stale: str = "") -> Template:
    """A hot one, as the agent leaves it."""
    objects, now = world.context.objects, world.context.clock.now()
    network = world.run(objects.require(Network, "default", "default"))
    volume_uid, layer_uid = new_uid(), new_uid()
    layer = Layer(
        name=layer_uid,
        uid=layer_uid,
        created_at=now,
        spec=LayerSpec(size_bytes=2**30, volume_uid=volume_uid),
        status=LayerStatus(ready=True),
    )
    card = NicSpec(name="net0", network_uid=network.uid, mac=new_mac(), address="10.77.9.9")
    spec = VmSpec(disks=(DiskSpec(name="root", volume_uid=volume_uid),), nics=(card,))
    template = Template(
        name=name,
        uid=new_uid(),
        created_at=now,
        spec=TemplateSpec(
            hot=True,
            source="web",
            source_uid=new_uid(),
            snapshot_uid=new_uid(),
            disks=(TemplateDisk(name="root", layer_uid=layer_uid, size_bytes=2**30),),
            vm_spec=spec,
            published_to=(),
        ),
        status=TemplateStatus(ready=True, agent=True, key="fake-1-tcg", stale=stale),
    )
    world.run(_put(world, layer, template))
    return template


@pytest.fixture
def lab(world: Any) -> None:
    now = world.context.clock.now()
    world.run(_put(world, Project(name="lab", uid=new_uid(), created_at=now)))


def _token(world: Any, name: str, role: str, rights: list[str], project: str = "default") -> Client:
    with world.client(project=project) as admin:
        made = admin.create_token({"name": name, "role": role, "rights": rights})  # type: ignore[typeddict-item]
    client: Client = world.client(token=made["secret"], project=project)
    return client


def _refused(code: str, work: Any) -> CorralError:
    with pytest.raises(CorralError) as error:
        work()
    assert error.value.code == code, error.value
    return error.value


def test_to_fork_is_a_right_of_its_own(world: Any) -> None:
    _template(world)
    with _token(world, "plain", "operator", []) as client:
        why = _refused("forbidden", lambda: client.fork_template("base", {"names": ["x"]}))
        assert "the right template.fork" in why.reason
        assert client.get_template("base")["name"] == "base"
    with _token(world, "looks", "viewer", ["template.fork"]) as client:
        _refused("forbidden", lambda: client.fork_template("base", {"names": ["x"]}))
    with _token(world, "forks", "operator", ["template.fork"]) as client:
        made = client.fork_template("base", {"names": ["one", "two"]})
        assert [vm["name"] for vm in made["vms"]] == ["one", "two"]
        _refused("forbidden", lambda: client.publish_template("base", "lab"))
    with world.client() as admin:
        rights = {token["name"]: token["spec"].get("rights") for token in admin.list_tokens()}
        assert rights == {"plain": None, "looks": ["template.fork"], "forks": ["template.fork"]}
        outcomes = {(entry["action"], entry["outcome"]) for entry in admin.request("GET", "/v1/audit")["items"]}
        assert ("template.fork", "denied") in outcomes


def test_another_project_forks_what_was_published_to_it(world: Any, lab: None) -> None:
    template = _template(world)
    tenant = _token(world, "ci", "operator", ["template.fork"], project="lab")
    body: Any = {"names": ["x"], "of_project": "default"}
    with tenant, world.client() as admin:
        unpublished = _refused("template-not-published", lambda: tenant.fork_template("base", body))
        nowhere = _refused("template-not-published", lambda: tenant.fork_template("none", body))
        assert unpublished.reason == nowhere.reason  # what is there is not told
        _refused("template-not-found", lambda: tenant.fork_template("base", {"names": ["x"]}))
        _refused("project-not-found", lambda: admin.publish_template("base", "nobody"))
        _refused("invalid-argument", lambda: admin.publish_template("base", "default"))
        assert admin.publish_template("base", "lab")["spec"]["published_to"] == ["lab"]
        assert admin.publish_template("base", "lab")["spec"]["published_to"] == ["lab"]

        assert [(one["project"], one["name"]) for one in tenant.published_templates()] == [("default", "base")]
        assert admin.published_templates() == []

        made = tenant.fork_template("base", body)
        found = world.run(world.context.objects.require(Vm, "lab", "x"))
        operation = world.run(world.context.objects.get(Operation, made["operations"][0]["uid"]))
        assert operation.project == "lab"
        assert operation.spec.intent.fork_of == template.uid
        assert found.spec.template_uid == template.uid
        assert found.spec.nics[0].address != "10.77.9.9"
        assert found.spec.disks[0].volume_uid != template.spec.vm_spec.disks[0].volume_uid
        head = world.run(world.context.objects.get(Layer, found.spec.disks[0].volume_uid))
        assert (head.project, head.spec.parent_uid) == ("lab", template.spec.disks[0].layer_uid)

        assert admin.unpublish_template("base", "lab")["spec"].get("published_to", []) == []
        body["names"] = ["y"]
        _refused("template-not-published", lambda: tenant.fork_template("base", body))
        assert [vm["name"] for vm in tenant.list_vms()] == ["x"]


def test_a_project_without_the_right_gets_nothing_of_what_was_published_to_it(world: Any, lab: None) -> None:
    _template(world)
    with world.client() as admin, _token(world, "ci", "operator", [], project="lab") as tenant:
        admin.publish_template("base", "lab")
        _refused("forbidden", lambda: tenant.fork_template("base", {"names": ["x"], "of_project": "default"}))


def test_a_stale_one_says_what_to_do(world: Any) -> None:
    _template(world, stale="it was frozen under another QEMU")
    with world.client() as admin:
        why = _refused("template-stale", lambda: admin.fork_template("base", {"names": ["x"]}))
        assert "corral template refresh base" in why.hint
        assert admin.fork_template("base", {"names": ["x"], "boot": True})["vms"][0]["name"] == "x"


def test_a_refresh_writes_its_vm_and_both_operations_at_once(world: Any) -> None:
    template = _template(world)
    with world.client() as admin:
        operation = admin.refresh_template("base", {"deadline_s": 60})["operation"]
        intent: Any = operation["spec"]["intent"]
        assert (operation["spec"]["target_uid"], intent["deadline_s"]) == (template.uid, 60)
        [vm] = admin.list_vms()
        assert vm["uid"] == intent["vm_uid"]
        assert vm["name"].startswith("refresh-")
        assert vm["spec"]["power"] == "on"
        assert _refused("template-in-use", lambda: admin.refresh_template("base", {})).hint.endswith(operation["uid"])
        assert operation["uid"] in _refused("template-in-use", lambda: admin.delete_template("base")).hint
    with _token(world, "looks", "viewer", []) as client:
        _refused("forbidden", lambda: client.refresh_template("base", {}))


def test_templates_and_forks_are_measured(world: Any) -> None:
    template = _template(world)
    _template(world, "old", stale="another QEMU")
    with world.client() as admin:
        [operation] = admin.fork_template("base", {"names": ["x"]})["operations"]
        world.finish(operation["uid"])
        wanted = (
            f'corral_template_state{{kind="hot",project="default",state="ready",template="base",uid="{template.uid}"}} 1.0',
            'state="stale",template="old"',
            f'corral_template_vms{{project="default",template="base",uid="{template.uid}"}} 1.0',
            "corral_template_stored_bytes{",
            "corral_template_waiting{",
            'corral_operation_duration_seconds_count{state="succeeded",verb="fork"} 1.0',
        )
        page, deadline = "", time.monotonic() + WAIT_S
        while any(line not in page for line in wanted):
            assert time.monotonic() < deadline, page
            time.sleep(0.05)
            page = admin.request_bytes("GET", "/metrics").decode()


def test_snapshots_are_measured_with_how_long_their_guests_stood_still(world: Any) -> None:
    async def take(pause_ms: float, *, memory: bool) -> None:
        now = world.context.clock.now()
        spec = SnapshotSpec(vm_uid=new_uid(), with_memory=memory)
        made = Snapshot(name="s", uid=new_uid(), created_at=now, spec=spec)
        await _put(world, made)
        found = await world.context.objects.get(Snapshot, made.uid)
        status = SnapshotStatus(ready=True, taken_at=now, pause_ms=pause_ms, memory_bytes=7 if memory else 0)
        for _ in range(2):  # written again later: counted once
            transaction = world.context.objects.transaction()
            transaction.update(found.model_copy(update={"status": status}))
            found = found.model_copy(update={"revision": (await transaction.commit()).revision})

    world.run(take(20, memory=False))
    world.run(take(900, memory=True))
    wanted = (
        'corral_snapshots{kind="disk",project="default",state="ready"} 1.0',
        'corral_snapshots{kind="memory",project="default",state="ready"} 1.0',
        'corral_snapshot_memory_bytes{project="default"} 7.0',
        'corral_snapshot_pause_seconds_count{kind="disk"} 1.0',
        'corral_snapshot_pause_seconds_bucket{kind="disk",le="0.025"} 1.0',
        'corral_snapshot_pause_seconds_bucket{kind="memory",le="0.5"} 0.0',
    )
    with world.client() as admin:
        page, deadline = "", time.monotonic() + WAIT_S
        while any(line not in page for line in wanted):
            assert time.monotonic() < deadline, page
            time.sleep(0.05)
            page = admin.request_bytes("GET", "/metrics").decode()
