"""Whether the hypervisor has the name of a VM free: asked before anything is written, where it answers quickly."""

import asyncio
from typing import Final

from corral.errors import CorralError
from corral.model.vm import domain_name
from corral.services.context import Context

ASK_TIMEOUT_S: Final = 2.0
"""A hypervisor that is away or slow keeps no request waiting: the agent finds the clash later, and says it then."""


async def check_domain_name_free(context: Context, project: str, name: str, asked: str, own_uid: str = "") -> None:
    """Raises `domain-name-taken` if a domain other than `own_uid` has the name that a VM `name` would get."""
    wanted = domain_name(project, name)
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            holder = await context.hypervisor.find(wanted)
    except (CorralError, TimeoutError):
        return
    if holder is None or holder == own_uid:
        return
    if context.ledger.known(holder) is not None:
        reason = f"the domain {wanted!r} belongs to a VM of ours that is on its way to another name"
        raise CorralError("domain-name-taken", asked, reason, "try again in a moment")
    raise CorralError(
        "domain-name-taken",
        asked,
        f"the hypervisor has a domain {wanted!r} that is none of our VMs",
        f"choose another name, take it over (corral adopt {wanted}) or rename it (virsh domrename)",
    )
