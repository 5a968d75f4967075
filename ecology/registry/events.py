"""The facts that the registry reads, and the keys that each must have.

``KINDS`` is the table; the docstring of ``registry.registry`` says what each fact does. More keys are allowed and kept
in the log. Kinds that are not here (``canary_step``, ``ranked``, ``waived``, ...) are facts all the same: the log keeps
them, and the registry has no view of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ecology.contracts.promotion import Event
from ecology.errors import ConfigError

KINDS: Mapping[str, Mapping[str, type]] = {
    "run_started": {"run": str, "name": str},
    "bred": {"digest": str, "name": str, "operator": str, "parents": list, "generation": int, "run": str},
    "signed": {"digest": str, "keyid": str, "development": bool},
    "judged": {
        "digest": str,
        "policy": str,
        "outcome": str,
        "rung": str,
        "run": str,
        "scope": str,
        "findings": list,
    },
    "promoted": {"alias": str, "subject": str, "previous": str},
    "held": {"alias": str, "subject": str},
    "rolled_back": {"alias": str, "subject": str, "previous": str},
    "revoked": {"digest": str, "reason": str},
    "breeding_approved": {"digest": str, "envelope": str},
    "stopped": {"reason": str},
    "resumed": {"reason": str},
}
_MAY_BE_EMPTY = {"name", "run", "rung", "previous", "reason"}
_BASE = ("rolled_back", "subject")
"""Empty: back to the bare base, where nothing that may serve was promoted before."""


def check_event(event: Event) -> None:
    """Checks a fact before it is written down for ever.

    Raises:
        ConfigError: The fact is of a known kind and lacks a key, or a key has a value of the wrong type.
    """
    for key, kind in KINDS.get(event.kind, {}).items():
        if key not in event.body:
            raise ConfigError(f"a fact of kind {event.kind!r} lacks {key!r}")
        value = event.body[key]
        found = list(value) if kind is list and isinstance(value, tuple) else value
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            raise ConfigError(f"expected {kind.__name__}, found {type(value).__name__}", where=f"{event.kind}.{key}")
        if kind is str and not found and key not in _MAY_BE_EMPTY and (event.kind, key) != _BASE:
            raise ConfigError("must not be empty", where=f"{event.kind}.{key}")
    if event.kind == "bred" and not all(isinstance(parent, str) for parent in _sequence(event.body["parents"])):
        raise ConfigError("expected digests", where="bred.parents")


def text(event: Event, key: str) -> str:
    """A string of the body; empty where there is none."""
    value = event.body.get(key, "")
    return value if isinstance(value, str) else ""


def number(event: Event, key: str) -> int | None:
    """An integer of the body; None where there is none."""
    value = event.body.get(key)
    return value if isinstance(value, int) else None


def texts(event: Event, key: str) -> tuple[str, ...]:
    """A list of strings of the body."""
    return tuple(item for item in _sequence(event.body.get(key)) if isinstance(item, str))


def _sequence(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else ()
