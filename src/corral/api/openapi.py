"""The OpenAPI document's words: descriptions of fields, read from the models' source when somebody asks for the document.

pydantic would read them at import (`use_attribute_docstrings`), class by class: a sixth of the daemon's start-up.
"""

import ast
import inspect
import sys
from itertools import pairwise
from typing import Any

from corral.images.base import CatalogueEntry
from corral.model.base import Model

Words = dict[str, dict[str, str]]
"""Of each class: field to docstring."""


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """`document` with each field's docstring as its description, where it has no other."""
    modules: dict[str, Words] = {}
    words = {cls.__name__: _words_of(cls, modules) for cls in (*_models(Model), CatalogueEntry)}
    for name, schema in document["components"]["schemas"].items():
        # `Page[Vm]` is called Page_Vm_ in the document.
        found = words.get(name) or words.get(name.partition("_")[0]) or {}
        for field, described in schema.get("properties", {}).items():
            if field in found and "description" not in described:
                described["description"] = found[field]
    return document


def _models(cls: type[Model]) -> list[type[Model]]:
    return [cls, *(found for below in cls.__subclasses__() for found in _models(below))]


def _words_of(cls: type, modules: dict[str, Words]) -> dict[str, str]:
    """The docstrings of a class's fields, its bases' included. `modules` keeps what was read."""
    words: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        module = base.__module__
        if module.startswith("corral."):
            if module not in modules:
                modules[module] = _words_in(inspect.getsource(sys.modules[module]))
            words.update(modules[module].get(base.__name__, {}))
    return words


def _words_in(source: str) -> Words:
    return {node.name: _words_of_body(node.body) for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def _words_of_body(body: list[ast.stmt]) -> dict[str, str]:
    """Fields that are followed by a string: `name: type` and, below it, what it means."""
    words: dict[str, str] = {}
    for field, text in pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                words[name] = inspect.cleandoc(meaning)
    return words
