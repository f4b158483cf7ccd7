"""`corral create`: a VM from an image, with disks, networks, keys and cloud-init."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from corral.cli import keys
from corral.cli.completion import complete_image
from corral.cli.options import async_option
from corral.cli.output import output_option, show_document
from corral.cli.progress import wait_for
from corral.cli.session import Session, pass_session
from corral.errors import CorralError
from corral.names import MIB, parse_duration_s, parse_size_bytes

if TYPE_CHECKING:
    from corral.client_types import CreateVmRequest

# What a document may take in a request at most (model/limits.py says how much of it is accepted): refuse to read more.
DOCUMENT_MAX_BYTES: Final = 16 * MIB
WAIT_DEFAULT_S: Final = 300.0

_DISK_KEYS: Final = ("size", "path", "format", "bus", "name", "read_only", "keep")
_NETWORK_KEYS: Final = ("network", "mac", "address", "model")


@click.command()
@click.argument("positional", metavar="[NAME]", required=False)
@click.option("-n", "--name", default="", help="The VM's name, also its host name. Lower-case letters, digits, '-'.")
@click.option("-i", "--image", help="The image to start from.", shell_complete=complete_image)
@click.option("-m", "--memory", metavar="SIZE", help="Memory; a bare number is MiB: 1024, 2G.  [default: 1024]")
@click.option("-c", "--vcpus", type=int, help="Virtual CPUs.  [default: 1]")
@click.option(
    "-d",
    "--disk",
    "disks",
    multiple=True,
    metavar="SPEC",
    help="A disk: 20 (GiB), size=20G, or path=/f,format=raw. The first one is the root disk's size when there is an image. Keys: size, path, format, bus, name, read_only, keep.",
)
@click.option(
    "-w",
    "--network",
    "networks",
    multiple=True,
    metavar="SPEC",
    help="A network card: network=default,mac=…,address=…,model=virtio; or none.",
)
@click.option(
    "-k",
    "--ssh-key",
    "ssh_keys",
    multiple=True,
    metavar="FILE",
    help="A public key that may log in (repeatable). Default: your own, or one is made.",
)
@click.option("--no-ssh-key", is_flag=True, help="No key at all.")
@click.option("-u", "--user", default="", help="The user to log in as.  [default: the image's own]")
@click.option("--password", "ask_password", is_flag=True, help="Ask for a password for the user.")
@click.option(
    "--password-file", metavar="FILE", help="Take the password from this file's first line; - is standard input."
)
@click.option("--hostname", help="The guest's host name.  [default: the VM's name]")
@click.option("--user-data", metavar="FILE", help="A cloud-init user-data document.")
@click.option("--network-config", metavar="FILE", help="A cloud-init network-config document.")
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), help="[default: what the image boots by]")
@click.option(
    "--run-policy",
    type=click.Choice(["always", "on-failure", "manual"]),
    help="Start it again when it stopped by itself?  [default: on-failure]",
)
@click.option("--autostart", is_flag=True, help="Start it with the host.")
@click.option("--priority", type=int, help="Order of autostart; lower starts earlier.")
@click.option("--graphics", type=click.Choice(["vnc", "none"]), help="[default: vnc]")
@click.option("--description", default="", help="For people.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label (repeatable).")
@click.option("--protect", is_flag=True, help="Refuse its deletion.")
@click.option("--no-start", is_flag=True, help="Make it, do not start it.")
@click.option("--force", is_flag=True, help="Allow disks larger than the free space (thin provisioning).")
@click.option(
    "--wait",
    "wait_condition",
    type=click.Choice(["running", "agent", "ip", "ssh", "cloud-init"]),
    help="Also wait until then.",
)
@click.option("--timeout", metavar="TIME", default="300s", show_default=True, help="For --wait.")
@async_option
@output_option
@pass_session
def create(session: Session, /, **options: Any) -> None:
    """Make a VM and start it. Sizes: bare numbers are MiB for memory and GiB for disks, as in virt-install; 512M, 2G work.

    \b
    Examples:
      corral create --name web --image debian-12
      corral create --name web --image debian-12 --memory 2G --vcpus 2 --disk size=20
      corral create db --image debian-12 --disk 10 --disk 100 --label env=test --wait ssh
      corral create old --disk path=/srv/old.qcow2,format=qcow2 --network mac=52:54:00:12:34:56
      corral create ci --image debian-12 --user-data ci.yaml --no-start
    """
    name = options["name"] or options["positional"] or ""
    if not name:
        raise click.UsageError("give the VM a name: --name NAME")
    if options["name"] and options["positional"]:
        raise click.UsageError(f"two names: {options['name']} and {options['positional']}")
    timeout_s = parse_duration_s(options["timeout"], "--timeout")
    body = request_body(name, options)
    if not (body.get("image") or body.get("disks")):
        click.echo(f"note: {name} has neither an image nor a disk: there is nothing that it could boot", err=True)
    accepted = session.client().create_vm(cast("CreateVmRequest", body))
    output = options["output"]
    if options["asynchronous"]:
        if output in ("table", "name"):
            click.echo(accepted["operation"]["uid"])
        else:
            show_document(accepted, output)
        return
    wait_for(session, accepted["operation"])
    if options["wait_condition"]:
        session.client().wait_vm(name, options["wait_condition"], timeout_s)
    if output == "name":
        click.echo(name)
    elif output == "table":
        click.echo(f"{name}: {'created' if options['no_start'] else 'running'}")
    else:
        show_document(session.client().get_vm(name), output)


def request_body(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The request's document: only what was said, so that the daemon's defaults are the only ones."""
    body: dict[str, Any] = {"name": name}
    if options["vcpus"] is not None:
        body["vcpus"] = options["vcpus"]
    plain = ("image", "hostname", "firmware", "run_policy", "graphics", "user", "description", "force")
    body.update({key: options[key] for key in plain if options[key]})
    if options["protect"]:
        body["protected"] = True
    if options["no_start"]:
        body["start"] = False
    if options["memory"] is not None:
        body["memory_mib"] = memory_mib(options["memory"])
    if options["disks"]:
        body["disks"] = [parse_disk(text) for text in options["disks"]]
    if options["networks"]:
        body["nics"] = parse_networks(options["networks"])
    if options["labels"]:
        body["labels"] = parse_labels(options["labels"])
    body.update(_boot_order(options["autostart"], options["priority"]))
    for key in ("user_data", "network_config"):
        if options[key]:
            body[key] = read_document(options[key], f"--{key.replace('_', '-')}")
    password = keys.password(options["ask_password"], options["password_file"])
    if password:
        body["password"] = password
    # Keys come last: one may have to be made, and nothing is made for a request that is wrong.
    body.update(_ssh_keys(options))
    return body


def _boot_order(autostart: bool, priority: int | None) -> dict[str, Any]:
    if not autostart and priority is None:
        return {}
    return {"boot": {"autostart": autostart, **({} if priority is None else {"priority": priority})}}


def _ssh_keys(options: dict[str, Any]) -> dict[str, Any]:
    """The keys that were named; else the caller's own, for images, which are what reads them."""
    if options["ssh_keys"]:
        return {"ssh_keys": [key for path in options["ssh_keys"] for key in keys.read_public(Path(path).expanduser())]}
    if options["image"] and not options["no_ssh_key"]:
        return {"ssh_keys": keys.own_or_made()}
    return {}


def memory_mib(text: str) -> int:
    """`2G`, `512M`, `1024` (MiB) as MiB."""
    size_bytes = parse_size_bytes(text, "m", "memory")
    if size_bytes % MIB:
        raise CorralError(
            "invalid-size", f"memory {text!r}", "not a whole number of MiB", "write for example 512M or 2G"
        )
    return size_bytes // MIB


def parse_pairs(text: str, known: Sequence[str], option: str) -> dict[str, str]:
    """`a=1,b=2` as a dictionary; a key that nobody knows, or twice, is an error."""
    pairs: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or key not in known or not value:
            reason = f"there is no key {key!r}" if equals and value else f"{part!r} is not KEY=VALUE"
            raise CorralError("invalid-argument", f"{option} {text!r}", reason, f"keys: {', '.join(known)}")
        if key in pairs:
            raise CorralError("invalid-argument", f"{option} {text!r}", f"{key} is given twice")
        pairs[key] = value.strip()
    return pairs


def parse_disk(text: str) -> dict[str, Any]:
    """A `--disk`: `20`, `20G`, `size=20`, `path=/srv/a.raw,format=raw`."""
    if "=" not in text:
        return {"size_bytes": parse_size_bytes(text, "g", "disk")}
    pairs = parse_pairs(text, _DISK_KEYS, "--disk")
    disk: dict[str, Any] = {key: pairs[key] for key in ("format", "bus", "name") if key in pairs}
    if "size" in pairs:
        disk["size_bytes"] = parse_size_bytes(pairs["size"], "g", "disk")
    if "path" in pairs:
        disk["path"] = str(Path(pairs["path"]).expanduser().absolute())
    if "read_only" in pairs:
        disk["read_only"] = _truth(pairs["read_only"], "--disk read_only")
    if "keep" in pairs:
        disk["delete_with_vm"] = not _truth(pairs["keep"], "--disk keep")
    if "size_bytes" not in disk and "path" not in disk:
        raise CorralError(
            "invalid-argument", f"--disk {text!r}", "neither a size nor a path", "write size=20 or path=…"
        )
    return disk


def _truth(text: str, option: str) -> bool:
    if text in ("yes", "on", "true", "1"):
        return True
    if text in ("no", "off", "false", "0"):
        return False
    raise CorralError("invalid-argument", f"{option} {text!r}", "neither yes nor no")


def parse_networks(texts: Sequence[str]) -> list[dict[str, str]]:
    """All `--network`: `default`, `network=default,mac=…,model=virtio`; `none` alone is no card at all."""
    if "none" in texts:
        if len(texts) > 1:
            raise CorralError("invalid-argument", "--network none", "it excludes the others", "leave it out")
        return []
    return [{"network": text} if "=" not in text else parse_pairs(text, _NETWORK_KEYS, "--network") for text in texts]


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """`--label env=test`; without a value the label is empty."""
    return {text.partition("=")[0]: text.partition("=")[2] for text in texts}


def read_document(name: str, option: str) -> str:
    """A file's text for the request; `-` is standard input."""
    from corral.files import read_limited

    try:
        content = (
            sys.stdin.buffer.read(DOCUMENT_MAX_BYTES + 1)
            if name == "-"
            else read_limited(Path(name).expanduser(), DOCUMENT_MAX_BYTES)
        )
        return content.decode()
    except OSError as error:
        raise CorralError("invalid-argument", f"{option} {name}", error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise CorralError("invalid-document", f"{option} {name}", "it is not UTF-8 text") from error
