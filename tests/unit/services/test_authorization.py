"""Every method of every service asks who may, before it does anything: walked, so that a new one cannot be forgotten.

And what one tenant has, no other tenant's token can read through any of them.
"""

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from corral.errors import CorralError
from corral.model.capture import CaptureRequest
from corral.model.firewall_requests import (
    CreateNetworkPolicyRequest,
    CreateSecurityGroupRequest,
    ExplainRequest,
    UpdateNetworkPolicyRequest,
    UpdateSecurityGroupRequest,
)
from corral.model.host_network import BridgeRequest
from corral.model.identity import Identity, Project, Role, Token, TokenSpec
from corral.model.network import Network, NetworkSpec
from corral.model.network_requests import ChangeNetworkRequest, CreateNetworkRequest
from corral.model.reach import SendKeysRequest, SetClockRequest, SetPasswordRequest
from corral.model.requests import (
    AttachDiskRequest,
    BuildImageRequest,
    ChangeDiskRequest,
    ChangeNicRequest,
    CreateTokenRequest,
    CreateVmRequest,
    ExecRequest,
    ListRequest,
    NicRequest,
    RebootRequest,
    ShutdownRequest,
    StartRequest,
    UpdateVmRequest,
    WaitCondition,
)
from corral.model.router_requests import (
    AssignAddressRequest,
    CreateAddressRequest,
    CreateBalancerRequest,
    CreateForwardRequest,
    CreateRouterRequest,
    UpdateBalancerRequest,
    UpdateRouterRequest,
)
from corral.model.slot import WarmRequest
from corral.model.snapshot_requests import CreateSnapshotRequest
from corral.model.stack_plan import ExportStackRequest, PlanDownRequest, PlanStackRequest
from corral.model.template_requests import CreateTemplateRequest, ForkRequest, RefreshTemplateRequest
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.model.volume_requests import (
    CopyVolumeRequest,
    CreatePoolRequest,
    CreateVolumeRequest,
    FlattenVolumeRequest,
    MoveVolumeRequest,
    ResizeVolumeRequest,
)
from corral.names import new_uid
from corral.security.tokens import identity_of
from corral.services.bundle import Services, Surroundings, build_services
from corral.services.caller import Caller
from corral.store.base import JournalEntry
from corral.store.objects import AUDIT

from .conftest import Play, World

ARGUMENTS: dict[str, Any] = {
    "project": "default",
    "name": "web",
    "uid": "00000000-0000-4000-8000-000000000000",
    "force": False,
    "condition": WaitCondition.RUNNING,
    "timeout_s": 0.01,
    "kind": "vms",
    "to": "lab",
    "since": 0,
    "after": 0,
    "path": "/etc/hosts",
    "file_name": "hosts",
    "mode": 0o644,
    "tree": False,
    "everything": False,
    "disk": "root",
    "nic": "net0",
    "snapshot": "before",
    "disk_format": "qcow2",
    "on_share": lambda _share: None,
}
REQUESTS: dict[str, Any] = {
    "vms.create": CreateVmRequest(name="new", image="micro"),
    "previews.create": CreateVmRequest(name="new", image="micro", dry_run=True),
    "stacks.plan": PlanStackRequest(document={"stack": "lab", "vms": {"new": {"image": "micro"}}}),
    "stacks.plan_down": PlanDownRequest(stack="lab"),
    "stacks.export": ExportStackRequest(stack="lab", selector="!none"),
    "vms.update": UpdateVmRequest(description="x"),
    "vms.start": StartRequest(),
    "vms.shutdown": ShutdownRequest(),
    "vms.reboot": RebootRequest(),
    "devices.attach_disk": AttachDiskRequest(size_bytes=2**30),
    "devices.change_disk": ChangeDiskRequest(iops_max=100),
    "devices.attach_nic": NicRequest(),
    "devices.change_nic": ChangeNicRequest(link_up=False),
    "images.build": BuildImageRequest(catalogue="debian-12"),
    "tokens.create": CreateTokenRequest(name="new"),
    "volume_maker.create": CreateVolumeRequest(name="new", size_bytes=2**30),
    "volume_maker.copy": CopyVolumeRequest(name="new"),
    "volume_sizer.resize": ResizeVolumeRequest(size_bytes=2**31),
    "volume_mover.move": MoveVolumeRequest(pool="fast"),
    "volume_mover.flatten": FlattenVolumeRequest(),
    "snapshots.create": CreateSnapshotRequest(name="new"),
    "templates.create": CreateTemplateRequest(name="new", source="web"),
    "templates.fork": ForkRequest(names=("new",)),
    "templates.refresh": RefreshTemplateRequest(),
    "warm.set": WarmRequest(count=1),
    "networks.create": CreateNetworkRequest(name="new"),
    "networks.change": ChangeNetworkRequest(),
    "security_groups.create": CreateSecurityGroupRequest(name="new"),
    "security_groups.update": UpdateSecurityGroupRequest(add_rules=("in tcp/80",)),
    "network_policies.create": CreateNetworkPolicyRequest(name="new", tiers=("network:default", "group:default")),
    "network_policies.update": UpdateNetworkPolicyRequest(unless=()),
    "firewall.explain": ExplainRequest(vm="web", source="10.0.0.9", port=80),
    "pools.create": CreatePoolRequest(name="new", path="/srv/new"),
    "captures.open": CaptureRequest(),
    "routers.create": CreateRouterRequest(name="new"),
    "routers.update": UpdateRouterRequest(),
    "forwards.create": CreateForwardRequest(vm="web", host_port=8080, port=80),
    "addresses.create": CreateAddressRequest(name="new", router="edge"),
    "addresses.assign": AssignAddressRequest(vm=None),
    "balancers.create": CreateBalancerRequest(name="new", router="edge", listen=80, targets=("web",)),
    "balancers.update": UpdateBalancerRequest(),
    "host_networks.plan": BridgeRequest(nic="eth0"),
    "host_networks.begin": BridgeRequest(nic="eth0"),
    "sessions.exec": ExecRequest(argv=("id",)),
    "guests.send_keys": SendKeysRequest(keys=("enter",)),
    "guests.set_clock": SetClockRequest(),
    "guests.set_password": SetPasswordRequest(user="root", password=SecretStr("geheim")),
}
# What a viewer may: all of it reads. Whatever is not named here must be refused to one.
READING = {
    "templates.list", "templates.get", "templates.published", "snapshots.list", "snapshots.list_all", "snapshots.get", "snapshot_differ.diff", "vms.list", "vms.get", "vms.wait", "vms.drift", "images.list", "images.get", "images.catalogue", "networks.list", "networks.get",
    "volumes.list", "volumes.get", "pools.list", "pools.get", "hosts.list", "hosts.get", "hosts.incapabilities", "operations.list", "operations.get", "events.list",
    "events.last", "events.follow", "events.watch", "daemon.status", "sessions.document", "guests.details",
    "guests.display", "guests.clock",
    "security_groups.list", "security_groups.get", "network_policies.list", "network_policies.get",
    "firewall.explain", "firewall.status", "firewall.counters", "firewall.denied",
    "routers.list", "routers.get", "forwards.list", "forwards.get", "addresses.list", "addresses.get", "balancers.list", "balancers.get",
    "network_usage.report", "host_networks.show", "sessions.usage", "sessions.memory", "systems.list", "systems.get", "stacks.export",
}  # fmt: skip
# Asked before anybody is known: they take no caller.
OPEN = {"tokens.authenticate", "daemon.readiness"}


def services_of(world: World) -> Services:
    context = world.context

    def no_backup(_target: Path) -> None:
        raise AssertionError("a backup was made")

    async def no_document(_vm: Vm, _volumes: Sequence[Volume]) -> str:
        raise AssertionError("a document was drawn")

    return build_services(
        context,
        Surroundings(agent_ready=lambda: True, backup=no_backup, draw=no_document),
    )


def methods(services: Services) -> dict[str, Any]:
    """Every public coroutine of every service: `vms.create` and so on."""
    found = {}
    for field in fields(services):
        service = getattr(services, field.name)
        for name, method in inspect.getmembers(service, inspect.iscoroutinefunction):
            if not name.startswith("_"):
                found[f"{field.name}.{name}"] = method
    return found


async def call(key: str, method: Any, caller: Caller, **given: Any) -> Any:
    """Call it with plausible arguments; what would go on for ever is asked for its first word and closed."""
    parameters = list(inspect.signature(method).parameters.values())
    assert parameters[0].name == "caller", f"{key} does not take its caller first"
    arguments: dict[str, Any] = {}
    for parameter in parameters[1:]:
        if parameter.name in given:
            arguments[parameter.name] = given[parameter.name]
        elif parameter.name == "request":
            arguments["request"] = REQUESTS.get(key, ListRequest())
        elif parameter.default is parameter.empty or parameter.name in ("after", "since"):
            arguments[parameter.name] = ARGUMENTS[parameter.name]
    return await method(caller, **arguments)


async def _outcome(asked: Awaitable[Any]) -> str:
    """The code of the refusal, or what was answered."""
    try:
        return f"answered {await asked!r}"
    except CorralError as error:
        return error.code


@pytest.mark.parametrize("role", [None, Role.VIEWER])
def test_every_method_refuses_who_has_no_right_to_it_before_anything_happens(play: Play, role: Role | None) -> None:
    async def scene(world: World) -> None:
        await world.running("web")
        stranger = Caller(Identity(name="token:x", roles={} if role is None else {"default": role}), "r")
        walked = methods(services_of(world))
        assert len(walked) > 40
        for key, method in walked.items():
            if key in OPEN or (role is Role.VIEWER and key in READING):
                continue
            before, denials = world.objects.store.revision, len(await world.objects.store.journal(AUDIT))
            assert await _outcome(call(key, method, stranger)) == "forbidden", key
            assert world.objects.store.revision == before, f"{key} wrote something"
            assert len(await world.objects.store.journal(AUDIT)) == denials + 1, (
                f"{key}: the denial is not in the audit"
            )

    play(scene)


def test_the_walk_knows_every_method(play: Play) -> None:
    async def scene(world: World) -> None:
        walked = set(methods(services_of(world)))
        assert walked >= READING | OPEN | set(REQUESTS)

    play(scene)


def _text(value: Any) -> str:
    """Whatever a service answered, as text to look for another tenant's words in."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, JournalEntry):
        return value.value.decode()
    if is_dataclass(value) and not isinstance(value, type):
        return " ".join(_text(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple | list):
        return " ".join(_text(item) for item in value)
    return value.model_dump_json() if hasattr(value, "model_dump_json") else repr(value)


async def _answer(asked: Awaitable[Any]) -> Any:
    """An endless answer is not begun yet; a refusal is what it says."""
    try:
        return await asked
    except CorralError as error:
        return f"{error} {error.context}"


async def _drained(answer: Any) -> str:
    """All that an endless answer has to say of what has been."""
    if not isinstance(answer, AsyncIterator):
        return _text(answer)
    said = []
    try:
        async with asyncio.timeout(0.2):
            async for item in answer:
                said.append(_text(item))  # noqa: PERF401 -- what came before the end of time counts
    except TimeoutError:
        pass
    except CorralError as error:
        said.append(f"{error} {error.context}")
    return " ".join(said)


async def _two_tenants(world: World) -> tuple[Caller, Caller, list[str]]:
    """Tenants `alpha` and `beta`, administrators of their own; alpha has a running VM. Its words are secret."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for number, project in enumerate(("alpha", "beta")):
        await world.put(Project(name=project, uid=new_uid(), created_at=now))
        spec = NetworkSpec(subnet=f"10.{number + 1}.0.0/24", domain="test.internal", bridge=f"crl{project}")
        await world.put(Network(project=project, name=f"{project}net", uid=new_uid(), created_at=now, spec=spec))
    alpha, beta = (
        Caller(identity_of(_token(project)), f"request-of-{project}", "the-same-key") for project in ("alpha", "beta")
    )
    request = CreateVmRequest.model_validate(
        {"name": "alphavm", "nics": [{"network": "alphanet"}], "description": "alphasecret"}
    )
    vm, operation = await world.vms.create(alpha, "alpha", request)
    assert vm is not None
    await world.tokens.create(alpha, "alpha", CreateTokenRequest(name="alphatoken"))
    words = ["alphavm", "alphanet", "alphasecret", "alphatoken", "request-of-alpha", vm.uid, operation.uid]
    return alpha, beta, words


def _token(project: str) -> Token:
    spec = TokenSpec(role=Role.ADMIN, secret_hash="x")
    return Token(project=project, name="ci", uid=new_uid(), created_at=datetime(2026, 1, 1, tzinfo=UTC), spec=spec)


def test_no_method_tells_one_tenant_of_another(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("network", "router"):
        monkeypatch.setattr(f"corral.services.{service}.WAIT_S", 0.05)  # no agent makes what is made here

    async def scene(world: World) -> None:
        _alpha, beta, words = await _two_tenants(world)
        vm_uid, operation_uid = words[-2:]
        for key, method in methods(services_of(world)).items():
            if key in OPEN:
                continue
            asked = list(
                itertools.product(("alpha", "beta", "default", ""), ("alphavm", "alphanet", "alphatoken", vm_uid))
            )
            told = [
                await _answer(call(key, method, beta, project=project, name=name, uid=operation_uid))
                for project, name in asked
            ]
            answers = await asyncio.gather(*(_drained(answer) for answer in told))  # each waits for the end of its time
            for (project, name), answer in zip(asked, answers, strict=True):
                for word in words:
                    # What was asked may be repeated; what was not asked must not be told.
                    if word not in (name, operation_uid):
                        assert word not in answer, f"{key} of project {project!r} tells {word}: {answer[:300]}"

    play(scene)


def test_an_operation_of_another_tenant_is_not_there(play: Play) -> None:
    async def scene(world: World) -> None:
        alpha, beta, words = await _two_tenants(world)
        operation_uid = words[-1]
        assert operation_uid in _text(await world.operations.get(alpha, operation_uid))
        refusals = []
        for uid in (operation_uid, operation_uid[:8], "ffffffff-ffff-4fff-bfff-ffffffffffff", "fffffff0"):
            for ask in (world.operations.get, world.operations.cancel):
                with pytest.raises(CorralError) as refused:
                    await ask(beta, uid)
                refusals.append((refused.value.code, refused.value.reason))
        assert {code for code, _ in refusals} == {"forbidden"}
        assert not any("alpha" in reason for _, reason in refusals)

    play(scene)


def test_tokens_of_the_same_name_share_no_idempotency_key(play: Play) -> None:
    async def scene(world: World) -> None:
        alpha, beta, _words = await _two_tenants(world)
        assert alpha.identity.name != beta.identity.name
        request = CreateVmRequest.model_validate({"name": "betavm", "nics": [{"network": "betanet"}]})
        vm, _operation = await world.vms.create(beta, "beta", request)
        assert vm is not None
        assert vm.name == "betavm"

    play(scene)
