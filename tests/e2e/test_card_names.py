"""A guest's cards are called as Corral calls them, whatever comes and goes between them."""

from pathlib import Path

import pytest
from debian_guest import BOOT
from walk import Walk

pytestmark = [pytest.mark.timeout(1800), pytest.mark.soak]


def test_cards_keep_their_names(walk: Walk, debian_image: str, tmp_path: Path) -> None:
    name = walk.name("cards")
    walk("network", "create", f"{name}-side", "--mode", "isolated").ok()
    try:
        walk(
            *("create", "--name", name, "--image", "debian-12", "--memory", "1024", "--disk", "size=5"),
            *("--ssh-key", str(walk.home / ".ssh/id_ed25519.pub"), "--network", "default"),
            *("--network", f"{name}-side", "--wait", "ssh", "--timeout", BOOT),
        ).ok()
        cards = walk.info(name)["spec"]["nics"]
        for card in cards:
            shown = walk("exec", name, "--", "ip", "-br", "address", "show", card["name"]).ok()
            assert card["address"] in shown
            assert card["mac"] in walk("exec", name, "--", "cat", f"/sys/class/net/{card['name']}/address").ok()
        # A fork of it has other cards, which are called the same.
        walk("template", "create", f"{name}-t", "--from", name, "--hot").ok()
        walk("fork", f"{name}-t", f"{name}-f").ok()
        walk("wait", f"{name}-f", "--for", "agent", "--timeout", BOOT).ok()
        forked = walk.info(f"{name}-f")["spec"]["nics"]
        for card in forked:
            walk.until(
                f"{card['name']} of the fork has {card['address']}",
                lambda card=card: (
                    card["address"] in walk("exec", f"{name}-f", "--", "ip", "-br", "address", "show", card["name"]).out
                ),
            )
        walk("delete", f"{name}-f").ok()
        walk("shutdown", name).ok()
        # The first card goes: the second one is on another slot's place among them, and still has its name.
        walk("nic", "remove", name, "net0").ok()
        walk("start", name).ok()
        walk("wait", name, "--for", "agent", "--timeout", BOOT).ok()
        assert cards[1]["address"] in walk("exec", name, "--", "ip", "-br", "address", "show", "net1").ok()
    finally:
        walk("delete", f"{name}-f")
        walk("delete", name)
        walk("template", "delete", f"{name}-t")
        walk("network", "delete", f"{name}-side")
