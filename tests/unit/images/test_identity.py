"""The script that tells a fork who it is: whole, quoted, different each time."""

from datetime import UTC, datetime

from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from corral.images.identity import Card, Identity, build_preparation, build_script, make_host_keys

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def identity(**more: object) -> Identity:
    values: dict[str, object] = {
        "hostname": "web-1",
        "former_hostname": "web",
        "machine_id": "0" * 32,
        "instance_id": "iid-1",
        "cards": [Card("52:54:00:00:00:02", "52:54:00:00:00:01", "net0")],
        "host_keys": {"ed25519": ("PRIVATE\nKEY\n", "PUBLIC root@web-1\n")},
        "randomness": b"\1" * 64,
    }
    return Identity(**{**values, **more})  # type: ignore[arg-type]  # of the right kinds


def test_values_stand_above_the_script() -> None:
    script = build_script(identity(), NOW)
    assert script.startswith("name=web-1\nformer=web\n")
    assert "\nnow=1767323045.678\n" in script
    assert "\ncards=52:54:00:00:00:01=52:54:00:00:00:02=net0\n" in script
    assert "\nkey_ed25519='PRIVATE\nKEY\n'\n" in script
    assert script.rstrip().endswith("exit 0")


def test_nothing_of_a_value_leaves_its_quotes() -> None:
    script = build_script(identity(hostname="x'; reboot; '", former_hostname="$(reboot)"), NOW)
    assert script.startswith("name='x'\"'\"'; reboot; '\"'\"''\nformer='$(reboot)'\n")


def test_host_keys_fit_together_and_are_made_anew() -> None:
    one, two = make_host_keys("root@web-1"), make_host_keys("root@web-1")
    assert set(one) == {"ed25519", "ecdsa"}
    for kind, (private, public) in one.items():
        loaded = load_ssh_private_key(private.encode(), None)
        assert public.endswith(" root@web-1\n")
        told = load_ssh_public_key(public.encode())
        assert loaded.public_key().public_numbers() == told.public_numbers() if kind != "ed25519" else loaded
        assert private != two[kind][0]


def test_the_preparation_is_whole_and_never_fails() -> None:
    assert build_preparation().rstrip().endswith("exit 0")
