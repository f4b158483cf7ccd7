"""The command table: everything in it loads, is documented with an example, and virsh's verbs lead somewhere."""

from collections.abc import Iterator
from dataclasses import fields

import click
import pytest
from click.testing import CliRunner

from corral.cli.aliases import ALIASES, expand
from corral.cli.commands import COMMANDS
from corral.cli.main import cli
from corral.cli.serve import SETTINGS_HELP
from corral.cli.session import Session
from corral.settings import Settings

# What "What a user does" promises at the top level.
PROMISED = [
    "create",
    "list",
    "info",
    "start",
    "shutdown",
    "reboot",
    "reset",
    "pause",
    "resume",
    "destroy",
    "delete",
    "rename",
    "describe",
    "tag",
    "protect",
    "unprotect",
    "save",
    "top",
    "console",
    "ssh",
    "exec",
    "wait",
    "operation",
    "events",
    "image",
    "host",
    "doctor",
    "daemon",
    "serve",
    "adopt",
    "recover",
    "network",
    "volume",
    "admin",
    "audit",
    "completion",
]


def walk(command: click.Command, path: tuple[str, ...], parent: click.Context) -> Iterator[tuple[str, click.Context]]:
    context = click.Context(command, info_name=path[-1], parent=parent)
    yield " ".join(path), context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, (*path, name), context)


def everything() -> list[tuple[str, click.Context]]:
    root = click.Context(cli, info_name="corral")
    found = []
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        found.extend(walk(command, (name,), root))
    return found


@pytest.mark.parametrize(("path", "context"), everything(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_has_a_help_text_with_an_example(path: str, context: click.Context) -> None:
    text = context.command.get_help(context)
    assert "Examples:" in text
    assert "corral " in text.partition("Examples:")[2]
    options = [param for param in context.command.params if isinstance(param, click.Option)]
    assert all(option.help for option in options if option.name not in ("role", "port")), path


def test_what_is_promised_is_there() -> None:
    assert set(PROMISED) <= set(COMMANDS)


def test_a_command_is_called_as_the_table_says() -> None:
    root = click.Context(cli, info_name="corral")
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        assert command.name == name


@pytest.mark.parametrize("verb", sorted(ALIASES))
def test_virshs_verbs_lead_to_commands_that_know_their_arguments(verb: str) -> None:
    assert verb not in COMMANDS
    answer = CliRunner().invoke(cli, [verb, "--help"])
    assert answer.exit_code == 0
    assert "Examples:" in answer.output


def test_only_the_first_word_is_an_alias() -> None:
    assert expand(["undefine", "suspend"]) == ["delete", "--keep-disks", "suspend"]
    assert expand(["list", "undefine"]) == ["list", "undefine"]


def test_every_setting_of_the_daemon_is_a_flag() -> None:
    assert list(SETTINGS_HELP) == [field.name for field in fields(Settings)]


def test_an_unknown_command_is_a_usage_error() -> None:
    answer = CliRunner().invoke(cli, ["lst"])
    assert answer.exit_code == 2


def test_the_shell_completes_commands_without_loading_them() -> None:
    from click.shell_completion import ShellComplete

    completed = [item.value for item in ShellComplete(cli, {}, "corral", "_CORRAL_COMPLETE").get_completions([], "su")]
    assert completed == ["suspend"]


def test_the_shell_completes_options_and_choices() -> None:
    from click.shell_completion import ShellComplete

    completer = ShellComplete(cli, {}, "corral", "_CORRAL_COMPLETE")
    assert "--force-after" in [item.value for item in completer.get_completions(["shutdown", "web"], "--fo")]
    assert [item.value for item in completer.get_completions(["wait", "web", "--for"], "s")] == ["ssh", "shutoff"]


def test_every_vm_on_a_command_line_is_completed() -> None:
    """Whatever is called a VM by its place holder, but for those that do not exist yet."""
    for path, context in everything():
        for param in context.command.params:
            if isinstance(param, click.Argument) and "VM" in (param.metavar or ""):
                assert param._custom_shell_complete is not None, f"{path}: {param.metavar}"


def test_names_complete_to_nothing_where_no_daemon_answers(tmp_path: object) -> None:
    from click.shell_completion import ShellComplete

    completer = ShellComplete(cli, {}, "corral", "_CORRAL_COMPLETE")
    assert completer.get_completions(["--socket", f"{tmp_path}/none.sock", "start"], "w") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program(shell: str) -> None:
    answer = CliRunner().invoke(cli, ["completion", shell])
    assert answer.exit_code == 0
    assert "_CORRAL_COMPLETE" in answer.output


@pytest.mark.parametrize(("flag", "variable", "project"), [("", "", "default"), ("", "b", "b"), ("a", "b", "a")])
def test_the_project_is_the_flags_or_the_environments(
    monkeypatch: pytest.MonkeyPatch, flag: str, variable: str, project: str
) -> None:
    monkeypatch.setenv("CORRAL_PROJECT", variable)
    session = Session(socket="/nonexistent", project=flag)
    assert session.client().project == project
    session.close()
