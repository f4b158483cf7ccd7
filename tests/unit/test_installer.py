"""The installer's decisions: what is missing, what is fresh, what is shown, what may be removed."""

import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from installer import daemons, guest, leave, machine, packages, venv
from installer.context import Context
from installer.shell import Refused, Result, Shell
from installer.steplist import Steps, plain

from corral.network.host_names import with_block
from corral.network.router import HostRouteWish
from corral.network.router_host_routes import PROTOCOL

ROOT = Path(__file__).parents[2]


class Answers(Shell):
    """A shell that answers from a table: the first entry whose words all stand in the command."""

    def __init__(self, table: dict[str, Result]) -> None:
        super().__init__(Path("/nonexistent/log"))
        self.table = table
        self.asked: list[list[str]] = []

    def as_root(self, argv: Sequence[str]) -> list[str]:
        return list(argv)

    def ask(self, argv: Sequence[str], timeout_s: float = 30.0, stdin: str = "") -> Result:
        self.asked.append(list(argv))
        for words, result in self.table.items():
            if set(words.split()) <= set(argv):
                return result
        return Result(127, "", f"{argv[0]} is not installed")


def context(tmp_path: Path, shell: Shell | None = None, **environ: str) -> Context:
    return Context(tmp_path, shell or Answers({}), environ=environ)


# ---- becoming root -------------------------------------------------------------------------------------------------


def test_who_needs_no_password_is_asked_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloud images' users have no password, and are in the group sudo all the same: `sudo -v` asks them for one."""
    asked: list[str] = []
    monkeypatch.setattr(machine.shutil, "which", lambda _name: "/usr/bin/sudo")
    monkeypatch.setattr(machine.os, "system", lambda command: asked.append(command) or 1)
    machine.become_root(context(tmp_path, Answers({"sudo -n true": Result(0, "")})))
    assert asked == []
    with pytest.raises(Refused, match="sudo refused"):
        machine.become_root(context(tmp_path, Answers({"sudo -n true": Result(1, "")})))
    assert asked == ["sudo -v"]


# ---- packages ------------------------------------------------------------------------------------------------------


def test_the_listing_of_packages_is_well_formed() -> None:
    text = (ROOT / "packaging/apt-packages.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(packages.wanted(text, ["runtime", "build", "test", "unpacked"])) == len(lines)
    assert ("pkg-config", "pkgconf") in packages.wanted(text, ["build"])
    names = [name for names in packages.wanted(text, ["runtime", "build", "test", "unpacked"]) for name in names]
    assert len(names) == len(set(names))


DPKG = Result(1, "ii |gcc|c-compiler\nrc |ovmf|\nii |pkgconf|pkg-config (= 1.8.1)\n")


def test_a_package_is_there_by_its_name_or_by_what_another_provides() -> None:
    shell = Answers({"dpkg-query": DPKG})
    lacking = packages.missing(shell, [("gcc",), ("ovmf",), ("pkg-config", "pkgconf"), ("nftables",)])
    assert lacking == [("ovmf",), ("nftables",)]


def test_of_alternatives_the_first_that_apt_knows_is_taken() -> None:
    policy = "old:\n  Installed: (none)\n  Candidate: (none)\nnew:\n  Installed: (none)\n  Candidate: 2\n"
    shell = Answers({"policy": Result(0, policy)})
    assert packages.choose(shell, [("old", "new"), ("gone",)]) == (["new"], ["gone"])


def test_nothing_is_asked_of_apt_when_all_is_there(tmp_path: Path) -> None:
    (tmp_path / "packaging").mkdir()
    (tmp_path / "packaging/apt-packages.txt").write_text("build: gcc\nruntime: ovmf\n")
    shell = Answers({"dpkg-query": DPKG})
    assert "all 1" in packages.ensure_packages(context(tmp_path, shell), lambda _: None, "build")
    assert len(shell.asked) == 1


def test_what_is_to_be_unpacked_is_fetched_and_not_installed(tmp_path: Path) -> None:
    (tmp_path / "packaging").mkdir()
    (tmp_path / "packaging/apt-packages.txt").write_text("test: gcc\nunpacked: pkg-config\nunpacked: nftables\n")
    worked: list[list[str]] = []

    class Works(Answers):
        def work(self, argv: Sequence[str], say: Callable[[str], None], cwd: Path | None = None) -> Result:
            worked.append(list(argv))
            return Result(0, "")

    shell = Works({"dpkg-query": DPKG, "policy": Result(0, "nftables:\n  Installed: (none)\n  Candidate: 1\n")})
    packages.ensure_unpacked(context(tmp_path, shell), lambda _: None)
    fetches = [argv for argv in worked if "install" in argv]
    assert [argv[-1] for argv in fetches] == ["nftables"]  # pkgconf is installed, and provides the other one
    assert all("--download-only" in argv for argv in fetches)
    (tmp_path / "var/unpacked").mkdir(parents=True)
    (tmp_path / "var/unpacked/.packages").write_text("nftables\n")
    worked.clear()
    packages.ensure_unpacked(context(tmp_path, shell), lambda _: None)
    assert not worked


def test_a_routers_routes_on_the_host_go_with_it(tmp_path: Path) -> None:
    marks = tmp_path / "state/reservations"
    marks.mkdir(parents=True)
    note = [HostRouteWish("10.9.0.0/24", "10.20.0.2", "crl1"), HostRouteWish("fd09::/64", "fd20::2", "crl1")]
    said = {"crn1": json.dumps([asdict(one) for one in note]), "crn2": "", "crn3": "[{"}
    for name in said:
        (marks / f"{name}.router").touch()
    shell = Answers({f"cat {marks / name}.router": Result(0, text) for name, text in said.items()})
    leave.remove_routers(context(tmp_path, shell, CORRAL_STATE_DIR=str(tmp_path / "state")), lambda _: None)
    told = [" ".join(argv) for argv in shell.asked]
    assert [line for line in told if line.startswith("ip route")] == [
        f"ip route del {one.to} via {one.via} dev crl1 proto {PROTOCOL}" for one in note
    ]
    assert [line for line in told if "netns del" in line] == [f"ip netns del crn{number}" for number in (1, 2, 3)]


# ---- .venv ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Context:
    for name in ("pyproject.toml", "requirements/build.txt", "requirements/runtime.txt", "requirements/dev.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("python", "corral"):
        (tmp_path / ".venv/bin" / name).touch()
    return context(tmp_path)


def stamped(made: Context, lock: str) -> None:
    (made.venv / venv.STAMP).write_text(json.dumps(venv.wanted_stamp(made.root, lock)))


def test_a_venv_is_fresh_only_for_the_lock_files_that_it_was_made_from(checkout: Context) -> None:
    assert not venv.fresh(checkout, "runtime")
    stamped(checkout, "runtime")
    assert venv.fresh(checkout, "runtime")
    assert not venv.fresh(checkout, "dev")
    stamped(checkout, "dev")
    assert venv.fresh(checkout, "runtime")
    (checkout.root / "requirements/runtime.txt").write_text("another")
    assert not venv.fresh(checkout, "runtime")


def test_a_venv_that_was_moved_or_cut_short_is_not_fresh(checkout: Context) -> None:
    stamped(checkout, "runtime")
    (checkout.venv / "bin/corral").unlink()
    assert not venv.fresh(checkout, "runtime")
    (checkout.venv / venv.STAMP).write_text('{"root": ')
    assert venv.read_stamp(checkout.venv) == {}


# ---- where the daemon lives ----------------------------------------------------------------------------------------


def test_a_trial_touches_nothing_of_the_systems(tmp_path: Path) -> None:
    trial = context(tmp_path, CORRAL_STATE_DIR="/tmp/trial")
    assert trial.trial
    assert not trial.by_systemd
    assert trial.socket == Path("/tmp/trial/run/corral.sock")
    assert context(tmp_path).socket == Path("/run/corral/corral.sock")


def test_only_a_state_directory_may_be_removed(tmp_path: Path) -> None:
    assert daemons.state_dir_is_safe_to_remove(Path("/var/lib/corral"))
    assert not daemons.state_dir_is_safe_to_remove(tmp_path)
    (tmp_path / "installation-id").touch()
    assert daemons.state_dir_is_safe_to_remove(tmp_path)
    assert not daemons.state_dir_is_safe_to_remove(Path("/"))


DOMAIN = """<domain><uuid>u-1</uuid><metadata><c:vm xmlns:c="urn:corral:domain:1"><c:installation>{installation}</c:installation>
<c:uid>{uid}</c:uid></c:vm></metadata></domain>"""


@pytest.mark.parametrize(
    ("document", "ours"),
    [
        (DOMAIN.format(installation="mine", uid="u-1"), True),
        (DOMAIN.format(installation="other", uid="u-1"), False),
        (DOMAIN.format(installation="mine", uid="u-2"), False),
        ("<domain><uuid>u-1</uuid></domain>", False),
        ("not xml", False),
    ],
)
def test_purge_knows_its_own_domains_and_leaves_copies_and_others(document: str, ours: bool) -> None:
    assert leave.belongs(document, "mine") is ours


# ---- the guest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ['{"uid": "u"}', '{"operation": {"uid": "u"}, "vm": {}}', '[{"operation": {"uid": "u"}}]']
)
def test_the_operation_is_found_in_what_a_command_prints(text: str) -> None:
    assert guest.operation_uid(text) == "u"


@pytest.mark.parametrize("text", ["", "{}", "[]", "oops"])
def test_no_operation_is_no_operation(text: str) -> None:
    assert guest.operation_uid(text) == ""


def test_progress_is_drawn_as_a_bar_where_it_is_known() -> None:
    assert (
        guest.shown({"state": "running", "phase": "unpacking", "progress": 0.5})
        == "[##########..........]  50% unpacking"
    )
    assert guest.shown({"state": "accepted", "phase": "", "progress": None}) == "accepted"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian 12"}, "Debian 12"),
        ({"ID": "ubuntu", "VERSION_ID": "24.04", "PRETTY_NAME": "Ubuntu"}, "Ubuntu (untested, should work)"),
        ({"ID": "arch"}, "an unknown system (untested)"),
    ],
)
def test_what_was_not_tried_is_called_untested(fields: dict[str, str], said: str) -> None:
    assert machine.describe_os(fields) == said
    assert machine.os_release('ID=debian\nPRETTY_NAME="Debian 12"\n') == {"ID": "debian", "PRETTY_NAME": "Debian 12"}


# ---- the list of steps ---------------------------------------------------------------------------------------------


def test_steps_are_plain_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    steps = Steps(2, stream)
    steps.run("First", lambda say: say("working") or "done")  # type: ignore[func-returns-value]

    def refuse(_say: object) -> str:
        raise Refused("second", "it cannot be", "do this")

    with pytest.raises(Refused, match="it cannot be"):
        steps.run("Second", refuse)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("ok [1/2] First: done  (")
    assert lines[1].startswith("failed [2/2] Second")
    assert "\033" not in stream.getvalue()


def test_a_refusal_says_what_why_and_what_to_do() -> None:
    assert str(Refused("make room", "1 GiB is free", "free some")) == "make room: 1 GiB is free\n  free some"


def names(groups: Iterable[tuple[str, ...]]) -> list[str]:
    return [group[0] for group in groups]


def test_each_tool_that_doctor_misses_is_one_that_up_installs() -> None:
    from corral.host.packages import TOOLS

    text = (ROOT / "packaging/apt-packages.txt").read_text()
    assert {package for package, _ in TOOLS.values()} <= set(names(packages.wanted(text, ["runtime"])))


def test_root_runs_no_code_that_everybody_may_write(tmp_path: Path) -> None:
    (tmp_path / "src" / "corral").mkdir(parents=True)
    assert machine.writable_by_all(tmp_path) is None
    (tmp_path / "src").chmod(0o777)
    assert machine.writable_by_all(tmp_path) == tmp_path / "src"
    (tmp_path / "src").chmod(0o1777)
    assert machine.writable_by_all(tmp_path) is None
    tmp_path.chmod(0o757)
    assert machine.writable_by_all(tmp_path) == tmp_path


@pytest.mark.parametrize(("facts", "ssh"), [("{}", True), ('{"ssh": false}', False), ("null", True)])
def test_what_the_vm_was_made_from_says_whether_it_has_ssh(tmp_path: Path, facts: str, ssh: bool) -> None:
    """The VM's own image, whatever IMAGE is now."""
    image = f'{{"items": [{{"name": "mine", "status": {{"facts": {facts}}}}}]}}'
    shell = Answers({"image list": Result(0, image), "info my-vm": Result(0, '{"spec": {"image": "mine"}}')})
    assert guest.has_ssh(context(tmp_path, shell)) == ssh
    assert (
        guest.has_ssh(context(tmp_path, Answers({"image list": Result(0, image.replace("mine", "debian-12"))}))) == ssh
    )


def test_a_guests_console_does_not_steer_the_terminal() -> None:
    assert plain("login:\x1b]52;c;eA==\x07\x9b2J\r") == "login: ]52;c;eA==  2J "


def test_networks_stay_up_under_running_guests(tmp_path: Path) -> None:
    """With a dead daemon guests are left alone: their network must be, too."""
    document = (
        "<domain><uuid>u-1</uuid><metadata><vm xmlns='urn:corral:domain:1'><uid>u-1</uid>"
        "<installation>3fa1c2d4</installation></vm></metadata></domain>"
    )
    answers = {
        "version": Result(0, ""),
        "cat": Result(0, "3fa1c2d4\n"),
        "list --uuid --state-running": Result(0, "u-1\n"),
        "dumpxml u-1": Result(0, document),
        "net-list": Result(0, "corral-3fa1c2-default\n"),
        "net-destroy": Result(0, ""),
    }
    shell = Answers(answers)
    assert leave.stop_networks(context(tmp_path, shell), lambda _line: None) == "left up: 1 virtual machines run"
    assert not any("net-destroy" in argv for argv in shell.asked)
    shell = Answers({**answers, "list --uuid --state-running": Result(0, "")})
    assert leave.stop_networks(context(tmp_path, shell), lambda _line: None) == "took down corral-3fa1c2-default"


def test_purge_starts_a_libvirt_that_make_down_has_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What of ours it knows cannot be removed else. Where nothing was installed, or it does not start, the rest goes on."""
    answers = iter(["libvirtd started", Refused("start libvirtd", "it does not answer within 30 s")])
    monkeypatch.setattr(leave, "ensure_libvirt", lambda *_: _said(next(answers)))
    nothing, installed = Answers({}), Answers({"cat": Result(0, "3fa1c2d4\n")})
    said = [leave.reach_libvirt(context(tmp_path, shell), lambda _: None) for shell in (nothing, installed, installed)]
    assert ["nothing was installed" in said[0], said[1], "stays there" in said[2]] == [True, "libvirtd started", True]


def _said(answer: str | Refused) -> str:
    if isinstance(answer, Refused):
        raise answer
    return answer


def test_bridges_over_cards_and_names_of_guests_go_with_their_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    monkeypatch.setattr(leave, "HOSTS", hosts)
    uid = "0b5e6f0a-53b4-4c6e-9a52-000000000001"
    hosts.write_text(with_block("127.0.0.1 localhost\n", uid, ["10.0.0.2 web.lab.internal"]))
    answers = {
        "net-info": Result(0, f"Name: corral-3fa1c2-wire\nUUID:  {uid}\nBridge: crl0b5e6f0a\n"),
        "ip": Result(1, ""),
    }
    shell = Answers(answers)
    leave.remove_beside(context(tmp_path, shell), "corral-3fa1c2-wire")
    assert ["ip", "link", "delete", "crl0b5e6f0a"] in shell.asked
    (cut,) = (argv for argv in shell.asked if argv[0] == "sed")
    first, last = cut[2].removesuffix("d").split(",")
    lines = hosts.read_text().splitlines()
    assert re.search(first.strip("/"), lines[1])
    assert re.search(last.strip("/"), lines[-1])
    # A block whose end somebody took away is left: what follows may be theirs.
    hosts.write_text("\n".join([*lines[:-1], "10.9.9.9 mine"]))
    shell = Answers(answers)
    leave.remove_beside(context(tmp_path, shell), "corral-3fa1c2-wire")
    assert not any(argv[0] == "sed" for argv in shell.asked)
    hosts.write_text("127.0.0.1 localhost\n")
    shell = Answers({**answers, "net-info": Result(0, f"UUID: {uid}\nBridge: br0\n")})
    leave.remove_beside(context(tmp_path, shell), "corral-3fa1c2-lan")
    assert not any(argv[0] in ("ip", "sed") for argv in shell.asked)


def test_a_group_with_members_stays(tmp_path: Path) -> None:
    answers = {"groupdel": Result(0, ""), "getent": Result(0, "corral:x:996:alice\n")}
    assert not leave.remove_group(context(tmp_path, Answers(answers)))
    assert leave.remove_group(context(tmp_path, Answers({**answers, "getent": Result(0, "corral:x:996:\n")})))
    assert not leave.remove_group(context(tmp_path, Answers({**answers, "getent": Result(2, "")})))


@pytest.mark.parametrize(
    ("status", "runs"),
    [
        ("12 (libvirtd) S 1 12 12 0", True),
        ("12 (libvirtd) Z 1 12 12 0", False),
        ("12 (other) S 1 12 12 0", False),
    ],
)
def test_a_zombie_does_not_run(status: str, runs: bool) -> None:
    assert daemons.runs_as(status, "libvirtd") is runs


def test_a_chroot_whose_root_is_no_mount_is_known() -> None:
    """libvirt's own words come late: "Failed disable mount propagation out of the root filesystem"."""
    proc = "22 1 0:20 / /proc rw - proc proc rw\n"
    assert not machine.root_is_mounted(proc)
    assert machine.root_is_mounted(proc + "1 0 254:0 / / rw - ext4 /dev/vda rw\n")
