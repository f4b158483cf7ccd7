"""What one form becomes another by; what the compiler promises of any policy."""

import json
import re
from dataclasses import replace

import pytest
from firewall_policies import some_policy

from corral.network.firewall.compiler import compile_policy
from corral.network.firewall.form import Chain, Form, NftSet, Table, batch, changes
from corral.network.firewall.layout import EPOCHS, SLOTS, Ident, Layout
from corral.network.firewall.policy import Card, Direction, Group, Net, Peer, Policy, Rule

IDENT = Ident("0badc0de-0000-4000-8000-000000000000")


class Kernel:
    """Obeys commands as nftables does, and refuses what it would refuse: what is missing, what is still used."""

    def __init__(self) -> None:
        self.sets: dict[tuple[str, str, str], dict[str, str]] = {}
        self.chains: dict[tuple[str, str, str], list[str]] = {}

    def obey(self, form_text: str) -> None:
        for command in json.loads(form_text)["nftables"]:
            ((verb, what),) = command.items()
            ((kind, spec),) = what.items()
            place = (spec["family"], spec.get("table", ""), spec.get("chain") or spec.get("name", ""))
            getattr(self, f"{verb}_{kind}", lambda *_: None)(place, spec)

    def add_set(self, place: tuple[str, str, str], _spec: object) -> None:
        assert place not in self.sets
        self.sets[place] = {}

    def add_chain(self, place: tuple[str, str, str], _spec: object) -> None:
        assert place not in self.chains
        self.chains[place] = []

    def flush_chain(self, place: tuple[str, str, str], _spec: object) -> None:
        self.chains[place] = []

    def add_rule(self, place: tuple[str, str, str], spec: dict[str, object]) -> None:
        text = json.dumps(spec["expr"])
        self._check(place, text)
        self.chains[place].append(text)

    def add_element(self, place: tuple[str, str, str], spec: dict[str, list[object]]) -> None:
        found = self.sets.setdefault(place, {})
        for element in spec["elem"]:
            key, data = element if isinstance(element, list) else (element, "")
            self._check(place, json.dumps(data))
            assert json.dumps(key) not in found
            found[json.dumps(key)] = json.dumps(data)

    def delete_element(self, place: tuple[str, str, str], spec: dict[str, list[object]]) -> None:
        for key in spec["elem"]:
            del self.sets[place][json.dumps(key)]

    def delete_set(self, place: tuple[str, str, str], _spec: object) -> None:
        assert not any(f'"@{place[2]}"' in text for text in self._texts(place))
        del self.sets[place]

    def delete_chain(self, place: tuple[str, str, str], _spec: object) -> None:
        assert not self.chains[place]
        assert not any(f'"target": "{place[2]}"' in text for text in self._texts(place))
        del self.chains[place]

    add_map, delete_map = add_set, delete_set

    def _texts(self, place: tuple[str, str, str]) -> list[str]:
        rules = [text for at, texts in self.chains.items() if at[:2] == place[:2] for text in texts]
        return [*rules, *(data for at, found in self.sets.items() if at[:2] == place[:2] for data in found.values())]

    def _check(self, place: tuple[str, str, str], text: str) -> None:
        for target in re.findall(r'"target": "([^"]+)"', text):
            assert (*place[:2], target) in self.chains


@pytest.mark.parametrize("seed", range(60))
def test_differences_lead_where_the_whole_leads(seed: int) -> None:
    walked, old = Kernel(), ()
    form: Form = ()
    for step in range(4):
        old, form = form, compile_policy(some_policy(seed * 4 + step), IDENT, step + 1)
        walked.obey(batch(changes(old, form)))
    fresh = Kernel()
    fresh.obey(batch(changes((), form)))
    assert walked.chains == fresh.chains
    assert {at: found for at, found in walked.sets.items() if found} == {
        at: found for at, found in fresh.sets.items() if found
    }


def test_an_element_that_leads_elsewhere_is_replaced() -> None:
    before = Table(
        "inet", "t", True, {"a": Chain()}, {"m": NftSet(("mark",), {(1,): '"x"', (2,): '"x"'}, ("verdict",))}
    )
    after = replace(before, sets={"m": NftSet(("mark",), {(1,): '"y"', (2,): '"x"'}, ("verdict",))})
    text = batch(changes((before,), (after,)))
    assert [list(command) for command in json.loads(text)["nftables"]] == [["delete"], ["add"]]
    assert "2" not in text


def test_another_installation_has_other_marks_and_places_or_none_of_ours() -> None:
    found = [Ident(f"{number:08x}-1111") for number in range(200)]
    assert {ident.slot for ident in found} == set(range(SLOTS))
    assert all(ident.guarded and ident.judged for ident in found)
    assert all(ident.priority > -100 and ident.priority + 1 < 0 for ident in found), "behind conntrack, before filters"


def test_no_name_of_a_persons_reaches_the_kernel() -> None:
    hostile = 'x"; flush ruleset; #'
    group = Group(hostile, (Rule("r1", Direction.IN, peer=Peer("group", hostile)),))
    net = Net(hostile, hostile, "crl1", "nat", ("10.0.0.0/24",), ("10.0.0.1",))
    card = Card("crt1", hostile, "52:54:00:00:00:01", ("10.0.0.2",), (hostile,))
    text = batch(changes((), compile_policy(Policy((net,), (card,), (group,)), IDENT, 1)))
    assert "flush" not in text


def test_every_epoch_is_told_from_the_mark_of_the_denied() -> None:
    assert EPOCHS << 16 != 0xFFFF0000
    assert EPOCHS << 16 < 1 << 32


def test_networks_behind_routers_get_zones_of_their_own_and_joined_ones_share() -> None:
    def net(uid: str, realm: str) -> Net:
        return Net(uid, "p", f"crl{uid}", "isolated", ("10.0.0.0/24",), (), realm)

    zones = Layout(Policy((net("1", "r"), net("2", "r"), net("3", "alone"), Net("4", "p", "crl4", "nat")))).zones
    assert zones["crl1"] == zones["crl2"] != zones["crl3"]
    assert "crl4" not in zones
