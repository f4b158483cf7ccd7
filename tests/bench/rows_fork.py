"""The row of forks on real libvirt: from the request until a guest runs on its template's memory, and a bare start of its like."""

import contextlib
import time
from collections.abc import Callable

import libvirt
from stage import Daemon, Row, median, say, timed

from corral.client import Client, raise_for_operation

ROUNDS = 8
MEMORY_MIB = 128
SETTLE_S = 0.7
LATE_S = 60.0
LOOK_S = 0.002


def fork_row(one: Daemon, image: str, prefix: str, uri: str, bare_copy: Callable[[str, str], str]) -> Row:
    """Interleaved with virDomainCreate of a domain made from the fork's own document."""
    source, template = f"{prefix}-src", f"{prefix}-base"
    one.run("create", "--name", source, "--image", image, "--memory", str(MEMORY_MIB), "--wait", "agent")
    one.run("template", "create", template, "--from", source, "--hot")
    one.run("destroy", source)
    one.run("fork", template, f"{prefix}-first")  # from here on somebody holds the memory
    one.run("delete", f"{prefix}-first", "--yes")
    connection = libvirt.open(uri)
    ours, told, theirs = [], [], []
    say(f"{ROUNDS} forks, virDomainCreate")
    with Client(one.socket) as client:
        for number in range(ROUNDS):
            name = f"{prefix}-{number}"
            began = time.perf_counter()
            operation = client.fork_template(template, {"names": [name]})["operations"][0]
            _until_running(connection, name)
            ours.append(time.perf_counter() - began)
            raise_for_operation(client.wait_operation(operation["uid"], timeout_s=LATE_S))
            told.append(time.perf_counter() - began)
            document = connection.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            one.run("destroy", name)
            time.sleep(SETTLE_S)
            bare = connection.defineXML(bare_copy(document, name))
            try:
                theirs.append(timed(bare.create))
                bare.destroy()
            finally:
                bare.undefine()
            one.run("delete", name, "--yes")
            time.sleep(SETTLE_S)
    connection.close()
    one.run("template", "delete", template)
    one.run("delete", source, "--yes")
    how = (
        f"from the request, interleaved, {ROUNDS} times, micro guest: {median(ours):.2f} s against {median(theirs):.2f} s; "
        f"told who it is after {median(told):.2f} s"
    )
    return Row("a fork runs, against bare `virDomainCreate`", 1.25, median(ours) / median(theirs), "", how)


def _until_running(connection: libvirt.virConnect, name: str) -> None:
    deadline = time.perf_counter() + LATE_S
    while time.perf_counter() < deadline:
        with contextlib.suppress(libvirt.libvirtError):  # it is not there yet
            if connection.lookupByName(name).state(0)[0] == libvirt.VIR_DOMAIN_RUNNING:
                return
        time.sleep(LOOK_S)
    raise AssertionError(f"{name} does not run")
