"""Who is not beaten: Pareto dominance over raw objectives.

Every objective is to be maximised; the caller turns the sign of those that are to be minimised, once, at the edge. A
point with a NaN has no place in an order and is refused: a candidate without evidence is unranked, which is the
caller's word for leaving it out.

Source: Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE
Transactions on Evolutionary Computation 6(2), 2002, section III.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ecology.errors import ConfigError

Point = Sequence[float]


def front(points: Sequence[Point]) -> tuple[int, ...]:
    """Indices of the points that no other point dominates, ascending; equal points are all on it or all off it.

    Raises:
        ConfigError: The points differ in length or hold a NaN.
    """
    _check(points)
    return tuple(i for i, one in enumerate(points) if not any(_dominates(other, one) for other in points))


def _dominates(one: Point, other: Point) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))


def _check(points: Sequence[Point]) -> None:
    if len({len(point) for point in points}) > 1:
        raise ConfigError("points of one comparison have the same objectives, found different numbers of them")
    if any(math.isnan(value) for point in points for value in point):
        raise ConfigError("a point with a NaN cannot be ranked", todo="leave candidates without evidence out")
