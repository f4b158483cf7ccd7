"""What tells a guest that was forked who it is: one shell script, with keys and ids made on the host. Pure but for chance.

It runs as root in the guest, before the guest's cable is in. Files that a guest does not have are not made for it.
"""

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

SEED_BYTES: Final = 512
_SCRIPT: Final = "introduce.sh"
_PREPARATION: Final = "prepare.sh"

HostKeys = Mapping[str, tuple[str, str]]
"""By kind (`ed25519`): the private and the public half, as sshd keeps them."""
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Card:
    """A network card: whose place it takes, and its own address."""

    mac: str
    former_mac: str
    name: str
    """Corral's, which a guest that cloud-init has set up calls it by, too."""


@dataclass(frozen=True)
class Identity:
    hostname: str
    former_hostname: str
    machine_id: str
    instance_id: str
    """Empty: it has no cloud-init."""
    cards: Sequence[Card]
    host_keys: HostKeys
    randomness: bytes


def make_host_keys(comment: str) -> HostKeys:
    """A millisecond's work. An RSA key would take a processor a tenth of a second, in which nothing else of the daemon's runs:
    a guest that has one makes its own anew, later."""
    kinds: dict[str, PrivateKey] = {
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "ecdsa": ec.generate_private_key(ec.SECP256R1()),
    }
    return {name: (_private(key), f"{_public(key)} {comment}\n") for name, key in kinds.items()}


def _private(key: PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()


def _public(key: PrivateKey) -> str:
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def build_preparation() -> str:
    """What a guest does before it is frozen; forks need less time then to learn who they are."""
    return resources.files("corral.images").joinpath(_PREPARATION).read_text()


def build_script(identity: Identity, now: datetime) -> str:
    """`now` is what the guest's clock is set to: build it right before it is run."""
    values = {
        "name": identity.hostname,
        "former": identity.former_hostname,
        "machine_id": identity.machine_id,
        "instance_id": identity.instance_id,
        "now": f"{now.timestamp():.3f}",
        "cards": " ".join(f"{card.former_mac.lower()}={card.mac.lower()}={card.name}" for card in identity.cards),
        "randomness": base64.b64encode(identity.randomness[:SEED_BYTES]).decode(),
        **{f"key_{kind}": private for kind, (private, _) in identity.host_keys.items()},
        **{f"pub_{kind}": public for kind, (_, public) in identity.host_keys.items()},
    }
    told = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return told + resources.files("corral.images").joinpath(_SCRIPT).read_text()
