"""`corral security-group`: who may reach VMs, and whom they may reach."""

from typing import TYPE_CHECKING, Any, Final, cast

import click

from corral.cli.completion import complete_security_group
from corral.cli.output import Column, Document, age, output_option, show_document, show_list, show_one
from corral.cli.session import Session, for_each, pass_session

if TYPE_CHECKING:
    from corral.client_types import CreateSecurityGroupRequest, UpdateSecurityGroupRequest

COLUMNS: Final = (
    Column("name", lambda group: group["name"]),
    Column("rules", lambda group: len(group["spec"]["rules"]), right=True),
    Column("in", lambda group: ", ".join(_ends(group, "in")[:3]) or "-"),
    Column("out", lambda group: ", ".join(_ends(group, "out")[:3]) or "-"),
    Column("description", lambda group: group["spec"]["description"]),
    Column("age", lambda group: age(group["created_at"])),
)
_GROUP: Final = click.argument("name", metavar="GROUP", shell_complete=complete_security_group)
_RULES: Final = click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="RULE",
    help='What is let through: "in|out PROTOCOL[/PORTS] [from|to PEER]"; a peer is any, an address or CIDR, group:NAME or '
    "network:NAME. May be given more than once.",
)


def rule_text(rule: Document) -> str:
    """As it is written: `in tcp/443 from any`."""
    preposition = "from" if rule["direction"] == "in" else "to"
    return f"{rule['direction']} {traffic_text(rule)} {preposition} {rule['peer']}" + (
        " log" if rule.get("log") else ""
    )


def traffic_text(traffic: Document) -> str:
    """`tcp/8000-8099`, `icmp/8`, `any`."""
    low, high = traffic.get("port_min"), traffic.get("port_max")
    kind, code = traffic.get("icmp_type"), traffic.get("icmp_code")
    ports = "" if low is None else f"/{low}" + (f"-{high}" if high not in (None, low) else "")
    message = "" if kind is None else f"/{kind}" + (f".{code}" if code is not None else "")
    return f"{traffic['protocol']}{ports}{message}"


def _ends(group: Document, direction: str) -> list[str]:
    rules = [rule for rule in group["spec"]["rules"] if rule["direction"] == direction]
    return [f"{traffic_text(rule)} {rule['peer']}" for rule in rules]


@click.group("security-group")
def security_group() -> None:
    """Security groups: which new connections the cards that carry them may take part in. What no rule lets through is
    denied; a card without a group carries `default`.

    \b
    Examples:
      corral security-group create web --rule "in tcp/443" --rule "out any"
      corral security-group rule add web in tcp/22 from 10.0.0.0/8
      corral nic set shop net0 --groups web
    """


@security_group.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the groups, `default` and `open` among them (virsh: nwfilter-list).

    \b
    Examples:
      corral security-group list
    """
    show_list(session.client().list_security_groups(), COLUMNS, output)


@security_group.command()
@_GROUP
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show a group and its rules, each with its id (virsh: nwfilter-dumpxml).

    \b
    Examples:
      corral security-group show default
    """
    found: Document = session.client().get_security_group(name)
    rows: list[tuple[str, object]] = [("name", found["name"]), ("uid", found["uid"])]
    rows += [("description", found["spec"]["description"])]
    rows += [("rules", [f"{rule['id']}  {rule_text(rule)}" for rule in found["spec"]["rules"]] or ["none"])]
    show_one(found, [*rows, ("created", found["created_at"])], output)


@security_group.command()
@click.argument("name")
@_RULES
@click.option("--description", default="", help="What it is for.")
@output_option
@pass_session
def create(session: Session, name: str, rules: tuple[str, ...], description: str, output: str) -> None:
    """Make a group; without --rule it lets its cards out, and nobody in (virsh: nwfilter-define).

    Rules that are given are all that it has: "out any" is one of them, or they only answer.

    \b
    Examples:
      corral security-group create web --rule "in tcp/443" --rule "in icmp/echo-request" --rule "out any"
      corral security-group create db --rule "in tcp/5432 from group:app"
    """
    body: dict[str, Any] = {"name": name, "description": description}
    if rules:
        body["rules"] = list(rules)
    made = session.client().create_security_group(cast("CreateSecurityGroupRequest", body))
    _shown(made, f"{name}: made, {len(made['spec']['rules'])} rules", output)


@security_group.command("set")
@_GROUP
@_RULES
@click.option("--description", default=None, help="What it is for.")
@output_option
@pass_session
def set_(session: Session, name: str, rules: tuple[str, ...], description: str | None, output: str) -> None:
    """Give a group other rules, all of them, or another description.

    \b
    Examples:
      corral security-group set default --rule "in tcp/22 from 10.0.0.0/8" --rule "out any"
    """
    body: dict[str, Any] = {"rules": list(rules)} if rules else {}
    if description is not None:
        body["description"] = description
    if not body:
        raise click.UsageError("say what is to change: --rule, --description")
    _change(session, name, body, "changed", output)


@security_group.command()
@click.argument("names", nargs=-1, required=True, metavar="GROUP…", shell_complete=complete_security_group)
@pass_session
def delete(session: Session, names: tuple[str, ...]) -> None:
    """Delete groups that no card, no rule and no policy names (virsh: nwfilter-undefine).

    \b
    Examples:
      corral security-group delete web
    """

    def one(name: str) -> None:
        session.client().delete_security_group(name)
        click.echo(f"{name}: deleted")

    for_each(names, one)


@security_group.group()
def rule() -> None:
    """Rules of a group: add, remove. Running guests meet them at once.

    \b
    Examples:
      corral security-group rule add web in tcp/8000-8099 from group:lb
      corral security-group rule remove web 8dcb3143
    """


@rule.command("add")
@_GROUP
@click.argument("words", nargs=-1, required=True, metavar="RULE…")
@click.option("--log", is_flag=True, help="Tell of new connections that it lets through (corral firewall log).")
@output_option
@pass_session
def rule_add(session: Session, name: str, words: tuple[str, ...], log: bool, output: str) -> None:
    """Let more through. One that is there already stays, and is logged, or not, as is said last.

    \b
    Examples:
      corral security-group rule add web in tcp/443
      corral security-group rule add db in tcp/5432 from group:app
      corral security-group rule add web out udp/53 to network:lab
      corral security-group rule add web in tcp/22 --log
    """
    _change(session, name, {"add_rules": [" ".join((*words, *(["log"] if log else [])))]}, "rule added", output)


@rule.command("remove")
@_GROUP
@click.argument("words", nargs=-1, required=True, metavar="ID|RULE…")
@output_option
@pass_session
def rule_remove(session: Session, name: str, words: tuple[str, ...], output: str) -> None:
    """Take a rule out, by its id or by its words.

    \b
    Examples:
      corral security-group rule remove web 8dcb3143
      corral security-group rule remove web in tcp/443 from any
    """
    _change(session, name, {"remove_rules": [" ".join(words)]}, "rule removed", output)


def _change(session: Session, name: str, body: dict[str, Any], done: str, output: str) -> None:
    changed = session.client().update_security_group(name, cast("UpdateSecurityGroupRequest", body))
    _shown(changed, f"{name}: {done}", output)


def _shown(group: Document, line: str, output: str) -> None:
    if output in ("json", "yaml"):
        show_document(group, output)
    else:
        click.echo(group["name"] if output == "name" else line)
