"""Waiting for SSH leaves a slow guest's server the time that it needs, instead of hanging up and calling again."""

import asyncio

import pytest

from corral.services import waiting


async def call(server_says: bytes, after_s: float) -> tuple[bool, int]:
    """Whether the server that says this, so late, counts as SSH; and how often it was called."""
    calls = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(after_s)
        writer.write(server_says)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "SSH_PORT", port)
        patch.setattr(waiting, "CONNECT_TIMEOUT_S", 0.2)
        patch.setattr(waiting, "UNGREETED_PAUSE_S", 0.01)
        answers = await waiting._says_ssh("127.0.0.1")
    server.close()
    await server.wait_closed()
    return answers, calls


def test_a_greeting_may_come_later_than_the_connection() -> None:
    """sshd under emulation took longer than the two seconds it was given; called anew each time, it reached MaxStartups."""
    assert asyncio.run(call(b"SSH-2.0-OpenSSH_9.2p1\r\n", after_s=0.5)) == (True, 1)


def test_a_server_that_refuses_for_now_is_no_answer() -> None:
    assert asyncio.run(call(b"Exceeded MaxStartups\r\n", after_s=0.0)) == (False, 1)
