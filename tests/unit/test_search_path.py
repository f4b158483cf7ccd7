"""Commands are found for those whose PATH lacks the administrator's directories."""

import os
import shutil

import pytest

from corral import proc


def test_sbin_is_searched_last_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an ordinary user the daemon said that nft and dnsmasq were missing, which lie in /usr/sbin."""
    monkeypatch.setenv("PATH", "/opt/mine:/usr/sbin:/usr/bin")
    proc.complete_search_path()
    proc.complete_search_path()
    assert os.environ["PATH"] == "/opt/mine:/usr/sbin:/usr/bin:/usr/local/sbin:/sbin"
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    proc.complete_search_path()
    assert shutil.which("nft") is not None
