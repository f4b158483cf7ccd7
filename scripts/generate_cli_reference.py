"""Write docs/reference/cli.md from the commands themselves; `--check` only says whether it is up to date."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from corral.cli.aliases import ALIASES
from corral.cli.commands import COMMANDS, sections
from corral.cli.main import cli

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
WIDTH = 100

INTRODUCTION = """# Command line

This page is generated from the commands' own help by `scripts/generate_cli_reference.py`.

Everyday verbs for virtual machines stand at the top level; everything else is `corral NOUN VERB`. Global options come
before the command: `corral --socket /tmp/trial/run/corral.sock list`.

## Exit codes

| Code | Meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | usage, or input that was refused |
| 3 | not found |
| 4 | conflict: taken, protected, in the wrong state, not enough room |
| 5 | not permitted |
| 6 | the daemon cannot be reached |
| 130 | interrupted by Ctrl-C; an operation that was waited for goes on |

`corral exec` and `corral ssh` end with the command's own code. With several names in one command the others go on after
a failure, and the first failure's code is the command's.

## Output

`-o table` (the default) is for people and may change. `-o json` and `-o yaml` are the API's own documents: one object
for one thing, a list for several. `-o name` prints one name a line. Errors go to standard error as
`error: what was asked: what is in the way [code]`, followed by what to do. Colours appear on terminals only, and never
where `NO_COLOR` is set.

## Sizes and times

Bare numbers are MiB for memory and GiB for disks, as in virt-install; `512M`, `2G` and `1.5GiB` say it themselves, in
powers of 1024. Times are `90` or `90s`, `5m`, `2h`, `250ms`.
"""


def walk(command: click.Command, path: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Every command below `command` with its help text, groups first."""
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent, terminal_width=WIDTH)
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, f"{path} {name}", context)


def page() -> str:
    """The whole page."""
    root = click.Context(cli, info_name="corral", terminal_width=WIDTH)
    parts = [INTRODUCTION, "## corral\n", "```text", cli.get_help(root), "```\n"]
    for section, names in sections().items():
        parts.append(f"## {section}\n")
        for name in names:
            command = cli.get_command(root, name)
            assert command is not None
            for path, text in walk(command, f"corral {name}", root):
                parts += [f"### {path}\n", "```text", text, "```\n"]
    parts += ["## virsh's verbs\n", "| virsh | Corral |", "|---|---|"]
    parts += [f"| `{name}` | `corral {' '.join(command)}` |" for name, command in ALIASES.items()]
    same = ("list", "start", "shutdown", "reboot", "reset", "resume", "save", "destroy", "console", "autostart")
    assert all(name in COMMANDS for name in same)
    parts += ["", f"These are called the same: {', '.join(f'`{name}`' for name in same)}. `save` keeps the memory"]
    parts += ["beside the VM, as `virsh managedsave` does.", ""]
    return "\n".join(parts)


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv[1:]:
        current = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
        if current != text:
            print(f"{TARGET} is out of date: run python scripts/generate_cli_reference.py", file=sys.stderr)
            return 1
        return 0
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
