"""What must be there before some domains can start: a TPM, mounted folders. Read from the document, made, taken away."""

from dataclasses import dataclass
from pathlib import Path

from lxml.etree import _Element

from corral.hypervisor.libvirt import confinement, extras, knobs, reading, shares, tpm
from corral.hypervisor.libvirt.host import Host
from corral.hypervisor.libvirt.metadata import hardware_mark
from corral.model.hardware import Share


@dataclass(frozen=True)
class Needs:
    """Of one domain; `owner` is its QEMU's uid and gid."""

    uid: str
    run_dir: str
    owner: tuple[int, int] | None
    tpm_socket: str
    shares: tuple[Share, ...]

    def __bool__(self) -> bool:
        return bool(self.tpm_socket or self.shares)


def needs_of(document: _Element) -> Needs:
    return Needs(
        uid=document.findtext("uuid") or "",
        run_dir=reading.run_dir_of(document),
        owner=reading.dac_owner_of(document),
        tpm_socket=reading.tpm_socket_of(document),
        shares=knobs.parse_mark(hardware_mark(document)).shares,
    )


def prepare(needs: Needs, host: Host) -> None:
    """Before each start. A TPM listens in the run directory, which is made first."""
    if needs.tpm_socket and needs.owner is not None:
        confinement.ensure_run_dir(needs.run_dir, needs.owner)
        tpm.start_tpm(Path(host.tpm_state(needs.uid)), Path(needs.tpm_socket), needs.owner)
    wanted = {Path(extras.share_place(needs.run_dir, share.name)): share for share in needs.shares}
    for place in _mounted(needs):
        if place not in wanted:
            shares.remove_mount(place)
    for place, share in wanted.items():
        shares.ensure_mounted(share, place)


def _mounted(needs: Needs) -> tuple[Path, ...]:
    """Where folders were mounted for it, those that it no longer has too."""
    directory = Path(extras.share_place(needs.run_dir, ""))
    return tuple(directory.iterdir()) if needs.run_dir and directory.is_dir() else ()


def remove_mounts(needs: Needs) -> None:
    """Of a domain that is off."""
    for place in _mounted(needs):
        shares.remove_mount(place)
    directory = Path(extras.share_place(needs.run_dir, ""))
    if needs.run_dir and directory.is_dir():
        directory.rmdir()


def remove_state(uid: str, host: Host) -> None:
    """What lies on the host for one VM and goes with it."""
    if host.privileged:
        confinement.remove_nvram(uid, host)
        tpm.remove_tpm(Path(host.tpm_state(uid)))
