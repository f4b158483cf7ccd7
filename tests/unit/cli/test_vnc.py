"""`corral vnc`: what viewers are told."""

from corral.cli.vnc import VIEWERS


def test_viewers_are_told_the_port() -> None:
    assert [VIEWERS[name](5901) for name in ("remote-viewer", "vncviewer", "gvncviewer")] == [
        ["vnc://127.0.0.1:5901"],
        ["127.0.0.1::5901"],
        ["127.0.0.1:1"],
    ]
