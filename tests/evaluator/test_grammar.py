"""Derivations are distinct, stable for ever, and faithful to their grammar."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.errors import ConfigError
from ecology.evaluator.grammar import Cell, Draw, Span, Table, expand, fill, mistakes, options

CAPITALS = Table(("country", "city"), (("France", "Paris"), ("Italy", "Rome"), ("Cuba", "Havana"), ("Peru", "Lima")))

GOLDEN_STREAM = [803, 915, 854, 4, 522, 682]
GOLDEN_PROMPTS = ["Send 27 to Rome.", "Send 25 to Paris.", "Send 75 to Havana."]


def test_the_stream_never_changes() -> None:
    draw = Draw("golden")
    assert [draw.below(1000) for _ in range(6)] == GOLDEN_STREAM


def test_the_expansion_never_changes() -> None:
    cell = Cell("c", ("Send {n} to {p.city}.",), {"n": Span(1, 99), "p": CAPITALS})
    assert [item.prompt for item in expand((cell,), "golden", 3)] == GOLDEN_PROMPTS


@given(st.text(max_size=8), st.integers(1, 50))
@settings(max_examples=40)
def test_draws_are_in_range_and_samples_do_not_repeat(seed: str, n: int) -> None:
    draw = Draw(seed)
    assert all(0 <= draw.below(n) < n for _ in range(20))
    assert sorted(Draw(seed).sample(range(n), n)) == list(range(n))


def test_draws_are_about_uniform() -> None:
    draw = Draw("uniform")
    counts = [0] * 5
    for _ in range(5000):
        counts[draw.below(5)] += 1
    assert min(counts) > 900


@given(st.text(max_size=8), st.integers(0, 60))
@settings(max_examples=30)
def test_prompts_are_distinct_and_fewer_are_a_prefix(seed: str, n: int) -> None:
    cell = Cell("c", ("{a} {b}",), {"a": Span(0, 9), "b": Span(0, 9)})
    many = expand((cell,), seed, 60)
    assert len({item.prompt for item in many}) == 60
    assert expand((cell,), seed, n) == many[:n]


def test_cells_take_turns_by_weight() -> None:
    symbols = {"n": Span(0, 999)}
    found = expand((Cell("a", ("a {n}",), symbols), Cell("b", ("b {n}",), symbols, weight=3)), "s", 8)
    assert [item.cell.id for item in found] == ["a", "b", "b", "b"] * 2


def test_a_dry_cell_is_passed_over_and_a_dry_grammar_is_an_error() -> None:
    small, large = Cell("s", ("only",), {}), Cell("l", ("{n}",), {"n": Span(0, 9)})
    assert [item.cell.id for item in expand((small, large), "s", 5)].count("s") == 1
    with pytest.raises(ConfigError, match="11 distinct prompts"):
        expand((small, large), "s", 12)
    with pytest.raises(ConfigError):
        expand((), "s", 1)


def test_a_symbol_is_drawn_once_per_item_nested_ones_included() -> None:
    cell = Cell("c", ("{a} and {who}, {a}",), {"a": ("x {who}",), "who": ("Ann", "Bo")})
    for item in expand((cell,), "s", 2):
        name = item.bindings["who"]
        assert item.prompt == f"x {name} and {name}, x {name}"


def test_fill_keeps_the_type_of_a_lone_reference() -> None:
    assert fill("{n}", {"n": 3}) == 3
    assert fill("{n} x", {"n": 3}) == "3 x"
    with pytest.raises(ConfigError, match="never draws"):
        fill("{m}", {"n": 3})


def test_options_hold_the_right_one_where_they_say() -> None:
    cell = Cell("c", ("Capital of {p.country}?",), {"p": CAPITALS}, answer="{p.city}")
    for item in expand((cell,), "s", 4):
        found, place = options(item, "s", 4)
        assert sorted(found) == ["Havana", "Lima", "Paris", "Rome"]
        assert found[place] == item.bindings["p.city"]
        with pytest.raises(ConfigError, match="distractors"):
            options(item, "s", 5)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (Cell("c", (), {}), "no template"),
        (Cell("c", ("{x}",), {}), "known symbols: none"),
        (Cell("c", ("{x}",), {"x": ()}), "no values"),
        (Cell("c", ("{x}",), {"x": Span(2, 1)}), "is empty"),
        (Cell("c", ("{x}",), {"x": ("{y}",), "y": ("{x}",)}), "refers to itself"),
        (Cell("c", ("{p.town}",), {"p": CAPITALS}), "columns: country, city"),
        (Cell("c", ("{x.y}",), {"x": ("a",)}), "has no columns"),
        (Cell("c", ("{ x",), {}), "stray brace"),
    ],
)
def test_mistakes_are_named(cell: Cell, said: str) -> None:
    assert any(said in mistake for mistake in mistakes(cell))
