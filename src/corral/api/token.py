"""Routes of API tokens."""

from starlette.responses import Response

from corral.api.call import CallParam, ListParam, NameParam
from corral.api.documents import Page, model_response, page_response
from corral.api.route import noun_router
from corral.model.answers import NewToken
from corral.model.identity import Token
from corral.model.requests import CreateTokenRequest

router = noun_router("tokens", "/tokens")


@router.get("", response_model=Page[Token], summary="List tokens")
async def list_tokens(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.tokens.list(call.caller, call.project, request))


@router.post("", status_code=201, response_model=NewToken, summary="Create a token")
async def create_token(call: CallParam, body: CreateTokenRequest) -> Response:
    """The secret is in this answer and nowhere else."""
    made = await call.services.tokens.create(call.caller, call.project, body)
    response = model_response(made, status_code=201)
    response.headers["Cache-Control"] = "no-store"
    return response


@router.delete("/{name}", status_code=204, response_class=Response, summary="Revoke a token")
async def revoke_token(call: CallParam, name: NameParam) -> Response:
    await call.services.tokens.revoke(call.caller, call.project, name)
    return Response(status_code=204)
