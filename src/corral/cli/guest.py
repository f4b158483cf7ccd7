"""A running guest from outside: what its agent tells, its clock, passwords, keys, NMI."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.options import vm_names
from corral.cli.output import (
    Column,
    Document,
    fields,
    output_option,
    printable,
    show_document,
    show_list,
    show_one,
)
from corral.cli.session import Session, for_each, pass_session
from corral.names import format_bytes

if TYPE_CHECKING:
    from corral import client_types as t

FILE_SYSTEMS: Final = (
    Column("mountpoint", lambda item: item["mountpoint"]),
    Column("type", lambda item: item["kind"]),
    Column("used", lambda item: _bytes(item["used_bytes"]), right=True),
    Column("size", lambda item: _bytes(item["total_bytes"]), right=True),
    Column("device", lambda item: item["device"]),
)
USERS: Final = (
    Column("user", lambda item: item["name"]),
    Column("logged in at", lambda item: item["logged_in_at"]),
)


def _bytes(count: int | None) -> str:
    return "-" if count is None else format_bytes(count)


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.option("--hostname", "part", flag_value="hostname", help="Only the host name (virsh: domhostname).")
@click.option("--users", "part", flag_value="users", help="Only who is logged in.")
@click.option("--filesystems", "part", flag_value="file_systems", help="Only what is mounted (virsh: domfsinfo).")
@output_option
@pass_session
def guest(session: Session, name: str, part: str | None, output: str) -> None:
    """What the guest agent tells: system, users, file systems, time, addresses (virsh: guestinfo).

    \b
    Examples:
      corral guest web
      corral guest web -o json
      corral domhostname web
      corral domfsinfo web
    """
    facts: Any = session.client().guest(name)
    if output == "name":
        click.echo(name)
    elif output != "table":
        show_document(facts[part] if part else facts, output)
    elif part == "hostname":
        click.echo(printable(facts["hostname"]))
    elif part == "users":
        show_list(facts["users"], USERS, output)
    elif part == "file_systems":
        show_list(facts["file_systems"], FILE_SYSTEMS, output)
    else:
        click.echo("\n".join(fields(_rows(facts))))


def _rows(facts: Document) -> list[tuple[str, object]]:
    zone = f" ({facts['timezone']})" if facts["timezone"] else ""
    return [
        ("hostname", facts["hostname"]),
        ("os", facts["os"]),
        ("os id", f"{facts['os_id']} {facts['os_version']}".strip()),
        ("kernel", f"{facts['kernel']} {facts['machine']}".strip()),
        ("time", f"{facts['time']}{zone}" if facts["time"] else ""),
        ("addresses", facts["addresses"]),
        ("users", [_user(user) for user in facts["users"]]),
        ("file systems", [_file_system(each) for each in facts["file_systems"]]),
        ("guest agent", facts["agent_version"]),
        ("not told", facts["untold"]),
    ]


def _user(user: Document) -> str:
    return f"{user['name']} since {user['logged_in_at']}" if user["logged_in_at"] else str(user["name"])


def _file_system(each: Document) -> str:
    used = f", {_bytes(each['used_bytes'])} of {_bytes(each['total_bytes'])}" if each["total_bytes"] else ""
    return f"{each['mountpoint']} ({each['kind']}{used})"


# ---- clock ---------------------------------------------------------------------------------------------------------


@click.group()
def clock() -> None:
    """The guest's clock: show it beside the host's, or set it.

    \b
    Examples:
      corral clock show web
      corral clock sync web
    """


@clock.command("show")
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.option("--now", "source", flag_value="host", help="Set it to the host's time first (as virsh domtime).")
@click.option("--sync", "source", flag_value="rtc", help="Set it from the guest's hardware clock first.")
@click.option("--time", "seconds", type=click.IntRange(min=0), metavar="SECONDS", help="Set it to this first.")
@click.option("--pretty", is_flag=True, help="For people, as always.")
@output_option
@pass_session
def show_clock(session: Session, name: str, source: str | None, seconds: int | None, pretty: bool, output: str) -> None:
    """Show the guest's clock and how far it is off (virsh: domtime).

    \b
    Examples:
      corral clock show web
      corral domtime web --sync
    """
    if seconds is not None:
        moment = datetime.fromtimestamp(seconds).astimezone().isoformat()
        answer = session.client().set_clock(name, {"source": "time", "time": moment})
    elif source == "host":
        answer = session.client().set_clock(name, {"source": "host"})
    elif source == "rtc":
        answer = session.client().set_clock(name, {"source": "rtc"})
    else:
        answer = session.client().clock(name)
    _show(answer, name, output)


@clock.command("sync")
@vm_names
@click.option("--rtc", is_flag=True, help="From the guest's own hardware clock instead of the host's time.")
@output_option
@pass_session
def sync_clock(session: Session, names: tuple[str, ...], rtc: bool, output: str) -> None:
    """Set guests' clocks to the host's time: after a pause, a save, or a host that slept.

    \b
    Examples:
      corral clock sync web
      corral clock sync web db
    """
    for_each(
        names,
        lambda name: _show(session.client().set_clock(name, {"source": "rtc" if rtc else "host"}), name, output),
    )


def _show(answer: "t.ClockAnswer", name: str, output: str) -> None:
    rows: list[tuple[str, object]] = [
        ("vm", name),
        ("guest", answer["guest_time"]),
        ("host", answer["host_time"]),
        ("offset", f"{answer['offset_s']:+.3f} s (known to {answer['uncertainty_s']:.3f} s)"),
    ]
    show_one(answer, rows, output, name=name)


# ---- passwords -----------------------------------------------------------------------------------------------------


@click.group()
def password() -> None:
    """Passwords of users in a guest.

    \b
    Examples:
      corral password set web root
    """


@password.command("set")
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.argument("user")
@click.option("--password-file", metavar="FILE", help="Read it from a file's first line; - is standard input.")
@pass_session
def set_password(session: Session, name: str, user: str, password_file: str | None) -> None:
    """Set a user's password through the guest agent (virsh: set-user-password). It asks for it.

    A password is never an argument: everybody on this machine could read it. The guest gets its hash alone.

    \b
    Examples:
      corral password set web root
      corral password set web ann --password-file - < secret
    """
    from corral.cli import keys

    chosen = keys.password(password_file is None, password_file)
    session.client().set_password(name, user, chosen)
    click.echo(f"{name}: password of {user} set")


# ---- keys ----------------------------------------------------------------------------------------------------------


@click.command("send-key")
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.argument("keys", nargs=-1, metavar="[KEYS…]")
@click.option("--text", default="", help="Type this, on a US keyboard; after the keys, if there are some.")
@click.option("--enter", is_flag=True, help="Press Enter after the text.")
@click.option("--holdtime", type=click.IntRange(1, 5000), metavar="MS", help="How long each combination is held.")
@click.option("--codeset", type=click.Choice(["linux"]), default="linux", help="As virsh has it; names and codes.")
@pass_session
def send_key(
    session: Session, name: str, keys: tuple[str, ...], text: str, enter: bool, holdtime: int | None, codeset: str
) -> None:
    """Press keys: combinations one after the other, or virsh's KEY_… names, which are pressed together.

    \b
    Examples:
      corral send-key web ctrl-alt-del
      corral send-key web alt-f2 enter
      corral send-key web KEY_LEFTCTRL KEY_ALT KEY_DELETE
      corral send-key web --text "hello" --enter
    """
    typed = f"{text}\n" if enter else text
    if not keys and not typed:
        raise click.UsageError("name keys (ctrl-alt-del, enter, KEY_F2 …) or give --text")
    body: t.SendKeysRequest = {"keys": list(keys), "text": typed}
    if holdtime is not None:
        body["hold_ms"] = holdtime
    session.client().send_keys(name, body)


@click.command()
@vm_names
@pass_session
def nmi(session: Session, names: tuple[str, ...]) -> None:
    """Inject a non-maskable interrupt: many systems then write a crash dump, or stop (virsh: inject-nmi).

    \b
    Examples:
      corral nmi web
    """
    for_each(names, lambda name: session.client().inject_nmi(name))
