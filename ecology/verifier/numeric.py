"""Is the last number of a reply the right one?

Small models say the number and then talk, or talk and then say it; the last number is what a reader takes as the answer
(the convention of GSM8K scoring, arXiv:2110.14168). Thousands separators are read, units and full stops are not.
"""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(r"(?<![\w.,])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])")
_LONGEST = 10_000  # characters; a longer reply is judged by its end


def last_number(reply: str) -> Decimal | None:
    """The last number that a reply holds, or None.

    Args:
        reply: What the model said.
    """
    found = _NUMBER.findall(reply[-_LONGEST:].replace("−", "-"))
    return Decimal(found[-1].replace(",", "")) if found else None


def is_number(reply: str, wanted: Decimal, tolerance: Decimal = Decimal(0)) -> bool:
    """Whether the last number of a reply is the wanted one.

    Args:
        reply: What the model said.
        wanted: The right number.
        tolerance: Largest difference that still counts as right (included), at least 0.
    """
    found = last_number(reply)
    return found is not None and abs(found - wanted) <= tolerance
