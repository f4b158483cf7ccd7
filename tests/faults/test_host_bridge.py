"""A bridge over the card that the host is reached through, with Debian's own ifupdown: confirmed, or taken back by itself.

In a network and a mount namespace of the test's own: this machine's network is not touched.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host_changes import BEGIN, NEXT_START, kill, processes, until
from private_host import PrivateHost

from corral.host.bridging.journal import UNFINISHED, Journal, State

pytestmark = pytest.mark.timeout(180)

INTERFACES = """\
# the host's own
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

auto eth0
iface eth0 inet static
    address 10.66.0.1/24
    gateway 10.66.0.254
    mtu 1400
iface eth0 inet6 static
    address fd66::1/64
"""
LOOKS = """
import sys
from pathlib import Path
from corral.host.bridging.choose import plan_bridge
from corral.host.bridging.desertion import DesertionWatch
from corral.host.bridging.facts import read_facts
from corral.host.bridging.journal import Journal
journal = Journal(Path(sys.argv[1]))
watch = DesertionWatch(journal.directory)
print(watch.look())
journal.begin(plan_bridge(read_facts("eth0", "br0"), "br0"), 60.0)
print(watch.look(), watch.look())
"""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path / "journal")
    yield found
    kill(found)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PrivateHost]:
    found = PrivateHost(tmp_path / "host", INTERFACES)
    try:
        yield found
    finally:
        found.close()


def addresses(host: PrivateHost, device: str) -> set[str]:
    links = json.loads(host("ip", "-j", "address", "show"))
    return {
        f"{one['local']}/{one['prefixlen']}"
        for link in links
        if link["ifname"] == device
        for one in link["addr_info"]
        if one["scope"] == "global"
    }


def is_bridged(host: PrivateHost) -> None:
    assert addresses(host, "br0") == {"10.66.0.1/24", "fd66::1/64"}
    assert not addresses(host, "eth0")
    assert "dev br0" in host("ip", "route", "show", "default")
    assert "master br0" in host("bridge", "link")
    assert host.reached()


def is_as_before(host: PrivateHost) -> None:
    assert host.interfaces == INTERFACES
    assert addresses(host, "eth0") == {"10.66.0.1/24", "fd66::1/64"}
    assert "dev eth0" in host("ip", "route", "show", "default")
    assert "br0" not in host("ip", "-br", "link")
    assert host.reached()


def test_confirmed_it_stays(host: PrivateHost, journal: Journal) -> None:
    host.python(BEGIN, str(journal.directory), "30")
    until(lambda: journal.state() is State.PENDING)
    is_bridged(host)
    assert journal.move(State.PENDING, State.CONFIRMED)
    until(lambda: not processes(journal))
    is_bridged(host)
    assert host.python(NEXT_START, str(journal.directory)).splitlines()[-1] == "False"
    # And is what ifupdown has of it at the next boot, too.
    host("ifdown", "br0")
    assert "br0" not in host("ip", "-br", "link")
    host("ifup", "-a")
    is_bridged(host)


def test_unconfirmed_it_is_taken_back(host: PrivateHost, journal: Journal) -> None:
    host.python(BEGIN, str(journal.directory), "2")
    until(lambda: journal.state() is State.PENDING)
    is_bridged(host)
    until(lambda: journal.state() is State.ROLLED_BACK)
    is_as_before(host)
    assert journal.result().reason == "nobody confirmed it in time"
    assert not journal.result().problems
    assert not journal.move(State.PENDING, State.CONFIRMED)


def test_it_is_taken_back_although_whoever_began_it_is_killed(host: PrivateHost, journal: Journal) -> None:
    daemon = subprocess.Popen(
        host.command(sys.executable, "-c", BEGIN, str(journal.directory), "3", "wait"),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"begun\n"
        until(lambda: journal.state() is State.PENDING)
        os.killpg(daemon.pid, signal.SIGKILL)
    finally:
        daemon.kill()
        daemon.wait()
    is_bridged(host)
    until(lambda: journal.state() is State.ROLLED_BACK)
    is_as_before(host)


WHEN: dict[str, Callable[[PrivateHost, Journal], bool]] = {
    "begun": lambda _host, journal: journal.state() is State.APPLYING,
    "half way": lambda host, _journal: host.interfaces != INTERFACES,
    "applied": lambda _host, journal: journal.state() is State.PENDING,
    "taking back": lambda _host, journal: journal.state() is State.ROLLING_BACK,
}


@pytest.mark.parametrize("when", list(WHEN))
def test_the_next_start_takes_back_what_was_cut(host: PrivateHost, journal: Journal, when: str) -> None:
    """The process itself, or the machine, dies at each of its steps."""
    host.python(BEGIN, str(journal.directory), "1" if when == "taking back" else "60")
    until(lambda: WHEN[when](host, journal), look_s=0.005)
    kill(journal)
    assert journal.state() in UNFINISHED
    assert host.python(NEXT_START, str(journal.directory)).splitlines()[-1] == "True"
    until(lambda: journal.state() is State.ROLLED_BACK)
    until(lambda: not processes(journal))
    is_as_before(host)
    assert host.python(NEXT_START, str(journal.directory)).splitlines()[-1] == "False"


def test_what_has_just_begun_is_not_deserted_yet(host: PrivateHost, journal: Journal) -> None:
    """The daemon looks in the moment in which the process of a change has not begun to hold it."""
    lines = host.python(LOOKS, str(journal.directory)).splitlines()  # with the log's in between
    assert (lines[0], lines[-1]) == ("False", "False True")
    until(lambda: journal.state() is State.ROLLED_BACK)
    is_as_before(host)


def test_a_file_that_somebody_edits_meanwhile_stays_theirs(host: PrivateHost, journal: Journal) -> None:
    host.python(BEGIN, str(journal.directory), "60", "edit")
    until(lambda: journal.state() is State.ROLLED_BACK)
    assert journal.result().reason.startswith("/etc/network/interfaces was changed meanwhile")
    assert host.interfaces == f"{INTERFACES}# somebody's\n"
    assert addresses(host, "eth0") == {"10.66.0.1/24", "fd66::1/64"}
    assert host.reached()


def test_it_is_taken_back_when_its_journal_is_removed(host: PrivateHost, journal: Journal) -> None:
    """Corral is purged while a change waits: nobody can confirm it any more."""
    host.python(BEGIN, str(journal.directory), "600")
    until(lambda: journal.state() is State.PENDING)
    shutil.rmtree(journal.directory)
    until(lambda: not processes(journal))
    is_as_before(host)


def test_what_cannot_come_up_is_taken_back_at_once(host: PrivateHost, journal: Journal) -> None:
    broken = INTERFACES.replace("mtu 1400", "mtu 1400\n    up ! ip link show br0 >/dev/null 2>&1")
    (host.root / "etc/network/interfaces").write_text(broken)
    host.python(BEGIN, str(journal.directory), "60")
    until(lambda: journal.state() is State.ROLLED_BACK)
    assert "could not be applied" in journal.result().reason
    assert host.interfaces == broken
    assert addresses(host, "eth0") == {"10.66.0.1/24", "fd66::1/64"}
    assert host.reached()


@pytest.mark.soak
def test_an_address_that_does_not_come_back_is_asked_for_again(host: PrivateHost, journal: Journal) -> None:
    spoiled = INTERFACES.replace("mtu 1400", "mtu 1400\n    up ! rm /run/network/spoil || ip address flush dev $IFACE")
    (host.root / "etc/network/interfaces").write_text(spoiled)
    host.python(BEGIN, str(journal.directory), "60")
    until(lambda: journal.state() is State.PENDING)
    host("touch", "/run/network/spoil")
    assert journal.move(State.PENDING, State.ROLLING_BACK)
    until(lambda: journal.state() is State.ROLLED_BACK)
    assert (host.root / "etc/network/interfaces").read_text() == spoiled
    assert not journal.result().problems
    assert addresses(host, "eth0") == {"10.66.0.1/24", "fd66::1/64"}
    assert host.reached()


# ---- asked of a daemon, by the command line ------------------------------------------------------------------------


class Asked:
    """A daemon in the private host (there is no libvirt in there, and none is needed), and commands to it."""

    def __init__(self, host: PrivateHost, place: Path) -> None:
        self.host, self.place = host, place
        place.mkdir()
        self.environment = [f"CORRAL_STATE_DIR={place / 'state'}", "CORRAL_CONFIG=/nonexistent"]
        self.daemon = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        with (self.place / "daemon.log").open("ab") as log:
            argv = self.host.command("env", *self.environment, PROGRAM, "serve")
            daemon = subprocess.Popen(argv, stdout=log, stderr=log)
        until(lambda: self.run("host", "network", "show").returncode == 0, look_s=0.3)
        return daemon

    def run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        command = self.host.command("env", *self.environment, PROGRAM, *argv)
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=150)

    def state(self) -> str:
        done = self.run("host", "network", "show", "-o", "json")
        return str(json.loads(done.stdout)["state"]) if done.returncode == 0 else ""

    def kill(self) -> None:
        self.daemon.kill()
        self.daemon.wait()


PROGRAM = str(Path(sys.executable).with_name("corral"))


@pytest.fixture
def asked(host: PrivateHost, tmp_path: Path) -> Iterator[Asked]:
    found = Asked(host, tmp_path / "place")
    try:
        yield found
    finally:
        found.kill()


def test_by_the_command_line_planned_confirmed_and_taken_back(host: PrivateHost, asked: Asked) -> None:
    assert asked.state() == "none"
    plan = asked.run("host", "network", "bridge", "eth0", "--plan")
    assert "eth0 is configured by ifupdown." in plan.stdout
    assert "+iface br0 inet static" in plan.stdout
    assert "  ifup br0" in plan.stdout
    is_as_before(host)
    assert asked.run("host", "network", "confirm").returncode == 4  # nothing waits for it
    assert asked.run("host", "network", "bridge", "eth7").returncode == 3
    assert asked.run("host", "network", "bridge", "eth0", "--name", "br0; reboot").returncode == 2
    assert asked.run("host", "network", "bridge", "lo").returncode == 2

    begun = asked.run("host", "network", "bridge", "eth0", "--within", "120s")
    assert begun.returncode == 0, begun.stderr
    assert "corral host network confirm" in begun.stdout
    is_bridged(host)
    assert asked.run("host", "network", "bridge", "eth0", "--name", "br1").returncode == 4  # one at a time
    assert asked.run("host", "network", "rollback").returncode == 0
    assert asked.state() == "rolled-back"
    is_as_before(host)

    assert asked.run("host", "network", "bridge", "eth0", "--within", "120s").returncode == 0
    # The daemon dies, and another one begins: it leaves what is on its way to the process that has it.
    asked.kill()
    asked.daemon = asked.start()
    time.sleep(1)
    is_bridged(host)
    assert asked.run("host", "network", "confirm").returncode == 0
    assert asked.state() == "confirmed"
    is_bridged(host)


def test_without_a_daemon_it_is_taken_back_too(host: PrivateHost, asked: Asked) -> None:
    assert asked.run("host", "network", "bridge", "eth0", "--within", "10s").returncode == 0
    is_bridged(host)
    asked.kill()
    journal = Journal(asked.place / "state/host-network")
    until(lambda: journal.state() is State.ROLLED_BACK)
    is_as_before(host)
    asked.daemon = asked.start()
    assert asked.state() == "rolled-back"


def test_the_daemons_next_start_takes_back_what_the_machine_died_with(host: PrivateHost, asked: Asked) -> None:
    assert asked.run("host", "network", "bridge", "eth0", "--within", "120s").returncode == 0
    asked.kill()
    journal = Journal(asked.place / "state/host-network")
    [process] = processes(journal)
    os.kill(process, signal.SIGKILL)
    is_bridged(host)
    asked.daemon = asked.start()
    until(lambda: asked.state() == "rolled-back")
    is_as_before(host)
