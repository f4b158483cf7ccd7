"""`corral edit`: a VM's spec as YAML in an editor; validated by the daemon, shown as a diff, never over somebody else's."""

import difflib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from corral.cli.change import finish_change
from corral.cli.completion import complete_vm
from corral.cli.options import async_option
from corral.cli.output import output_option
from corral.cli.session import Session, pass_session
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client_types import UpdateVmRequest

# What can be edited: the request's own words. Disks and cards have verbs of their own.
FIELDS: Final = (
    "description", "vcpus", "memory_mib", "cpu_shares", "firmware", "graphics", "graphics_listen", "run_policy",
    "boot", "protected", "hardware",
)  # fmt: skip
_HEAD: Final = """\
# VM {name}, revision {revision}. Save and leave the editor to change it; leave it as it is to change nothing.
# A field that is taken out of `hardware` goes back to its default. Disks and cards: corral disk, corral nic.
"""


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.option("-f", "--file", "source", metavar="FILE", help="Take the document from FILE (- is standard input).")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before it is changed.")
@async_option
@output_option
@pass_session
def edit(session: Session, name: str, source: str | None, yes: bool, asynchronous: bool, output: str) -> None:
    """Edit a VM's spec as YAML in $VISUAL or $EDITOR (virsh: edit). Somebody else's change meanwhile is a conflict,
    shown as a diff; your text is kept.

    \b
    Examples:
      corral edit web
      EDITOR=nano corral edit web
      corral edit web -f web.yaml --yes
    """
    vm = cast("dict[str, Any]", session.client().get_vm(name))
    before = editable(vm)
    text = _HEAD.format(name=name, revision=vm["revision"]) + dump(before)
    edited, kept = (_read(source), Path(source)) if source else _in_editor(name, text)
    after = _parse(edited, kept)
    body = changes(before, after)
    if not body:
        click.echo("nothing changed", err=True)
        _forget(kept, source)
        return
    diff = "".join(difflib.unified_diff(_lines(before), _lines(after), "before", "after", n=2))
    click.echo(diff.rstrip("\n"), err=True)
    if not (yes or source or not sys.stdin.isatty()):
        click.confirm(f"Change {name}?", default=True, abort=True, err=True)

    def request(vm_name: str) -> Any:
        try:
            return session.client().update_vm(vm_name, cast("UpdateVmRequest", body), if_match=str(vm["revision"]))
        except CorralError as error:
            if error.code == "stale-revision" and _same_spec(session, vm_name, before):
                return session.client().update_vm(vm_name, cast("UpdateVmRequest", body))
            raise _explained(session, error, vm_name, before, kept) from error

    finish_change(session, (name,), request, "changed", output, asynchronous)
    _forget(kept, source)


def editable(vm: dict[str, Any]) -> dict[str, Any]:
    """The part of a VM's document that a person edits; `hardware` only as far as it is not the default."""
    spec = vm["spec"]
    return {**{field: spec[field] for field in FIELDS if field in spec}, "labels": vm["labels"]}


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The request that makes `after` of `before`: whole fields, and of `hardware` a merge patch (RFC 7396)."""
    body = {field: value for field, value in after.items() if field != "hardware" and before.get(field) != value}
    patch = merge_patch(before.get("hardware") or {}, after.get("hardware") or {})
    return {**body, **({"hardware": patch} if patch else {})}


def merge_patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            inner = merge_patch(old, value)
            patch.update({key: inner} if inner else {})
        elif value != old:
            patch[key] = value
    return patch


def dump(document: Any) -> str:
    """YAML for people: in the order given."""
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100))


def _lines(document: Any) -> list[str]:
    return dump(document).splitlines(keepends=True)


def _read(source: str) -> str:
    from corral.cli.documents import read_document

    return read_document(source, "--file")


def _in_editor(name: str, text: str) -> tuple[str, Path]:
    """What came back from the user's editor, and the file that it lies in until the change is made."""
    import tempfile

    # Not removed by a crash of ours: what a person wrote is theirs.
    descriptor, path = tempfile.mkstemp(prefix=f"corral-{name}-", suffix=".yaml")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    kept = Path(path)
    try:
        click.edit(filename=path)
    except click.ClickException as error:
        raise CorralError("command-failed", f"edit {name}", error.message, f"your text: {path}") from error
    return kept.read_text(encoding="utf-8"), kept


def _parse(text: str, kept: Path) -> dict[str, Any]:
    import yaml

    asked = "the edited document"
    hint = f"your text is in {kept}: corral edit … -f {kept}"
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CorralError("invalid-document", asked, f"it is no YAML: {error}", hint) from error
    if not isinstance(document, dict):
        raise CorralError("invalid-document", asked, "it is no mapping of fields to values", hint)
    unknown = [str(key) for key in document if key not in (*FIELDS, "labels")]
    if unknown:
        raise CorralError("invalid-document", asked, f"there is no field {', '.join(unknown)} to edit", hint)
    return document


def _same_spec(session: Session, name: str, before: dict[str, Any]) -> bool:
    """Only what was seen of the VM changed since, not what is wished of it."""
    return editable(cast("dict[str, Any]", session.client().get_vm(name))) == before


def _explained(session: Session, error: CorralError, name: str, before: dict[str, Any], kept: Path) -> CorralError:
    if error.code != "stale-revision":
        return error
    now = editable(cast("dict[str, Any]", session.client().get_vm(name)))
    theirs = "".join(difflib.unified_diff(_lines(before), _lines(now), "when you began", "now", n=2))
    reason = f"somebody changed it since you began:\n{theirs.rstrip()}"
    return CorralError(
        error.code, error.asked, reason, f"your text is in {kept}: corral edit {name} again, or -f {kept}"
    )


def _forget(kept: Path, source: str | None) -> None:
    if not source:
        kept.unlink(missing_ok=True)
