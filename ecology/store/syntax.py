r"""What a pattern of a stranger may say: a language of regular expressions that no matcher despairs of.

What is repeated has one way to match and at least one character, so the work of a matcher that backtracks is at most
polynomial in the length of a name. ``(a+)+``, ``(a|aa)*``, ``(){9}`` are refused by name; ``(...)?`` may hold anything,
and ``.*`` or ``\d+`` may stand anywhere else. What an automaton cannot do (references back, looking around, atomic
groups, flags) is refused, and so is what the parser warns about: it means something else in another Python.
"""

from __future__ import annotations

import re
import threading
import warnings
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

MAX_STATES = 5000
"""Of an automaton, and characters of what is repeated a fixed number of times."""

_PREFIX, _END = r"(.*\.)?(", ")$"
"""What PEFT puts around a key of ``rank_pattern`` and ``alpha_pattern``."""
_PARSING = threading.Lock()
"""Filters of warnings belong to the whole process: one thread at a time changes them."""


class Unsupported(Exception):
    """Why a pattern is refused; the words go behind it."""


def parsed(pattern: str) -> Any:
    """The tree that Python's own parser makes of a pattern.

    Args:
        pattern: Written by nobody in particular; of bounded length.

    Raises:
        Unsupported: It says what is refused.
        re.error: It is no regular expression; ``RecursionError``, ``OverflowError`` and ``Warning`` likewise.
    """
    with _PARSING, warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = _parser.parse(pattern)
    if tree.state.flags & ~re.UNICODE:
        raise Unsupported("sets flags")
    _width(tree)
    return tree


def parsed_in_place(pattern: str) -> Any:
    """The tree of what PEFT parses, but for the ``$``: an end behind a dot or the whole, and the pattern as one group.

    Args:
        pattern: A key of ``rank_pattern`` or ``alpha_pattern``.

    Raises:
        Unsupported: As ``parsed``; or it is no one group there.
        re.error: As ``parsed``.
    """
    alone, whole = parsed(pattern), parsed(f"{_PREFIX}{pattern}{_END}")
    before, _, after = _AROUND
    if [_plain(item) for item in whole] != [before, (str(sre.SUBPATTERN), (0, 0, _plain(alone))), after]:
        raise Unsupported("is not one pattern but parts of several")
    return whole[:2]  # the end is where a match is asked for


def _plain(tree: Any) -> Any:
    """A tree as tuples, without the numbers of its groups."""
    if isinstance(tree, _parser.SubPattern | list):
        return tuple(_plain(item) for item in tree)
    if isinstance(tree, tuple):
        if len(tree) == 2 and tree[0] is sre.SUBPATTERN:
            _, add, drop, inner = tree[1]
            return str(sre.SUBPATTERN), (add, drop, _plain(inner))
        return tuple(_plain(item) for item in tree)
    return str(tree) if isinstance(tree, type(sre.LITERAL)) else tree


def _width(tree: Any) -> int | None:
    """How many characters it matches, None where there is more than one way to match.

    Raises:
        Unsupported: It repeats what can match in more than one way, or without a character.
    """
    total: int | None = 0
    for operation, argument in tree:
        width: int | None = None
        if operation in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
            width = 1
        elif operation is sre.AT:
            width = 0
        elif operation is sre.SUBPATTERN:
            _, add, drop, inner = argument
            if add or drop:
                raise Unsupported("sets flags")
            width = _width(inner)
        elif operation is sre.BRANCH:
            for alternative in argument[1]:
                _width(alternative)
        elif operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            least, most, inner = argument
            one = _width(inner)
            if most > 1:
                if not one:
                    what = "without a character" if one == 0 else "in more than one way"
                    raise Unsupported(f"repeats what can match {what}")
                if max(least, 0 if most is sre.MAXREPEAT else most) * one > MAX_STATES:
                    raise Unsupported("is too large")
            width = least * one if least == most and one is not None else None
        else:
            raise Unsupported("refers back, looks around or holds on to what it matched")
        total = None if total is None or width is None else total + width
    return total


_AROUND = [_plain(item) for item in _parser.parse(f"{_PREFIX}{_END}")]
