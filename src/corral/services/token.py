"""API tokens: made, listed, revoked, and checked when they come back."""

import asyncio
from datetime import UTC

from corral.errors import CorralError
from corral.model.answers import NewToken
from corral.model.identity import Identity, Token, TokenSpec
from corral.model.requests import CreateTokenRequest, ListRequest
from corral.names import parse_name
from corral.security.tokens import TokenVerifier, issue
from corral.services import listing
from corral.services.access import audited, authorize, commit
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.documents import Listing


class TokenService:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._verifier = TokenVerifier(lambda uid: context.objects.get(Token, uid), context.clock)

    async def authenticate(self, token: str) -> Identity:
        """Whose token it is; `unauthenticated` if nobody's."""
        return await self._verifier.verify(token)

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Token, request)

    async def create(self, caller: Caller, project: str, request: CreateTokenRequest) -> NewToken:
        """A token of `project`; the secret in the answer is shown once."""
        action, asked = "token.create", f"create token {request.name[:64]!r}"
        await authorize(self._context, caller, project, action, request.name)
        async with audited(self._context, caller, project, action, request.name):
            parse_name(request.name, "token name")
            now, expires_at = self._context.clock.now(), request.expires_at
            if expires_at is not None and expires_at.tzinfo is None:
                expires_at = expires_at.replace(tzinfo=UTC)
            if expires_at is not None and expires_at <= now:
                raise CorralError("invalid-argument", asked, "its end lies in the past", "choose a later expires_at")
            issued = await asyncio.to_thread(issue)
            rights = tuple(sorted(set(request.rights)))
            secret_hash = issued.secret_hash
            spec = TokenSpec(role=request.role, rights=rights, secret_hash=secret_hash, expires_at=expires_at)
            token = Token(project=project, name=request.name, uid=issued.uid, created_at=now, spec=spec)
            transaction = self._context.objects.transaction()
            transaction.create(token)
            try:
                given = " ".join(["role", request.role.value, *rights])
                done = await commit(self._context, transaction, caller, project, action, request.name, given)
            except CorralError as error:
                if error.code != "precondition-failed":
                    raise
                raise CorralError("name-taken", asked, "there is a token of this name", "revoke it first") from error
        shown = token.model_copy(
            update={"revision": done.revision, "spec": spec.model_copy(update={"secret_hash": ""})}
        )
        return NewToken(token=shown, secret=issued.text)

    async def revoke(self, caller: Caller, project: str, name: str) -> None:
        """Delete it: the next request with it is refused."""
        action = "token.revoke"
        await authorize(self._context, caller, project, action, name)
        async with audited(self._context, caller, project, action, name):
            token = await self._context.objects.require(Token, project, name)
            transaction = self._context.objects.transaction()
            transaction.delete(token)
            await commit(self._context, transaction, caller, project, action, name)
