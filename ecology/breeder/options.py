"""What operators share: checks of options, each raising ConfigError that names ``operator.option``, and draws."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from ecology.errors import ConfigError
from ecology.lowrank.basis import Array

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


def draws(seed: int) -> Callable[[int, str, tuple[int, ...]], Array]:
    """Uniform numbers in [0, 1) by parent and module: (parent, module, shape) -> the next of that stream.

    Every module of every parent has a stream of its own, so what a block of rows draws does not depend on how rows
    are cut into blocks, nor on the other modules.
    """
    streams: dict[tuple[int, str], np.random.Generator] = {}

    def draw(parent: int, module: str, shape: tuple[int, ...]) -> Array:
        key = (parent, module)
        if key not in streams:
            streams[key] = np.random.Generator(np.random.PCG64([seed, parent, zlib.crc32(module.encode())]))
        return streams[key].random(shape)

    return draw
