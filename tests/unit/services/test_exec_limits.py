"""What one message to a guest's agent can carry: more is refused before anything is sent."""

import base64
from typing import Any

import pytest

from corral.errors import CorralError
from corral.model import limits
from corral.model.requests import ExecRequest


@pytest.mark.parametrize(
    ("argv", "stdin_bytes"),
    [
        (("cat",), limits.EXEC_STDIN_MAX_BYTES + 1),
        (("cat", "x" * 30_000), limits.EXEC_STDIN_MAX_BYTES),
        (("echo", "x" * limits.EXEC_MESSAGE_MAX_BYTES), 0),
    ],
)
def test_too_much_for_one_message(play: Any, argv: tuple[str, ...], stdin_bytes: int) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        stdin = base64.b64encode(b"x" * stdin_bytes).decode()
        with pytest.raises(CorralError, match="body-too-large"):
            await world.sessions.exec(world.caller(), "default", "web", ExecRequest(argv=argv, stdin=stdin))

    play(scene)
