"""Flags over environment over file over defaults, and errors that name their source."""

from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.settings import client_socket, load

NO_FILE = {"CORRAL_CONFIG": "/nonexistent"}


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "corral.toml"
    file.write_text('log_level = "debug"\nhypervisor = "fake"\nrelist_interval_s = 60\n')
    environ = {"CORRAL_CONFIG": str(file), "CORRAL_LOG_LEVEL": "warning", "CORRAL_CPU_OVERCOMMIT": "2.5"}
    settings = load({"log_level": "error", "socket": ""}, environ)
    assert (settings.log_level, settings.hypervisor, settings.cpu_overcommit, settings.relist_interval_s) == (
        "error",
        "fake",
        2.5,
        60.0,
    )


def test_a_state_directory_brings_its_own_socket(tmp_path: Path) -> None:
    environ = {**NO_FILE, "CORRAL_STATE_DIR": str(tmp_path)}
    assert load({}, environ).socket == tmp_path / "run" / "corral.sock"
    assert client_socket("", environ) == tmp_path / "run" / "corral.sock"


def test_the_client_finds_the_socket_by_flag_and_environment() -> None:
    assert client_socket("/a", {"CORRAL_SOCKET": "/b"}) == Path("/a")
    assert client_socket("", {"CORRAL_SOCKET": "/b"}) == Path("/b")


@pytest.mark.parametrize(
    "flags",
    [
        {"hypervisor": "xen"},
        {"cpu_overcommit": "much"},
        {"log_json": "perhaps"},
        {"state_dir": "relative"},
        {"socket": "/" + "s" * 120},
        {"relist_interval_s": "1"},
    ],
)
def test_bad_settings_are_refused(flags: dict[str, str]) -> None:
    with pytest.raises(CorralError) as caught:
        load(flags, NO_FILE)
    assert caught.value.code == "invalid-argument"


def test_unknown_keys_of_the_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "corral.toml"
    file.write_text("colour = 'red'\n")
    with pytest.raises(CorralError, match="colour"):
        load({}, {"CORRAL_CONFIG": str(file)})
