"""What the compiler makes: tables of chains, sets and maps as nft's JSON has them, and what changes one into another. Pure.

Rules and elements are kept as encoded JSON: thousands of them are compared and joined, and each is encoded once.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any, Final, TypeAlias

Json: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str | int, ...]
PREFIX_MARK: Final = "/"
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


def encode(value: object) -> str:
    return _ENCODER.encode(value)


@dataclass(frozen=True)
class Hook:
    """A base chain's place."""

    type: str
    hook: str
    priority: int


@dataclass(frozen=True)
class Chain:
    rules: tuple[str, ...] = ()
    """Each `"expr":[…]` and perhaps a comment, encoded."""
    hook: Hook | None = None


@dataclass(frozen=True)
class NftSet:
    """A set, or a map where its elements lead to something. Without `declared` the keeper has made it already: JSON
    has no words for it."""

    types: tuple[str, ...]
    elements: Mapping[Key, str] = field(default_factory=dict)
    """Each key with what it leads to, encoded; empty in a set."""
    leads_to: tuple[str, ...] = ()
    intervals: bool = False
    """Its elements are prefixes: `10.0.0.0/8`."""
    declared: bool = True


@dataclass(frozen=True)
class Table:
    family: str
    name: str
    owned: bool
    """Held by the keeper's own socket: nobody else can change it, and it goes with the keeper."""
    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, NftSet] = field(default_factory=dict)
    counters: tuple[str, ...] = ()


Form: TypeAlias = tuple[Table, ...]


def rule(expressions: Iterable[Json], comment: str = "") -> str:
    text = f'"expr":{encode(list(expressions))}'
    return commented(text, comment) if comment else text


def commented(text: str, comment: str) -> str:
    return f'{text},"comment":{encode_basestring_ascii(comment)}'


def batch(commands: Iterable[str]) -> str:
    """A transaction."""
    return f'{{"nftables":[{",".join(commands)}]}}'


def changes(old: Form, new: Form) -> Iterator[str]:
    """The commands that make `new` of `old`, in an order in which nothing is missing that another one speaks of."""
    before = {(table.family, table.name): table for table in old}
    for table in new:
        known = before.get((table.family, table.name))
        if known is None:
            yield from _declared(table)
            known = Table(table.family, table.name, table.owned)
        if known != table:
            yield from _table_changes(known, table)


def rebuilt(tables: Iterable[Table]) -> Iterator[str]:
    """The commands that put these tables in the place of whatever is left of them."""
    for table in tables:
        named = encode({"family": table.family, "name": table.name})
        yield f'{{"add":{{"table":{named}}}}}'
        yield f'{{"delete":{{"table":{named}}}}}'
        yield from _declared(table)
        yield from _table_changes(Table(table.family, table.name, table.owned), table)


def _declared(table: Table) -> Iterator[str]:
    if not table.owned:
        yield f'{{"add":{{"table":{encode({"family": table.family, "name": table.name})}}}}}'
    for name in table.counters:
        yield f'{{"add":{{"counter":{encode({"family": table.family, "table": table.name, "name": name})}}}}}'


def _table_changes(old: Table, new: Table) -> Iterator[str]:
    place = {"family": new.family, "table": new.name}
    start = f'"family":{encode(new.family)},"table":{encode(new.name)}'
    for name, made in new.sets.items():
        if made.declared and name not in old.sets:
            yield _set_text(place, name, made)
    for name, chain in new.chains.items():
        if name not in old.chains:
            yield _chain_text(place, name, chain)
    changed = [name for name, chain in new.chains.items() if old.chains.get(name, _NO_CHAIN).rules != chain.rules]
    gone = [name for name in old.chains if name not in new.chains]
    for name in (*(name for name in changed if name in old.chains), *gone):
        yield f'{{"flush":{{"chain":{{{start},"name":{encode(name)}}}}}}}'
    for name, known in old.sets.items():
        if name not in new.sets:
            yield f'{{"delete":{{"{_kind(known)}":{{{start},"name":{encode(name)}}}}}}}'
        else:
            yield from _elements("delete", start, name, known, _missing(known, new.sets[name]))
    for name in gone:
        yield f'{{"delete":{{"chain":{{{start},"name":{encode(name)}}}}}}}'
    for name, made in new.sets.items():
        yield from _elements("add", start, name, made, _missing(made, old.sets.get(name, _NO_SET)))
    for name in changed:
        head = f'{{"add":{{"rule":{{{start},"chain":{encode(name)},'
        for text in new.chains[name].rules:
            yield f"{head}{text}}}}}}}"


_NO_CHAIN: Final = Chain()
_NO_SET: Final = NftSet(())


def _kind(found: NftSet) -> str:
    return "map" if found.leads_to else "set"


def _missing(here: NftSet, there: NftSet) -> list[Key]:
    """Keys of `here` that `there` has not, or leads elsewhere."""
    if here.elements is there.elements:
        return []
    return [key for key, data in here.elements.items() if there.elements.get(key) != data]


def _elements(verb: str, start: str, name: str, found: NftSet, keys: list[Key]) -> Iterator[str]:
    if keys:
        texts = (_element(key, found.elements[key] if verb == "add" else "", found) for key in keys)
        yield f'{{"{verb}":{{"element":{{{start},"name":{encode(name)},"elem":[{",".join(texts)}]}}}}}}'


def _element(key: Key, data: str, found: NftSet) -> str:
    parts = [_part(part, intervals=found.intervals) for part in key]
    text = parts[0] if len(parts) == 1 else f'{{"concat":[{",".join(parts)}]}}'
    return f"[{text},{data}]" if data else text


def _part(part: str | int, *, intervals: bool) -> str:
    if isinstance(part, int):
        return str(part)
    if intervals and PREFIX_MARK in part:
        address, _, length = part.partition(PREFIX_MARK)
        return encode({"prefix": {"addr": address, "len": int(length)}})
    return encode_basestring_ascii(part)


def _set_text(place: Json, name: str, made: NftSet) -> str:
    types: object = made.types[0] if len(made.types) == 1 else list(made.types)
    spec: Json = {**place, "name": name, "type": types}
    if made.leads_to:
        spec["map"] = made.leads_to[0] if len(made.leads_to) == 1 else list(made.leads_to)
    if made.intervals:
        spec["flags"] = ["interval"]
    return encode({"add": {_kind(made): spec}})


def _chain_text(place: Json, name: str, chain: Chain) -> str:
    spec: Json = {**place, "name": name}
    if chain.hook is not None:
        hook = chain.hook
        spec |= {"type": hook.type, "hook": hook.hook, "prio": hook.priority, "policy": "accept"}
    return encode({"add": {"chain": spec}})
