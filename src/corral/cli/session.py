"""What one run of the command line has: which daemon, which project, and errors of several names in one command."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import click

from corral.errors import CorralError

if TYPE_CHECKING:
    from pathlib import Path

    from corral.client import Client

_T = TypeVar("_T")


@dataclass
class Session:
    """The global options, and the client that they lead to, connected when it is first needed."""

    socket: str = ""
    state_dir: str = ""
    url: str = ""
    ca_file: str = ""
    project: str = ""
    verbose: bool = False
    timeout_s: float = 30.0
    _clients: list["Client"] = field(default_factory=list)

    @property
    def socket_path(self) -> "Path":
        """Where the daemon is to be found: --socket, else --state-dir, else the environment, else the default."""
        from pathlib import Path

        from corral.settings import client_socket

        if self.state_dir and not self.socket:
            return Path(self.state_dir).absolute() / "run" / "corral.sock"
        return client_socket(self.socket).absolute()

    @property
    def is_remote(self) -> bool:
        """The daemon is reached over the network: files of this machine are not its files."""
        from corral.settings import variable

        return bool(self.url or variable("CORRAL_URL")) and not (self.socket or self.state_dir)

    def client(self) -> "Client":
        """The one client of this run."""
        if not self._clients:
            self._clients.append(self.another_client())
        return self._clients[0]

    def another_client(self) -> "Client":
        """A client with a connection of its own, for a second thread."""
        from corral.client import Client
        from corral.settings import variable

        url = self.url or variable("CORRAL_URL")
        project = self.project or variable("CORRAL_PROJECT", "default")
        if url and not (self.socket or self.state_dir):
            return Client(
                url=url,
                token=variable("CORRAL_TOKEN"),
                ca_file=self.ca_file,
                project=project,
                timeout_s=self.timeout_s,
            )
        return Client(self.socket_path, project=project, timeout_s=self.timeout_s)

    def close(self) -> None:
        while self._clients:
            self._clients.pop().close()


pass_session = click.make_pass_decorator(Session, ensure=True)


def show_error(error: CorralError) -> None:
    """One failure on standard error: what was asked, why not, its code, what to do."""
    from corral.cli.output import lines_of  # a guest's agent, or a tenant's label, may be quoted in it

    click.echo(f"{click.style('error:', fg='red') if coloured() else 'error:'} {lines_of(str(error))}", err=True)


def coloured() -> bool:
    """Colours go to a person's terminal only, and not where NO_COLOR is set (https://no-color.org)."""
    if not sys.stderr.isatty():
        return False
    from corral.settings import variable

    return not variable("NO_COLOR")


@dataclass
class Failures:
    """The errors of one command over several names: each is shown at once, the first one's exit status counts."""

    status: int = 0

    def add(self, error: CorralError) -> None:
        show_error(error)
        self.status = self.status or error.exit_status

    def leave(self) -> None:
        """End the command with the first failure's status, if there was one."""
        if self.status:
            raise click.exceptions.Exit(self.status)


def for_each(names: Iterable[_T], work: Callable[[_T], None]) -> None:
    """Do `work` for each of `names`; one that fails does not stop the others."""
    failures = Failures()
    for name in names:
        try:
            work(name)
        except CorralError as error:
            failures.add(error)
    failures.leave()
