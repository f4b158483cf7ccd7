"""What a new VM's cloud-init seed will say: checked, hashed, and only where the image can read it."""

import asyncio
import re
from typing import Final

from corral.errors import CorralError
from corral.images.cloud_init import validate_network_config, validate_user_data
from corral.model.image import ImageFacts
from corral.model.requests import CreateVmRequest
from corral.model.vm import CloudInitSpec, CloudInitUser
from corral.names import new_uid
from corral.services.context import Context
from corral.services.passwords import check_password
from corral.services.ssh_keys import parse_ssh_key

FALLBACK_USER: Final = "corral"
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")  # useradd(8)'s own rule


async def plan_cloud_init(
    context: Context, request: CreateVmRequest, facts: ImageFacts | None, asked: str
) -> CloudInitSpec | None:
    """The seed's content; None where the VM has no image or its image does not run cloud-init.

    Keys for such an image are left out without a complaint: clients add the caller's own key to every request. A
    password or documents, which somebody wrote for this VM, are refused.
    """
    keys = tuple(dict.fromkeys(parse_ssh_key(key) for key in request.ssh_keys))
    if request.user_data or request.network_config:
        await asyncio.to_thread(_check_documents, request)  # parsing 64 KiB of YAML takes a while
    password = request.password.get_secret_value() if request.password is not None else ""
    if request.password is not None:
        check_password(password)
    if facts is None or not facts.cloud_init:
        if password or request.user_data or request.network_config:
            what = f"image {request.image}" if facts is not None else "a VM without an image"
            raise CorralError(
                "unsupported",
                asked,
                f"{what} does not run cloud-init",
                "leave password, user-data and network-config out",
            )
        return None
    name = request.user or facts.default_user or FALLBACK_USER
    if not _USER.fullmatch(name):
        raise CorralError(
            "invalid-argument", asked, f"{name[:40]!r} is not a user name", "a-z, 0-9, _ and -, at most 32 characters"
        )
    users: tuple[CloudInitUser, ...] = ()
    if keys or password or request.user:
        password_hash = await context.hash_password(password) if password else ""
        users = (CloudInitUser(name=name, ssh_keys=keys, password_hash=password_hash),)
    return CloudInitSpec(
        hostname=request.hostname or request.name,
        users=users,
        user_data=request.user_data,
        network_config=request.network_config,
        instance_id=f"iid-{new_uid()[:13]}",
        dsmode="local" if facts.recipe else "net",
    )


def _check_documents(request: CreateVmRequest) -> None:
    validate_user_data(request.user_data)
    validate_network_config(request.network_config)
