"""Is a reply the reference, letter case, spaces and punctuation at its ends aside?

Unicode is compared in its compatibility form (NFKC), so that a full-width digit is a digit.
"""

from __future__ import annotations

import unicodedata

_ENDS = " \t\r\n.,;:!?\"'`*"


def normalise(text: str) -> str:
    """Text as it is compared; normalising twice changes nothing.

    Args:
        text: A reply or a reference.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split()).strip(_ENDS)


def is_exact(reply: str, reference: str) -> bool:
    """Whether reply and reference are the same text.

    Args:
        reply: What the model said.
        reference: What it had to say.
    """
    return normalise(reply) == normalise(reference)
