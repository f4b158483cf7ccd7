"""`corral snapshot`: every verb as people type it, the tree that they see, and what is refused before anything is made."""

from typing import Any

NOT_FOUND, CONFLICT, USAGE = 3, 4, 2


def vm(corral: Any, name: str) -> str:
    corral("create", name, "--image", "micro", "--memory", "128M").ok()
    return name


def refused(corral: Any, status: int, code: str, *argv: str) -> str:
    ran = corral(*argv)
    assert ran.status == status, (argv, ran.err)
    assert f"[{code}]" in ran.err, (argv, ran.err)
    return str(ran.err)


def test_a_tree_is_taken_shown_gone_back_to_and_deleted(corral: Any) -> None:
    web = vm(corral, "snap")
    said = corral("snapshot", "create", web, "first", "--description", "before all").ok().out
    assert said.startswith("snap: first taken")
    taken = corral("snapshot", "create", web, "second", "--memory", "-o", "json").ok().json
    assert (taken["status"]["ready"], taken["status"]["state"]) == (True, "running")
    assert corral("snapshot", "revert", web, "first").ok().out == "snap: is where it was at first\n"
    assert corral("snapshot", "create", web, "branch", "-o", "name").ok().out == "branch\n"
    lines = [line.split("  ")[0].strip() for line in corral("snapshot", "list", web).ok().out.splitlines()[1:]]
    assert lines == ["first", "├─second", "└─branch *"]
    found = corral("snapshot", "list", web, "-o", "json").ok().json
    assert [one["name"] for one in found] == ["first", "second", "branch"]
    assert corral("info", web, "-o", "json").json["spec"]["snapshot_uid"] == found[2]["uid"]
    shown = corral("snapshot", "show", web, "second").ok().out
    assert "came from" in shown
    assert "first" in shown
    assert corral("snapshot", "delete", web, "first", "second").ok().out == "first: deleted\nsecond: deleted\n"
    assert [one["name"] for one in corral("snapshot", "list", web, "-o", "json").json] == ["branch"]
    corral("delete", web, "--yes").ok()
    refused(corral, NOT_FOUND, "vm-not-found", "snapshot", "list", web)


def test_what_cannot_be_is_refused_with_the_reason(corral: Any) -> None:
    web = vm(corral, "snapless")
    refused(corral, USAGE, "invalid-argument", "snapshot", "create", web, "x", "--memory", "--quiesce")
    assert corral("snapshot", "create", web, "Not A Name").status == USAGE
    refused(corral, NOT_FOUND, "vm-not-found", "snapshot", "create", "nobody", "x")
    for verb in ("show", "revert", "delete"):
        refused(corral, NOT_FOUND, "snapshot-not-found", "snapshot", verb, web, "nothing")
    corral("snapshot", "create", web, "x").ok()
    refused(corral, CONFLICT, "name-taken", "snapshot", "create", web, "x")
    corral("save", web).ok()
    said = refused(corral, CONFLICT, "wrong-state", "snapshot", "revert", web, "x")
    assert f"corral start {web}" in said
    refused(corral, CONFLICT, "wrong-state", "snapshot", "create", web, "y")
    corral("start", web).ok()
    corral("destroy", web).ok()
    refused(corral, CONFLICT, "wrong-state", "snapshot", "create", web, "y", "--memory")
    corral("delete", web, "--yes").ok()


def test_others_are_made_of_what_it_was(corral: Any) -> None:
    web = vm(corral, "snapfrom")
    corral("snapshot", "create", web, "then").ok()
    said = corral("snapshot", "clone-from", web, "then", "snapfrom-a", "snapfrom-b").ok().out
    assert said == "snapfrom-a: cloned\nsnapfrom-b: cloned\n"
    assert corral("info", "snapfrom-a", "-o", "json").json["spec"]["power"] == "off"
    assert corral("snapshot", "clone-from", web, "then", "snapfrom-c", "--start").ok().out == "snapfrom-c: running\n"
    refused(corral, NOT_FOUND, "snapshot-not-found", "snapshot", "clone-from", web, "never", "snapfrom-d")
    corral("delete", web, "snapfrom-a", "snapfrom-b", "snapfrom-c", "--yes").ok()
