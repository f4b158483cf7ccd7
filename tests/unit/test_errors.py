"""Errors are data, mapped once."""

import contextlib
import re

import pytest

from corral.errors import CATALOGUE, EXIT_STATUS, HTTP_STATUS, CorralError, ErrorKind


def test_each_kind_is_mapped_once() -> None:
    assert set(HTTP_STATUS) == set(ErrorKind) == set(EXIT_STATUS)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in CATALOGUE)


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(LookupError):
        CorralError("no-such-code", "asked", "reason")


def test_an_error_passes_through_a_context_manager() -> None:
    @contextlib.contextmanager
    def around():  # type: ignore[no-untyped-def]
        yield

    with pytest.raises(CorralError) as caught, around():
        raise CorralError("vm-not-found", "vm 'x'", "there is none", "corral list --all")
    assert str(caught.value) == "vm 'x': there is none [vm-not-found]\n  corral list --all"
    assert (caught.value.http_status, caught.value.exit_status) == (404, 3)
