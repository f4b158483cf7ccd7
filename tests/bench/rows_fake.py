"""Rows that need no real guest: the command line's own time, the API, many VMs, memory and idle processor time."""

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from stage import CORRAL, Daemon, Row, SocketConnection, daemon, median, p99, process_s, say, timed

from corral.client import Client

CLIENTS = 8
MANY = 1_000
VERY_MANY = 10_000
PAGE = 500
REQUESTS = 200
PAGES = 400
# What changes left to do (status of guests, the pretended world's file) is over by then; lists are measured after it.
SETTLE_S = 5.0
IDLE_S = 20.0
PROCESS_RUNS = 15
CREATE_DEADLINE_S = 300.0


def rows() -> Iterator[Row]:
    yield help_row()
    with daemon("fake") as one:
        yield from idle_rows(one)
        yield list_command_row(one)
    with daemon("fake") as one:
        yield creation_row(one)
        yield list_row(one, MANY)
        yield memory_with_many_row(one)
        yield restart_row(one)
    with daemon("fake") as one:
        yield pages_row(one)


def help_row() -> Row:
    times = [process_s([CORRAL, "--help"], dict(os.environ)) for _ in range(PROCESS_RUNS)]
    return Row("`corral --help`", 0.12, median(times), "s", f"whole process, median of {PROCESS_RUNS}")


def idle_rows(one: Daemon) -> Iterator[Row]:
    say(f"watching an idle daemon for {IDLE_S:g} s")
    time.sleep(SETTLE_S)
    before = one.cpu_s()
    time.sleep(IDLE_S)
    used = (one.cpu_s() - before) / IDLE_S * 100
    yield Row("idle daemon, resident memory", 100, one.resident_mib(), "MiB", "VmRSS, fake driver")
    yield Row("idle daemon, processor time", 1.0, used, "% of a core", f"utime + stime over {IDLE_S:g} s")


def create(one: Daemon, names: list[str], *, start: bool, memory_mib: int = 64) -> None:
    """Create VMs from `CLIENTS` parallel clients, each waiting for nothing but the answer."""

    def some(share: list[str]) -> None:
        with Client(one.socket) as client:
            for name in share:
                client.create_vm({"name": name, "memory_mib": memory_mib, "start": start, "graphics": "none"})

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(some, [names[part::CLIENTS] for part in range(CLIENTS)]))


def until_all(one: Daemon, count: int, state: str) -> None:
    """Wait until `count` VMs are in `state`, looking ten times a second."""
    deadline = time.monotonic() + CREATE_DEADLINE_S
    with Client(one.socket) as client:
        while sum(vm["status"]["state"] == state for vm in client.list_vms(fields="status.state")) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all of {count} VMs are {state} within {CREATE_DEADLINE_S:g} s")
            time.sleep(0.1)


def list_command_row(one: Daemon) -> Row:
    create(one, [f"few-{number}" for number in range(20)], start=True)
    until_all(one, 20, "running")
    times = [process_s([CORRAL, "list"], one.environment) for _ in range(PROCESS_RUNS)]
    return Row("`corral list` with 20 VMs", 0.15, median(times), "s", f"whole process, median of {PROCESS_RUNS}")


def creation_row(one: Daemon) -> Row:
    say(f"creating {MANY} VMs")

    def all_of_them() -> None:
        create(one, [f"many-{number}" for number in range(MANY)], start=True)
        until_all(one, MANY, "running")

    return Row(
        f"{MANY} VMs created and running, {CLIENTS} clients",
        10,
        timed(all_of_them),
        "s",
        "through the API, fake driver",
    )


def list_row(one: Daemon, count: int) -> Row:
    time.sleep(SETTLE_S)
    connection = SocketConnection(one.socket)

    def ask() -> None:
        connection.request("GET", f"/v1/vms?limit={count}")
        answer = connection.getresponse().read()
        assert answer.count(b'"kind":"vm"') >= count

    times = [timed(ask) for _ in range(REQUESTS)]
    how = f"{REQUESTS} requests on one connection, {SETTLE_S:g} s after the last change; {_middle(times)}"
    return Row(f"API list of {count} VMs, p99", 25, p99(times) * 1000, "ms", how)


def _middle(times: list[float]) -> str:
    return f"median {median(times) * 1000:.1f} ms"


def memory_with_many_row(one: Daemon) -> Row:
    return Row(f"daemon with {MANY} VMs, resident memory", 160, one.resident_mib(), "MiB", "VmRSS, fake driver")


def restart_row(one: Daemon) -> Row:
    one.stop()
    took = one.start()
    with Client(one.socket) as client:
        running = sum(vm["status"]["state"] == "running" for vm in client.list_vms(fields="status.state"))
    assert running == MANY, f"{running} of {MANY} VMs run after the restart"
    return Row(f"daemon restart with {MANY} running VMs until ready", 2, took, "s", "from exec until /readyz says yes")


def pages_row(one: Daemon) -> Row:
    say(f"creating {VERY_MANY} VMs that are off")
    create(one, [f"v-{number}" for number in range(VERY_MANY)], start=False)
    until_all(one, VERY_MANY, "shut off")
    time.sleep(SETTLE_S)
    connection = SocketConnection(one.socket)
    times: list[float] = []
    for _ in range(PAGES // (VERY_MANY // PAGE)):
        following, seen = "", 0
        while True:
            began = time.perf_counter()
            connection.request("GET", f"/v1/vms?limit={PAGE}" + (f"&continue={following}" if following else ""))
            answer = connection.getresponse().read()
            times.append(time.perf_counter() - began)
            page = json.loads(answer)
            seen += len(page["items"])
            if not page["continue"]:
                break
            following = page["continue"]
        assert seen == VERY_MANY
    return Row(
        f"API list of {VERY_MANY} VMs in pages of {PAGE}, p99 a page",
        25,
        p99(times) * 1000,
        "ms",
        f"{len(times)} pages on one connection, {SETTLE_S:g} s after the last change; {_middle(times)}",
    )
