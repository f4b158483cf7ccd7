"""`exec VM [OPTIONS] -- COMMAND`: what belongs to Corral and what to the command in the guest."""

import click
import pytest

from corral.cli.exec import exec_
from corral.cli.ssh import ssh


def parsed(command: click.Command, args: list[str]) -> dict[str, object]:
    return command.make_context(command.name, args).params


@pytest.mark.parametrize(
    ("args", "timeout", "command"),
    [
        (["web", "--", "ls", "-la"], "60s", ("ls", "-la")),
        (["--timeout", "5s", "web", "--", "ls"], "5s", ("ls",)),
        (["web", "--timeout", "5s", "--", "sleep", "--timeout"], "5s", ("sleep", "--timeout")),
        (["web", "ls", "--timeout", "5s"], "60s", ("ls", "--timeout", "5s")),
        (["web", "grep", "-c", "--", "root"], "60s", ("grep", "-c", "--", "root")),
    ],
)
def test_exec(args: list[str], timeout: str, command: tuple[str, ...]) -> None:
    found = parsed(exec_, args)
    words = found["command"]
    assert isinstance(words, tuple)
    assert (found["name"], found["timeout"]) == ("web", timeout)
    assert (words[1:] if words[0] == "--" else words) == command


def test_ssh_takes_its_options_after_the_name_too() -> None:
    found = parsed(ssh, ["web", "-l", "ann", "--", "id", "-u"])
    assert (found["name"], found["user"], found["command"]) == ("web", "ann", ("id", "-u"))
