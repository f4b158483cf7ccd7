"""cloud-init documents: what is built says what was asked, and what cannot be read is refused with its place."""

import json
from email import message_from_string

import pytest
import yaml

from corral.errors import CorralError
from corral.images.cloud_init import build_seed_files, build_user_data, validate_network_config, validate_user_data
from corral.model import limits
from corral.model.vm import CloudInitSpec, CloudInitUser, NicSpec

KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample me@here: "quoted"'


def spec(**changes: object) -> CloudInitSpec:
    user = CloudInitUser(name="alice", ssh_keys=(KEY,), password_hash="$6$salt$hash")
    return CloudInitSpec(hostname="web", instance_id="i-1", users=(user,)).model_copy(update=changes)


def test_seed_without_documents_of_the_user() -> None:
    files = build_seed_files(spec())
    assert set(files) == {"meta-data", "user-data", "vendor-data"}
    assert json.loads(files["meta-data"]) == {"instance-id": "i-1", "local-hostname": "web"}
    head, _, body = files["user-data"].decode().partition("\n")
    assert head == "#cloud-config"
    config = yaml.safe_load(body)
    assert config["hostname"] == "web"
    assert config["ssh_pwauth"] is True
    [user] = config["users"]
    assert user["ssh_authorized_keys"] == [KEY]
    assert user["hashed_passwd"] == "$6$salt$hash"
    assert user["lock_passwd"] is False
    assert user["sudo"] == "ALL=(ALL) NOPASSWD:ALL"


def test_users_are_made_before_the_network_only_where_no_document_of_the_users_may_need_it() -> None:
    def meta_data(**changes: object) -> dict[str, str]:
        found = json.loads(build_seed_files(spec(dsmode="local", **changes))["meta-data"])
        assert isinstance(found, dict)
        return found

    assert meta_data()["dsmode"] == "local"
    assert "dsmode" not in meta_data(user_data="#cloud-config\npackages: [curl]\n")
    assert "dsmode" not in meta_data(network_config="version: 2\n")


def test_user_without_password_or_rights() -> None:
    config = yaml.safe_load(build_user_data(spec(users=(CloudInitUser(name="bob", sudo=False),))))
    [user] = config["users"]
    assert user["lock_passwd"] is True
    assert "sudo" not in user
    assert config["ssh_pwauth"] is False


def test_same_spec_gives_the_same_bytes() -> None:
    assert build_seed_files(spec(user_data="#!/bin/sh\n")) == build_seed_files(spec(user_data="#!/bin/sh\n"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("#cloud-config\nruncmd: [ls]\n", "text/cloud-config"),
        ("#!/bin/sh\necho ü\n", "text/x-shellscript"),
        ("#include\nhttps://example.org/x\n", "text/x-include-url"),
        ("#include-once\nhttps://example.org/x\n", "text/x-include-once-url"),
        ("## template: jinja\n#cloud-config\n{}\n", "text/jinja2"),
        ("#cloud-config-archive\n- x\n", "text/cloud-config-archive"),
    ],
)
def test_user_data_becomes_the_second_part(text: str, kind: str) -> None:
    validate_user_data(text)
    message = message_from_string(build_user_data(spec(user_data=text)))
    ours, theirs = message.get_payload()
    assert ours.get_content_type() == "text/cloud-config"
    assert theirs.get_content_type() == kind
    assert theirs.get_payload(decode=True).decode() == text


def test_multipart_of_the_user_is_taken_apart() -> None:
    inner = build_user_data(spec(user_data="#!/bin/sh\n"))
    validate_user_data(inner)
    message = message_from_string(build_user_data(spec(user_data=inner)))
    assert [part.get_content_type() for part in message.get_payload()] == [
        "text/cloud-config",
        "text/cloud-config",
        "text/x-shellscript",
    ]


def test_network_config_is_passed_on() -> None:
    text = "version: 2\nethernets: {}\n"
    validate_network_config(text)
    assert build_seed_files(spec(network_config=text))["network-config"] == text.encode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#cloud-config\na: [1\nb: 2\n", "line 3"),
        ("#cloud-config\na: b\n\tc: d\n", "line 3"),
        ("#cloud-config\n- one\n", "must be a mapping"),
        ("hello\n", "no known kind"),
        ("#cloud-config\na: " + "[" * 200, "nested deeper"),
        ("#!/bin/sh\n\0", "line 2"),
        ("Content-Type: multipart/mixed; boundary=x\n\n--x\n\nno end", "MIME"),
        ("#cloud-config-archive\na: b\n", "list"),
    ],
)
def test_bad_user_data(text: str, words: str) -> None:
    with pytest.raises(CorralError, match="invalid-cloud-init") as caught:
        validate_user_data(text)
    assert words in caught.value.reason


def test_good_user_data() -> None:
    for text in ("", "  \n", "#cloud-config\n", "#cloud-config\nbase: &b {x: 1}\nother: *b\n", "#!/bin/sh\n"):
        validate_user_data(text)


def test_aliases_that_would_explode_are_never_expanded() -> None:
    lines = ["#cloud-config", "a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30)]
    validate_user_data("\n".join(lines))


def test_user_data_of_ten_megabytes() -> None:
    with pytest.raises(CorralError) as caught:
        validate_user_data("#cloud-config\n" + "#" * 10 * 2**20)
    assert caught.value.code == "body-too-large"
    assert str(limits.USER_DATA_MAX_BYTES) in caught.value.reason


@pytest.mark.parametrize("text", ["version: 3\n", "- a\n", "just words", "network: {}\n", "a: [\n"])
def test_bad_network_config(text: str) -> None:
    with pytest.raises(CorralError, match="invalid-cloud-init"):
        validate_network_config(text)


@pytest.mark.parametrize("text", ["", "version: 1\nconfig: []\n", "network:\n  version: 2\n"])
def test_good_network_config(text: str) -> None:
    validate_network_config(text)


def _nested(depth: int) -> str:
    """A MIME document whose parts are nested `depth` deep, a few hundred of which fit into what may be sent."""
    begins = "".join(f'Content-Type: multipart/mixed; boundary="b{n}"\n\n--b{n}\n' for n in range(depth))
    ends = "".join(f"\n--b{n}--\n" for n in reversed(range(depth)))
    return f"MIME-Version: 1.0\n{begins}Content-Type: text/cloud-config\n\n{{}}\n{ends}"


@pytest.mark.parametrize("depth", [9, 300, 900])
def test_mime_parts_nested_too_deep_are_refused_before_anybody_writes_them_out(depth: int) -> None:
    with pytest.raises(CorralError) as refused:
        validate_user_data(_nested(depth))
    assert refused.value.code == "invalid-cloud-init"


def test_mime_parts_nested_a_little_are_handed_on() -> None:
    validate_user_data(_nested(3))
    spec = CloudInitSpec(hostname="web", user_data=_nested(3), instance_id="iid-1")
    assert b"boundary" in build_seed_files(spec)["user-data"]


def card(name: str, mac: str, address: str, **more: object) -> NicSpec:
    uid = "00000000-0000-4000-8000-000000000001"
    return NicSpec.model_validate({"name": name, "network_uid": uid, "mac": mac, "address": address, **more})


def test_cards_are_called_by_their_mac() -> None:
    nics = (
        card("net0", "52:54:00:00:00:01", "10.0.0.5"),
        card("net2", "52:54:00:00:00:02", "10.1.0.5"),
        card("net3", "52:54:00:00:00:03", ""),
    )
    found = yaml.safe_load(build_seed_files(spec(), nics)["network-config"])
    validate_network_config(json.dumps(found))
    cards = found["ethernets"]
    assert {name: each["match"]["macaddress"] for name, each in cards.items()} == {nic.name: nic.mac for nic in nics}
    assert all(each["set-name"] == name for name, each in cards.items())
    assert [each.get("dhcp4", False) for each in cards.values()] == [True, True, False]
    # Of two ways out the first card's is taken, and only that one is waited for.
    assert "dhcp4-overrides" not in cards["net0"]
    assert cards["net2"]["dhcp4-overrides"]["route-metric"] > 1024
    assert [each.get("optional", False) for each in cards.values()] == [False, True, True]


def test_the_users_own_network_config_wins() -> None:
    text = "version: 2\nethernets: {}\n"
    files = build_seed_files(spec(network_config=text), (card("net0", "52:54:00:00:00:01", "10.0.0.5"),))
    assert files["network-config"] == text.encode()
