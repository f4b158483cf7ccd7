"""Objects as the API's documents: the stored bytes, with the revision in front and without secrets. Nothing is decoded."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from corral.model.vm import Vm
from corral.store.base import Change, Record
from corral.store.objects import with_revision

HIDDEN: Final = b"***"
# Patterns of JSON members, and what is shown in their place. They never match text inside a string: there the quotes
# would be escaped. Three that begin with plain text are searched several times faster than one that begins with a choice.
_SECRETS: Final = tuple(
    (re.compile(rb'"%s":"(?:[^"\\]|\\.)+"' % name), b'"%s":"%s"' % (name, HIDDEN))
    for name in (b"password_hash", b"user_data", b"secret_hash")
)


@dataclass(frozen=True, slots=True)
class Document:
    """One object as JSON."""

    content: bytes
    revision: int
    uid: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Part of a list as JSON documents. `next` is the `after` of the page that follows, None at the end."""

    documents: tuple[bytes, ...]
    revision: int
    next: str | None


@dataclass(frozen=True, slots=True)
class Watched:
    """One change: the object as it is now, or, for a deletion, as it was last."""

    type: Literal["put", "delete"]
    revision: int
    uid: str
    content: bytes


def without_secrets(content: bytes) -> bytes:
    """`content` with hashes and user-data blanked; documents are read by viewers too."""
    for pattern, shown in _SECRETS:
        content = pattern.sub(shown, content)
    return content


def content_of(record: Record) -> bytes:
    return without_secrets(with_revision(record))


def document_of(record: Record) -> Document:
    return Document(content_of(record), record.revision, uid_of(record.key))


def uid_of(key: str) -> str:
    return key.rpartition("/")[2]


def watched_of(change: Change) -> Watched:
    value = change.value if change.value is not None else change.previous or b"{}"
    record = Record(change.key, value, change.revision, 0)
    return Watched(
        "put" if change.value is not None else "delete", change.revision, uid_of(change.key), content_of(record)
    )


def in_projects(value: bytes, kind: str, projects: tuple[str, ...] | None) -> bool:
    """Whether stored bytes are of one of `projects` (None: of any): they start with kind and project, the envelope's
    first fields."""
    return projects is None or value.startswith(beginnings(kind, projects))


def beginnings(kind: str, projects: tuple[str, ...]) -> tuple[bytes, ...]:
    """How the stored bytes of objects of a kind in these projects begin."""
    return tuple(b'{"kind":"%s","project":"%s",' % (kind.encode(), project.encode()) for project in projects)


def without_vm_secrets(vm: Vm) -> Vm:
    """A VM as it may be shown to whoever asked for it: as its document."""
    if vm.spec.cloud_init is None:
        return vm
    users = tuple(user.model_copy(update={"password_hash": ""}) for user in vm.spec.cloud_init.users)
    hidden = HIDDEN.decode() if vm.spec.cloud_init.user_data else ""
    seed = vm.spec.cloud_init.model_copy(update={"users": users, "user_data": hidden})
    return vm.model_copy(update={"spec": vm.spec.model_copy(update={"cloud_init": seed})})
