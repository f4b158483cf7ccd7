"""`corral volume delete` against a daemon that is killed at once: afterwards the volume is gone all the same."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from corral.client import Client
from corral.errors import CorralError


@pytest.mark.parametrize("pause_s", [0.0, 0.003, 0.01])
def test_a_deletion_outlives_the_daemon(
    daemons: Callable[..., Any], with_micro: Callable[[Any], None], done: Callable[[Client, Any], Any], pause_s: float
) -> None:
    daemon = daemons().start()
    with_micro(daemon)
    with daemon.client() as client:
        done(client, client.create_vm({"name": "web", "image": "micro", "start": False}))
        [volume] = client.list_volumes()
        with pytest.raises(CorralError, match="VM web has it"):
            client.delete_volume(volume["name"])
        done(client, client.delete_vm("web", keep_disks=True))
        accepted = client.delete_volume(volume["uid"])
        time.sleep(pause_s)
        daemon.kill()
    daemon.start()
    with daemon.client() as client:
        done(client, accepted)
        assert client.list_volumes() == []
        with pytest.raises(CorralError, match="volume-not-found"):
            client.delete_volume(volume["name"])
        assert client.verify_audit()["valid"]
