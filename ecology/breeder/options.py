"""Checks that operators' options share. Each raises ConfigError naming ``operator.option``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ecology.errors import ConfigError

MAX_RANK = 4096


def check_range(value: float, low: float, high: float, where: str, *, open_low: bool = False) -> None:
    """``low`` <= ``value`` <= ``high``, or ``low`` < where ``open_low``."""
    if not (low <= value <= high) or (open_low and value == low):
        edge = "above" if open_low else "at least"
        raise ConfigError(
            f"{value!r} is out of range", where=where, todo=f"choose a value {edge} {low:g} and at most {high:g}"
        )


def check_rank(rank: int | None, where: str) -> None:
    """None, or 1 to ``MAX_RANK``."""
    if rank is not None:
        check_range(rank, 1, MAX_RANK, where)


def check_weights(weights: Sequence[float] | None, where: str) -> None:
    """None, or finite numbers, at least one."""
    if weights is not None and (not weights or not all(math.isfinite(weight) for weight in weights)):
        raise ConfigError(f"{weights!r} are no weights", where=where, todo="give one finite number a parent")


def weights_for(weights: Sequence[float] | None, parents: int, default: float, where: str) -> tuple[float, ...]:
    """One weight a parent; ``default`` for each where none are given."""
    if weights is None:
        return (default,) * parents
    if len(weights) != parents:
        raise ConfigError(
            f"{len(weights)} weights for {parents} parents",
            where=where,
            todo="give one number a parent, in their order",
        )
    return tuple(weights)
