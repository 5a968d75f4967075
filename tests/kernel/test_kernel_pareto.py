"""Dominance against brute force."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.errors import ConfigError
from ecology.kernel.pareto import front

COORDINATE = st.integers(0, 3).map(float) | st.just(math.inf) | st.just(-math.inf)
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE), max_size=12)


def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))


@settings(max_examples=60, deadline=None)
@given(POINTS)
def test_front_equals_brute_force(points: list[tuple[float, ...]]) -> None:
    expected = tuple(i for i, p in enumerate(points) if not any(beats(q, p) for q in points))
    assert front(points) == expected
    assert bool(front(points)) == bool(points)


@settings(max_examples=60, deadline=None)
@given(POINTS.filter(lambda p: len(p) >= 3))
def test_dominance_is_a_strict_partial_order(points: list[tuple[float, ...]]) -> None:
    def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return front([one, other]) == (0,)

    a, b, c = points[:3]
    assert not dominates(a, a)
    assert not (dominates(a, b) and dominates(b, a))
    if dominates(a, b) and dominates(b, c):
        assert dominates(a, c)


def test_equal_points_share_their_place() -> None:
    assert front([(1.0, 2.0), (1.0, 2.0), (0.0, 0.0)]) == (0, 1)
    assert front([]) == ()


@pytest.mark.parametrize("points", [[(1.0,), (1.0, 2.0)], [(math.nan, 1.0)]])
def test_what_cannot_be_compared_is_refused(points: list[tuple[float, ...]]) -> None:
    with pytest.raises(ConfigError):
        front(points)
