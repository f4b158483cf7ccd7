"""The process that changes the host's network: applies, waits for a confirmation, and takes everything back without one.

A process of its own, in a session of its own: whatever happens to the daemon, to the terminal or to the connection that it
was asked through, it goes on. `python -m corral.host.bridging.change DIRECTORY`.
"""

import contextlib
import glob
import os
import signal
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Final

from corral import files, proc
from corral.errors import CorralError
from corral.host.bridging.facts import addresses_of
from corral.host.bridging.journal import Journal, Result, State
from corral.host.bridging.plan import Command, FileChange, Plan

COMMAND_TIMEOUT_S: Final = 90.0
LOOK_S: Final = 0.1
# A DHCP server answers within some seconds.
ADDRESSES_S: Final = 15.0
# The daemon holds the lock for a moment, to see whether anybody does.
PATIENCE_S: Final = 2.0
_DIR_MODE: Final = 0o755
TIME_RAN_OUT: Final = "nobody confirmed it in time"
ASKED_FOR: Final = "somebody asked for it"
CUT_SHORT: Final = "the change was cut short, and nobody had confirmed it"


def main(argv: Sequence[str]) -> int:
    """0: it is as it should be, confirmed or as before."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal may be what the change cuts off
    journal = Journal(Path(argv[0]))
    proc.complete_search_path()
    with journal.held(PATIENCE_S) as mine:
        if not mine:
            return 1
        match journal.state():
            case State.APPLYING if "--undo" not in argv:
                _carry_out(journal)
            case State.APPLYING | State.PENDING | State.ROLLING_BACK:
                _take_back(journal, journal.plan()[0], CUT_SHORT)
            case _:
                pass
    return 0


def _carry_out(journal: Journal) -> None:
    plan, confirm_within_s = journal.plan()
    if edited := _edited(plan):
        # Nothing was done, so nothing is taken back: above all not what somebody wrote there.
        journal.tell(Result(reason=f"{edited} was changed meanwhile: look, and ask again"))
        journal.move(State.APPLYING, State.ROLLED_BACK)
        return
    try:
        _apply(plan)
    except (CorralError, OSError) as error:
        _take_back(journal, plan, f"it could not be applied: {error}")
        return
    end = time.monotonic() + confirm_within_s
    journal.tell(Result(deadline_at=time.time() + confirm_within_s))
    if not journal.move(State.APPLYING, State.PENDING):
        _take_back(journal, plan, ASKED_FOR)
        return
    while time.monotonic() < end:
        if journal.state() is not State.PENDING:
            break
        time.sleep(LOOK_S)
    # Whoever confirms in this very moment renames the same file: one of the two finds it gone.
    if journal.move(State.PENDING, State.ROLLING_BACK):
        _take_back(journal, plan, TIME_RAN_OUT)
    elif journal.state() is not State.CONFIRMED:
        _take_back(journal, plan, ASKED_FOR)  # or the journal is gone, with who could confirm


def _edited(plan: Plan) -> str:
    """The first file that is not any more as it was when it was planned."""
    return next((change.path for change in plan.files if _read(change.path) != change.before), "")


def _apply(plan: Plan) -> None:
    for command in plan.before:
        _run(command)
    for change in plan.files:
        _write(change, change.after)
    for command in plan.after:
        _run(command)


def _take_back(journal: Journal, plan: Plan, reason: str) -> None:
    """All of it, whatever of it was done: each part may be done twice. What fails is told, and the rest goes on."""
    for state in (State.APPLYING, State.PENDING):
        journal.move(state, State.ROLLING_BACK)
    problems = [problem for command in plan.undo_before if (problem := _try(command))]
    for change in plan.files:
        try:
            _remove_cut(Path(change.path))
            _write(change, change.before)
        except (CorralError, OSError) as error:
            problems.append(f"{change.path}: {error}")
    problems += [problem for command in plan.undo_after if (problem := _try(command))]
    if not _has_addresses(plan):
        problems += [problem for command in plan.undo_again if (problem := _try(command))]
        if not _has_addresses(plan):
            problems.append(f"{plan.nic} has not got its addresses back: {', '.join(plan.addresses)}")
    journal.tell(Result(reason=reason, problems=tuple(problems)))
    journal.move(State.ROLLING_BACK, State.ROLLED_BACK)


def _has_addresses(plan: Plan) -> bool:
    """As many IPv4 addresses as it had, for it may be given others, and one of IPv6, of which some go by themselves. Waits for
    them."""
    before = _versions(plan.addresses)
    end = time.monotonic() + ADDRESSES_S
    while True:
        with contextlib.suppress(CorralError):
            now = _versions(addresses_of(plan.nic))
            if now.count(4) >= before.count(4) and (6 in now or 6 not in before):
                return True
        if time.monotonic() >= end:
            return False
        time.sleep(LOOK_S)


def _versions(addresses: Sequence[str]) -> list[int]:
    return [ip_interface(address).version for address in addresses]


def _try(command: Command) -> str:
    try:
        _run(command)
    except CorralError as error:
        return str(error)
    return ""


def _run(command: Command) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {proc.shown(command.argv)}\n")
    try:
        proc.call(command.argv, timeout_s=COMMAND_TIMEOUT_S)
    except CorralError as error:
        sys.stderr.write(f"         {error}\n")
        if command.needed:
            raise


def _read(path: str) -> str | None:
    try:
        return Path(path).read_bytes().decode(errors="surrogateescape")
    except FileNotFoundError:
        return None


def _remove_cut(path: Path) -> None:
    """What is left of writing it when the process, or the machine, died in the middle of that."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)


def _write(change: FileChange, text: str | None) -> None:
    """A file that is there keeps its owner and its mode."""
    target = Path(change.path)
    if text is None:
        if target.parent.is_dir():
            files.remove_file(target)
        if change.own_directory:
            with contextlib.suppress(OSError):  # something of somebody else's is in it
                target.parent.rmdir()
        return
    if change.own_directory:
        files.make_dirs(target.parent, _DIR_MODE)
    known = target.stat() if target.exists() else None
    mode = change.mode if known is None else known.st_mode & 0o777
    files.write_atomic(target, text.encode(errors="surrogateescape"), mode)
    if known is not None:
        os.chown(target, known.st_uid, known.st_gid)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
