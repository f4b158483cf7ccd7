"""How plans and their progress look: signs and changes, the tree of what goes on, a line for what has ended."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from corral.cli.stack_run import Progress, State
from corral.cli.stack_show import Lines, LiveTree, show_plan, show_remarks
from corral.errors import CorralError


def action(name: str, verb: str, device: str = "", *changes: str) -> dict[str, Any]:
    return {
        "id": f"{name}/{verb}/{device}",
        "kind": "vm",
        "name": name,
        "verb": verb,
        "device": device,
        "changes": list(changes),
    }


PLAN: dict[str, Any] = {
    "stack": "lab",
    "actions": [
        action("db", "create", "", "new"),
        action("web", "change-disk", "data", "disk data size: 1 GiB → 2 GiB", "disk data iops_max: 0 → 5"),
        action("old", "delete", "", "with its disks\x1b[2J"),
    ],
    "unchanged": ["a", "b"],
    "blocked": [{"name": "c", "changes": ["image: x → y"], "reason": "it cannot", "hint": "--replace c"}],
    "orphans": ["d"],
    "warnings": ["db: open"],
}  # fmt: skip


def test_a_plan_is_a_line_an_action_and_one_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(PLAN)
    show_remarks(PLAN)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "+ vm db: create (new)",
        "~ vm web: change-disk data (disk data size: 1 GiB → 2 GiB)",
        "    disk data iops_max: 0 → 5",
        "- vm old: delete (with its disks?[2J)",
        "= 2 unchanged: a, b",
    ]
    assert shown.err.splitlines() == [
        "! c: it cannot",
        "    image: x → y",
        "    --replace c",
        "note: no longer in the document: d (--prune deletes them)",
        "warning: db: open",
    ]


def test_the_tree_shows_each_vm_with_what_is_being_done(capsys: pytest.CaptureFixture[str]) -> None:
    db, web, old = (Progress(one) for one in PLAN["actions"])
    db.state, db.detail = State.RUNNING, "making disks"
    web.state, web.detail = State.WAITING, "waits for db: agent"
    old.state = State.DONE
    tree = LiveTree("lab", {"1": db, "2": web, "3": old}, quiet=False)
    screen = StringIO()
    Console(file=screen, width=80).print(tree._tree())
    text = screen.getvalue()
    assert "lab: 1 of 3" in text
    assert "▸ create  making disks" in text
    assert "… change-disk data  waits for db: agent" in text
    tree.on_change(old)
    tree.tell()
    assert capsys.readouterr().out == "old: deleted\n"


def test_what_has_ended_is_said_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    done, failed, skipped = (Progress(one) for one in PLAN["actions"])
    done.state = State.DONE
    failed.state, failed.error = State.FAILED, CorralError("disk-full", "change disk", "no room")
    skipped.state, skipped.detail = State.SKIPPED, "create of db failed"
    for one in (done, failed, skipped):
        Lines(quiet=False).on_change(one)
    Lines(quiet=True).on_change(done)
    shown = capsys.readouterr()
    assert shown.out == "db: created\n"
    assert "[disk-full]" in shown.err
    assert "old: delete skipped: create of db failed" in shown.err
