"""The NoCloud seed as an ISO 9660 image with Joliet and Rock Ridge names, made in memory."""

import io
from collections.abc import Mapping
from typing import Final

# cloud-init looks for a file system of this label (NoCloud data source).
VOLUME_ID: Final = "cidata"


def build_seed(contents: Mapping[str, bytes], volume_id: str = VOLUME_ID) -> bytes:
    """The ISO's bytes; `contents` maps `meta-data`, `user-data`, … to what they hold."""
    import pycdlib  # noqa: PLC0415 -- takes 2.5 MB, and nobody needs it before the first seed

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=volume_id)
    for index, (name, content) in enumerate(sorted(contents.items())):
        # The plain ISO name is limited to A-Z, 0-9 and _; readers see the Rock Ridge or the Joliet one.
        iso.add_fp(io.BytesIO(content), len(content), f"/F{index}.;1", rr_name=name, joliet_path=f"/{name}")
    target = io.BytesIO()
    iso.write_fp(target)
    iso.close()
    return target.getvalue()
