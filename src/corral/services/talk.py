"""How every session with a guest begins: authorize, find, check, write down; and how its errors name the VM."""

from collections.abc import Iterator
from contextlib import contextmanager

from corral.errors import CorralError
from corral.model.vm import Vm
from corral.services import rules
from corral.services.access import audited, authorize, record
from corral.services.caller import Caller
from corral.services.context import Context


async def begin(
    context: Context, caller: Caller, project: str, name: str, action: str, verb: str, detail: str = ""
) -> Vm:
    """The VM, which may be talked with now. The record is there before the guest hears anything."""
    await authorize(context, caller, project, action, name)
    async with audited(context, caller, project, action, name):
        vm = await context.objects.require(Vm, project, name)
        rules.check_session(vm, verb)
    await record(context, caller, project, action, name, "accepted", detail)
    return vm


@contextmanager
def asking(asked: str) -> Iterator[None]:
    """The hypervisor speaks of domains by uid; whoever asked gave a name."""
    try:
        yield
    except CorralError as error:
        raise CorralError(error.code, asked, error.reason, error.hint, error.context) from error
