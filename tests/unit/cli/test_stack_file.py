"""Reading stacks: YAML under limits, folders merged, files read from beside the document; what is bad is refused with its line."""

from pathlib import Path
from typing import Any

import pytest

from corral.cli.stack_file import load_stack, parse_overrides
from corral.cli.stack_yaml import load_all
from corral.errors import CorralError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPqVv0VEhYxX5uQ1vfQ9o6mJ2c9e3yJxqkYw7F0tUuFZ ann@laptop"


def load(tmp_path: Path, **files: str) -> dict[str, Any]:
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return load_stack([str(tmp_path)])


def test_words_stay_words() -> None:
    text = "a: no\nb: 52:54:00\nc: 2026-01-01\nd: 010\ne: 1.5G\nf: true\ng: 12\nh: 1.5\ni:\nj: ~\nk: 1_000\nl: on"
    assert load_all(text, "x") == [
        {"a": "no", "b": "52:54:00", "c": "2026-01-01", "d": "010", "e": "1.5G", "f": True, "g": 12, "h": 1.5, "i": None,
         "j": None, "k": "1_000", "l": "on"}
    ]  # fmt: skip


BOMB = "a: &a [x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "line 2, column 8: aliases"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: 'a' stands there twice"),
        ("a: {b: 1, b: 2}", "'b' stands there twice"),
        ("1: x", "a key is a text"),
        ("[a]: x", "a key is a text"),
        ("[" * 100, "nested deeper than 32"),
        ("a: [" + "1," * 60_000 + "]", "more than 50000 values"),
        ("a: b: c", "line 1, column 5"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: !!timestamp 2026-01-01", "could not determine a constructor"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("<<: *x", "aliases"),
        ("- a", "it is no mapping"),
        ("just words", "it is no mapping"),
        ("a: 'open", "line 1"),
        ("a: \x00", "no YAML"),
        ("\ta: 1", "line 1"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(text: str, expected: str) -> None:
    with pytest.raises(CorralError) as refused:
        load_all(text, "lab.yaml")
    assert refused.value.code == "invalid-document"
    assert expected in str(refused.value), str(refused.value)


def test_the_files_of_a_folder_are_one_stack(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        a="stack: lab\nimages: [micro]\nvariables: {x: 1}\nvms: {db: {}}",
        b="stack: lab\nimages: [micro, debian-12]\nvms: {web: {}}\n---\nvms: {app: }",
    )
    assert found == {
        "stack": "lab",
        "images": ["micro", "debian-12"],
        "variables": {"x": 1},
        "vms": {"db": {}, "web": {}, "app": None},
    }


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("stack: other", "stack: "),
        ("vms: {db: {}}", "vms.db: "),
        ("variables: {x: 2}", "variables.x: "),
        ("defaults: {vcpus: 2}", "defaults.vcpus: "),
    ],
)
def test_what_two_files_say_differently_is_refused(tmp_path: Path, second: str, expected: str) -> None:
    first = "stack: lab\nvariables: {x: 1}\ndefaults: {vcpus: 1}\nvms: {db: {}}"
    with pytest.raises(CorralError) as refused:
        load(tmp_path, a=first, b=second)
    assert expected in refused.value.reason
    assert "a.yaml says it, too" in refused.value.reason


def test_files_are_read_from_beside_the_document_and_their_dollars_stay(tmp_path: Path) -> None:
    (tmp_path / "ci.sh").write_text("#!/bin/sh\necho ${HOME} $${X}\n")
    (tmp_path / "ann.pub").write_text(f"{KEY}\n# a comment\n{KEY} 2\n")
    found = load(tmp_path, a=f"stack: s\nvms: {{web: {{user_data_file: ci.sh, ssh_keys: [ann.pub, '{KEY}']}}}}")
    assert found["vms"]["web"] == {
        "user_data": "#!/bin/sh\necho $${HOME} $$${X}\n".replace("$$${X}", "$$${X}"),
        "ssh_keys": [KEY, f"{KEY} 2", KEY],
    }


@pytest.mark.parametrize(
    "vm",
    [
        "{user_data_file: nowhere}",
        "{user_data: x, user_data_file: ci}",
        "{user_data_file: '${x}'}",
        "{ssh_keys: [./x.pub]}",
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, vm: str) -> None:
    (tmp_path / "ci").write_text("#!/bin/sh\n")
    with pytest.raises(CorralError) as refused:
        load(tmp_path, a=f"stack: s\nvms: {{web: {vm}}}")
    assert "vms.web" in str(refused.value) or "--ssh-key" in str(refused.value)


def test_folders_without_documents_and_documents_without_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorralError, match=r"no file in it"):
        load_stack([str(tmp_path)])
    with pytest.raises(CorralError, match="no name"):
        load(tmp_path, a="vms: {}")
    with pytest.raises(CorralError, match="No such file"):
        load_stack([str(tmp_path / "nowhere.yaml")])
    (tmp_path / "large.yaml").write_text("#" * 2**21)
    with pytest.raises(CorralError) as refused:
        load_stack([str(tmp_path / "large.yaml")])
    assert refused.value.code == "body-too-large"


def test_overrides_are_pairs() -> None:
    assert parse_overrides(("a=1", "b=x=y", "c=")) == {"a": "1", "b": "x=y", "c": ""}
    for text in ("a", "=1"):
        with pytest.raises(CorralError, match="NAME=VALUE"):
            parse_overrides((text,))
