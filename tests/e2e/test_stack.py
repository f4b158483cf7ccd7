"""A stack on real libvirt: the example's three tiers of micro guests, each after the one below; changed live; taken down."""

import json
from pathlib import Path

import pytest
from walk import PATIENCE, Walk, virsh

pytestmark = pytest.mark.timeout(900)

EXAMPLE = Path(__file__).parents[2] / "examples" / "web-app-db.yaml"
TIERS = ("db", "app", "web")


def test_three_tiers_come_up_in_order_change_and_go(walk: Walk, tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    stack = walk.name("s")
    names = {tier: walk.name(f"tier-{tier}") for tier in TIERS}
    text = text.replace("stack: shop", f"stack: {stack}")
    for tier, name in names.items():
        text = text.replace(f"\n  {tier}:\n", f"\n  {name}:\n").replace(
            f"after: {{{tier}: agent}}", f"after: {{{name}: agent}}"
        )
    file = tmp_path / "stack.yaml"
    file.write_text(text)
    small = ("--set", "image=micro", "--set", "memory=128M", "--set", "webs=1", "--timeout", PATIENCE)
    try:
        made = walk("apply", "-f", str(file), *small).ok().splitlines()
        db, app, web = names["db"], names["app"], f"{names['web']}-1"
        assert made == [f"{db}: created", f"{app}: created", f"{web}: created", f"stack {stack}: 3 done"]
        running = virsh("list", "--name").split()
        assert {db, app, web} <= set(running)
        # Each was made when the agent of the one below it had answered.
        for below in (db, app):
            assert walk.info(below)["status"]["agent_connected"] is True
        assert walk("apply", "-f", str(file), *small).ok() == f"stack {stack}: 3 unchanged\n"

        file.write_text(text.replace("size: 5G, iops: 500", "size: 6G, iops: 900"))
        changed = json.loads(walk("apply", "-f", str(file), *small, "-o", "json").ok())
        assert changed["done"] == [f"vm/{db}/change-disk/data"]
        assert walk.guest(db, "cat /sys/block/vdb/size").strip() == str(6 * 2**30 // 512)
        assert "<total_iops_sec>900" in virsh("dumpxml", db)
    finally:
        gone = walk("down", "-f", str(file), "--set", "webs=1", "--yes").ok().splitlines()
    assert gone[-2:] == [f"{names['db']}: deleted", f"stack {stack}: 3 done"]
    assert not {*names.values()} & set(virsh("list", "--all", "--name").split())
