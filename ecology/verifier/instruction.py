"""Does a reply keep to the form that was asked for?

Each constraint is checked by code and nothing else about the reply counts, as in IFEval (arXiv 2311.07911). Quotation
marks and white space around the whole reply are not part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from ecology.contracts.identity import Json
from ecology.errors import ConfigError


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'’-]+", text)


CHECKS: Mapping[str, tuple[type, Callable[[str, str | int], bool]]] = {
    "words": (int, lambda reply, wanted: len(_words(reply)) == wanted),
    "max_words": (int, lambda reply, wanted: 0 < len(_words(reply)) <= int(wanted)),
    "lines": (int, lambda reply, wanted: len([line for line in reply.splitlines() if line.strip()]) == wanted),
    "items": (int, lambda reply, wanted: len([part for part in reply.split(",") if part.strip()]) == wanted),
    "case": (str, lambda reply, wanted: reply == (reply.upper() if wanted == "upper" else reply.lower())),
    "contains": (str, lambda reply, wanted: str(wanted).casefold() in reply.casefold()),
    "without": (str, lambda reply, wanted: bool(reply) and str(wanted).casefold() not in reply.casefold()),
    "starts": (str, lambda reply, wanted: reply.casefold().startswith(str(wanted).casefold())),
    "ends": (str, lambda reply, wanted: reply.casefold().endswith(str(wanted).casefold())),
}
"""Constraint -> type of its value, and whether a reply keeps it."""


def followed(reply: str, constraints: Mapping[str, Json]) -> Mapping[str, bool]:
    """Which constraints a reply keeps.

    Args:
        reply: What the model said.
        constraints: Name of ``CHECKS`` to its value; at least one.

    Raises:
        ConfigError: There is none, or one is unknown or of the wrong type.
    """
    if problems := list(unknown_constraints(constraints)):
        raise ConfigError("; ".join(problems), where="instruction item")
    bare = reply.strip().strip("\"'“”‘’").strip()
    return {name: CHECKS[name][1](bare, value) for name, value in constraints.items()}


def unknown_constraints(constraints: Mapping[str, Json]) -> Iterator[str]:
    """What is wrong with a set of constraints; a value may also be a template of the grammar."""
    if not constraints:
        yield "there is none"
    for name, value in constraints.items():
        if name not in CHECKS:
            yield f"{name!r} is unknown; known: {', '.join(CHECKS)}"
        elif not isinstance(value, (CHECKS[name][0], str)) or isinstance(value, bool):
            yield f"{name!r} takes {CHECKS[name][0].__name__}, found {value!r:.40}"
