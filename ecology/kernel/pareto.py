"""Who is not beaten: Pareto dominance over raw objectives.

Every objective is to be maximised; the caller turns the sign of those that are to be minimised, once, at the edge. A
point with a NaN has no place in an order and is refused: a candidate without evidence is unranked, which is the
caller's word for leaving it out.

Source: Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE
Transactions on Evolutionary Computation 6(2), 2002, section III.A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ecology.errors import ConfigError

Point = Sequence[float]


def dominates(one: Point, other: Point) -> bool:
    """Whether ``one`` is at least as good as ``other`` in every objective and better in at least one.

    Raises:
        ConfigError: The points differ in length or hold a NaN.
    """
    _check((one, other))
    return _dominates(one, other)


def front(points: Sequence[Point]) -> tuple[int, ...]:
    """Indices of the points that no other point dominates, ascending; equal points are all on it or all off it.

    Raises:
        ConfigError: The points differ in length or hold a NaN.
    """
    _check(points)
    return tuple(i for i, one in enumerate(points) if not any(_dominates(other, one) for other in points))


def fronts(points: Sequence[Point]) -> tuple[tuple[int, ...], ...]:
    """Every point's rank: first the front, then the front of what is left, and so on (fast non-dominated sort).

    O(M N^2) comparisons for N points of M objectives.

    Raises:
        ConfigError: The points differ in length or hold a NaN.
    """
    _check(points)
    beats: list[list[int]] = [[j for j, other in enumerate(points) if _dominates(one, other)] for one in points]
    beaten_by = [0] * len(points)
    for losers in beats:
        for j in losers:
            beaten_by[j] += 1
    ranks: list[tuple[int, ...]] = []
    current = [i for i, count in enumerate(beaten_by) if count == 0]
    while current:
        ranks.append(tuple(sorted(current)))
        following = []
        for i in current:
            for j in beats[i]:
                beaten_by[j] -= 1
                if beaten_by[j] == 0:
                    following.append(j)
        current = following
    return tuple(ranks)


def _dominates(one: Point, other: Point) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))


def _check(points: Sequence[Point]) -> None:
    if len({len(point) for point in points}) > 1:
        raise ConfigError("points of one comparison have the same objectives, found different numbers of them")
    if any(math.isnan(value) for point in points for value in point):
        raise ConfigError("a point with a NaN cannot be ranked", todo="leave candidates without evidence out")
