"""Whoever holds the firewall is killed, and its rules are flushed: what was denied stays denied, then all is as before."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from wired_host import DRIVER, SOON_S, Guest, WiredHost, soon, wired_host

from corral.network.firewall.policy import Card, Direction, Group, Net, Protocol, Rule, Traffic

NET = Net("n1", "default", "", "nat", ("10.78.0.0/16",), ("10.78.0.1",))
OUT = Group("out", (Rule("out", Direction.OUT),))
WEB = Group("web", (Rule("web", Direction.IN, Traffic(Protocol.TCP, (80, 80))),))
SERVER = "10.78.0.12"
MANY = 4000


@pytest.fixture(scope="module")
def host() -> Iterator[WiredHost]:
    with wired_host() as made:
        net = made.network(NET)
        made.guest("client", net, 11, ["out"])
        server = made.guest("server", net, 12, ["web"])
        made.answer(server.space, 80, 5432)
        made.load(groups=(OUT, WEB))
        yield made


@pytest.fixture
def client(host: WiredHost) -> Guest:
    soon(lambda: host.guests["client"].reaches(SERVER, 80), "the test begins with all in place")
    return host.guests["client"]


@contextmanager
def denied_all_the_while(client: Guest) -> Iterator[None]:
    """A guest tries what it may not, again and again, from before the block until after it."""
    passed: list[bool] = []
    over = threading.Event()

    def try_on() -> None:
        while not over.is_set():
            passed.append(client.reaches(SERVER, 5432, timeout_s=0.1))

    trying = threading.Thread(target=try_on, daemon=True)
    trying.start()
    try:
        yield
    finally:
        over.set()
        trying.join(SOON_S)
    assert passed
    assert not any(passed)


def test_a_killed_keeper_is_replaced_and_nothing_passes_meanwhile(host: WiredHost, client: Guest) -> None:
    with denied_all_the_while(client):
        for _ in range(2):
            old = host.keeper_pid()
            os.kill(old, signal.SIGKILL)
            soon(lambda old=old: host.keeper_pid() not in (0, old), "another keeper")  # type: ignore[misc]
            soon(lambda: client.reaches(SERVER, 80), "what was allowed is allowed again")


def test_a_killed_daemon_changes_nothing_and_the_next_one_adopts_the_keeper(host: WiredHost, client: Guest) -> None:
    pid, epoch = host.keeper_pid(), host.ask("state")["epoch"]
    with denied_all_the_while(client):
        host.kill_daemon()
        assert client.reaches(SERVER, 80)
        host.load()
        assert client.reaches(SERVER, 80)
    found = host.ask("state")
    assert (found["keeper_pid"], found["epoch"]) == (pid, epoch), "the same rules were not loaded again"


def test_with_both_of_them_dead_nothing_passes_at_all(host: WiredHost, client: Guest) -> None:
    pid = host.keeper_pid()
    host.kill_daemon()
    os.kill(pid, signal.SIGKILL)
    soon(lambda: not client.reaches(SERVER, 80, timeout_s=0.2), "the floor lets nothing by")
    assert not client.reaches(SERVER, 5432, timeout_s=0.2)
    assert not client.pings("10.78.0.1")
    host.load()
    assert client.reaches(SERVER, 80)
    assert not client.reaches(SERVER, 5432, timeout_s=0.2)


@pytest.mark.parametrize("harm", ["flush ruleset", "delete table inet {floor}", "flush chain bridge {floor} in"])
def test_what_somebody_flushes_comes_back(host: WiredHost, client: Guest, harm: str) -> None:
    floor = f"corral-floor-{host.installation[:8]}"
    whole = {family: _chains(host, family, floor) for family in ("inet", "bridge")}
    with denied_all_the_while(client):
        host.on_host("nft", harm.format(floor=floor))
        soon(lambda: all(_chains(host, family, floor) == whole[family] for family in whole), "the floor is back")
        assert client.reaches(SERVER, 80)


def _chains(host: WiredHost, family: str, table: str) -> str:
    listed = host.on_host("nft", "-s", "list", "table", family, table, check=False)
    return listed.stdout


def test_a_port_is_lifted_out_of_its_isolation_as_soon_as_it_shows(host: WiredHost, client: Guest) -> None:
    tap = client.card.tap
    host.on_host("bridge", "link", "set", "dev", tap, "isolated", "on")
    soon(lambda: host.on_host("cat", f"/sys/class/net/{tap}/brport/isolated").stdout == "0\n", "it is lifted")


def test_a_running_connection_is_cut_with_the_rule_that_allowed_it(host: WiredHost, client: Guest) -> None:
    more = replace(WEB, rules=(*WEB.rules, Rule("db", Direction.IN, Traffic(Protocol.TCP, (5432, 5432)))))
    host.load(groups=(OUT, more))
    holding = (
        "import socket, sys\n"
        f"s = socket.create_connection(('{SERVER}', 5432), 5); s.settimeout(0.5)\n"
        "for line in sys.stdin:\n"
        "    s.send(b'?')\n"
        "    try: print(len(s.recv(1)), flush=True)\n"
        "    except TimeoutError: print(0, flush=True)\n"
    )
    argv = ["ip", "netns", "exec", client.space, sys.executable, "-I", "-c", holding]
    held = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert held.stdin is not None
    assert held.stdout is not None

    def answered() -> bool:
        assert held.stdin is not None
        assert held.stdout is not None
        held.stdin.write("\n")
        held.stdin.flush()
        return held.stdout.readline() == "1\n"

    try:
        assert answered()
        host.load(groups=(replace(OUT, rules=(*OUT.rules, Rule("out2", Direction.OUT))), more))
        assert answered(), "a change that leaves it allowed does not cut it"
        host.load(groups=(OUT, WEB))
        assert not answered()
    finally:
        held.kill()
        held.wait()


def test_a_load_that_nobody_waited_for_leaves_nothing_behind(host: WiredHost, client: Guest) -> None:
    pid = host.keeper_pid()
    more = replace(WEB, rules=(*WEB.rules, Rule("db", Direction.IN, Traffic(Protocol.TCP, (5432, 5432)))))
    os.kill(pid, signal.SIGSTOP)
    try:
        assert host.load(groups=(OUT, more), within_s=0.3) < 0
    finally:
        os.kill(pid, signal.SIGCONT)
    host.load(groups=(replace(OUT, rules=(*OUT.rules, Rule("out2", Direction.OUT))), WEB))
    assert not client.reaches(SERVER, 5432, timeout_s=0.3), "it was loaded all the same, and taken back"
    assert client.reaches(SERVER, 80)
    assert host.keeper_pid() == pid, "nobody had to begin anew"


def test_a_keeper_that_hangs_is_replaced(host: WiredHost, client: Guest) -> None:
    hanging = host.keeper_pid()
    host.ask("hurry", answer_s=0.5)
    with denied_all_the_while(client):
        os.kill(hanging, signal.SIGSTOP)
        with pytest.raises(AssertionError, match="firewall-unavailable"):
            host.load(groups=(replace(OUT, rules=(*OUT.rules, Rule("out3", Direction.OUT))), WEB))
        host.load()
        again = host.keeper_pid()
        assert again not in (0, hanging)
        soon(lambda: client.reaches(SERVER, 80), "the other one has the rules")
        host.kill_daemon()
        os.kill(again, signal.SIGSTOP)
        host.ask("hurry", answer_s=0.5)
        host.load()
        assert host.keeper_pid() not in (0, again), "by a daemon that has never had an answer from it, too"
        soon(lambda: client.reaches(SERVER, 80), "the third one has the rules")
    host.kill_daemon()  # the hurried one


def test_what_a_large_host_is_told_of_its_own_rules_is_nobodys_deletion(host: WiredHost, client: Guest) -> None:
    cards = host.policy.cards
    more = tuple(
        Card(f"crt9{n:08x}", "n1", f"52:54:99:00:{n >> 8:02x}:{n & 255:02x}", (f"10.78.{n >> 8}.{n & 255}",), ("web",))
        for n in range(256, 256 + MANY)
    )
    host.load(cards=(*cards, *more))
    restored = _restored(host)
    host.on_host("nft", "flush", "ruleset")
    soon(lambda: _restored(host) > restored, "the floor is put back")
    after = _restored(host)
    assert client.reaches(SERVER, 80)
    host.load(cards=cards)
    assert _restored(host) == after, "once, and not because of what that told"


def _restored(host: WiredHost) -> int:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(SOON_S)
        asking.connect(str(host.run_dir / "firewall.sock"))
        asking.sendall(b'{"do":"greet","bytes":0}\n')
        return int(json.loads(asking.makefile().readline())["restored"])


def test_a_table_is_deleted_past_what_everybody_has(host: WiredHost) -> None:
    script = "from corral.network.firewall.keeper_process import delete_table\nfor family in (1, 7): delete_table(family, 'gone')"
    host.on_host("nft", "add table inet gone; add chain inet gone a; add rule inet gone a drop; add table inet stays")
    host.on_host("env", f"PYTHONPATH={DRIVER.parents[2] / 'src'}", sys.executable, "-c", script)
    tables = host.on_host("nft", "list", "tables").stdout
    assert "inet gone" not in tables
    assert "inet stays" in tables
