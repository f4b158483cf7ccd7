"""What an agent remembers of one VM between its turns, and what a look has found."""

from dataclasses import dataclass, field
from datetime import datetime

from corral.agent.status import GuestKnown
from corral.agent.view import Known
from corral.hypervisor.base import ObservedDomain
from corral.model.operation import Problem, StepRecord


@dataclass(frozen=True)
class Found:
    """What the domain was found to be; None: there is none."""

    domain: ObservedDomain | None


@dataclass
class Memory:
    """What is remembered of one VM while the process lives."""

    known: Known = field(default_factory=Known)
    guest: GuestKnown = field(default_factory=GuestKnown)
    attempts: int = 0
    """Failures in a row: how long to wait before the next."""
    tries: int = 0
    """Those among them that count towards giving up: not the ones of a hypervisor that is away."""
    races: int = 0
    retry_at_s: float = 0.0
    retry_for: str = ""
    """Which wish the back-off belongs to: a new wish is tried at once."""
    journal: list[StepRecord] = field(default_factory=list)
    journal_of: str = ""
    began_at: datetime | None = None
    dirty: bool = False
    """Something happened to the domain since it was last looked at."""
    changed: bool = False
    """Something was written about the VM since it was last planned for."""
    wish: str = ""
    """What was wished when it was last planned for."""
    looked: Found | None = None
    """What the turn under way has found the domain to be; None before its first look."""
    answered: Found | None = None
    """What the domain is after the step that ran last, where its driver answered with that."""
    problem: Problem | None = None
    """Why the last turn failed, where the domain itself could be looked at."""
    seen: tuple[int, ObservedDomain | None, bool, GuestKnown] | None = None
    """What the last look was made of, if nothing was left to do after it."""
    hashes: tuple[str, frozenset[str]] = ("", frozenset())
    json: tuple[int, str] = (-1, "")
    acting: str = ""
    """The operation that the plan under way named as its own."""

    def remembered(self) -> Found | None:
        """The last look's finding, where nothing is known to have happened to the domain since: enough to begin with."""
        return Found(self.seen[1]) if self.seen is not None and not self.dirty else None

    def nothing_new(self, revision: int, domain: ObservedDomain | None) -> bool:
        """A look at this VM and this domain would find what the last one found."""
        return self.seen == (revision, domain, self.known.queued_for_boot, self.guest)


@dataclass(frozen=True)
class Situation:
    """What is the same for all VMs of this host."""

    installation_id: str
    boot_id: str
    draining: bool
