"""Writes src/corral/client_types.py: the API's documents as TypedDicts, from its OpenAPI document. `--check` only compares."""

import argparse
import keyword
import re
import sys
from pathlib import Path
from typing import Any

from corral.api.app import openapi_document

TARGET = Path(__file__).parents[1] / "src" / "corral" / "client_types.py"
HEADER = '''\
"""The API's documents, as types. Generated from the OpenAPI document by scripts/generate_client_types.py; do not edit.

Long because it has one class a document.
"""

# fmt: off
from __future__ import annotations

'''
PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def class_name(schema_name: str) -> str:
    """`Page_Vm_` is PageVm, `BootOrder-Input` is BootOrderInput."""
    return "".join(part[:1].upper() + part[1:] for part in schema_name.replace("-", "_").split("_"))


def type_of(schema: dict[str, Any]) -> str:
    """The Python type of a JSON schema."""
    if "$ref" in schema:
        return class_name(schema["$ref"].rpartition("/")[2])
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return f"Literal[{', '.join(repr(value) for value in values)}]"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(type_of(option) for option in options))
    if schema.get("type") == "array":
        return f"list[{type_of(schema.get('items', {}))}]"
    if schema.get("type") == "object":
        values = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
        return f"dict[str, {type_of(values) if isinstance(values, dict) else 'Any'}]"
    return PLAIN.get(str(schema.get("type")), "Any")


def definition(name: str, schema: dict[str, Any]) -> str:
    """One class, or the name of a plain type."""
    if "properties" not in schema:
        return f"{name} = {type_of(schema)}\n"
    required = set(schema.get("required", ()))
    members = {
        member: type_of(inner) if member in required else f"NotRequired[{type_of(inner)}]"
        for member, inner in schema["properties"].items()
    }
    if any(keyword.iskeyword(member) for member in members):
        rows = "".join(f"        {member!r}: {kind!r},\n" for member, kind in members.items())
        return f"{name} = TypedDict(\n    {name!r},\n    {{\n{rows}    }},\n)\n"
    rows = "".join(f"    {member}: {kind}\n" for member, kind in members.items())
    return f"class {name}(TypedDict):\n{rows}"


def generated() -> str:
    schemas = openapi_document()["components"]["schemas"]
    classes = {class_name(name): schema for name, schema in schemas.items()}
    # A plain alias is evaluated where it stands, so what has no properties comes first.
    ordered = sorted(classes, key=lambda name: ("properties" in classes[name], name))
    body = "\n\n".join(definition(name, classes[name]) for name in ordered)
    names = [name for name in ("Any", "Literal", "NotRequired", "TypedDict") if re.search(rf"\b{name}\b", body)]
    return f"{HEADER}from typing import {', '.join(names)}\n\n{body}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the file is not current")
    check: bool = parser.parse_args().check
    text = generated()
    if check:
        if TARGET.read_text() != text:
            print(f"{TARGET} is not current: run scripts/generate_client_types.py", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
