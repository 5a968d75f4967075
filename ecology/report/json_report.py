"""``report.json``: the facts themselves, in canonical JSON, so that equal reports are equal bytes."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

from ecology.contracts.run import RunReport
from ecology.errors import ConfigError, IntegrityError
from ecology.kernel.canonical import canonical
from ecology.kernel.codec import structure

SCHEMA_FILE = Path(__file__).parent / "report.schema.json"
MAX_BYTES = 64 * 2**20
"""A report larger than this is not read."""


def render_json(report: RunReport) -> bytes:
    """The report in RFC 8785 bytes.

    Raises:
        ConfigError: It holds what JSON cannot (NaN, an integer beyond 2**53), or does not fit the schema.
    """
    data = canonical(report)
    problem = next(_validator().iter_errors(json.loads(data)), None)
    if problem is not None:
        raise ConfigError(f"the report does not fit its schema: {problem.message:.200}", where=problem.json_path)
    return data


def parse_report(data: bytes, where: str = "report.json") -> RunReport:
    """A report from its bytes.

    Args:
        data: Contents of the file.
        where: Its name, for messages.

    Raises:
        IntegrityError: Not JSON, not of the schema, or not canonical: a report is written once and never edited.
    """
    todo = "take the report from where it was written"
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"longer than {MAX_BYTES} bytes")
        value = json.loads(data)
        problem = next(_validator().iter_errors(value), None)
        if problem is not None:
            raise ValueError(f"{problem.json_path}: {problem.message:.200}")
        report = structure(RunReport, value)
        rewritten = canonical(report)
    except (ValueError, RecursionError, ConfigError) as error:
        raise IntegrityError(f"this is no report: {error}", where=where, todo=todo) from error
    if rewritten != data:
        raise IntegrityError("the report is not in canonical form, so it was edited", where=where, todo=todo)
    return report


def read_report(path: Path) -> RunReport:
    """A report from its file.

    Raises:
        IntegrityError: As ``parse_report``, or the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IntegrityError(
            f"the report cannot be read: {error.strerror or error}", where=str(path), todo="name the folder of a run"
        ) from error
    return parse_report(data, str(path))


@functools.cache
def _validator() -> Any:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)
