"""One reply read twice: strictly, as a program would, and leniently, as a patient person would.

A learner whose reward reads leniently may let the form decay while the reward rises, and one whose reward reads
strictly may learn the form and nothing else. So a claim of learning is read both ways:

==========  =====================================  ==========================================  =====================
kind        strict                                 lenient                                     form
==========  =====================================  ==========================================  =====================
numeric     the number and nothing else            the last number in the reply is right       it is one number
extraction  one JSON object, equal to the          an object somewhere in the reply has        it is one JSON object
            reference                              every field of the reference right
==========  =====================================  ==========================================  =====================

Options that are scored by likelihood have no form; both readings are then the choice itself.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from decimal import Decimal

from ecology.contracts.evidence import SuiteKind
from ecology.contracts.identity import Json
from ecology.verifier.numeric import is_number, last_number
from ecology.verifier.schema import check_extraction, parse_json

WRITTEN: tuple[SuiteKind, ...] = ("numeric", "extraction")
"""Kinds with an answer that can be read both ways."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What one reply is."""

    strict: bool
    lenient: bool
    form: bool
    """It looks like an answer to the task, right or wrong."""


def read(kind: SuiteKind, reply: str, answer: str = "", schema: Mapping[str, Json] | None = None) -> Reading:
    """Reads one reply.

    Law: what is strictly right is leniently right and of the form.

    Args:
        kind: Of the suite, one of ``WRITTEN``; a reply of any other kind is nothing.
        reply: What the model said.
        answer: Of the item, as the suite keeps it; empty where only the form is asked.
        schema: Of the suite.
    """
    if kind == "numeric":
        form = _is_one_number(reply)
        right = bool(answer) and is_number(reply, Decimal(answer))
        return Reading(right and form, right, form)
    if kind == "extraction":
        form = parse_json(reply) is not None
        if not answer:
            return Reading(False, False, form)
        wanted = json.loads(answer)
        exact = check_extraction(reply, wanted, schema or {}).exact
        inside = reply[reply.find("{") : reply.rfind("}") + 1]
        return Reading(exact, exact or check_extraction(inside, wanted, schema or {}).fields == 1.0, form)
    return Reading(False, False, False)


def _is_one_number(reply: str) -> bool:
    text = reply.strip().replace("−", "-")
    return bool(text) and last_number(text) is not None and all(c.isdigit() or c in "+-.," for c in text)
