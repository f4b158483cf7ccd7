"""Routes of security groups and network policies."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, IfRevisionParam, ListParam, NameParam
from corral.api.documents import Page, document_response, model_response, page_response
from corral.api.route import noun_router
from corral.model.firewall_requests import (
    CreateNetworkPolicyRequest,
    CreateSecurityGroupRequest,
    UpdateNetworkPolicyRequest,
    UpdateSecurityGroupRequest,
)
from corral.model.network_policy import NetworkPolicy
from corral.model.security_group import SecurityGroup

router = noun_router("security groups")


@router.get("/security-groups", response_model=Page[SecurityGroup], summary="List security groups")
async def list_security_groups(call: CallParam, request: ListParam) -> Response:
    """With `default` and `open`, which every project has."""
    return page_response(await call.services.security_groups.list(call.caller, call.project, request))


@router.post("/security-groups", status_code=201, response_model=SecurityGroup, summary="Make a security group")
async def create_security_group(call: CallParam, body: CreateSecurityGroupRequest) -> Response:
    """What no rule of a card's groups lets through is denied."""
    made = await call.services.security_groups.create(call.caller, call.project, body)
    return model_response(made, status_code=201)


@router.get("/security-groups/{name}", response_model=SecurityGroup, summary="Show a security group")
async def get_security_group(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.security_groups.get(call.caller, call.project, name))


@router.patch("/security-groups/{name}", response_model=SecurityGroup, summary="Change a security group")
async def update_security_group(
    call: CallParam, name: NameParam, body: UpdateSecurityGroupRequest, if_revision: IfRevisionParam
) -> Response:
    """New connections meet the new rules at once, also those of running guests."""
    groups = call.services.security_groups
    return model_response(await groups.update(call.caller, call.project, name, body, if_revision=if_revision))


@router.delete("/security-groups/{name}", status_code=204, response_class=Response, summary="Delete a security group")
async def delete_security_group(call: CallParam, name: NameParam) -> Response:
    """Refused while a card, a rule of another group or a policy names it."""
    await call.services.security_groups.delete(call.caller, call.project, name)
    return Response(status_code=204)


@router.get("/network-policies", response_model=Page[NetworkPolicy], summary="List network policies")
async def list_network_policies(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.network_policies.list(call.caller, call.project, request))


@router.post("/network-policies", status_code=201, response_model=NetworkPolicy, summary="Make a network policy")
async def create_network_policy(call: CallParam, body: CreateNetworkPolicyRequest) -> Response:
    """New connections between its tiers are denied from now on, unless an exception names them."""
    made = await call.services.network_policies.create(call.caller, call.project, body)
    return model_response(made, status_code=201)


@router.get("/network-policies/{name}", response_model=NetworkPolicy, summary="Show a network policy")
async def get_network_policy(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.network_policies.get(call.caller, call.project, name))


@router.patch("/network-policies/{name}", response_model=NetworkPolicy, summary="Change a network policy")
async def update_network_policy(
    call: CallParam, name: NameParam, body: UpdateNetworkPolicyRequest, if_revision: IfRevisionParam
) -> Response:
    policies = call.services.network_policies
    return model_response(await policies.update(call.caller, call.project, name, body, if_revision=if_revision))


@router.delete("/network-policies/{name}", status_code=204, response_class=Response, summary="Delete a network policy")
async def delete_network_policy(call: CallParam, name: NameParam) -> Response:
    await call.services.network_policies.delete(call.caller, call.project, name)
    return Response(status_code=204)
