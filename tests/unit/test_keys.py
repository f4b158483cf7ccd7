"""Keys as people and virsh write them."""

import pytest

from corral.errors import CorralError
from corral.model.keys import CODES, parse_chords, parse_text


@pytest.mark.parametrize(
    ("words", "chords"),
    [
        (["ctrl-alt-del"], ((29, 56, 111),)),
        (["KEY_LEFTCTRL", "KEY_ALT", "KEY_DELETE"], ((29, 56, 111),)),
        (["KEY_LEFTCTRL", "46"], ((29, 46),)),
        (["28"], ((28,),)),
        (["alt-f2", "enter"], ((56, 60), (28,))),
        (["Ctrl-C"], ((29, 46),)),
        (["7"], ((8,),)),
        (["-", "ctrl--", "shift-/"], ((12,), (29, 12), (42, 53))),
        (["pgup", "102nd", "kpenter"], ((104,), (86,), (96,))),
    ],
)
def test_words(words: list[str], chords: tuple[tuple[int, ...], ...]) -> None:
    assert parse_chords(words) == chords


@pytest.mark.parametrize(
    "words",
    [
        ["ctrl-nonsense"],
        ["KEY_NONSENSE"],
        ["KEY_LEFTCTRL", "c"],
        ["256"],
        ["00"],
        ["9999999999999999999"],
        ["-".join(["a"] * 17)],
        ["KEY_A"] * 17,
        ["é"],
        ["\x1b"],
    ],
)
def test_what_is_no_key_is_refused(words: list[str]) -> None:
    with pytest.raises(CorralError) as refused:
        parse_chords(words)
    assert refused.value.code == "invalid-argument"


def test_text_is_typed_on_a_us_keyboard() -> None:
    assert parse_text("Hi!\n") == ((42, CODES["H"]), (CODES["I"],), (42, CODES["1"]), (CODES["ENTER"],))
    every = "".join(chr(code) for code in range(32, 127))
    assert len(set(parse_text(every))) == len(every)
    with pytest.raises(CorralError):
        parse_text("ü")
