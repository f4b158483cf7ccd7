"""A block of a file that is somebody else's."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from corral.network.host_names import with_block, write_block

ONE, TWO = "0b5e6f0a-53b4-4c6e-9a52-000000000001", "0b5e6f0a-53b4-4c6e-9a52-000000000002"
LINES = st.lists(st.text(st.characters(codec="ascii", exclude_categories=("C",)), max_size=30), max_size=6)


@given(LINES, LINES, LINES)
def test_what_others_wrote_stays_and_ours_goes_wholly(others: list[str], first: list[str], second: list[str]) -> None:
    plain = "".join(f"{line}\n" for line in others)
    both = with_block(with_block(plain, ONE, first), TWO, second)
    assert with_block(both, ONE, first).splitlines() != [] or not (others or first or second)
    assert with_block(with_block(both, ONE, ()), TWO, ()) == plain
    assert sorted(with_block(both, ONE, first).splitlines()) == sorted(both.splitlines())


def test_a_block_whose_end_somebody_took_away_swallows_nothing() -> None:
    cut = with_block("127.0.0.1 localhost\n", ONE, ["10.0.0.2 web"]).replace(
        f"# corral: end of {ONE}\n", "10.9.9.9 mine\n"
    )
    assert "10.9.9.9 mine" in with_block(cut, ONE, ["10.0.0.3 db"])


def test_marks_of_lines_ends_inside_others_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"127.0.0.1 localhost\r\n# a\x0cb\x1c\xe2\x80\xa8c\xff\n")
    before = path.read_bytes()
    write_block(path, ONE, ["10.0.0.2 web"])
    assert path.read_bytes().startswith(before)
    write_block(path, ONE, ())
    assert path.read_bytes() == before
