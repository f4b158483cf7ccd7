"""What people read: tables, fields, ages, and nothing that a guest could smuggle into a terminal."""

import json
from datetime import UTC, datetime

import pytest

from corral.cli.output import Column, age, duration, fields, mebibytes, printable, show_document, table, tamed
from corral.cli.session import show_error
from corral.errors import CorralError

COLUMNS = (
    Column("name", lambda item: item["name"]),
    Column("size", lambda item: item.get("size"), right=True),
    Column("state", lambda item: item["state"], coloured=True),
)


def test_a_table_is_as_wide_as_its_widest_cell_and_ends_without_blanks() -> None:
    items = [{"name": "web", "size": 5, "state": "running"}, {"name": "database", "size": 1024, "state": "shut off"}]
    assert table(items, COLUMNS) == [
        "NAME      SIZE  STATE",
        "web          5  running",
        "database  1024  shut off",
    ]


def test_an_empty_table_still_has_its_headings() -> None:
    assert table([], COLUMNS) == ["NAME  SIZE  STATE"]


def test_colours_do_not_change_the_widths() -> None:
    (line,) = table([{"name": "web", "state": "running"}], COLUMNS, colour=True)[1:]
    assert "\x1b[32mrunning\x1b[0m" in line
    assert line.startswith("web      -  ")


def test_fields_leave_out_what_is_empty_and_put_several_values_below_each_other() -> None:
    rows = [("name", "web"), ("image", None), ("addresses", ["10.0.0.2", "fe80::1"]), ("restarts", 0), ("ready", False)]
    assert fields(rows) == [
        "name:      web",
        "addresses: 10.0.0.2",
        "           fe80::1",
        "restarts:  0",
        "ready:     no",
    ]


def test_control_characters_of_a_guest_never_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a?[2Jb?c"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (725, "12m5s"), (7200, "2h"), (273600, "3d4h"), (90061, "1d1h")],
)
def test_durations_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_age_counts_from_the_timestamp_and_is_never_negative() -> None:
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert age("2026-01-01T11:59:30Z", now) == "30s"
    assert age("2026-01-01T12:00:30Z", now) == "0s"
    assert age(None) == "-"


@pytest.mark.parametrize(("mib", "text"), [(512, "512M"), (1024, "1G"), (1536, "1536M"), (None, "-")])
def test_memory_is_written_as_it_is_typed(mib: int | None, text: str) -> None:
    assert mebibytes(mib) == text


def test_a_console_log_keeps_its_colours_and_nothing_else_that_a_terminal_obeys() -> None:
    said = (
        b"\x1b[0;32m OK \x1b[0m Started\r\n\tx\x1b[2J\x1b[999;1H\x1b]52;c;cm0gLXJm\x07\x1b]0;title\x1b\\"
        b"\x1bP$q\x1b\\\x1bc\x1b(0\x9b\xc2\x9b5n\x08\x7f\x1b[6n\xc3\xa9 login: \x1b"
    )
    assert tamed(said) == b"\x1b[0;32m OK \x1b[0m Started\r\n\tx\x9b5n\xc3\xa9 login: "


def test_an_endless_sequence_is_no_trap() -> None:
    assert len(tamed(b"\x1b]" + b"x" * 1_000_000)) < 1_000_000
    assert tamed(b"\x1b" * 100_000) == b""


def test_errors_and_documents_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(CorralError("internal", "ask \x1b[2J", "a\nb\x9b1m", "hint\x07"))
    shown = capsys.readouterr().err
    assert not {"\x1b", "\x9b", "\x07"} & set(shown)
    assert shown.count("\n") == 3
    show_document({"description": "\x9b1m\x7f\x1bé"}, "json")
    text = capsys.readouterr().out
    assert json.loads(text) == {"description": "\x9b1m\x7f\x1bé"}
    assert not {"\x1b", "\x9b", "\x7f"} & set(text)
