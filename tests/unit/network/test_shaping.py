"""From limits and promises to what the kernel is told: pure."""

import pytest
from pydantic import ValidationError

from corral.model.bandwidth import Bandwidth
from corral.names import ifb_name
from corral.network.shaping import HANDLE, Link, Queue, Shape, Share, plan_all, plan_device, plan_leftovers

OWNER = "one"
TAP, BRIDGE = "crt0123456789ab", "crl01234567"
MAC = "52:54:00:0a:0b:0c"


def queue(average: int, *shares: Share, **more: int) -> Queue:
    return Queue(Bandwidth(average_bytes_per_s=average, **more), shares)


def test_a_limit_towards_the_guest_is_one_class() -> None:
    plan = plan_device(Shape(TAP, leaving=queue(1_000_000, peak_bytes_per_s=4_000_000)), {TAP: Link(7)}, OWNER)
    assert plan.queues == (
        f"qdisc replace dev {TAP} root handle {HANDLE} htb default 1",
        (
            f"class add dev {TAP} parent {HANDLE} classid {HANDLE}1 htb rate 1000000bps ceil 4000000bps "
            "burst 65536 cburst 65536 quantum 60000"
        ),
    )
    assert not plan.made
    assert not plan.removed


def test_what_a_guest_sends_passes_an_intermediate_device() -> None:
    plan = plan_device(Shape(TAP, coming=queue(1_000_000)), {TAP: Link(7)}, OWNER)
    helper = ifb_name(TAP)
    assert plan.made[0] == f"link add name {helper} type ifb"
    assert f"alias corral:{OWNER}:{TAP}" in plan.made[1]
    assert plan.queues[-1].endswith(f"action mirred egress redirect dev {helper}")
    # And is taken away with the limit.
    there = {TAP: Link(7, ingress=True), helper: Link(8, f"corral:{OWNER}:{TAP}", queued=True)}
    gone = plan_device(Shape(TAP), there, OWNER)
    assert gone.queues == (f"qdisc del dev {TAP} ingress", f"qdisc del dev {helper} root")
    assert gone.removed == (f"link del dev {helper}",)


def test_promises_are_classes_below_the_limit_and_never_more_than_it_has() -> None:
    plan = plan_device(
        Shape(BRIDGE, leaving=queue(2_000_000, Share(MAC, 1_500_000)), coming=queue(2_000_000, Share(MAC, 5_000_000))),
        {BRIDGE: Link(3)},
        OWNER,
    )
    rates = [line.split(" rate ")[1].split()[0] for line in plan.queues if " rate " in line]
    assert rates == ["2000000bps", "500000bps", "1500000bps", "2000000bps", "1000bps", "5000000bps"]
    to, by = (line for line in plan.queues if " flowid " in line)
    assert "match u16 0x5254 0xffff at -14 match u32 0x000a0b0c 0xffffffff at -12" in to
    assert "match u16 0x0b0c 0xffff at -4 match u32 0x5254000a 0xffffffff at -8" in by


def test_only_what_differs_is_done_and_a_device_that_came_back_is_another_one() -> None:
    shape, ours = Shape(TAP, leaving=queue(1_000_000)), frozenset({TAP, BRIDGE})
    links = {TAP: Link(7), BRIDGE: Link(3), "eth0": Link(1)}
    plan, done = plan_all((shape,), ours, links, OWNER, {})
    assert plan
    assert not plan_all((shape,), ours, {**links, TAP: Link(7, queued=True)}, OWNER, done)[0]
    assert plan_all((shape,), ours, {**links, TAP: Link(9)}, OWNER, done)[0]
    assert not plan_all((shape,), ours, {BRIDGE: Link(3)}, OWNER, done)[0]  # its guest is off


def test_queues_that_somebody_took_away_are_made_again() -> None:
    shape, ours, helper = Shape(TAP, queue(1_000_000), queue(1_000_000)), frozenset({TAP}), ifb_name(TAP)
    there = {TAP: Link(7, queued=True, ingress=True), helper: Link(8, f"corral:{OWNER}:{TAP}", queued=True)}
    done = {TAP: (7, shape)}
    assert not plan_all((shape,), ours, there, OWNER, done)[0]
    for less in (
        {**there, TAP: Link(7, ingress=True)},
        {**there, TAP: Link(7, queued=True)},
        {**there, helper: Link(8, f"corral:{OWNER}:{TAP}")},
    ):
        assert plan_all((shape,), ours, less, OWNER, done)[0]
    # Without its intermediate device the way to it is still there, and is in the way of a new one.
    plan, _ = plan_all((shape,), ours, {TAP: there[TAP]}, OWNER, done)
    assert f"qdisc del dev {TAP} ingress" in plan.queues
    assert f"link add name {helper} type ifb" in plan.made
    # Of what we did not make nothing is taken away.
    assert f"qdisc del dev {TAP} ingress" not in plan_all((shape,), ours, {TAP: there[TAP]}, OWNER, {})[0].queues


def test_nobody_elses_device_is_touched() -> None:
    links = {
        "eth0": Link(1, queued=True),
        ifb_name("eth0"): Link(2, "corral:other:eth0"),
        ifb_name(TAP): Link(5, f"corral:{OWNER}:{TAP}"),
    }
    assert not plan_all((Shape(TAP, leaving=queue(5000)),), frozenset({TAP}), {TAP: Link(1, foreign=True)}, OWNER, {})[
        0
    ]
    plan, _ = plan_all((Shape("eth0", leaving=queue(5000)),), frozenset({TAP}), links, OWNER, {})
    assert not plan
    assert plan_leftovers(links, OWNER).removed == (f"link del dev {ifb_name(TAP)}",)


@pytest.mark.parametrize(
    "values",
    [
        {"average_bytes_per_s": 1},
        {"average_bytes_per_s": -5000},
        {"average_bytes_per_s": 10**13},
        {"peak_bytes_per_s": 5000},
        {"burst_bytes": 5000},
        {"average_bytes_per_s": 9000, "peak_bytes_per_s": 5000},
        {"average_bytes_per_s": 5000, "floor_bytes_per_s": 9000},
        {"average_bytes_per_s": 5000, "burst_bytes": 2**40},
    ],
)
def test_limits_that_contradict_themselves_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Bandwidth(**values)
