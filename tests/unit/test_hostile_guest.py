"""A guest is hostile: what its agent answers cannot steer a terminal, name another's address, or break a reader."""

import asyncio
import base64
import json
from typing import Any

import pytest

from corral.agent.guest import parse_cloud_init, parse_stages
from corral.errors import CorralError
from corral.hypervisor.base import GuestFacts
from corral.hypervisor.libvirt.guest_agent import Turns, facts, parse_address
from corral.hypervisor.libvirt.guest_exec import execute
from corral.model.vm import CloudInitStatus
from corral.names import plain_text

DEEP = "[" * 20_000


def _facts(answers: dict[str, Any]) -> GuestFacts:
    async def ask(command: str) -> str:
        answer = answers.get(json.loads(command)["execute"], {})
        return answer if isinstance(answer, str) else json.dumps({"return": answer})

    return asyncio.run(facts(ask))


def _interfaces(*addresses: str) -> list[dict[str, Any]]:
    return [{"name": "eth0", "ip-addresses": [{"ip-address": text, "ip-address-type": "ipv4"} for text in addresses]}]


@pytest.mark.parametrize(
    "text",
    [
        "-oProxyCommand=touch /tmp/owned",
        "example.com",
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "fe80::1%eth0",
        "2001:db8::1%-oProxyCommand=x",
        "224.0.0.1",
        "10.0.0.5\n",
        "",
    ],
)
def test_what_is_no_address_of_the_guests_is_left_out(text: str) -> None:
    assert parse_address(text) == ""
    assert _facts({"guest-network-get-interfaces": _interfaces(text, "10.0.0.5")}).addresses == ("10.0.0.5",)


def test_names_from_a_guest_hold_nothing_that_a_terminal_obeys() -> None:
    told = _facts(
        {
            "guest-network-get-interfaces": [],
            "guest-get-host-name": {"host-name": "web\x1b]0;owned\x07\x9b31m\nroot#"},
            "guest-get-osinfo": {"pretty-name": "x" * 10_000},
        }
    )
    assert told.hostname == "web?]0;owned??31m?root#"
    assert len(told.os) == 256


def test_lone_surrogates_do_not_reach_a_document() -> None:
    assert plain_text("a\ud800b", 10).encode() == b"a?b"
    said = json.dumps({"status": "error", "errors": ["\ud800\x1b[2J"]}).encode()
    assert parse_cloud_init(1, said)[1] == "??[2J"


@pytest.mark.parametrize("answer", [DEEP, f'{{"return":{DEEP}', "null", "[]", '{"return":null}', '{"return":"x"}'])
def test_nonsense_is_a_coded_error(answer: str) -> None:
    with pytest.raises(CorralError) as refused:
        _facts({"guest-network-get-interfaces": answer})
    assert refused.value.code == "guest-agent-error"


def test_nonsense_about_a_command_is_a_coded_error() -> None:
    answers: dict[str, dict[str, Any]] = {
        "guest-exec": {"pid": 1},
        "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": "é"},
    }

    async def ask(command: str) -> str:
        return json.dumps({"return": answers[json.loads(command)["execute"]]})

    with pytest.raises(CorralError) as refused:
        asyncio.run(execute(ask, ["id"], stdin=b"", timeout_s=1.0, capture_max_bytes=10))
    assert refused.value.code == "guest-agent-error"
    answers["guest-exec-status"]["out-data"] = "eHh4eHh4eHh4eHh4eHh4"
    ended = asyncio.run(execute(ask, ["id"], stdin=b"", timeout_s=1.0, capture_max_bytes=10))
    assert (ended.stdout, ended.truncated) == (b"x" * 10, True)


def test_a_deep_answer_of_cloud_init_is_unknown() -> None:
    assert parse_cloud_init(0, DEEP.encode())[1] == ""


def test_a_guest_without_a_shell_runs_the_command_as_it_is() -> None:
    begun: list[list[str]] = []

    async def ask(command: str) -> str:
        request = json.loads(command)
        if request["execute"] == "guest-exec-status":
            return json.dumps({"return": {"exited": True, "exitcode": 0, "out-data": "b2s="}})
        begun.append([request["arguments"]["path"], *request["arguments"]["arg"]])
        if request["arguments"]["path"] == "/bin/sh":
            raise CorralError("guest-agent-error", "ask", "Failed to execute child process")
        return json.dumps({"return": {"pid": 7}})

    ended = asyncio.run(execute(ask, ["cmd.exe", "/c"], stdin=b"", timeout_s=1.0, capture_max_bytes=10))
    assert (ended.stdout, ended.truncated) == (b"ok", False)
    assert begun[0][-2:] == ["cmd.exe", "/c"]
    assert ended.streamed is False
    assert begun[1] == ["cmd.exe", "/c"]


def test_guests_that_never_answer_hold_few_threads_and_only_their_own_turn() -> None:
    async def scene() -> None:
        turns, asking, most = Turns(at_once=2, patience_s=0.2), 0, 0
        let_go = asyncio.Event()

        async def ask(uid: str) -> str:
            nonlocal asking, most
            try:
                async with turns.of(uid):
                    asking += 1
                    most = max(most, asking)
                    await let_go.wait()
                    asking -= 1
            except CorralError as error:
                return error.code
            return "answered"

        hung = [asyncio.create_task(ask("hostile")) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert asking == 1
        good = asyncio.create_task(ask("good"))
        await asyncio.sleep(0.05)
        assert (asking, most) == (2, 2)
        await asyncio.sleep(0.2)
        let_go.set()
        said = await asyncio.gather(*hung)
        assert (said.count("answered"), said.count("guest-agent-timeout")) == (1, 19)
        assert await good == "answered"
        assert await ask("hostile") == "answered"

    asyncio.run(scene())


def test_what_cloud_init_keeps_is_read_as_a_file() -> None:
    kept = {"v1": {"stage": None, "modules-final": {"errors": [], "finished": 2.0}}}
    answers: dict[str, Any] = {"guest-network-get-interfaces": [], "guest-file-open": 7}
    answers["guest-file-read"] = {"buf-b64": base64.b64encode(json.dumps(kept).encode()).decode()}
    assert parse_stages(_facts(answers).cloud_init) == (CloudInitStatus.DONE, "")
    answers["guest-file-read"] = {"buf-b64": "a"}
    with pytest.raises(CorralError) as caught:
        _facts(answers)
    assert caught.value.code == "guest-agent-error"


@pytest.mark.parametrize(
    "text",
    ["", DEEP, "[]", "{}", '{"v1": 3}', '{"v1": {"stage": null, "modules-final": 3}}', '{"v1": {"stage": "init"}}'],
)
def test_stages_that_are_none_are_asked_for_in_another_way(text: str) -> None:
    assert parse_stages(text) is None


def test_stages_tell_their_errors() -> None:
    ended = {"errors": ["no\x1b[2J"], "finished": 2.0}
    assert parse_stages(json.dumps({"v1": {"stage": None, "modules-final": ended}})) == (
        CloudInitStatus.ERROR,
        "no?[2J",
    )
    degraded = {"errors": [], "recoverable_errors": {"WARNING": ["x"]}, "finished": 2.0}
    found = parse_stages(json.dumps({"v1": {"stage": None, "modules-final": degraded}}))
    assert found == (CloudInitStatus.DEGRADED, "")
