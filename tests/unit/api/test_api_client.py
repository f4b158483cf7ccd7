"""The client's reading of streams and of ended operations, without a daemon."""

import io
import socket
from typing import Any

import pytest

from corral.api.tls import parse_listen
from corral.client import Client, raise_for_operation
from corral.client_http import Stream
from corral.client_stream import ExecEnd, ExecOutput, exec_records, watch_events
from corral.client_wire import Answer, BrokenAnswerError, Connection
from corral.errors import CorralError


def _stream(content: bytes) -> Stream:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
    return Stream(Connection("corral", 1.0, socket.socket), _answer(head + content))


def _answer(content: bytes) -> Answer:
    return Answer(io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def test_an_answer_in_chunks_is_read_by_lines_across_them() -> None:
    answer = _answer(CHUNKED + b"3\r\none\r\n6;x=y\r\n\ntwo\nt\r\n4\r\nhree\r\n0\r\nTrailer: 1\r\n\r\nnext")
    assert [answer.readline(99) for _ in range(4)] == [b"one\n", b"two\n", b"three", b""]
    assert not answer.is_last


def test_bodies_end_where_they_say() -> None:
    whole = b'HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\nETag: "8"\r\n\r\nfour, and more'
    answer = _answer(whole)
    assert (answer.status, answer.headers["etag"], answer.read(), answer.read()) == (202, '"8"', b"four", b"")
    assert _answer(b"HTTP/1.1 204 No Content\r\n\r\nnext").read() == b""
    to_the_end = _answer(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    assert (to_the_end.is_last, to_the_end.read()) == (True, b"all of it")


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        CHUNKED + b"9\r\nhalf",
        CHUNKED + b"4\r\nhalf\r\n",
        CHUNKED + b"4\r\nhalfway\r\n0\r\n\r\n",
        CHUNKED + b"many\r\nhalf",
    ],
)
def test_half_an_answer_is_not_taken_for_one(content: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        _answer(content).read()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4",
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nfour",
        b"HTTP/1.1 200 " + b"x" * 40_000,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
    ],
)
def test_what_is_no_answer_is_refused(content: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        _answer(content)


def test_a_header_cannot_end_the_head() -> None:
    connection = Connection("corral", 1.0, socket.socket)
    with pytest.raises(ValueError, match="line break"):
        connection.request("GET", "/v1/vms", None, {"Idempotency-Key": "a\r\nX-Else: b"})
    connection.close()


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
