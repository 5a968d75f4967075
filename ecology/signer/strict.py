"""JSON from strangers, read so that no two readers can understand it differently.

Python's reader is lenient where attackers like it: a key given twice (the last one wins here, the first elsewhere),
NaN, integers that other languages round, lone surrogates that blow up when printed, nesting up to the stack's end.
Everything of that kind is refused; what comes back is I-JSON (RFC 7493) and can be canonicalised.

A parsed value may take dozens of times the memory of its text: ``{},`` is 3 bytes of text and 72 of memory. So before
anything is parsed its punctuation is counted. What wraps bytes that somebody signed (an envelope, a bundle) has a
handful of members however long the bytes are; what was signed has no more objects, lists and strings for its length
than the densest statement that we write, which are counts of families of items (``[1,0],``).
"""

from __future__ import annotations

import json
import math

from ecology.contracts.identity import Json
from ecology.kernel.canonical import canonical
from ecology.signer.refusal import ClaimRefused

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64
_MAX_INTEGER = 2**53 - 1
_SPARSE = 64
"""So many of anything are cheap in the shortest text."""
_LEAST_BYTES = ((b"{", 12), (b"[", 5), (b'"', 3))
"""Text that one object, list or half string has around it at least."""


def parse(data: bytes, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH, max_parts: int | None = None) -> Json:
    """The one value that these bytes hold.

    Args:
        data: UTF-8 JSON text.
        max_bytes: Longer input is not looked at.
        max_depth: Arrays and objects inside each other, the outermost included.
        max_parts: Commas, colons and opening brackets, those in strings included; None: as many as the length allows.

    Raises:
        ClaimRefused: ``size`` or ``json``.
    """
    if len(data) > max_bytes:
        raise ClaimRefused("size", f"{len(data)} bytes, and at most {max_bytes} are read")
    if max_parts is not None and (parts := sum(map(data.count, (b",", b":", b"{", b"[")))) > max_parts:
        raise ClaimRefused("json", f"{parts} commas, colons and brackets, and at most {max_parts} are read")
    if any(data.count(mark) > len(data) // least + _SPARSE for mark, least in _LEAST_BYTES):
        raise ClaimRefused("json", "denser than any statement")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer
        )
    except RecursionError:
        raise ClaimRefused("json", f"nested deeper than {max_depth}") from None
    except ClaimRefused:
        raise
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, integers of thousands of digits
        raise ClaimRefused("json", f"not JSON: {_first_words(error)}") from None
    _check(value, max_depth)
    return value


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ClaimRefused("json", f"key {twice!r:.80} stands twice in one object")
    return found


def _no_constant(name: str) -> Json:
    raise ClaimRefused("json", f"{name} is not JSON")


def _integer(text: str) -> int | float:
    """RFC 8785 writes the double 4e16 as an integer; beyond 2**53 only what a double prints like that is read."""
    number = int(text)
    if abs(number) <= _MAX_INTEGER:
        return number
    double = float(text)
    if not math.isfinite(double) or canonical(double) != text.encode("ascii"):
        raise ClaimRefused("json", "an integer that no double holds")
    return double


def _check(value: Json, max_depth: int) -> None:
    """Walks without recursion: the depth is what is being checked."""
    level: list[Json] = [value]
    depth = 0
    while level:
        below: list[Json] = []
        for item in level:
            if isinstance(item, dict):
                for key in item:
                    _check_text(key)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str):
                _check_text(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise ClaimRefused("json", "a number beyond the range of a double")
        depth += any(isinstance(item, (dict, list)) for item in level)
        if depth > max_depth:
            raise ClaimRefused("json", f"nested deeper than {max_depth}")
        level = below


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ClaimRefused("json", "a string with a lone surrogate") from None


def _first_words(error: ValueError) -> str:
    return str(error).split("\n", 1)[0][:120].encode("ascii", "backslashreplace").decode("ascii")
