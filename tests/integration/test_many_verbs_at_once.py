"""Eight clients ask whatever comes to their minds of four VMs, all at once: every operation ends, and nothing is left."""

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from corral.client import Client
from corral.errors import CorralError

CLIENTS = 8
NAMES = ("a", "b", "c", "d")
ASKING_S = 6.0
ENDING_S = 60.0
SEED = int(os.environ.get("CORRAL_SEED") or random.SystemRandom().randrange(1 << 32))
UNDER_WAY = ("accepted", "running")
# What a request may meet that was right when it was accepted: another one was quicker, or has paused the guest.
MET = {"wrong-state", "operation-cancelled", "vm-not-found", "shutdown-timeout"}


def ask(client: Client, chance: random.Random) -> None:
    name, other = chance.choice(NAMES), chance.choice(NAMES)
    body = {"name": name, "image": "micro", "memory_mib": 64, "start": chance.random() < 0.7}
    asks: list[Callable[[], object]] = [
        lambda: client.create_vm(body),
        lambda: client.create_vm(body),
        *(lambda verb=verb: client.vm_action(name, verb) for verb in ("start", "destroy", "pause", "resume", "save")),
        *(lambda verb=verb: client.vm_action(name, verb) for verb in ("reset", "reboot")),
        lambda: client.vm_action(name, "shutdown", {"force_after_s": 1}),
        lambda: client.update_vm(name, {"name": other}),
        lambda: client.update_vm(name, {"memory_mib": chance.choice((64, 128))}),
        lambda: client.request("POST", f"/v1/vms/{name}/disks", body={"size_bytes": 2**26}),
        lambda: client.request("POST", f"/v1/vms/{name}/nics", body={}),
        lambda: client.delete_vm(name, keep_disks=chance.random() < 0.3),
        lambda: [client.cancel_operation(found["uid"]) for found in under_way(client)[:1]],
        lambda: [client.delete_volume(found["name"]) for found in client.list_volumes() if not found["spec"]["vm_uid"]],
    ]
    with suppress(CorralError):  # most are refused: that is no fault
        chance.choice(asks)()


def under_way(client: Client) -> list[Any]:
    return [found for found in client.list_operations() if found["status"]["state"] in UNDER_WAY]


def test_every_operation_ends_and_nothing_is_left(
    daemons: Callable[..., Any], done: Callable[..., Any], with_micro: Callable[..., None]
) -> None:
    print(f"CORRAL_SEED={SEED}")
    daemon = daemons(CORRAL_MEMORY_OVERCOMMIT="100", CORRAL_CPU_OVERCOMMIT="2000").start()
    with_micro(daemon)
    end = time.monotonic() + ASKING_S

    def one(number: int) -> None:
        chance = random.Random(f"{SEED}/{number}")
        with daemon.client() as client:
            while time.monotonic() < end:
                ask(client, chance)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(CLIENTS)))
    with daemon.client() as client:
        deadline = time.monotonic() + ENDING_S
        while left := under_way(client):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
        failed = [found for found in client.list_operations() if found["status"]["state"] == "failed"]
        met = [(found["spec"]["intent"]["verb"], found["status"]["error"]) for found in failed]
        assert [(verb, error) for verb, error in met if error["code"] not in MET] == []
        for vm in client.list_vms():
            assert not [found for found in vm["status"]["conditions"] if found["type"] == "Drifted"], vm
            done(client, client.delete_vm(vm["name"]))
        for volume in client.list_volumes():
            assert volume["spec"]["vm_uid"] is None
            done(client, client.delete_volume(volume["name"]))
        while (host := client.get_host("self")["status"])["committed_vcpus"] or host["vms_running"]:
            assert time.monotonic() < deadline, host
            time.sleep(0.1)
        assert client.verify_audit()["valid"]
    log = daemon.log.read_text()
    assert "[error" not in log
    assert "Traceback" not in log
