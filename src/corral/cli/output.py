"""How results are shown: table for people, json and yaml as the API's own document, name for scripts."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

import click

FORMATS: Final = ("table", "json", "yaml", "name")
Document = Mapping[str, Any]
_F = TypeVar("_F", bound=Callable[..., Any])

_STATE_COLOURS: Final = {
    "running": "green",
    "ready": "green",
    "succeeded": "green",
    "ok": "green",
    "paused": "yellow",
    "in shutdown": "yellow",
    "warning": "yellow",
    "preparing": "yellow",
    "accepted": "yellow",
    "crashed": "red",
    "failed": "red",
    "error": "red",
    "interrupted": "red",
}


class Column(NamedTuple):
    """One column of a table: its heading and how a document fills it."""

    title: str
    value: Callable[[Document], object]
    right: bool = False
    coloured: bool = False


def output_option(function: _F) -> _F:
    """`-o table|json|yaml|name`, as the parameter `output`."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to show the result; json is the API's own document.",
    )
    return option(function)


def show_list(
    documents: Sequence[Document],
    columns: Sequence[Column],
    output: str,
    name: Callable[[Document], str] = lambda document: str(document["name"]),
) -> None:
    """A list in the wished format."""
    if output == "name":
        for document in documents:
            click.echo(name(document))
    elif output == "table":
        click.echo("\n".join(table(documents, columns, colour=colour_wanted())))
    else:
        show_document(list(documents), output)


def show_one(
    document: Document,
    rows: Sequence[tuple[str, object]],
    output: str,
    name: str | None = None,
) -> None:
    """One object in the wished format; `rows` are its lines for people."""
    if output == "name":
        click.echo(document["name"] if name is None else name)
    elif output == "table":
        click.echo("\n".join(fields(rows)))
    else:
        show_document(document, output)


def show_document(document: object, output: str) -> None:
    """The document itself, as json or yaml."""
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
    else:
        # JSON escapes the other control characters by itself; these are as good as escape on many terminals.
        text = json.dumps(document, indent=2, ensure_ascii=False)
        click.echo(text.translate({code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}))


def table(documents: Sequence[Document], columns: Sequence[Column], *, colour: bool = False) -> list[str]:
    """Lines of a table: headings in capitals, columns as wide as their longest cell, none after the last."""
    cells = [[printable(column.value(document)) for column in columns] for document in documents]
    widths = [max([len(column.title), *(len(row[index]) for row in cells)]) for index, column in enumerate(columns)]
    lines = [_line([column.title.upper() for column in columns], columns, widths, colour=False)]
    lines.extend(_line(row, columns, widths, colour=colour) for row in cells)
    return lines


def _line(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int], *, colour: bool) -> str:
    shown = []
    for cell, column, width in zip(row, columns, widths, strict=True):
        padded = cell.rjust(width) if column.right else cell.ljust(width)
        if colour and column.coloured and (wished := _STATE_COLOURS.get(cell.partition(", ")[0])):
            padded = click.style(padded, fg=wished)
        shown.append(padded)
    return "  ".join(shown).rstrip()


def fields(rows: Sequence[tuple[str, object]]) -> list[str]:
    """Lines of `key: value`; empty values are left out, several values go below each other."""
    known = [(key, value) for key, value in rows if value not in ("", None, [], (), {})]
    width = max((len(key) for key, _ in known), default=0) + 1
    lines = []
    for key, value in known:
        values = value if isinstance(value, list | tuple) else [value]
        for index, item in enumerate(values):
            lines.append(f"{key + ':' if index == 0 else '':<{width}} {printable(item)}".rstrip())
    return lines


def printable(value: object) -> str:
    """A cell's text: nothing for None, yes and no for truths, control characters out (guests choose some names)."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(char if char.isprintable() else "?" for char in str(value))


def lines_of(text: str) -> str:
    """Text of several lines for a terminal: as `printable`, but lines stay lines."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def tamed(content: bytes) -> bytes:
    """What a guest wrote, for a terminal: colours stay; what moves the cursor, renames windows, fills the clipboard or
    makes the terminal answer as if somebody typed is left out. Only for a record that is shown afterwards."""
    import re

    escapes = re.compile(
        rb"\x1b\[[0-9;:]*m"  # colours (ECMA-48, SGR), the one kind that is kept
        rb"|\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]?"  # other control sequences
        rb"|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?"  # strings: titles, clipboard, device control
        rb"|\x1b[ -/]{0,8}[0-~]?"  # everything else that begins with escape
        rb"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"  # control characters but tab, line feed, return
        rb"|\xc2[\x80-\x9f]"  # the same of eight bits, in UTF-8
    )
    colour = re.compile(rb"\x1b\[[0-9;:]*m")
    return escapes.sub(lambda match: match[0] if colour.fullmatch(match[0]) else b"", content)


def age(timestamp: str | None, now: datetime | None = None) -> str:
    """How long ago, in the two largest units: `3d4h`, `12m5s`."""
    if not timestamp:
        return "-"
    then = datetime.fromisoformat(timestamp)
    seconds = max(0, round(((now or datetime.now(UTC)) - then).total_seconds()))
    return duration(seconds)


def duration(seconds: float) -> str:
    """`3d4h`, `2h`, `12m5s`, `7s`."""
    rest = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def mebibytes(count: int | None) -> str:
    """Memory as people write it: `512M`, `2G`."""
    if count is None:
        return "-"
    return f"{count // 1024}G" if count >= 1024 and count % 1024 == 0 else f"{count}M"


def colour_wanted() -> bool:
    """Colours only on a terminal, and not where NO_COLOR is set."""
    if not sys.stdout.isatty():
        return False
    from corral.settings import variable

    return not variable("NO_COLOR")
