"""Every code of the catalogue as a problem document."""

import json

import pytest

from corral.api.errors import MEDIA_TYPE, ProblemDocument, problem_response, validation_error
from corral.client_http import error_of
from corral.errors import CATALOGUE, CorralError, ErrorKind
from corral.store.followers import not_in_force


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_an_error_survives_the_way_to_the_client(code: str) -> None:
    error = CorralError(code, "do it", "it is in the way", "do something else", {"figure": 3, "name": "x"})
    response = problem_response(error, "r-1")
    assert response.media_type == MEDIA_TYPE
    assert response.status_code == error.http_status
    ProblemDocument.model_validate_json(response.body)
    back = error_of(bytes(response.body), response.status_code, "?")
    assert (back.code, back.asked, back.reason, back.hint) == (code, error.asked, error.reason, error.hint)
    assert back.context == {"figure": 3, "name": "x", "request_id": "r-1"}


def test_what_the_client_does_not_know_keeps_its_words() -> None:
    body = json.dumps({"code": "from-the-future", "asked": "a", "reason": "b"}).encode()
    error = error_of(body, 409, "?")
    assert error.code == "internal"
    assert "from-the-future" in error.reason


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', b"{}"])
def test_an_answer_that_is_no_problem_document_is_one_for_people(body: bytes) -> None:
    assert error_of(body, 502, "GET /").code == "internal"


def test_callers_are_told_when_to_come_back_and_how_to_authenticate() -> None:
    limited = CorralError("rate-limited", "ask", "too often", context={"retry_after_s": 7})
    assert problem_response(limited, "r").headers["retry-after"] == "7"
    assert "retry-after" in problem_response(CorralError("firewall-unavailable", "a", "b"), "r").headers
    recorded = problem_response(not_in_force("create group 'web'", "not within 5 s"), "r")
    assert "retry-after" not in recorded.headers, "again it would be refused: there is one of this name"
    assert (
        "bearer" in problem_response(CorralError("unauthenticated", "a", "b"), "r").headers["www-authenticate"].lower()
    )


def test_half_a_surrogate_pair_does_not_break_the_answer() -> None:
    response = problem_response(CorralError("invalid-name", "name '\ud800'", "no"), "r")
    json.loads(bytes(response.body).decode())


def test_a_wrong_value_is_never_repeated() -> None:
    finding = {
        "type": "string_type",
        "loc": ("body", "password"),
        "msg": "Input should be a string",
        "input": "hunter2",
        "ctx": {"x": "hunter2"},
    }
    error = validation_error([finding, finding])
    assert error.code == "invalid-document"
    assert error.context["field"] == "password"
    assert "hunter2" not in str(error)
    assert validation_error([{"type": "missing", "loc": ("query", "limit"), "msg": "m"}]).kind is ErrorKind.INVALID
