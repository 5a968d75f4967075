"""The last number of a reply."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.verifier.numeric import is_number, last_number


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("7", "7"),
        ("The answer is 42.", "42"),
        ("3 + 4 = 7", "7"),
        ("It costs 1,250.50 euros", "1250.50"),
        ("-3", "-3"),
        ("\u22123", "-3"),
        ("first 2, then 3!", "3"),
    ],
)
def test_the_last_number_counts(reply: str, number: str) -> None:
    assert last_number(reply) == Decimal(number)


@pytest.mark.parametrize("reply", ["", "no idea", "version v2", "abc123"])
def test_no_number(reply: str) -> None:
    assert last_number(reply) is None
    assert not is_number(reply, Decimal(0))


def test_tolerance_is_included() -> None:
    assert is_number("10", Decimal(9), Decimal(1))
    assert not is_number("10", Decimal(9), Decimal("0.99"))


@given(st.integers(-(10**9), 10**9))
def test_what_is_said_is_read(number: int) -> None:
    assert last_number(f"The answer is {number}.") == number
    assert last_number(f"The answer is {number:,} apples.") == number
