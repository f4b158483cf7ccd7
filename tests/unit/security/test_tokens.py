"""API tokens: whose they are, and who is refused."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from corral.clock import ManualClock
from corral.errors import CorralError
from corral.model.identity import Identity, Role, Token, TokenSpec
from corral.names import new_uid
from corral.security import tokens
from corral.security.tokens import NewToken, TokenVerifier, issue

CLOCK = ManualClock()


def _token(new: NewToken, name: str = "ci", expires_at: datetime | None = None) -> Token:
    spec = TokenSpec(role=Role.OPERATOR, secret_hash=new.secret_hash, expires_at=expires_at)
    return Token(name=name, uid=new.uid, created_at=CLOCK.now(), spec=spec)


class Registry:
    """The tokens there are."""

    def __init__(self, *known: Token) -> None:
        self.known = {token.uid: token for token in known}

    async def lookup(self, uid: str) -> Token | None:
        return self.known.get(uid)


def _refused(verifier: TokenVerifier, *texts: str) -> None:
    async def attempts() -> None:
        for text in texts:
            with pytest.raises(CorralError) as refused:
                await verifier.verify(text)
            assert refused.value.code == "unauthenticated"
            assert text not in str(refused.value) or not text

    asyncio.run(attempts())


def test_a_token_speaks_for_itself_in_its_own_project():
    new = issue()
    verifier = TokenVerifier(Registry(_token(new)).lookup, CLOCK)
    expected = Identity(name="token:ci", roles={"default": Role.OPERATOR})
    assert asyncio.run(verifier.verify(new.text)) == expected
    assert asyncio.run(verifier.verify(new.text)) == expected


def test_nothing_of_the_secret_is_kept_or_shown():
    new = issue()
    secret = new.text.split("_", 2)[2]
    assert len(secret) == 43
    assert secret not in new.secret_hash
    assert new.secret_hash.startswith("$argon2id$")
    assert secret not in repr(new)


def test_whatever_is_wrong_is_refused_alike():
    new, other = issue(), issue()
    secret = new.text.split("_", 2)[2]
    _refused(
        TokenVerifier(Registry(_token(new), _token(other, "other")).lookup, CLOCK),
        "",
        "corral_",
        new.text[:-1],
        new.text + "x",
        new.text + "\n",
        new.text.upper(),
        f"corral_{new_uid()}_{secret}",
        f"corral_{other.uid}_{secret}",
        "corral_" + "x" * 100_000,
        f"corral_{new.uid}_{'é' * 43}",
    )


def test_a_deleted_token_is_refused_at_once_though_it_was_remembered():
    new = issue()
    registry = Registry(_token(new))
    verifier = TokenVerifier(registry.lookup, CLOCK)
    asyncio.run(verifier.verify(new.text))
    registry.known.clear()
    _refused(verifier, new.text)


def test_a_changed_secret_is_not_remembered():
    new, renewed = issue(), issue()
    registry = Registry(_token(new))
    verifier = TokenVerifier(registry.lookup, CLOCK)
    asyncio.run(verifier.verify(new.text))
    registry.known[new.uid] = _token(NewToken(new.uid, "", renewed.secret_hash))
    _refused(verifier, new.text)


def test_a_token_ends_at_its_time():
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    new = issue()
    verifier = TokenVerifier(Registry(_token(new, expires_at=clock.now() + timedelta(hours=1))).lookup, clock)
    assert asyncio.run(verifier.verify(new.text)).name == "token:ci"
    clock.advance(3600)
    _refused(verifier, new.text)


def test_a_damaged_hash_is_a_refusal_and_not_a_crash():
    new = issue()
    _refused(TokenVerifier(Registry(_token(NewToken(new.uid, "", "not a hash"))).lookup, CLOCK), new.text)


def test_only_the_first_of_many_requests_pays_for_the_hash(monkeypatch):
    new = issue()
    verifier = TokenVerifier(Registry(_token(new)).lookup, CLOCK)
    paid = []
    verified = tokens._verified

    def counted(secret_hash: str, secret: str) -> bool:
        paid.append(secret_hash)
        return verified(secret_hash, secret)

    monkeypatch.setattr(tokens, "_verified", counted)

    async def many() -> None:
        for _ in range(200):
            await verifier.verify(new.text)

    asyncio.run(many())
    assert len(paid) == 1


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(tokens, "CACHE_MAX", 2)
    made = [issue() for _ in range(4)]
    verifier = TokenVerifier(Registry(*(_token(new, f"t{n}") for n, new in enumerate(made))).lookup, CLOCK)

    async def each() -> None:
        for new in made:
            await verifier.verify(new.text)

    asyncio.run(each())
    assert len(verifier._right) == 2
