"""Every answer is what the OpenAPI document says it is; ETags, selectors, fields and pages work over the wire."""

import json
import re
from typing import Any

import pytest
from plain_http import UnixConnection

from corral.api.app import openapi_document
from corral.client import Client
from corral.errors import CorralError
from corral.model.address import AddressSpec, FloatingAddress
from corral.model.balancer import Balancer, BalancerSpec, BalancerTarget
from corral.model.forward import Forward, ForwardSpec
from corral.model.limits import PAGE_MAX
from corral.model.router import Router, RouterPort, RouterSpec
from corral.model.vm import Vm
from corral.names import new_mac, new_uid

from .conftest import World

DOCUMENT = openapi_document()
SCHEMAS = DOCUMENT["components"]["schemas"]
KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def violations(schema: dict[str, Any], value: Any, path: str = "$") -> list[str]:
    """What in `value` is not as a JSON schema says: the part of the language that pydantic writes."""
    if "$ref" in schema:
        return violations(SCHEMAS[schema["$ref"].rpartition("/")[2]], value, path)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        tried = [violations(option, value, path) for option in options]
        return [] if any(not found for found in tried) else min(tried, key=len)
    if "const" in schema or "enum" in schema:
        allowed = schema.get("enum", [schema.get("const")])
        return [] if value in allowed else [f"{path}: {value!r} not in {allowed}"]
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, KINDS[kind]) or (kind != "boolean" and isinstance(value, bool))):
        return [f"{path}: {value!r} is no {kind}"]
    if kind == "object":
        return _object_violations(schema, value, path)
    if kind == "array":
        return [
            found for n, item in enumerate(value) for found in violations(schema.get("items", {}), item, f"{path}[{n}]")
        ]
    if kind == "string" and "pattern" in schema and not re.search(schema["pattern"], value):
        return [f"{path}: {value!r} does not match {schema['pattern']}"]
    if kind in ("integer", "number") and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return [f"{path}: {value} is out of bounds"]
    return []


def _object_violations(schema: dict[str, Any], value: dict[str, Any], path: str) -> list[str]:
    known = schema.get("properties", {})
    found = [f"{path}: {name} is missing" for name in schema.get("required", ()) if name not in value]
    others = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties", True))
    for name, member in value.items():
        if name in known:
            found += violations(known[name], member, f"{path}.{name}")
        elif others is False:
            found.append(f"{path}: {name} is unknown")
        elif isinstance(others, dict):
            found += violations(others, member, f"{path}.{name}")
    return found


def schema_of(route: str, method: str, status: int) -> dict[str, Any] | None:
    content = DOCUMENT["paths"][route][method]["responses"][str(status)].get("content", {})
    schema: dict[str, Any] | None = content.get("application/json", {}).get("schema")
    return schema


QUERIES = {"/v1/vms/{name}/wait": {"for": "running", "timeout_s": 5}}
OTHERS = {
    "/v1/watch",  # a stream
    "/v1/vms/{name}/console/log",  # the fake hypervisor writes none
}
NAMES = {
    "/v1/images": "micro",
    "/v1/networks": "default",
    "/v1/hosts": "self",
    "/v1/os": "debian12",
    "/v1/pools": "fast",
}


def _routes(method: str) -> list[str]:
    return sorted(route for route, methods in DOCUMENT["paths"].items() if method in methods and route not in OTHERS)


@pytest.fixture
def running(world: World, client: Client) -> dict[str, Any]:
    """A VM that runs, whose creation has ended."""
    accepted = client.create_vm({"name": "web", "image": "micro", "memory_mib": 64, "labels": {"tier": "web"}})
    world.boot("web")
    world.finish(accepted["operation"]["uid"])
    return dict(accepted)


async def _put_routing(world: World) -> None:
    """What the agent would take part in: a router and all that hangs on it, each called `web`."""
    objects, now = world.context.objects, world.context.clock.now()
    vm = await objects.require(Vm, "default", "web")
    port = RouterPort(network="default", network_uid=new_uid(), mac=new_mac(), address="10.128.0.9")
    router = Router(name="web", uid=new_uid(), created_at=now, spec=RouterSpec(uplink_port=port))
    to = {"vm": vm.name, "vm_uid": vm.uid}
    at = {"router": router.name, "router_uid": router.uid}
    transaction = objects.transaction()
    for made in (
        router,
        Forward(name="web", uid=new_uid(), created_at=now, spec=ForwardSpec(host_port=8080, port=80, **to)),
        FloatingAddress(name="web", uid=new_uid(), created_at=now, spec=AddressSpec(address="10.128.0.10", **at, **to)),
        Balancer(
            name="web",
            uid=new_uid(),
            created_at=now,
            spec=BalancerSpec(listen=80, port=80, targets=(BalancerTarget(**to),), **at),
        ),
    ):
        transaction.create(made)
    await transaction.commit()


def test_every_get_answers_as_documented(world: World, client: Client, running: dict[str, Any]) -> None:
    wrong: list[str] = []
    client.create_pool({"name": "fast", "path": "/srv/fast"})
    client.create_template({"name": "web", "source": "web"})
    client.create_snapshot("web", {"name": "first"})
    client.create_security_group({"name": "web"})
    client.create_network_policy({"name": "web", "tiers": ["group:web", "group:default"]})
    world.run(_put_routing(world))
    for route in _routes("get"):
        values = {"name": NAMES.get(route.partition("/{")[0], "web"), "uid": running["operation"]["uid"]}
        values["snapshot"] = "now" if route.endswith("/diff") else "first"  # nobody takes it here
        if route == "/v1/volumes/{name}":
            values["name"] = client.list_volumes()[0]["name"]
        content = client.request_bytes("GET", route.format(**values), query=QUERIES.get(route, {}))
        if schema := schema_of(route, "get", 200):
            wrong += [f"{route} {found}" for found in violations(schema, json.loads(content))]
    assert not wrong, "\n".join(wrong)


def test_what_a_change_answers_is_documented(client: Client, running: dict[str, Any]) -> None:
    schema = schema_of("/v1/vms", "post", 202)
    assert schema is not None
    assert violations(schema, running) == []
    shutdown = client.vm_action("web", "shutdown", {"deadline_s": 5})
    schema = schema_of("/v1/vms/{name}/actions/shutdown", "post", 202)
    assert schema is not None
    assert violations(schema, dict(shutdown)) == []


def test_every_operation_has_words_and_every_body_an_example() -> None:
    for route, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), (method, route)
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if body:
                reference = body.get("$ref") or next(part["$ref"] for part in body["anyOf"] if "$ref" in part)
                assert SCHEMAS[reference.rpartition("/")[2]].get("examples"), (method, route)


def test_examples_are_valid() -> None:
    for name, schema in SCHEMAS.items():
        for example in schema.get("examples", ()):
            assert violations(schema, example) == [], name


def test_a_document_has_its_revision_as_etag(world: World, running: dict[str, Any]) -> None:
    connection = UnixConnection(str(world.settings.socket), 10)
    connection.request("GET", "/v1/vms/web")
    response = connection.getresponse()
    vm, etag = json.loads(response.read()), response.headers["ETag"]
    assert etag == f'"{vm["revision"]}"'
    connection.request("GET", "/v1/vms/web", headers={"If-None-Match": etag, "X-Request-Id": "mine-1"})
    response = connection.getresponse()
    assert (response.status, response.read()) == (304, b"")
    assert response.headers["X-Request-Id"] == "mine-1"
    connection.request("GET", "/v1/vms/web", headers={"X-Request-Id": "not mine\tat all"})
    response = connection.getresponse()
    response.read()
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["X-Request-Id"])
    connection.close()


def test_a_stale_if_match_is_refused(client: Client, running: dict[str, Any]) -> None:
    revision = client.get_vm("web")["revision"]
    client.update_vm("web", {"description": "first"}, if_match=f'"{revision}"')
    with pytest.raises(CorralError) as refused:
        client.update_vm("web", {"description": "second"}, if_match=f'"{revision}"')
    assert refused.value.code == "stale-revision"
    assert client.get_vm("web")["spec"]["description"] == "first"
    with pytest.raises(CorralError) as refused:
        client.update_vm("web", {"description": "third"}, if_match="yesterday")
    assert refused.value.code == "invalid-argument"


def test_the_same_idempotency_key_answers_with_the_same_operation(client: Client) -> None:
    first = client.create_vm({"name": "a", "memory_mib": 64}, idempotency_key="k-1")
    again = client.create_vm({"name": "a", "memory_mib": 64}, idempotency_key="k-1")
    assert first["operation"]["uid"] == again["operation"]["uid"]
    with pytest.raises(CorralError) as refused:
        client.create_vm({"name": "b", "memory_mib": 64}, idempotency_key="k-1")
    assert refused.value.code == "idempotency-key-reused"


def test_selectors_fields_and_pages(client: Client) -> None:
    for number in range(7):
        client.create_vm({"name": f"vm-{number}", "memory_mib": 64, "labels": {"odd": str(number % 2)}})
    assert {vm["name"] for vm in client.list_vms("odd=1")} == {"vm-1", "vm-3", "vm-5"}
    fields: list[Any] = list(client.list_vms("odd=1", "name,spec.memory_mib"))
    assert {"name": "vm-3", "spec": {"memory_mib": 64}} in fields
    seen, after = [], ""
    while True:
        page = client.request("GET", "/v1/vms", query={"limit": 3, "continue": after})
        assert len(page["items"]) <= 3
        seen += [vm["name"] for vm in page["items"]]
        if page["continue"] is None:
            break
        after = page["continue"]
    assert sorted(seen) == [f"vm-{number}" for number in range(7)]
    for query in ({"limit": 0}, {"limit": PAGE_MAX + 1}, {"selector": "=,"}, {"fields": "a b"}, {"revision": -1}):
        with pytest.raises(CorralError) as refused:
            client.request("GET", "/v1/vms", query=query)
        assert refused.value.code in ("invalid-argument", "invalid-selector"), query


def test_secrets_are_not_shown(client: Client) -> None:
    body: Any = {
        "name": "s",
        "image": "micro",
        "memory_mib": 64,
        "password": "hunter2",
        "user_data": "#cloud-config\n{}\n",
    }
    accepted = json.dumps(client.create_vm(body))
    made = client.create_token({"name": "ci", "role": "viewer"})
    shown = b"".join(
        client.request_bytes("GET", f"/v1/{noun}") for noun in ("vms", "tokens", "operations", "audit", "events")
    )
    for secret in ("hunter2", "$6$salt$", made["secret"], "argon2"):
        assert secret not in accepted
        assert secret.encode() not in shown
