"""`make up`, `make down`, `make purge` and the set-up of `make test`: from a bare server to a running VM, and back.

Stands on the standard library alone, since it runs before anything is installed. Every step looks first and acts only
where something is missing, so it may be run again at any time, and goes on where an interrupted run stopped.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 -- this is what tells people
    sys.exit(
        f"error: Corral needs Python 3.11 or newer, this is {sys.version.split()[0]}: use Debian 12, Ubuntu 24.04 or newer"
    )

from installer import daemons, guest, leave, machine
from installer.context import Context, trial_environment
from installer.packages import ensure_packages, ensure_unpacked
from installer.shell import Refused, Shell
from installer.steplist import Steps
from installer.venv import ensure_venv

ROOT = Path(__file__).resolve().parents[1]


def up(context: Context) -> None:
    steps = Steps(9)
    steps.run("Look at this machine", lambda say: machine.look(context, say))
    steps.run("Distribution packages", lambda say: ensure_packages(context, say, "runtime", "build"))
    steps.run("Python packages in .venv", lambda say: ensure_venv(context, say, "runtime"))
    steps.run("Group and command", lambda say: daemons.ensure_places(context, say))
    steps.run("libvirt", lambda say: daemons.ensure_libvirt(context, say))
    steps.run("Corral's daemon", lambda say: daemons.ensure_daemon(context, say))
    steps.run(f"Image {context.image}", lambda say: guest.ensure_image(context, say))
    steps.run(f"Virtual machine {context.vm}", lambda say: guest.ensure_vm(context, say))
    steps.run("Log in", lambda say: guest.wait_for_login(context, say))
    print(_how(context, steps.elapsed_s))


def _how(context: Context, elapsed_s: float) -> str:
    prefix = "".join(f"{name}={value} " for name, value in context.environ.items())
    command = f"{prefix}{context.corral if context.trial else 'corral'}"
    lines = [
        "",
        f"{context.vm} is up ({elapsed_s:.0f} s).",
        f"  console   {command} console {context.vm}      Ctrl-] leaves",
        *([f"  SSH       {command} ssh {context.vm}"] if guest.has_ssh(context) else []),
        f"  API       curl --unix-socket {context.socket} http://corral/v1/vms/{context.vm}",
        f"  more      {command} list, {command} --help, virsh list; `make down` stops it, `make purge` removes it",
    ]
    if hint := daemons.as_caller_may_use(context):
        lines.append(f"  as you    {hint}")
    return "\n".join(lines)


def down(context: Context) -> None:
    steps = Steps(4)
    steps.run("Virtual machines", lambda say: leave.stop_guests(context, say))
    steps.run("Corral's daemon", lambda say: daemons.stop_daemon(context, say))
    steps.run("Networks", lambda say: leave.stop_networks(context, say))
    steps.run("libvirt", lambda say: daemons.stop_libvirt(context, say))


def purge(context: Context, sure: bool) -> None:
    # After `make down` it does not run, and knows VMs and networks of ours all the same.
    Steps(1).run("libvirt", lambda say: leave.reach_libvirt(context, say))
    what = leave.summary(context)
    print("This removes, for good:\n" + "\n".join(f"  {line}" for line in what))
    if not sure:
        if not sys.stdin.isatty():
            raise Refused("purge", "there is nobody to ask", "make purge YES=1")
        if input("Type purge to go on: ").strip() != "purge":
            raise Refused("purge", "not confirmed: nothing was removed")
    steps = Steps(6)
    steps.run("Corral's daemon", lambda say: daemons.stop_daemon(context, say))
    steps.run("Virtual machines", lambda say: leave.remove_domains(context, say))
    steps.run("Routers", lambda say: leave.remove_routers(context, say))
    steps.run("Networks", lambda say: leave.remove_networks(context, say))
    steps.run("libvirt", lambda say: daemons.stop_libvirt(context, say))
    steps.run("Files", lambda say: leave.remove_files(context, say))


def test_setup(context: Context) -> None:
    steps = Steps(4)
    steps.run("Distribution packages", lambda say: ensure_packages(context, say, "runtime", "build", "test"))
    steps.run("Programs of the tests alone", lambda say: ensure_unpacked(context, say))
    steps.run("Python packages in .venv", lambda say: ensure_venv(context, say, "dev"))
    steps.run("libvirt", lambda say: daemons.ensure_libvirt(context, say))


def main() -> int:
    parser = argparse.ArgumentParser(description="Install, stop and remove Corral.")
    parser.add_argument("verb", choices=["up", "down", "purge", "test-setup", "venv"])
    parser.add_argument("--vm", default="my-vm")
    parser.add_argument("--image", default="debian-12")
    parser.add_argument("--yes", action="store_true", help="purge without asking")
    chosen = parser.parse_args()
    # An ordinary user's PATH, and root's after a plain `su`, lacks the administrator's programs.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    os.umask(0o022)  # a daemon of root's runs what is installed here, whatever the caller's own habit is
    trial = trial_environment(os.environ)
    context = Context(ROOT, Shell(ROOT / "var/setup.log", dict(trial)), chosen.vm, chosen.image, trial)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if os.geteuid() != 0 and chosen.verb != "venv":
            machine.become_root(context)
        match chosen.verb:
            case "up":
                up(context)
            case "down":
                down(context)
            case "purge":
                purge(context, chosen.yes)
            case "venv":
                Steps(1).run("Python packages in .venv", lambda say: ensure_venv(context, say, "dev"))
            case _:
                test_setup(context)
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
