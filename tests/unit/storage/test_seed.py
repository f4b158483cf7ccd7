"""The seed is an ISO 9660 image that cloud-init finds by its label and reads by its real names."""

import io

import pycdlib

from corral.storage.seed import build_seed


def test_seed() -> None:
    contents = {"meta-data": b"instance-id: i\n", "user-data": b"#cloud-config\n{}\n" * 999, "network-config": b""}
    image = build_seed(contents)
    assert image[32808:32814] == b"cidata"
    assert len(image) % 2048 == 0
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    for name, content in contents.items():
        for path in ({"joliet_path": f"/{name}"}, {"rr_path": f"/{name}"}):
            target = io.BytesIO()
            iso.get_file_from_iso_fp(target, **path)
            assert target.getvalue() == content
    iso.close()
