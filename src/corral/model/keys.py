"""Keys as people write them (`ctrl-alt-del`), as virsh does (`KEY_LEFTCTRL KEY_ALT`) and as text, and their Linux codes. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from corral.errors import CorralError

CHORD_MAX: Final = 16  # libvirt's VIR_DOMAIN_SEND_KEY_MAX_KEYS
CODE_MAX: Final = 255
PREFIX: Final = "KEY_"

Chord = tuple[int, ...]
"""Keys that are down together."""


def _numbered(first: int, names: str) -> dict[str, int]:
    """Names in the order of their codes; `-` is a code without one."""
    return {name: code for code, name in enumerate(names.split(), first) if name != "-"}


# The kernel's input-event-codes.h, without the prefix: what keyboards of PCs have.
CODES: Final[Mapping[str, int]] = MappingProxyType(
    _numbered(
        1,
        "ESC 1 2 3 4 5 6 7 8 9 0 MINUS EQUAL BACKSPACE TAB Q W E R T Y U I O P LEFTBRACE RIGHTBRACE ENTER LEFTCTRL "
        "A S D F G H J K L SEMICOLON APOSTROPHE GRAVE LEFTSHIFT BACKSLASH Z X C V B N M COMMA DOT SLASH RIGHTSHIFT "
        "KPASTERISK LEFTALT SPACE CAPSLOCK F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 NUMLOCK SCROLLLOCK KP7 KP8 KP9 KPMINUS "
        "KP4 KP5 KP6 KPPLUS KP1 KP2 KP3 KP0 KPDOT - ZENKAKUHANKAKU 102ND F11 F12 RO KATAKANA HIRAGANA HENKAN "
        "KATAKANAHIRAGANA MUHENKAN KPJPCOMMA KPENTER RIGHTCTRL KPSLASH SYSRQ RIGHTALT LINEFEED HOME UP PAGEUP LEFT "
        "RIGHT END DOWN PAGEDOWN INSERT DELETE MACRO MUTE VOLUMEDOWN VOLUMEUP POWER KPEQUAL KPPLUSMINUS PAUSE SCALE "
        "KPCOMMA HANGEUL HANJA YEN LEFTMETA RIGHTMETA COMPOSE STOP AGAIN PROPS UNDO FRONT COPY OPEN PASTE FIND CUT "
        "HELP MENU CALC SETUP SLEEP WAKEUP",
    )
    | _numbered(183, "F13 F14 F15 F16 F17 F18 F19 F20 F21 F22 F23 F24")
    | {"PRINT": 210}
)

# What people call them; letters, digits, F keys and the kernel's own names in small letters work too.
NICKNAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ctrl": "LEFTCTRL",
        "control": "LEFTCTRL",
        "alt": "LEFTALT",
        "altgr": "RIGHTALT",
        "shift": "LEFTSHIFT",
        "super": "LEFTMETA",
        "win": "LEFTMETA",
        "meta": "LEFTMETA",
        "del": "DELETE",
        "ins": "INSERT",
        "escape": "ESC",
        "return": "ENTER",
        "pgup": "PAGEUP",
        "pgdn": "PAGEDOWN",
        "print": "SYSRQ",
        "period": "DOT",
    }
)
# virsh knows these beside the kernel's names: the header's own aliases.
_ALIASES: Final[Mapping[str, str]] = MappingProxyType({"ALT": "LEFTALT", "CTRL": "LEFTCTRL", "SHIFT": "LEFTSHIFT"})

_SHIFT: Final = CODES["LEFTSHIFT"]
# The US layout: what a guest that was not told otherwise has.
_PLAIN: Final[Mapping[str, str]] = MappingProxyType(
    {" ": "SPACE", "\n": "ENTER", "\t": "TAB", "-": "MINUS", "=": "EQUAL", "[": "LEFTBRACE", "]": "RIGHTBRACE"}
    | {";": "SEMICOLON", "'": "APOSTROPHE", "`": "GRAVE", "\\": "BACKSLASH", ",": "COMMA", ".": "DOT", "/": "SLASH"}
)
_SHIFTED: Final[Mapping[str, str]] = MappingProxyType(
    dict(zip('!@#$%^&*()_+{}:"~|<>?', "1234567890-=[];'`\\,./", strict=True))
)


def parse_chords(words: Sequence[str]) -> tuple[Chord, ...]:
    """`ctrl-alt-del enter`: one chord a word, one after the other. As virsh has it, words that are all `KEY_…` or numbers
    are one chord. Raises `invalid-argument`."""
    virsh = [word for word in words if word.startswith(PREFIX) or (word.isdigit() and len(word) > 1)]
    if virsh and len(virsh) == len(words):
        return (_checked(tuple(_code(word) for word in words), " ".join(words)),)
    if virsh:
        raise _refused(virsh[0], "KEY_… names and key combinations do not mix", "write ctrl-c, or KEY_LEFTCTRL KEY_C")
    return tuple(_checked(tuple(_nicknamed(part, word) for part in _parts(word)), word) for word in words)


def parse_text(text: str) -> tuple[Chord, ...]:
    """The keys that type `text` on a US keyboard. Raises `invalid-argument` for what it does not have."""
    return tuple(_typed(character) for character in text.replace("\r\n", "\n"))


def _typed(character: str) -> Chord:
    if character.isascii() and character.isalnum():
        code = CODES[character.upper()]
        return (_SHIFT, code) if character.isupper() else (code,)
    if character in _SHIFTED:
        return (_SHIFT, *_typed(_SHIFTED[character]))
    if character not in _PLAIN:
        raise _refused(character, "a US keyboard cannot type it", "copy text with `corral cp` or `corral exec`")
    return (CODES[_PLAIN[character]],)


def _parts(word: str) -> list[str]:
    """`ctrl--` is Ctrl and minus, `-` is minus."""
    if word.endswith("-"):
        return [*(part for part in word[:-1].removesuffix("-").split("-") if part), "minus"]
    return word.split("-")


def _nicknamed(part: str, word: str) -> int:
    name = part.lower()
    if len(name) == 1 and name in _PLAIN:
        return CODES[_PLAIN[name]]
    code = CODES.get(NICKNAMES.get(name, name.upper()))
    if code is None:
        raise _refused(word, f"there is no key {part[:32]!r}", "write ctrl-alt-del, f2, enter, or virsh's KEY_… names")
    return code


def _code(word: str) -> int:
    if word.isdigit():
        code = int(word) if len(word) < 4 else 0
        if not 0 < code <= CODE_MAX:
            raise _refused(word, f"a key code is a number from 1 to {CODE_MAX}", "")
        return code
    name = word.removeprefix(PREFIX).upper()
    found = CODES.get(_ALIASES.get(name, name))
    if found is None:
        raise _refused(word, "there is no such key", "names are the kernel's: KEY_LEFTCTRL, KEY_F2; or give its number")
    return found


def _checked(chord: Chord, written: str) -> Chord:
    if len(chord) > CHORD_MAX:
        raise _refused(written, f"more than {CHORD_MAX} keys at once", "press fewer keys together")
    return chord


def _refused(what: str, reason: str, hint: str) -> CorralError:
    return CorralError("invalid-argument", f"press {what[:64]!r}", reason, hint)
