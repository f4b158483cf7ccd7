"""Names, sizes and durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import CorralError
from corral.names import (
    format_bytes,
    new_mac,
    parse_duration_s,
    parse_image_name,
    parse_name,
    parse_rate_bytes_per_s,
    parse_size_bytes,
)


@pytest.mark.parametrize("name", ["web", "a", "web-1", "0", "a" * 63])
def test_good_names(name: str) -> None:
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a" * 300, "a" * 64, "../etc", "web;reboot", "$(id)", "Web", "-web", "web-", "web\n", "wéb", "web.x", " web"],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(CorralError) as caught:
        parse_name(name)
    assert caught.value.code == "invalid-name"
    assert len(caught.value.asked) < 120


@pytest.mark.parametrize("name", ["debian-12", "ubuntu-24.04", "micro"])
def test_image_names_may_hold_dots(name: str) -> None:
    assert parse_image_name(name) == name


@pytest.mark.parametrize("name", ["..", "a..b", ".a", "a.", "a/b"])
def test_image_names_are_no_paths(name: str) -> None:
    with pytest.raises(CorralError):
        parse_image_name(name)


@pytest.mark.parametrize(
    ("text", "bare_unit", "expected"),
    [
        ("2048", "m", 2048 * 2**20),
        ("20", "g", 20 * 2**30),
        ("2G", "m", 2 * 2**30),
        ("512M", "g", 512 * 2**20),
        ("1.5GiB", "m", 3 * 2**29),
        ("1024b", "m", 1024),
        ("1t", "g", 2**40),
    ],
)
def test_sizes(text: str, bare_unit: str, expected: int) -> None:
    assert parse_size_bytes(text, bare_unit) == expected


@pytest.mark.parametrize("text", ["", "G", "-1G", "2X", "2 G G", "1e9", "nan", "9" * 400, "2G;id"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(CorralError) as caught:
        parse_size_bytes(text, "m")
    assert caught.value.code == "invalid-size"


@pytest.mark.parametrize(
    ("text", "expected"), [("60s", 60.0), ("5m", 300.0), ("250ms", 0.25), ("90", 90.0), ("2h", 7200.0)]
)
def test_durations(text: str, expected: float) -> None:
    assert parse_duration_s(text) == pytest.approx(expected)


@given(st.integers(min_value=0, max_value=2**60))
def test_formatted_sizes_are_close(count: int) -> None:
    text = format_bytes(count).replace(" ", "")
    assert parse_size_bytes(text, "b") == pytest.approx(count, rel=0.06)


def test_macs_are_locally_administered_and_unicast() -> None:
    first_byte = int(new_mac()[:2], 16)
    assert first_byte & 0b10
    assert not first_byte & 0b01


@pytest.mark.parametrize(("text", "rate"), [("100mbit", 12_500_000), ("12M", 12 * 2**20), ("1bit", 1), ("0", 0)])
def test_a_rate_however_small_is_not_nothing(text: str, rate: int) -> None:
    """Zero means `no limit`; what is below the least is refused where the limit is known."""
    assert parse_rate_bytes_per_s(text) == rate
