"""JSON lines that have one reading, and the place of everything that has not.

A corpus and a recording are one object a line. Python's own reader takes NaN, lets a key stand twice and says of every
line that it is line 1; here a line is strict JSON, and a mistake is told as ``train.jsonl:7:16``, by file, line and
column, many of them at once.
"""

from __future__ import annotations

import json
from pathlib import Path

from ecology.contracts.identity import Json
from ecology.errors import ConfigError

MOST_TOLD = 20
"""Mistakes of one file that are listed; the others are counted."""


def read_lines(path: Path, data: bytes) -> tuple[tuple[str, Json], ...]:
    """Every line's place, for later messages, and value.

    Args:
        path: Where the lines come from, for messages.
        data: The file's bytes; the last line may lack its end.

    Raises:
        ConfigError: Lines are not UTF-8 or not JSON; each with file, line and column, counted from 1.
    """
    lines, mistakes = [], []
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else (), start=1):
        where = f"{path}:{number}"
        try:
            lines.append((where, _parse(line)))
        except _Mistake as mistake:
            mistakes.append(f"{where}:{mistake.column}: {mistake.what}")
    if mistakes:
        left = len(mistakes) - MOST_TOLD
        told = [*mistakes[:MOST_TOLD], *([f"and {left} more"] if left > 0 else [])]
        raise ConfigError("\n  ".join(told), todo="one JSON object stands on each line")
    return tuple(lines)


class _Mistake(ValueError):
    """What is wrong with a line, and where in it."""

    def __init__(self, what: str, column: int = 1) -> None:
        super().__init__(what)
        self.what, self.column = what, column


def _parse(line: bytes) -> Json:
    try:
        value: Json = json.loads(line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeDecodeError as error:
        raise _Mistake("not UTF-8", error.start + 1) from error
    except UnicodeEncodeError as error:
        raise _Mistake("an escape makes half a character, which no UTF-8 holds") from error
    except json.JSONDecodeError as error:
        raise _Mistake(f"not JSON: {error.msg}", error.pos + 1) from error
    except RecursionError as error:
        raise _Mistake("nested too deep") from error
    except ValueError as error:  # a key that stands twice, NaN, a number of 5000 digits
        raise _Mistake(str(error)[:200]) from error


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    built = dict(pairs)
    if len(built) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r:.60} stands twice")
    return built


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
