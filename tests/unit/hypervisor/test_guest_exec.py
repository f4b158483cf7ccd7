"""exec through a guest agent: told while it runs, every byte once, bounded whatever the guest says, stopped when unwanted."""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from corral.errors import CorralError
from corral.hypervisor.base import ExecResult
from corral.hypervisor.libvirt.guest_exec import execute

LIMIT = 1000
Said = list[tuple[str, bytes]]


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


class Agent:
    """Answers as qemu-ga does: files that grow by one part at each look, and what they hold at the end. Its fields are
    what a test changes, its `asked` what it was asked."""

    def __init__(self, out: list[bytes], err: list[bytes] | None = None, *, end: dict[str, Any] | None = None) -> None:
        self.parts = {"out": list(out), "err": list(err or [])}
        self.whole = {name: b"".join(parts) for name, parts in self.parts.items()}
        self.end = end if end is not None else {"exitcode": 0}
        self.looks = max(len(out), len(err or []))
        self.refused: set[str] = set()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.secret = ""
        self.stopped = False
        self.open: set[int] = set()
        self.answers: dict[str, Callable[[dict[str, Any]], Any]] = {}

    async def __call__(self, command: str) -> str:
        request = json.loads(command)
        name, arguments = request["execute"], request.get("arguments", {})
        self.asked.append((name, arguments))
        if name in self.refused:
            raise CorralError("guest-agent-error", name, "it has been disabled")
        answer = self.answers.get(name, getattr(self, name.replace("-", "_")))
        return json.dumps({"return": answer(arguments)})

    def guest_exec(self, arguments: dict[str, Any]) -> Any:
        if "corral-stop" in arguments["arg"]:
            self.stopped = arguments["arg"][-1] == "7"
            return {"pid": 8}
        if "corral-exec" in arguments["arg"]:
            self.secret = arguments["arg"][3]
        return {"pid": 7}

    def guest_exec_status(self, _arguments: dict[str, Any]) -> Any:
        self.looks -= 1
        if self.looks >= 0 and not self.stopped:
            return {"exited": False}
        out, err = encoded(self.whole["out"]), encoded(self.whole["err"])
        return {"exited": True, "out-data": out, "err-data": err, **self.end}

    def guest_file_open(self, arguments: dict[str, Any]) -> Any:
        place, secret, name = arguments["path"].rsplit("/", 2)
        if place != "/tmp" or secret != self.secret:
            raise CorralError("guest-agent-error", "guest-file-open", "no such file")
        self.open.add(handle := {"out": 1000, "err": 1001}[name])
        return handle

    def guest_file_read(self, arguments: dict[str, Any]) -> Any:
        parts = self.parts["out" if arguments["handle"] == 1000 else "err"]
        part = parts.pop(0) if parts else b""
        return {"count": len(part), "buf-b64": encoded(part), "eof": True}

    def guest_file_close(self, arguments: dict[str, Any]) -> Any:
        self.open.discard(arguments["handle"])
        return {}

    def count(self, name: str) -> int:
        return sum(asked == name for asked, _ in self.asked)


def ran(agent: Agent, said: Said, *, timeout_s: float = 20.0) -> ExecResult:
    return asyncio.run(run(agent, said, timeout_s=timeout_s))


def run(agent: Agent, said: Said, *, timeout_s: float = 20.0) -> Coroutine[Any, Any, ExecResult]:
    def hear(stream: str, data: bytes) -> None:
        said.append((stream, data))

    return execute(agent, ["job", "$x"], stdin=b"in", timeout_s=timeout_s, capture_max_bytes=LIMIT, on_output=hear)


def heard(said: Said, stream: str) -> bytes:
    return b"".join(data for name, data in said if name == stream)


def test_it_is_told_while_it_runs_and_every_byte_once() -> None:
    agent, said = Agent([b"one ", b"two ", b"three"], [b"", b"bad"], end={"exitcode": 5}), Said()
    agent.looks = 2  # the last part is written after the last look
    result = ran(agent, said)
    assert said == [("stdout", b"one "), ("stdout", b"two "), ("stderr", b"bad"), ("stdout", b"three")]
    assert (result.exit_code, result.signal, result.stdout, result.stderr) == (5, None, b"one two three", b"bad")
    assert (result.truncated, result.streamed) == (False, True)
    assert not agent.open
    # The program and its arguments stay elements of a list: no shell reads them.
    [begun] = [arguments for name, arguments in agent.asked if name == "guest-exec"]
    assert begun["arg"][-2:] == ["job", "$x"]
    assert "job" not in begun["arg"][1]
    assert base64.b64decode(begun["input-data"]) == b"in"


def test_a_signal_is_told_as_one() -> None:
    result = ran(Agent([], end={"signal": 9}), Said())
    assert (result.exit_code, result.signal) == (None, 9)


@pytest.mark.parametrize("lacking", ["guest-file-open", "guest-file-read"])
def test_without_files_the_output_comes_at_the_end(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.hypervisor.libvirt.guest_exec.OPEN_PATIENCE_S", 0.1)
    agent, said = Agent([b"one ", b"two ", b"three", b"", b""]), Said()
    agent.refused.add(lacking)
    result = ran(agent, said)
    assert said == [("stdout", b"one two three")]
    assert (result.stdout, result.streamed) == (b"one two three", False)
    assert agent.count(lacking) < 6


def test_a_guest_with_no_room_for_the_files_runs_it_plainly() -> None:
    agent, said = Agent([]), Said()

    def status(_arguments: dict[str, Any]) -> Any:
        plain = agent.count("guest-exec") == 2
        return {"exited": True, "exitcode": 0, "out-data": encoded(b"done" if plain else agent.secret.encode())}

    agent.answers["guest-exec-status"] = status
    result = ran(agent, said)
    assert (result.stdout, result.streamed, said) == (b"done", False, [("stdout", b"done")])
    assert [arguments["path"] for name, arguments in agent.asked if name == "guest-exec"] == ["/bin/sh", "job"]


def test_what_did_not_fit_in_the_guest_is_said() -> None:
    agent = Agent([b"x"], [b"warning"])
    result = ran(agent, Said())
    assert (result.stderr, result.truncated) == (b"warning", False)
    agent = Agent([b"x"])
    whole = agent.guest_exec_status
    agent.answers["guest-exec-status"] = lambda arguments: (
        whole(arguments) | {"err-data": encoded(b"warning" + agent.secret.encode())}
    )
    result = ran(agent, Said())
    assert (result.stderr, result.truncated) == (b"warning", True)


def test_a_guest_that_says_too_much_is_cut() -> None:
    """More than was asked for, and never an end: as much as a stream may have, and no read after that."""
    agent, said = Agent([b""] * 4, end={"exitcode": 0}), Said()
    agent.answers["guest-file-read"] = lambda _: {"count": -5, "buf-b64": encoded(b"y" * 400_000), "eof": False}
    agent.whole["out"] = b"z" * 100_000
    result = ran(agent, said)
    assert heard(said, "stdout") == result.stdout == b"y" * LIMIT
    assert len(heard(said, "stderr")) == LIMIT
    assert result.truncated is True
    assert agent.count("guest-file-read") == 2


def test_a_trickle_that_never_ends_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent([])
    agent.looks = 10**9
    agent.answers["guest-file-read"] = lambda _: {"buf-b64": ""}
    with pytest.raises(CorralError) as late:
        ran(agent, Said(), timeout_s=0.3)
    assert (late.value.code, agent.stopped, "was stopped" in late.value.hint) == ("guest-agent-timeout", True, True)
    assert not agent.open
    # One that cannot be stopped is said to run on.
    monkeypatch.setattr("corral.hypervisor.libvirt.guest_exec.ABANDON_S", 0.2)
    agent.stopped, agent.answers["guest-exec"] = False, lambda _: {"pid": 7}
    with pytest.raises(CorralError) as late:
        ran(agent, Said(), timeout_s=0.3)
    assert "may still run" in late.value.hint


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("guest-exec", {"pid": "x"}),
        ("guest-exec", {"pid": -1}),
        ("guest-exec-status", {"exited": True, "signal": 10**9}),
        ("guest-exec-status", {"exited": True, "signal": -9}),
        ("guest-exec-status", {"exited": "perhaps"}),
        ("guest-exec-status", {"exited": True, "out-data": ["x"]}),
        ("guest-exec-status", {"exited": True, "err-data": "é"}),
    ],
)
def test_nonsense_is_a_coded_error(command: str, answer: Any) -> None:
    agent = Agent([b"x"])
    agent.answers[command] = lambda _: answer
    with pytest.raises(CorralError) as refused:
        ran(agent, Said())
    assert refused.value.code == "guest-agent-error"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("guest-file-open", {"handle": 1}),
        ("guest-file-open", "1000"),
        ("guest-file-open", None),
        ("guest-file-read", {"buf-b64": 7}),
        ("guest-file-read", {"buf-b64": "é"}),
        ("guest-file-read", None),
        ("guest-file-close", None),
    ],
)
def test_nonsense_about_files_costs_no_more_than_the_look_at_them(command: str, answer: Any) -> None:
    agent, said = Agent([b"one ", b"two"]), Said()
    agent.answers[command] = lambda _: answer
    assert ran(agent, said).stdout == heard(said, "stdout") == b"one two"


@pytest.mark.parametrize("when", ["guest-exec", "guest-exec-status", "guest-file-read"])
def test_whoever_leaves_stops_it(when: str) -> None:
    """Even while the agent is starting it: nobody would know its number afterwards."""

    async def scene() -> Agent:
        agent, reached = Agent([b"x"] * 1000), asyncio.Event()

        async def slow(command: str) -> str:
            if json.loads(command)["execute"] == when and not agent.stopped and "corral-stop" not in command:
                reached.set()
                await asyncio.sleep(0.05)
            return await agent(command)

        running = asyncio.create_task(
            execute(
                slow, ["job"], stdin=b"", timeout_s=20, capture_max_bytes=LIMIT, on_output=lambda _stream, _data: None
            )
        )
        await asyncio.wait_for(reached.wait(), 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return agent

    agent = asyncio.run(scene())
    assert agent.stopped
    assert not agent.open
