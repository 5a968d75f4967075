"""Does a reply agree with a reference answer? The check follows from the reference.

==========================  =========================================
the reference is            the reply has to
==========================  =========================================
one JSON object             be that object
one number                  have that number as its last
a refusal                   refuse
anything else               be that text (``verifier.exact``)
==========================  =========================================
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation

from ecology.verifier.exact import is_exact
from ecology.verifier.numeric import is_number
from ecology.verifier.refusal import refuses
from ecology.verifier.schema import check_extraction, parse_json


def agrees(reply: str, reference: str) -> bool:
    """Whether a reply is right.

    Args:
        reply: What a model said.
        reference: What a corpus has.
    """
    wanted = parse_json(reference)
    if wanted is not None:
        return check_extraction(reply, wanted, {}).exact
    number = _number(reference)
    if number is not None:
        return is_number(reply, number)
    return refuses(reply) if refuses(reference) else is_exact(reply, reference)


def gist(reply: str) -> str:
    """What of a reply is counted in a vote: a JSON object in one order, a lone number, or the text."""
    found = parse_json(reply)
    if found is not None:
        return json.dumps(found, sort_keys=True, ensure_ascii=False)
    number = _number(reply)
    return str(number.normalize()) if number is not None else " ".join(reply.split()).casefold()


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip().replace(",", ""))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
