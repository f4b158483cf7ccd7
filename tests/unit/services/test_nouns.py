"""Images, tokens, domains, sessions: what services do beyond the VM's own verbs."""

import asyncio
import base64
from datetime import timedelta
from typing import Any

import pytest

from corral.errors import CorralError
from corral.hypervisor.base import DomainMetadata, DomainNic
from corral.hypervisor.fake import FakeDomain
from corral.model.identity import Role
from corral.model.image import Image, ImageSource, ImageState
from corral.model.requests import (
    BuildImageRequest,
    CreateTokenRequest,
    CreateVmRequest,
    ExecRequest,
    ListRequest,
    UpdateVmRequest,
)
from corral.model.vm import Power, VmState
from corral.names import new_uid
from corral.services.guest import GuestService
from corral.services.ssh_keys import parse_ssh_key


def test_an_image_is_built_once_and_again_only_after_a_failure(play: Any) -> None:
    async def scene(world: Any) -> None:
        request = BuildImageRequest(catalogue="debian-12")
        image, operation = await world.images.build(world.caller(), "default", request)
        assert (image.name, image.spec.source, image.status.state) == (
            "debian-12",
            ImageSource.BUILD,
            ImageState.PENDING,
        )
        assert operation.spec.target_uid == image.uid
        with pytest.raises(CorralError, match="wrong-state"):
            await world.images.build(world.caller(), "default", request)
        failed = image.status.model_copy(update={"state": ImageState.FAILED})
        await world.put(image.model_copy(update={"status": failed}))
        again, second = await world.images.build(world.caller(), "default", request)
        assert (again.uid, again.generation) == (image.uid, 2)
        assert second.spec.tracks_generation == 2
        with pytest.raises(CorralError, match="name-taken"):
            await world.images.build(world.caller(), "default", BuildImageRequest(catalogue="micro"))

    play(scene)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"catalogue": "nonesuch"}, "image-not-found"),
        ({"name": "../x", "catalogue": "debian-12"}, "invalid-name"),
        ({"catalogue": "debian-12", "source": "download"}, "unsupported"),
        ({"name": "mine", "path": "/etc/passwd"}, "forbidden"),
        ({"name": "mine", "path": "/etc/passwd", "catalogue": "debian-12"}, "invalid-argument"),
        ({}, "invalid-name"),
    ],
)
def test_an_image_that_cannot_be_made_is_refused(play: Any, request_: dict[str, Any], code: str) -> None:
    async def scene(world: Any) -> None:
        before = await world.objects.list(Image)
        with pytest.raises(CorralError) as refused:
            await world.images.build(world.caller(), "default", BuildImageRequest.model_validate(request_))
        assert refused.value.code == code
        assert await world.objects.list(Image) == before

    play(scene)


def test_an_import_needs_a_file(play: Any, tmp_path: Any) -> None:
    async def scene(world: Any) -> None:
        for path in ("relative", str(tmp_path), "/nonesuch/file"):
            with pytest.raises(CorralError, match="invalid-argument"):
                await world.images.build(world.admin(), "default", BuildImageRequest(name="mine", path=path))
        disk = tmp_path / "mine.qcow2"
        disk.write_bytes(b"x")
        image, _ = await world.images.build(world.admin(), "default", BuildImageRequest(path=str(disk)))
        assert (image.name, image.spec.source, image.spec.path) == ("mine", ImageSource.IMPORT, str(disk))

    play(scene)


def test_an_image_in_use_is_not_deleted_and_its_users_are_named(play: Any) -> None:
    async def scene(world: Any) -> None:
        vm = await world.running("web")
        with pytest.raises(CorralError) as refused:
            await world.images.delete(world.caller(), "default", "micro")
        assert refused.value.code == "image-in-use"
        assert "VM web" in refused.value.reason
        transaction = world.objects.transaction()
        transaction.delete(vm)
        await transaction.commit()
        with pytest.raises(CorralError, match="volume web-root"):  # its disk was kept
            await world.images.delete(world.caller(), "default", "micro")

    play(scene)


def test_deleting_an_image_and_making_vms_from_it_exclude_each_other(play: Any) -> None:
    async def scene(world: Any) -> None:
        async def make(index: int) -> str:
            try:
                request = CreateVmRequest(name=f"vm-{index}", image="micro", start=False)
                await world.vms.create(world.caller(), "default", request)
            except CorralError as error:
                return error.code
            return "made"

        async def delete() -> str:
            await asyncio.sleep(0)
            try:
                await world.images.delete(world.caller(), "default", "micro")
            except CorralError as error:
                return error.code
            return "deleted"

        ends = await asyncio.gather(*(make(index) for index in range(10)), delete())
        image = await world.objects.require(Image, "default", "micro")
        if ends[-1] == "deleted":
            assert image.being_deleted
            assert set(ends[:-1]) == {"image-not-ready"}
        else:
            assert not image.being_deleted
            assert ends[-1] == "image-in-use"

    play(scene)


def test_a_token_is_shown_once_works_and_is_revoked(play: Any) -> None:
    async def scene(world: Any) -> None:
        made = await world.tokens.create(world.admin(), "default", CreateTokenRequest(name="ci", role=Role.OPERATOR))
        assert made.token.spec.secret_hash == ""
        identity = await world.tokens.authenticate(made.secret)
        assert (identity.name, identity.roles) == ("token:ci", {"default": Role.OPERATOR})
        (listed,) = (await world.tokens.list(world.admin(), "default", ListRequest())).documents
        assert b"argon2" not in listed
        assert made.secret.encode() not in listed
        with pytest.raises(CorralError, match="name-taken"):
            await world.tokens.create(world.admin(), "default", CreateTokenRequest(name="ci"))
        await world.tokens.revoke(world.admin(), "default", "ci")
        with pytest.raises(CorralError, match="unauthenticated"):
            await world.tokens.authenticate(made.secret)
        await world.tokens.create(world.admin(), "default", CreateTokenRequest(name="ci"))

    play(scene)


def test_tokens_are_for_administrators_and_end_in_the_future(play: Any) -> None:
    async def scene(world: Any) -> None:
        request = CreateTokenRequest(name="ci")
        for call in (
            world.tokens.create(world.caller(), "default", request),
            world.tokens.list(world.caller(), "default", ListRequest()),
            world.tokens.revoke(world.caller(), "default", "ci"),
        ):
            with pytest.raises(CorralError, match="forbidden"):
                await call
        late = request.model_copy(update={"expires_at": world.clock.now() - timedelta(seconds=1)})
        with pytest.raises(CorralError, match="invalid-argument"):
            await world.tokens.create(world.admin(), "default", late)

    play(scene)


def foreign(name: str, **values: Any) -> FakeDomain:
    nics = (DomainNic("net0", "52:54:00:AA:00:01", "default"),)
    known = {"state": VmState.RUNNING, "nics": nics, **values}
    return FakeDomain(new_uid(), name, 2, 512, values.pop("metadata", None), **known)


def test_a_foreign_domain_shows_and_is_adopted_as_it_runs(play: Any) -> None:
    async def scene(world: Any) -> None:
        domain = foreign("legacy")
        world.hypervisor.add_foreign(domain)
        (shown,) = await world.domains.list(world.admin())
        assert (shown.name, shown.state, shown.other_installation) == ("legacy", "running", False)
        vm, operation = await world.domains.adopt(world.admin(), "default", "legacy")
        assert (vm.uid, vm.spec.power, vm.spec.adopted) == (domain.uid, Power.ON, True)
        assert (vm.spec.vcpus, vm.spec.memory_mib) == (2, 512)
        assert operation.spec.intent.verb == "adopt"
        assert await world.domains.list(world.admin()) == ()
        assert world.context.ledger.committed.memory_mib == 512
        with pytest.raises(CorralError, match="name-taken"):
            await world.domains.adopt(world.admin(), "default", "legacy")

    play(scene)


def test_a_name_that_a_foreign_domain_has_is_refused_before_anything_is_written(play: Any) -> None:
    async def scene(world: Any) -> None:
        world.hypervisor.add_foreign(foreign("legacy"))
        with pytest.raises(CorralError, match="domain-name-taken") as refused:
            await world.vms.create(world.caller(), "default", CreateVmRequest(name="legacy", image="micro"))
        assert "corral adopt legacy" in refused.value.hint
        assert world.context.ledger.committed.memory_mib == 0
        await world.vms.create(world.caller(), "default", CreateVmRequest(name="web", image="micro", start=False))
        await world.see("web", VmState.SHUT_OFF)
        rename = UpdateVmRequest(name="legacy")
        with pytest.raises(CorralError, match="domain-name-taken"):
            await world.vms.update(world.caller(), "default", "web", rename)
        with pytest.raises(CorralError, match="forbidden"):
            await world.vms.update(world.caller(Role.VIEWER), "default", "web", rename)
        assert (await world.vm("web")).generation == 1
        world.hypervisor.disconnect()  # nobody answers: the agent finds the clash later
        await world.vms.update(world.caller(), "default", "web", rename)

    play(scene)


def test_what_cannot_be_adopted_is_said(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        uid = new_uid()
        metadata = DomainMetadata(new_uid(), uid, "default", "theirs", 1, 1)
        theirs = FakeDomain(uid, "theirs", 1, 128, metadata)
        for domain in (theirs, foreign("web"), foreign("passing", persistent=False), foreign("Bad Name")):
            world.hypervisor.add_foreign(domain)
        for name, code in (
            ("nonesuch", "domain-not-found"),
            ("theirs", "domain-not-ours"),
            ("web", "name-taken"),
            ("passing", "unsupported"),
            ("Bad Name", "invalid-name"),
        ):
            with pytest.raises(CorralError) as refused:
                await world.domains.adopt(world.admin(), "default", name)
            assert refused.value.code == code
        with pytest.raises(CorralError, match="forbidden"):
            await world.domains.adopt(world.caller(), "default", "theirs")

    play(scene)


async def in_hypervisor(world: Any, name: str) -> None:
    vm = await world.running(name)
    domain = FakeDomain(vm.uid, name, 1, 128, None, state=VmState.RUNNING, agent_connected=True)
    world.hypervisor.add_foreign(domain)


def test_sessions_are_written_down_before_the_guest_hears_of_them(play: Any) -> None:
    async def scene(world: Any) -> None:
        await in_hypervisor(world, "web")
        request = ExecRequest(argv=("cat",), stdin=base64.b64encode(b"input").decode())
        result = await world.sessions.exec(world.caller(), "default", "web", request)
        assert (result.exit_code, result.stdout) == (0, b"input")
        console = await world.sessions.open_console(world.caller(), "default", "web", force=False)
        with pytest.raises(CorralError, match="console-in-use"):
            await world.sessions.open_console(world.caller(), "default", "web", force=False)
        await console.close()
        assert await world.sessions.console_log(world.caller(), "default", "web") == b""
        guests = GuestService(world.context)
        assert (await guests.details(world.caller(Role.VIEWER), "default", "web")).os == "Fake Guest 1"
        outcomes = await world.audit_outcomes()
        assert outcomes[1:] == [
            ("vm.exec", "accepted"),
            ("vm.console", "accepted"),
            ("vm.console", "accepted"),
            ("vm.console", "console-in-use"),
            ("vm.console-log", "accepted"),
        ]

    play(scene)


def test_sessions_need_a_running_guest_and_a_role(play: Any) -> None:
    async def scene(world: Any) -> None:
        await in_hypervisor(world, "web")
        request = ExecRequest(argv=("true",))
        viewer = world.caller(Role.VIEWER)
        for call in (
            world.sessions.exec(viewer, "default", "web", request),
            world.sessions.open_console(viewer, "default", "web", force=True),
            world.sessions.console_log(viewer, "default", "web"),
        ):
            with pytest.raises(CorralError, match="forbidden"):
                await call
        with pytest.raises(CorralError, match="invalid-argument"):
            await world.sessions.exec(world.caller(), "default", "web", ExecRequest(argv=("cat",), stdin="?"))
        await world.see("web", VmState.SHUT_OFF)
        with pytest.raises(CorralError, match="wrong-state"):
            await world.sessions.exec(world.caller(), "default", "web", request)

    play(scene)


def test_usage_tells_rates_between_two_samples(play: Any) -> None:
    async def scene(world: Any) -> None:
        await in_hypervisor(world, "web")
        domain = next(iter(world.hypervisor.domains.values()))
        domain.starts = 1
        (first,) = (await world.sessions.usage(world.caller(Role.VIEWER), "default")).items
        assert (first.interval_s, first.cpu_percent) == (0.0, 0.0)
        world.clock.advance(2)
        domain.starts = 2  # the fake counts one second of CPU a start
        (second,) = (await world.sessions.usage(world.caller(Role.VIEWER), "")).items
        assert (second.interval_s, second.cpu_percent) == (2.0, 50.0)
        world.clock.advance(2)
        domain.starts = 1  # it was started anew: counters begin again
        (third,) = (await world.sessions.usage(world.caller(Role.VIEWER), "default")).items
        assert third.cpu_percent == 0.0

    play(scene)


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAdBVfZz3GQQTQdS2VB3zKg7EOTa62HruGUU1Yt+HCOz ann@laptop"


def test_keys_are_taken_as_they_are() -> None:
    assert parse_ssh_key(f"  {KEY}\n") == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-rsa " + KEY.split()[1],
        "ssh-dss " + KEY.split()[1],
        KEY + "\n" + KEY,
        'command="x" ' + KEY,
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "ssh-ed25519 " + "A" * 10_000,
        "ssh-ed25519 " + KEY.split()[1] + " \x1b[31m",
    ],
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(CorralError, match="invalid-ssh-key"):
        parse_ssh_key(text)
