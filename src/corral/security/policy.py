"""Policy: which role each action needs. Decided here, asked by services, never by the API."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.identity import Identity, Right, Role

ALL_PROJECTS: Final = "*"
SERVER_PROJECT: Final = DEFAULT_PROJECT
_OF_THE_SERVER: Final = frozenset({"host", "pool", "domain", "audit", "daemon"})

_RANK: Final[Mapping[Role, int]] = MappingProxyType({Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3})

# The smallest role that may do it, in the project that it is done in. The reference page of roles is generated from
# this table. What concerns the whole server (`host`, `pool`, `domain`, `audit`, `daemon`) is decided in the project `default`:
# it owns the host, and tenants of other projects hold no role there.
MINIMAL_ROLE: Final[Mapping[str, Role]] = MappingProxyType(
    {
        "vm.read": Role.VIEWER,
        "vm.create": Role.OPERATOR,
        "vm.clone": Role.OPERATOR,
        "vm.fork": Role.OPERATOR,  # live: who has it may look into that guest's memory anyway
        "vm.update": Role.OPERATOR,
        "vm.start": Role.OPERATOR,
        "vm.shutdown": Role.OPERATOR,
        "vm.destroy": Role.OPERATOR,
        "vm.save": Role.OPERATOR,
        "vm.pause": Role.OPERATOR,
        "vm.resume": Role.OPERATOR,
        "vm.reboot": Role.OPERATOR,
        "vm.reset": Role.OPERATOR,
        "vm.delete": Role.OPERATOR,
        "vm.exec": Role.OPERATOR,
        "vm.console": Role.OPERATOR,
        "vm.console-log": Role.OPERATOR,
        "vm.screenshot": Role.OPERATOR,  # what stands on a screen is the guest's own
        "vm.vnc": Role.OPERATOR,
        "vm.send-key": Role.OPERATOR,
        "vm.nmi": Role.OPERATOR,
        "vm.clock": Role.OPERATOR,
        "vm.password": Role.OPERATOR,
        "vm.copy": Role.OPERATOR,
        "vm.capture": Role.ADMIN,  # a right of its own (see `GRANTABLE`): it reads what others send to the guest
        "vm.document": Role.VIEWER,
        "vm.guest": Role.VIEWER,
        "vm.usage": Role.VIEWER,
        "image.read": Role.VIEWER,
        "image.build": Role.OPERATOR,
        "image.delete": Role.OPERATOR,
        "network.read": Role.VIEWER,
        "network.create": Role.ADMIN,
        "network.update": Role.ADMIN,
        "network.delete": Role.ADMIN,
        "router.read": Role.VIEWER,
        "router.create": Role.ADMIN,
        "router.update": Role.ADMIN,
        "router.delete": Role.ADMIN,
        "forward.read": Role.VIEWER,
        "forward.create": Role.ADMIN,  # a port of the host's
        "forward.delete": Role.ADMIN,
        "address.read": Role.VIEWER,
        "address.create": Role.ADMIN,
        "address.assign": Role.OPERATOR,
        "address.delete": Role.ADMIN,
        "balancer.read": Role.VIEWER,
        "balancer.create": Role.OPERATOR,
        "balancer.update": Role.OPERATOR,
        "balancer.delete": Role.OPERATOR,
        "security-group.read": Role.VIEWER,
        "security-group.create": Role.OPERATOR,
        "security-group.update": Role.OPERATOR,
        "security-group.delete": Role.OPERATOR,
        "network-policy.read": Role.VIEWER,
        "network-policy.create": Role.ADMIN,  # what operators' groups cannot open
        "network-policy.update": Role.ADMIN,
        "network-policy.delete": Role.ADMIN,
        "firewall.read": Role.VIEWER,
        "snapshot.read": Role.VIEWER,
        "snapshot.create": Role.OPERATOR,
        "snapshot.revert": Role.OPERATOR,
        "snapshot.delete": Role.OPERATOR,
        "template.read": Role.VIEWER,
        "template.create": Role.OPERATOR,
        "template.warm": Role.OPERATOR,
        "template.refresh": Role.OPERATOR,
        "template.publish": Role.ADMIN,
        "template.fork": Role.ADMIN,  # a right of its own (see `GRANTABLE`): its memory can hold secrets
        "template.delete": Role.OPERATOR,
        "volume.read": Role.VIEWER,
        "volume.create": Role.OPERATOR,
        "volume.update": Role.OPERATOR,
        "volume.copy": Role.OPERATOR,
        "volume.download": Role.OPERATOR,
        "volume.delete": Role.OPERATOR,
        "pool.read": Role.VIEWER,
        "pool.create": Role.ADMIN,
        "pool.delete": Role.ADMIN,
        "operation.read": Role.VIEWER,
        "operation.cancel": Role.OPERATOR,
        "event.read": Role.VIEWER,
        "token.read": Role.ADMIN,
        "token.create": Role.ADMIN,
        "token.revoke": Role.ADMIN,
        "project.read": Role.VIEWER,
        "host.read": Role.VIEWER,
        "host.doctor": Role.OPERATOR,
        "host.network": Role.ADMIN,  # what the server itself is reached by
        "host.use-path": Role.ADMIN,  # a disk or an image by a path of the host's: it could be any file
        "host.use-bridge": Role.ADMIN,  # a network on a bridge of the host's: its guests are where the host is
        "host.open-port": Role.ADMIN,  # a graphical console on an address of the host's, without a password
        "domain.read": Role.OPERATOR,
        "domain.adopt": Role.ADMIN,
        "audit.read": Role.ADMIN,
        "daemon.read": Role.VIEWER,
        "daemon.backup": Role.ADMIN,
        "daemon.recover": Role.ADMIN,
    }
)


# Whoever was given the right to it by name (a token can carry it) may do it with this role already.
GRANTABLE: Final[Mapping[str, Role]] = MappingProxyType(
    {Right.FORK.value: Role.OPERATOR, Right.CAPTURE.value: Role.OPERATOR}
)


def role_in(identity: Identity, project: str) -> Role | None:
    """The larger of the caller's roles in `project` and in every project."""
    roles = [role for name in (project, ALL_PROJECTS) if (role := identity.roles.get(name)) is not None]
    return max(roles, key=lambda role: _RANK[role], default=None)


def allows(identity: Identity, project: str, action: str) -> bool:
    project = SERVER_PROJECT if action.partition(".")[0] in _OF_THE_SERVER else project
    held, wanted = role_in(identity, project), MINIMAL_ROLE[action]
    if action in GRANTABLE and action in identity.rights.get(project, ()):
        wanted = GRANTABLE[action]
    return held is not None and _RANK[held] >= _RANK[wanted]


def check(identity: Identity, project: str, action: str) -> None:
    """Nothing if `identity` may; `forbidden`, naming the role that is needed, otherwise."""
    project = SERVER_PROJECT if action.partition(".")[0] in _OF_THE_SERVER else project
    wanted, held = MINIMAL_ROLE[action], role_in(identity, project)
    if allows(identity, project, action):
        return
    needed = f"{wanted.value}, or the right {action}" if action in GRANTABLE else wanted.value
    raise CorralError(
        "forbidden",
        action,
        f"{identity.name} {f'is {held.value}' if held else 'has no role'} in project {project!r}; this needs {needed}",
        "ask an administrator for a token of that role, or for membership in the daemon's admin group",
        {"action": action, "role_wanted": wanted.value, "role_held": held.value if held else "none"},
    )


def projects_of(identity: Identity) -> tuple[str, ...] | None:
    """The projects that the caller may see; None: all."""
    return None if ALL_PROJECTS in identity.roles else tuple(sorted(identity.roles))
