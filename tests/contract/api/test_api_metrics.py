"""What Prometheus and probes read."""

import re
import time

import pytest

from corral.client import Client
from corral.errors import CorralError
from corral.model.vm import Vm

from .conftest import WAIT_S, World


def _page(client: Client) -> str:
    return client.request_bytes("GET", "/metrics").decode()


async def _wait_for_restart(world: World, *sentences: str) -> None:
    vm = await world.context.objects.require(Vm, "default", "web")
    transaction = world.context.objects.transaction()
    transaction.update(vm.changed(status=vm.status.model_copy(update={"pending_restart": sentences})))
    await transaction.commit()


def test_vms_host_operations_and_the_api_itself_are_measured(world: World, client: Client) -> None:
    uid = client.create_vm({"name": "web", "memory_mib": 64, "labels": {"corral/stack": "shop"}})["operation"]["uid"]
    world.boot("web")
    world.run(_wait_for_restart(world, "vcpus: it has 1", "the clock: it keeps what it was started with"))
    world.finish(uid)
    deadline = time.monotonic() + WAIT_S
    while 'corral_operation_duration_seconds_count{state="succeeded",verb="create"} 1.0' not in (page := _page(client)):
        assert time.monotonic() < deadline, page
        time.sleep(0.05)
    vm = r'name="web",project="default",[^}]*'
    for pattern in (
        rf"^corral_vm_cpu_seconds_total{{{vm}}} \d",
        rf"^corral_vm_memory_bytes{{{vm}}} 6\.7108864e\+07$",
        rf"^corral_vm_disk_read_bytes_total{{{vm}}} \d",
        rf"^corral_vm_network_sent_bytes_total{{{vm}}} \d",
        rf'^corral_vm_state{{{vm}state="running",[^}}]*}} 1\.0$',
        r'^corral_vms{state="running"} 1\.0$',
        rf"^corral_vm_pending_restart{{{vm}}} 2\.0$",
        r'^corral_stack_vms{project="default",stack="shop",state="running"} 1\.0$',
        r'^corral_host_cpus{host="here",[^}]*} 1024\.0$',
        r'^corral_operations{state="succeeded"} 1\.0$',
        r"^corral_store_revision \d+\.0$",
        r'^corral_api_request_duration_seconds_count{method="POST",route="/v1/vms",status="202"} 1\.0$',
    ):
        assert re.search(pattern, page, re.MULTILINE), pattern


def test_paths_do_not_become_labels(client: Client) -> None:
    for number in range(3):
        with pytest.raises(CorralError):
            client.get_vm(f"nope-{number}")
    page = _page(client)
    assert "nope-" not in page
    assert 'route="/v1/vms/{name}",status="404"} 3.0' in page


def test_two_apps_in_one_process_count_apart(world: World, client: Client) -> None:
    from corral.api.metrics import ApiMetrics

    client.list_vms()
    assert ApiMetrics().registry.get_sample_value("corral_api_request_duration_seconds_count") is None


def test_probes_need_no_name(client: Client, world: World) -> None:
    assert client.request("GET", "/healthz") == {"alive": True}
    assert client.ready() == {"ready": True, "reasons": []}
    world.hypervisor.disconnect()
    ready = client.ready()
    assert not ready["ready"]
    assert any("hypervisor" in reason for reason in ready["reasons"])


def test_readiness_asks_for_a_place_to_write(client: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.services.daemon.FREE_MIN_BYTES", 2**62)
    ready = client.ready()
    assert not ready["ready"]
    assert any("nothing can be written" in reason for reason in ready["reasons"])
