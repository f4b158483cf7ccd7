"""What a hostile guest's agent says of itself and of its files: bounded, plain, and never more than was asked for."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from corral.errors import CorralError
from corral.hypervisor.libvirt.guest_files import READ_BYTES, open_read, open_write
from corral.hypervisor.libvirt.guests import details, set_time
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.libvirt.screens import display_of
from corral.hypervisor.reach import DisplayAddress

Answers = dict[str, Any]


def agent(answers: Answers) -> Callable[[str], Any]:
    """An agent that answers so; a list is answered one after the other, a CorralError is raised."""
    left = {name: list(answer) if isinstance(answer, list) else answer for name, answer in answers.items()}

    async def ask(command: str) -> str:
        name = json.loads(command)["execute"]
        answer = left.get(name, CorralError("guest-agent-error", name, "it has been disabled"))
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, CorralError):
            raise answer
        return json.dumps({"return": answer})

    return ask


def _script(stdout: str, code: int = 0, stderr: str = "") -> Answers:
    ended = {
        "exited": True,
        "exitcode": code,
        "out-data": base64.b64encode(stdout.encode()).decode(),
        "err-data": base64.b64encode(stderr.encode()).decode(),
    }
    return {"guest-exec": {"pid": 7}, "guest-exec-status": ended, "guest-file-close": {}}


def test_a_blocked_command_is_named_and_its_fact_empty() -> None:
    told = asyncio.run(details(agent({"guest-info": {"version": "9"}, "guest-get-time": 5})))
    assert (told.agent_version, told.time_ns, told.users, told.file_systems) == ("9", 5, (), ())
    assert set(told.untold) == {
        "guest-get-osinfo",
        "guest-get-timezone",
        "guest-get-users",
        "guest-get-fsinfo",
    }


def test_words_are_plain_lists_bounded_and_numbers_in_range() -> None:
    answers: Answers = {
        "guest-info": {"version": "1\x1b[2J"},
        "guest-get-osinfo": {"id": "x" * 9999},
        "guest-get-timezone": {"zone": "UTC\n", "offset": 10**9},
        "guest-get-time": -1,
        "guest-get-users": {"user": "not a list"},
        "guest-get-fsinfo": None,
    }
    answers["guest-get-users"] = [[{"user": f"u{n}\x07", "login-time": 1.5} for n in range(1000)]]
    answers["guest-get-fsinfo"] = [[{"mountpoint": "/\u202e", "used-bytes": 1, "disk": []}]]
    told = asyncio.run(details(agent(answers)))
    assert told.agent_version == "1?[2J"
    assert len(told.os_id) == 256
    assert told.time_ns is None
    assert told.utc_offset_s is None
    assert (len(told.users), told.users[0].name) == (64, "u0?")
    assert told.file_systems[0].mountpoint == "/?"
    assert told.file_systems[0].total_bytes is None
    assert set(told.untold) == {"guest-get-timezone", "guest-get-time"}


def test_a_clock_that_was_set_though_the_agent_complains_is_set() -> None:
    complaint = CorralError("guest-agent-error", "guest-set-time", "hwclock failed")
    asyncio.run(set_time(agent({"guest-set-time": complaint, "guest-get-time": 10**18}), 10**18))
    with pytest.raises(CorralError):
        asyncio.run(set_time(agent({"guest-set-time": complaint, "guest-get-time": 5}), 10**18))


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        (_script("", 101), "guest-file-not-found"),
        (_script("", 102), "guest-file-error"),
        (_script("", 1, "no space left\x1b[2J"), "guest-file-error"),
        (_script("many words here 0"), "guest-agent-error"),
        (_script("12 999"), "guest-agent-error"),
        (_script("-5 644"), "guest-agent-error"),
        ({**_script("3 644"), "guest-exec-status": {"exited": True, "out-data": "é"}}, "guest-agent-error"),
        ({"guest-exec": {"pid": -1}}, "guest-agent-error"),
        ({}, "guest-agent-error"),
        (_script("3 644"), "guest-agent-error"),  # and guest-file-open is blocked
    ],
)
def test_a_file_that_cannot_be_read_is_a_coded_error(answers: Answers, code: str) -> None:
    with pytest.raises(CorralError) as refused:
        asyncio.run(open_read(agent(answers), "/x", tree=False))
    assert refused.value.code == code
    assert "\x1b" not in refused.value.reason


@pytest.mark.parametrize("content", [base64.b64encode(bytes(READ_BYTES + 1)).decode(), "****", "é"])
def test_more_than_was_asked_for_is_refused(content: str) -> None:
    async def read() -> None:
        answers = {**_script("3 644"), "guest-file-open": 5, "guest-file-read": {"buf-b64": content}}
        reader = await open_read(agent(answers), "/x", tree=False)
        await reader.read()

    with pytest.raises(CorralError) as refused:
        asyncio.run(read())
    assert refused.value.code == "guest-agent-error"


def test_only_a_name_of_ours_is_ever_removed() -> None:
    with pytest.raises(CorralError) as refused:
        asyncio.run(open_write(agent({**_script("/etc\n/etc/x")}), "/etc/x", "x", 0o600, tree=False))
    assert refused.value.code == "guest-agent-error"


def test_a_guest_that_writes_more_than_it_was_given_is_refused() -> None:
    token: list[str] = []

    async def ask(command: str) -> str:
        said = json.loads(command)
        if said["execute"] == "guest-exec":
            token.append(said["arguments"]["arg"][-2])
            return '{"return":{"pid":7}}'
        if said["execute"] == "guest-exec-status":
            return json.dumps({"return": _script(f"/tmp/.corral.{token[0]}\n/tmp/x")["guest-exec-status"]})
        if said["execute"] == "guest-file-open":
            return '{"return":5}'
        return '{"return":{"count":1000}}'

    async def write() -> None:
        writer = await open_write(ask, "/tmp/x", "x", 0o600, tree=False)
        await writer.write(b"abc")

    with pytest.raises(CorralError) as refused:
        asyncio.run(write())
    assert refused.value.code == "guest-agent-error"


@pytest.mark.parametrize(
    ("graphics", "address"),
    [
        ("", None),
        ("<graphics type='vnc'><listen type='socket' socket='/run/x'/></graphics>", DisplayAddress("vnc", "/run/x")),
        (
            "<graphics type='spice' port='5901' tlsPort='5902' listen='0.0.0.0'><listen type='address' address='0.0.0.0'/></graphics>",
            DisplayAddress("spice", "", "0.0.0.0", 5901, 5902),
        ),
        ("<graphics type='vnc' port='-1'/>", DisplayAddress("vnc")),
    ],
)
def test_where_a_display_listens(graphics: str, address: DisplayAddress | None) -> None:
    assert display_of(parse_document(f"<domain><devices>{graphics}</devices></domain>")) == address
