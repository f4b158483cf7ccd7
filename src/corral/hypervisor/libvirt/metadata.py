"""Corral's element in a domain's metadata: whose domain this is, and enough to rebuild its object."""

import re
from typing import Final

from lxml.etree import Element, QName, SubElement, _Element, fromstring, tostring

from corral.hypervisor.base import DomainMetadata

NAMESPACE: Final = "urn:corral:domain:1"
PREFIX: Final = "corral"

# What XML 1.0 cannot carry (section 2.2) and lone surrogates, which UTF-8 cannot.
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def xml_text(text: str) -> str:
    """`text` without the characters that XML cannot carry, with Unix line ends (a parser would make them so)."""
    return _NOT_XML.sub("�", text.replace("\r\n", "\n").replace("\r", "\n"))


def _json_text(text: str) -> str:
    """JSON text in which such characters are written as JSON escapes, so that nothing is lost."""
    return _NOT_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def build_metadata(metadata: DomainMetadata, hardware: str = "") -> _Element:
    """`hardware`: which of its knobs are turned (knobs.py); left out where none is."""
    element = Element(QName(NAMESPACE, "vm"), nsmap={PREFIX: NAMESPACE})
    for key, value in _values(metadata, hardware).items():
        SubElement(element, QName(NAMESPACE, key)).text = value
    return element


def metadata_text(metadata: DomainMetadata, hardware: str = "") -> str:
    """For virDomainSetMetadata, which puts the elements into the namespace itself and refuses those that are in one."""
    element = Element("vm")
    for key, value in _values(metadata, hardware).items():
        SubElement(element, key).text = value
    return tostring(element, encoding="unicode")


def _values(metadata: DomainMetadata, hardware: str) -> dict[str, str]:
    values = {
        "installation": metadata.installation_id,
        "uid": metadata.vm_uid,
        "project": metadata.project,
        "name": metadata.name,
        "generation": str(metadata.generation),
        "epoch": str(metadata.epoch),
        "spec": _json_text(metadata.spec_json),
    }
    return {**values, "hardware": hardware} if hardware else values


def hardware_mark(domain: _Element) -> str:
    """What `build_metadata` was told of the hardware."""
    return domain.findtext(f"metadata/{{{NAMESPACE}}}vm/{{{NAMESPACE}}}hardware") or ""


def parse_metadata(domain: _Element, uid: str) -> DomainMetadata | None:
    """None where there is none, or where it names another domain's UUID: people copy documents."""
    element = domain.find(f"metadata/{{{NAMESPACE}}}vm")
    if element is None:
        return None

    def value(key: str) -> str:
        return element.findtext(f"{{{NAMESPACE}}}{key}") or ""

    if value("uid") != uid:
        return None
    try:
        generation, epoch = int(value("generation") or 0), int(value("epoch") or 0)
    except ValueError:
        return None
    return DomainMetadata(
        installation_id=value("installation"),
        vm_uid=uid,
        project=value("project"),
        name=value("name"),
        generation=generation,
        epoch=epoch,
        spec_json=value("spec"),
    )


def parse_document(xml: str) -> _Element:
    """A document of libvirt's."""
    return fromstring(xml.encode())
