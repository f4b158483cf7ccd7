"""The files of a network that dnsmasq reads: reserved addresses, names, options, and where names are asked for."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from corral import files, proc
from corral.errors import CorralError
from corral.model.network import NetworkSpec, Reservation
from corral.network.dnsmasq import ServedFiles, is_narrow, range_line, settings_lines

# dnsmasq reads them as a user of its own.
_DIR_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
_TIMEOUT_S: Final = 10.0
_WORDS_LEAST: Final = 3
_NOBODY: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})


@dataclass
class NetworkFiles(ServedFiles):
    """What is in them is remembered: nobody else writes them while this one lives."""

    of_router: bool = False
    """A router's dnsmasq reads them, and not libvirt's."""
    read_by_server: bool = False
    """The dnsmasq that runs reads all of them; one that was started by an older Corral does not."""
    _known: dict[str, Reservation] | None = None

    def dnsmasq_options(self) -> tuple[str, ...]:
        return (*super().dnsmasq_options(), f"conf-file={self.settings}")

    def known(self) -> tuple[Reservation, ...]:
        return tuple(self._read().values())

    def _read(self) -> dict[str, Reservation]:
        """By the name of the file."""
        if self._known is not None:
            return self._known
        found = self._known = {}
        for path in self.hosts.glob("[0-9a-f]*") if self.hosts.exists() else ():
            mac, address, address6, hostname = parse_dhcp_host(path.read_text())
            # No VM is named in the file, and nobody asks.
            found[path.name] = Reservation.model_construct(
                mac=mac, address=address, hostname=hostname, vm_uid="", address6=address6
            )
        return found

    def prepare(self) -> None:
        """The directories, and settings that dnsmasq can start with."""
        try:
            for directory in self.directories:
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(_DIR_MODE)
            if not self.settings.exists():
                files.write_atomic(self.settings, b"", _FILE_MODE)
        except OSError as error:
            raise files.storage_error(f"make {self.hosts}", error) from error

    def write_settings(self, spec: NetworkSpec) -> bool:
        """Whether they are others than before: dnsmasq has to start anew."""
        text = settings_text(spec).encode()
        if self.settings.read_bytes() == text:
            return False
        files.write_atomic(self.settings, text, _FILE_MODE)
        return True

    def sync(self, wanted: Sequence[Reservation], lessees: Mapping[str, Sequence[str]] = _NOBODY) -> bool:
        """Make the files of all reservations so; whether dnsmasq must be told (it sees new files by itself, but forgets
        nothing).

        `lessees` are MACs by the address that was leased to them last: a new file lets the reservation's guest take it over.
        """
        self.prepare()
        missing = {_file_name(reservation.mac): reservation for reservation in wanted}
        forget = False
        self._known = None
        for directory in (self.hosts, self.names):
            files.remove_leftovers(directory)
        for name in sorted({path.name for each in (self.hosts, self.names) for path in each.glob("[0-9a-f]*")}):
            asked = missing.get(name)
            if asked is not None and self._says(name, asked):
                missing.pop(name)
                continue
            forget = True
            if asked is None:
                self._forget(name)
        here = {reservation.mac for reservation in wanted}
        for reservation in missing.values():
            self._write(reservation, [mac for mac in lessees.get(reservation.address, ()) if mac not in here])
        return forget

    def put(self, reservation: Reservation, lessees: Sequence[str]) -> bool:
        """One more; another one of its address, or another VM's of its name, is away then. As `sync`."""
        known, name = self._read(), _file_name(reservation.mac)
        there = known.get(name)
        if there is not None and _same(there, reservation) and (self.names / name).exists():
            return False
        clashing = [other for other, one in known.items() if other != name and _clash(one, reservation)]
        for other in clashing:
            self._forget(other)
        forget = there is not None or bool(clashing)
        self._write(reservation, lessees)
        return forget

    def has(self, mac: str) -> bool:
        return _file_name(mac) in self._read()

    def drop(self, mac: str) -> bool:
        """Whether there was one, or the half of one that the disk had room for."""
        name = _file_name(mac)
        if not self.has(mac) and not (self.names / name).exists():
            return False
        self._forget(name)
        return True

    def remove(self) -> None:
        for directory in self.directories:
            if directory.exists():
                for path in directory.iterdir():
                    files.remove_file(path)
                directory.rmdir()
        for path in (self.settings, self.leases, self.pid):
            if path.exists():
                files.remove_file(path)
        self._known = None

    def _says(self, name: str, wanted: Reservation) -> bool:
        path = self.hosts / name
        if not path.exists() or not (self.names / name).exists():
            return False
        return parse_dhcp_host(path.read_text()) == (wanted.mac, wanted.address, wanted.address6, wanted.hostname)

    def _write(self, reservation: Reservation, lessees: Sequence[str]) -> None:
        name = _file_name(reservation.mac)
        _replace(self.names / name, names_text(reservation))
        _replace(self.hosts / name, dhcp_host_line(reservation, lessees))
        self._read()[name] = reservation

    def _forget(self, name: str) -> None:
        files.remove_file(self.hosts / name)
        files.remove_file(self.names / name)
        self._read().pop(name, None)


async def check_settings(spec: NetworkSpec) -> None:
    """dnsmasq itself says whether it takes an option: a network whose server does not start serves nobody."""
    if not (text := settings_text(spec)):
        return
    program = proc.require("dnsmasq", "dnsmasq-base")
    with tempfile.NamedTemporaryFile("w", prefix="corral-dnsmasq-", suffix=".conf") as file:
        file.write(text)
        file.flush()
        done = await proc.run((program, "--test", f"--conf-file={file.name}"), timeout_s=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        reason = f"dnsmasq would not take it: {''.join(said).replace(file.name, 'its settings')}"
        raise CorralError("invalid-argument", "DHCP options", reason, "man dnsmasq, --dhcp-option")


def _replace(path: Path, text: str) -> None:
    """At once for who reads it; not forced to the disk, since all are written anew when the network is ensured."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        try:
            temporary.write_text(text)
            temporary.chmod(_FILE_MODE)
            temporary.replace(path)
        finally:  # on a full disk it is there without its text
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise files.storage_error(f"write {path}", error) from error


def _file_name(mac: str) -> str:
    return mac.replace(":", "-")


def _same(one: Reservation, other: Reservation) -> bool:
    return (one.address, one.address6, one.hostname) == (other.address, other.address6, other.hostname)


def _clash(one: Reservation, other: Reservation) -> bool:
    """The cards of one VM have its name together; whose a file is that lay there already is not known."""
    taken_over = one.hostname == other.hostname and one.vm_uid not in ("", other.vm_uid)
    return one.address == other.address or taken_over


def dhcp_host_line(reservation: Reservation, lessees: Sequence[str] = ()) -> str:
    """dnsmasq's `dhcp-host`. It gives the address although `lessees`, MACs of guests that are gone, still have it leased
    (dnsmasq(8): of several MACs one at a time is in use, and the lease of another is abandoned)."""
    macs = dict.fromkeys([reservation.mac, *lessees])
    address6 = f",[{reservation.address6}]" if reservation.address6 else ""
    return f"{','.join(macs)},{reservation.address}{address6},{reservation.hostname}\n"


def parse_dhcp_host(line: str) -> tuple[str, str, str, str]:
    """The MAC, both addresses and the name of a line of ours."""
    words = line.strip().split(",")
    if len(words) < _WORDS_LEAST:  # a crash of the host may leave an empty file: it says nothing, and is written anew
        return "", "", "", ""
    address6 = words.pop(-2).strip("[]") if words[-2].startswith("[") else ""
    return words[0], words[-2], address6, words[-1]


def names_text(reservation: Reservation) -> str:
    """As in /etc/hosts: a name resolves as soon as it is reserved, whatever host name the guest sends with DHCP."""
    addresses = [each for each in (reservation.address, reservation.address6) if each]
    return "".join(f"{address} {reservation.hostname}\n" for address in addresses)


def settings_text(spec: NetworkSpec) -> str:
    """What can change while the network runs, since dnsmasq alone has to start anew for it."""
    lines = [*([range_line(spec)] if is_narrow(spec) else []), *settings_lines(spec)]
    return "".join(f"{line}\n" for line in lines)
