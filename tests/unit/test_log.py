"""Logs: secrets are hidden, and nothing that others choose can pass for a line of its own or steer a terminal."""

import io
from typing import Any

import pytest
import structlog

from corral import log


@pytest.mark.parametrize("as_json", [False, True])
def test_what_callers_choose_stays_on_its_line(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    log.configure("info", as_json)
    try:
        log.logger("api").info("request", path="/v1/\n2026 [info] forged\x1b[2J\x9b31m\ud800", password="hunter2")
    finally:
        structlog.reset_defaults()
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert not {"\x1b", "\x9b", "\ud800"} & set(written)
    assert "hunter2" not in written


def test_tracebacks_keep_their_lines() -> None:
    event: dict[str, Any] = {"exception": "Traceback\n\tline \x1b[2J"}
    assert log.printable(None, "info", event)["exception"] == "Traceback\n\tline \\x1b[2J"
