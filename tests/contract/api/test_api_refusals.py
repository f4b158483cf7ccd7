"""Whatever is sent, the answer is a problem of the catalogue: never a 500, never a page of the framework's."""

import json
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_http import UnixConnection

from corral.api.app import openapi_document
from corral.api.errors import ProblemDocument
from corral.client import Client
from corral.errors import CATALOGUE, CorralError
from corral.model.limits import REQUEST_BODY_MAX_BYTES

from .conftest import World

MUTATIONS = sorted(
    (method.upper(), route)
    for route, methods in openapi_document()["paths"].items()
    for method in methods
    if method in ("post", "patch", "delete") and not route.endswith(("/backup", "/recover"))
)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SLOW = {"/v1/watch", "/v1/host/doctor"}
TEXTS = st.text(max_size=40) | st.sampled_from(
    ["", "web", "../etc/passwd", "a" * 300, "; rm -rf /", "\x00", "é", "default"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
KNOWN = st.sampled_from(
    ["name", "image", "vcpus", "memory_mib", "disks", "nics", "labels", "user_data", "password", "ssh_keys", "boot",
     "run_policy", "deadline_s", "force_after_s", "argv", "stdin", "timeout_s", "catalogue", "path", "role",
     "expires_at", "add_labels", "remove_labels", "protected", "force", "start", "size_bytes", "mac", "address"]
)  # fmt: skip
JSONS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KNOWN | TEXTS, inner, max_size=5),
    max_leaves=12,
)


def ask(
    world: World, method: str, path: str, body: bytes | None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, str]:
    connection = UnixConnection(str(world.settings.socket), 20)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read(), response.headers["Content-Type"] or ""
    finally:
        connection.close()


def problem(answer: tuple[int, bytes, str]) -> ProblemDocument:
    status, body, media_type = answer
    assert media_type == "application/problem+json", answer
    document = ProblemDocument.model_validate_json(body)
    assert document.status == status
    assert document.code in CATALOGUE
    assert document.request_id
    return document


@FUZZ
@given(data=st.data())
def test_no_document_makes_an_internal_error(world: World, data: st.DataObject) -> None:
    method, route = data.draw(st.sampled_from(MUTATIONS))
    name = data.draw(TEXTS)
    path = route.replace("{action}", "start")
    for parameter in ("{name}", "{uid}"):
        path = path.replace(parameter, _quoted(name))
    document = data.draw(JSONS)
    answer = ask(world, method, path, json.dumps(document).encode())
    assert answer[0] < 500 or json.loads(answer[1])["code"] == "guest-agent-unavailable", (
        method,
        path,
        document,
        answer,
    )
    if answer[0] >= 400:
        problem(answer)


@FUZZ
@given(body=st.binary(max_size=200), query=st.text(max_size=30))
def test_no_bytes_make_an_internal_error(world: World, body: bytes, query: str) -> None:
    assert problem(ask(world, "POST", f"/v1/vms?project={_quoted(query)}", body)).status < 500


@FUZZ
@given(
    route=st.sampled_from(sorted(r for r, m in openapi_document()["paths"].items() if "get" in m and r not in SLOW)),
    name=TEXTS,
    query=st.dictionaries(
        st.sampled_from(["limit", "continue", "selector", "fields", "revision", "after", "wait_s", "for", "timeout_s"]),
        TEXTS | st.integers().map(str),
        max_size=4,
    ),
)
def test_no_question_makes_an_internal_error(world: World, route: str, name: str, query: dict[str, str]) -> None:
    path = route.replace("{name}", _quoted(name)).replace("{uid}", _quoted(name))
    if query:
        path += "?" + "&".join(f"{key}={_quoted(value)}" for key, value in query.items())
    answer = ask(world, "GET", path, None)
    assert answer[0] < 500, (path, answer)


def _until_closed(connection: socket.socket) -> bytes:
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"a":' * 50_000, b'{"name":"a","memory_mib":NaN}', b'{"name":"\\ud800"}', b"9" * 10_000,
     b"", b"null", b'"x"', b"{", b"\xff\xfe", b'{"name":"web","nope":1}'],
)  # fmt: skip
def test_hostile_json_is_an_invalid_document(world: World, body: bytes) -> None:
    assert problem(ask(world, "POST", "/v1/vms", body)).code == "invalid-document"


def test_the_field_that_is_wrong_is_named(client: Client) -> None:
    body: Any = {"name": "web", "disks": [{"size_bytes": 5}]}
    with pytest.raises(CorralError) as refused:
        client.create_vm(body)
    assert refused.value.code == "invalid-document"
    assert refused.value.context["field"] == "disks.0.size_bytes"


def test_a_body_that_is_too_large_is_refused_whatever_its_framing(world: World) -> None:
    large = b'{"name":"' + b"x" * REQUEST_BODY_MAX_BYTES + b'"}'
    assert problem(ask(world, "POST", "/v1/vms", large)).code == "body-too-large"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(world.settings.socket))
        connection.settimeout(20)
        connection.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(40):
                connection.sendall(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = _until_closed(connection)
    assert b"413" in answer.split(b"\r\n")[0]
    assert b"body-too-large" in answer


def test_a_body_with_two_lengths_hides_no_second_request(world: World) -> None:
    hidden = b"GET /v1/daemon HTTP/1.1\r\nHost: c\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(world.settings.socket))
        connection.settimeout(20)
        head = b"POST /v1/vms HTTP/1.1\r\nHost: c\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"0\r\n\r\n" + hidden)
        answer = _until_closed(connection)
    assert b"invalid-argument" in answer
    assert b"installation_id" not in answer


def test_routes_and_methods_that_are_not_there(world: World) -> None:
    assert problem(ask(world, "GET", "/v2/vms", None)).code == "route-not-found"
    assert problem(ask(world, "GET", "/v1/vms/", None)).code == "route-not-found"
    document = problem(ask(world, "PUT", "/v1/vms", b"{}"))
    assert (document.status, document.code) == (405, "method-not-allowed")
    assert document.context["allowed"] == "GET, POST"
    assert problem(ask(world, "BREW", "/v1/vms", None)).code == "method-not-allowed"


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"])
def test_what_is_not_http_is_told_so(world: World, raw: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(world.settings.socket))
        connection.settimeout(20)
        connection.sendall(raw)
        answer = _until_closed(connection)
    assert b"application/problem+json" in answer


def test_an_unforeseen_error_says_nothing_but_its_request_id(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def explode(*_arguments: object) -> None:
        raise ZeroDivisionError("the secret inside")

    monkeypatch.setattr(world.api.face.services.vms, "get", explode)
    answer = ask(world, "GET", "/v1/vms/web", None)
    document = problem(answer)
    assert (document.status, document.code) == (500, "internal")
    assert b"secret" not in answer[1]


def test_wrong_shapes_of_headers(world: World) -> None:
    for headers in ({"Idempotency-Key": "x" * 500}, {"Idempotency-Key": "a b"}, {"If-Match": "nonsense"}):
        answer = problem(ask(world, "PATCH", "/v1/vms/web", b'{"protected":true}', headers))
        assert answer.code == "invalid-argument", headers
