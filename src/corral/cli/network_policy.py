"""`corral network-policy`: tiers of a project that do not speak to each other."""

from typing import TYPE_CHECKING, Any, Final, cast

import click

from corral.cli.completion import complete_network_policy
from corral.cli.output import Column, Document, age, output_option, show_document, show_list, show_one
from corral.cli.security_group import traffic_text
from corral.cli.session import Session, for_each, pass_session

if TYPE_CHECKING:
    from corral.client_types import CreateNetworkPolicyRequest, UpdateNetworkPolicyRequest

COLUMNS: Final = (
    Column("name", lambda policy: policy["name"]),
    Column("tiers", lambda policy: ", ".join(policy["spec"]["tiers"])),
    Column("exceptions", lambda policy: len(policy["spec"]["unless"]), right=True),
    Column("age", lambda policy: age(policy["created_at"])),
)
_POLICY: Final = click.argument("name", metavar="POLICY", shell_complete=complete_network_policy)
_TIERS: Final = click.option(
    "--tier", "tiers", multiple=True, metavar="TIER", help="network:NAME or group:NAME; at least two of them."
)
_UNLESS: Final = click.option(
    "--unless",
    multiple=True,
    metavar="EXCEPTION",
    help='"TIER to TIER [PROTOCOL[/PORTS]]": left to the groups of both ends. May be given more than once.',
)


def exception_text(exception: Document) -> str:
    return f"{exception['from_tier']} to {exception['to_tier']} {traffic_text(exception)}"


@click.group()
def network_policy() -> None:
    """Network policies: between their tiers nothing passes, whatever security groups say, unless an exception names it.

    \b
    Examples:
      corral network-policy create tiers --tier network:web --tier network:db
      corral network-policy set tiers --unless "network:web to network:db tcp/5432"
    """


@network_policy.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the policies.

    \b
    Examples:
      corral network-policy list
    """
    show_list(session.client().list_network_policies(), COLUMNS, output)


@network_policy.command()
@_POLICY
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show a policy.

    \b
    Examples:
      corral network-policy show tiers
    """
    found: Document = session.client().get_network_policy(name)
    spec = found["spec"]
    rows: list[tuple[str, object]] = [("name", found["name"]), ("uid", found["uid"])]
    rows += [("description", spec["description"]), ("tiers", list(spec["tiers"]))]
    rows += [("unless", [exception_text(one) for one in spec["unless"]]), ("created", found["created_at"])]
    show_one(found, rows, output)


@network_policy.command()
@click.argument("name")
@_TIERS
@_UNLESS
@click.option("--description", default="", help="What it is for.")
@output_option
@pass_session
def create(
    session: Session, name: str, tiers: tuple[str, ...], unless: tuple[str, ...], description: str, output: str
) -> None:
    """Keep tiers apart.

    \b
    Examples:
      corral network-policy create tiers --tier network:web --tier network:app --tier network:db \\
        --unless "network:web to network:app tcp/8080" --unless "network:app to network:db tcp/5432"
    """
    body: dict[str, Any] = {"name": name, "tiers": list(tiers), "unless": list(unless), "description": description}
    _shown(session.client().create_network_policy(cast("CreateNetworkPolicyRequest", body)), "made", output)


@network_policy.command("set")
@_POLICY
@_TIERS
@_UNLESS
@click.option("--no-exceptions", is_flag=True, help="Nothing passes between its tiers.")
@click.option("--description", default=None, help="What it is for.")
@output_option
@pass_session
def set_(
    session: Session,
    name: str,
    tiers: tuple[str, ...],
    unless: tuple[str, ...],
    no_exceptions: bool,
    description: str | None,
    output: str,
) -> None:
    """Give a policy other tiers, or other exceptions: all of them.

    \b
    Examples:
      corral network-policy set tiers --unless "network:web to network:db tcp/5432"
    """
    body: dict[str, Any] = {"tiers": list(tiers)} if tiers else {}
    if unless or no_exceptions:
        body["unless"] = list(unless)
    if description is not None:
        body["description"] = description
    if not body:
        raise click.UsageError("say what is to change: --tier, --unless, --no-exceptions, --description")
    changed = session.client().update_network_policy(name, cast("UpdateNetworkPolicyRequest", body))
    _shown(changed, "changed", output)


@network_policy.command()
@click.argument("names", nargs=-1, required=True, metavar="POLICY…", shell_complete=complete_network_policy)
@pass_session
def delete(session: Session, names: tuple[str, ...]) -> None:
    """Delete policies: from then on groups alone decide.

    \b
    Examples:
      corral network-policy delete tiers
    """

    def one(name: str) -> None:
        session.client().delete_network_policy(name)
        click.echo(f"{name}: deleted")

    for_each(names, one)


def _shown(policy: Document, done: str, output: str) -> None:
    if output in ("json", "yaml"):
        show_document(policy, output)
    else:
        click.echo(policy["name"] if output == "name" else f"{policy['name']}: {done}")
