"""Load balancers: list, show, create, set, delete."""

from typing import Any, Final

import click

from corral.cli.completion import complete_balancer, complete_router
from corral.cli.output import Column, Document, age, output_option, show_document, show_list, show_one
from corral.cli.router import split
from corral.cli.session import Session, for_each, pass_session
from corral.errors import CorralError


def _check(balancer: Document) -> str:
    check = balancer["spec"]["check"]
    return f"http:{check['path']}" if check["kind"] == "http" else "tcp"


COLUMNS: Final = (
    Column("name", lambda balancer: balancer["name"]),
    Column("active", lambda balancer: balancer["status"]["active"]),
    Column("router", lambda balancer: balancer["spec"]["router"]),
    Column("listen", lambda balancer: balancer["spec"]["listen"], right=True),
    Column("to", lambda balancer: ",".join(target["vm"] for target in balancer["spec"]["targets"])),
    Column("port", lambda balancer: balancer["spec"]["port"], right=True),
    Column("check", _check),
    Column("age", lambda balancer: age(balancer["created_at"])),
)


def parse_check(text: str) -> dict[str, Any]:
    """`tcp`, or `http:/healthz`."""
    kind, _, path = text.partition(":")
    if kind == "tcp" and not path:
        return {"kind": "tcp"}
    if kind == "http" and (path.startswith("/") or not path):
        return {"kind": "http", "path": path or "/"}
    raise CorralError(
        "invalid-argument", f"check {text[:64]!r}", "it is neither tcp nor http:/PATH", "--check http:/healthz"
    )


_to = click.option("--to", "targets", multiple=True, metavar="VM,…", help="The VMs that serve.")
_port = click.option("--port", type=click.IntRange(1, 65535), help="Of the VMs.  [default: as --listen]")
_mode = click.option(
    "--mode", type=click.Choice(["tcp", "http"]), help="http: it reads requests, and says who asked (X-Forwarded-For)."
)
_algorithm = click.option("--algorithm", type=click.Choice(["roundrobin", "leastconn", "source"]), help="Who is next.")
_checked = click.option("--check", metavar="tcp|http:/PATH", help="How it is found out whether a VM can serve.")


def _body(options: dict[str, Any]) -> dict[str, Any]:
    body = {key: value for key, value in options.items() if value not in (None, ())}
    if "targets" in body:
        body["targets"] = split(body["targets"])
    if "check" in body:
        body["check"] = parse_check(body["check"])
    return body


@click.group()
def balancer() -> None:
    """Load balancers in routers.

    \b
    Examples:
      corral balancer create shop --listen 80 --to web-1,web-2 --check http:/healthz
      corral balancer set shop --to web-1,web-2,web-3
    """


@balancer.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the load balancers.

    \b
    Examples:
      corral balancer list
    """
    show_list(session.client().list_balancers(), COLUMNS, output)


@balancer.command()
@click.argument("name", metavar="BALANCER", shell_complete=complete_balancer)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show a load balancer.

    \b
    Examples:
      corral balancer show shop
    """
    found: Document = session.client().get_balancer(name)
    rows: list[tuple[str, object]] = [("name", found["name"]), ("uid", found["uid"])]
    rows += [(column.title, column.value(found)) for column in COLUMNS[1:-1]]
    rows += [("mode", found["spec"]["mode"]), ("algorithm", found["spec"]["algorithm"])]
    conditions = [f"{item['type']}: {item['status']} ({item['reason']})" for item in found["status"]["conditions"]]
    show_one(found, [*rows, ("conditions", conditions), ("created", found["created_at"])], output)


@balancer.command()
@click.argument("name")
@click.option("--listen", type=click.IntRange(1, 65535), required=True, help="On every address of the router.")
@_to
@_port
@_mode
@_algorithm
@_checked
@click.option("--router", shell_complete=complete_router, help="[default: the one that reaches all of the VMs]")
@output_option
@pass_session
def create(session: Session, /, name: str, output: str, **options: Any) -> None:
    """Make a load balancer on a router.

    \b
    Examples:
      corral balancer create shop --listen 80 --to web-1,web-2 --check http:/healthz
      corral balancer create db --listen 5432 --to db-1,db-2 --algorithm leastconn
    """
    made = session.client().create_balancer({"name": name, **_body(options)})  # type: ignore[typeddict-item]
    if output in ("json", "yaml"):
        show_document(made, output)
    elif output == "name":
        click.echo(name)
    else:
        click.echo(f"{name}: port {made['spec']['listen']} of router {made['spec']['router']}")


@balancer.command("set")
@click.argument("name", metavar="BALANCER", shell_complete=complete_balancer)
@_to
@_port
@_mode
@_algorithm
@_checked
@pass_session
def set_(session: Session, /, name: str, **options: Any) -> None:
    """Change a load balancer; connections go on. --to names all of its VMs.

    \b
    Examples:
      corral balancer set shop --to web-1,web-2,web-3
    """
    session.client().update_balancer(name, _body(options))  # type: ignore[arg-type]
    click.echo(f"{name}: changed")


@balancer.command()
@click.argument("names", nargs=-1, required=True, metavar="BALANCER…", shell_complete=complete_balancer)
@pass_session
def delete(session: Session, names: tuple[str, ...]) -> None:
    """Delete load balancers; connections through them end.

    \b
    Examples:
      corral balancer delete shop
    """

    def one(name: str) -> None:
        session.client().delete_balancer(name)
        click.echo(f"{name}: deleted")

    for_each(names, one)
