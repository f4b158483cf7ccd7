"""The client's reading of streams and of ended operations, without a daemon."""

import http.client
import io
from typing import Any

import pytest

from corral.api.tls import parse_listen
from corral.client import Client, raise_for_operation
from corral.client_http import Stream
from corral.client_stream import ExecEnd, ExecOutput, exec_records, watch_events
from corral.errors import CorralError


def _stream(content: bytes) -> Stream:
    return Stream(http.client.HTTPConnection("corral"), io.BytesIO(content))  # type: ignore[arg-type]


def test_exec_records() -> None:
    lines = b'{"heartbeat":true}\n{"stream":"stdout","data":"aGk="}\n{"exit_code":3,"signal":null,"truncated":true}\n'
    assert list(exec_records(_stream(lines))) == [ExecOutput("stdout", b"hi"), ExecEnd(3, None, True)]


def test_an_error_in_the_stream_is_raised() -> None:
    line = b'{"error":{"code":"guest-agent-timeout","asked":"run","reason":"late"}}\n'
    with pytest.raises(CorralError) as raised:
        list(exec_records(_stream(line)))
    assert raised.value.code == "guest-agent-timeout"


def test_a_stream_that_breaks_off_is_no_success() -> None:
    with pytest.raises(CorralError) as raised:
        list(exec_records(_stream(b'{"stream":"stdout","data":"aGk="}\n')))
    assert raised.value.code == "daemon-unreachable"


def test_watch_events_pass_heartbeats_and_end_with_errors() -> None:
    text = (
        b': heartbeat\n\nid: 5.1\nevent: put\ndata: {"revision":5,"name":"web"}\n\n'
        b'event: compacted\ndata: {"code":"compacted","asked":"watch","reason":"gone"}\n\n'
    )
    events = watch_events(_stream(text))
    first = next(events)
    assert (first.type, first.revision, first.document["name"]) == ("put", 5, "web")
    with pytest.raises(CorralError) as raised:
        next(events)
    assert raised.value.code == "compacted"


def _operation(state: str, error: Any = None) -> Any:
    status = {"state": state, "error": error, "detail": ""}
    return {"uid": "u", "spec": {"intent": {"verb": "start"}, "target_name": "web"}, "status": status}


def test_ends_of_operations_become_errors() -> None:
    raise_for_operation(_operation("succeeded"))
    for state in ("failed", "cancelled", "superseded", "interrupted"):
        with pytest.raises(CorralError) as raised:
            raise_for_operation(_operation(state))
        assert raised.value.code == f"operation-{state}"
    problem = {"code": "disk-full", "asked": "write", "reason": "full", "hint": "free some"}
    with pytest.raises(CorralError) as raised:
        raise_for_operation(_operation("failed", problem))
    assert (raised.value.code, raised.value.hint) == ("disk-full", "free some")


@pytest.mark.parametrize("name", ["a/b", "../etc", "", ".", ".."])
def test_names_that_would_be_another_route_are_refused(name: str) -> None:
    with pytest.raises(CorralError) as raised:
        Client("/nonexistent").get_vm(name)
    assert raised.value.code == "invalid-name"


def test_only_https_is_spoken_over_tcp() -> None:
    with pytest.raises(CorralError) as raised:
        Client(url="http://example.org")
    assert raised.value.code == "invalid-argument"


def test_addresses_to_listen_on() -> None:
    assert parse_listen("127.0.0.1:8443") == ("127.0.0.1", 8443)
    assert parse_listen("[::1]:1") == ("::1", 1)
    assert parse_listen(":8443") == ("::", 8443)
    for text in ("8443", "host:", "host:x", "host:99999"):
        with pytest.raises(CorralError):
            parse_listen(text)
