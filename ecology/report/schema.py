"""JSON Schema (Draft 2020-12) of ``report.json``, derived from the contract types.

One source, so that the schema cannot drift from the code. The result is shipped as ``report.schema.json`` for those
who read reports without this package; a test holds the file to what this module says.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

import ecology.contracts.genome
from ecology.contracts.identity import Digest, Json
from ecology.contracts.run import REPORT_SCHEMA, RunReport

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DIGEST_PATTERN = "^sha256:[0-9a-f]{64}$"


def report_schema() -> dict[str, Json]:
    """The schema of a run's report."""
    definitions: dict[str, Json] = {}
    body = _schema(RunReport, definitions)
    properties = {**definitions["RunReport"]["properties"], "schema": {"const": REPORT_SCHEMA}}
    definitions["RunReport"] = {**definitions["RunReport"], "properties": properties}
    return {"$schema": DIALECT, "$id": REPORT_SCHEMA, "title": "Report of one run", **body, "$defs": definitions}


def _schema(kind: Any, definitions: dict[str, Json]) -> dict[str, Json]:  # noqa: PLR0911  (one branch a kind of type)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Digest:
        return {"type": "string", "pattern": DIGEST_PATTERN}
    if kind is Any or kind is object:
        return {}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(arg, definitions) for arg in args]}
    if origin is tuple:
        return {"type": "array", "items": _schema(args[0], definitions)}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(args[1], definitions)}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if dataclasses.is_dataclass(kind):
        return _object(typing.cast(type, kind), definitions)
    return {"type": {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}[kind]}


def _object(kind: type, definitions: dict[str, Json]) -> dict[str, Json]:
    reference = {"$ref": f"#/$defs/{kind.__name__}"}
    if kind.__name__ in definitions:
        return reference
    definitions[kind.__name__] = {}  # holds the place, so that a type may name itself
    hints = typing.get_type_hints(kind, localns={"Genome": ecology.contracts.genome.Genome})
    names = [field.name for field in dataclasses.fields(kind)]
    definitions[kind.__name__] = {
        "description": (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " "),
        "type": "object",
        "properties": {name: _schema(hints[name], definitions) for name in names},
        "required": [field.name for field in dataclasses.fields(kind) if not field.metadata.get("optional")],
        "additionalProperties": False,
    }
    return reference
