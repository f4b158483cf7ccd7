"""Policy: each action has one smallest role; the server's own actions are decided in its own project."""

import itertools

import pytest

from corral.errors import CorralError
from corral.model.identity import Identity, Role
from corral.security import policy

ROLES = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)


@pytest.mark.parametrize(("action", "held"), list(itertools.product(policy.MINIMAL_ROLE, ROLES)))
def test_a_role_may_what_its_smaller_ones_may_and_no_more(action: str, held: Role) -> None:
    identity = Identity(name="token:x", roles={"default": held})
    if ROLES.index(held) >= ROLES.index(policy.MINIMAL_ROLE[action]):
        policy.check(identity, "default", action)
        return
    with pytest.raises(CorralError) as refused:
        policy.check(identity, "default", action)
    assert refused.value.code == "forbidden"
    assert refused.value.context["role_wanted"] == policy.MINIMAL_ROLE[action].value
    assert policy.MINIMAL_ROLE[action].value in refused.value.reason


def test_who_has_no_role_may_nothing() -> None:
    for action in policy.MINIMAL_ROLE:
        assert not policy.allows(Identity(name="local:1000", roles={}), "default", action)


def test_a_role_everywhere_counts_in_each_project_and_the_larger_one_wins() -> None:
    both = Identity(name="x", roles={"*": Role.VIEWER, "mine": Role.ADMIN})
    assert policy.allows(both, "mine", "token.create")
    assert policy.allows(both, "theirs", "vm.read")
    assert not policy.allows(both, "theirs", "vm.start")


def test_a_tenants_administrator_has_no_say_on_the_server() -> None:
    tenant = Identity(name="x", roles={"tenant": Role.ADMIN})
    for action in ("host.read", "audit.read", "daemon.backup", "domain.adopt", "host.use-path"):
        assert not policy.allows(tenant, "tenant", action)


def test_changes_and_secrets_are_never_for_viewers() -> None:
    for action, role in policy.MINIMAL_ROLE.items():
        if action.partition(".")[2] not in ("read", "usage", "guest", "document"):
            assert role is not Role.VIEWER, action
