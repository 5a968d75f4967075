"""Traffic is split by id alone."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.errors import ConfigError
from ecology.kernel.buckets import arm, position


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text(), st.floats(0, 1), st.floats(0, 1))
def test_widening_only_adds(unit: str, salt: str, one: float, other: float) -> None:
    narrow, wide = sorted((one, other))
    if arm(unit, salt, narrow) == "candidate":
        assert arm(unit, salt, wide) == "candidate"


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text())
def test_a_position_is_in_the_half_open_interval(unit: str, salt: str) -> None:
    assert 0 <= position(unit, salt) < 1
    assert arm(unit, salt, 0.0) == "incumbent"
    assert arm(unit, salt, 1.0) == "candidate"


def test_positions_are_spread_evenly() -> None:
    cells = [0] * 10
    for i in range(5000):
        cells[int(position(f"request-{i}", "salt") * 10)] += 1
    assert max(cells) - min(cells) < 150


def test_another_salt_is_another_order_and_where_they_join_matters() -> None:
    units = [f"u{i}" for i in range(200)]
    assert sorted(units, key=lambda u: position(u, "a")) != sorted(units, key=lambda u: position(u, "b"))
    assert position("bc", "a") != position("c", "ab")


def test_a_position_never_rounds_up_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Highest:
        def digest(self) -> bytes:
            return b"\xff" * 32

    monkeypatch.setattr(hashlib, "sha256", lambda _: Highest())
    assert position("u", "s") < 1


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_share(weight: float) -> None:
    with pytest.raises(ConfigError):
        arm("u", "s", weight)
