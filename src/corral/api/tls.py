"""A certificate for the TLS listener where the operator has none: made once, kept beside the database."""

import ipaddress
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from corral.errors import CorralError
from corral.files import write_atomic

VALID_FOR: Final = timedelta(days=3650)
# Clocks of machines that meet for the first time may differ.
CLOCK_SKEW: Final = timedelta(hours=1)


def parse_listen(listen: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8443`, `[::]:8443`, `:8443` (every address). Raises `invalid-argument`."""
    host, separator, port = listen.rpartition(":")
    if not separator or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise CorralError("invalid-argument", f"listen on {listen!r}", "not an address", "write HOST:PORT")
    return host.strip("[]") or "::", int(port)


def ensure_certificate(directory: Path, host: str) -> tuple[Path, Path]:
    """Paths of a self-signed certificate and its key, made if they are not there. Clients name the certificate as
    their CA file."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    if not (cert.exists() and key.exists()):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        cert_pem, key_pem = _self_signed(host)
        write_atomic(key, key_pem, 0o600)
        write_atomic(cert, cert_pem, 0o644)
    return cert, key


def _self_signed(host: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, socket.gethostname()[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALID_FOR)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def _names(host: str) -> list[x509.GeneralName]:
    """What clients may call us: this machine's names, the loopback, and the address that is listened on."""
    names: list[x509.GeneralName] = [
        x509.DNSName(name) for name in {socket.gethostname(), socket.getfqdn(), "localhost"}
    ]
    addresses = {"127.0.0.1", "::1"}
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        names.append(x509.DNSName(host))
    else:
        if not address.is_unspecified:
            addresses.add(str(address))
    return [*names, *(x509.IPAddress(ipaddress.ip_address(text)) for text in sorted(addresses))]
