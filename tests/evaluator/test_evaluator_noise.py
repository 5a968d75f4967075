"""Noise changes the question and never the answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecology.contracts.evidence import Item
from ecology.evaluator.noise import noisy
from ecology.evaluator.suites import items, load_suite

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def orders() -> tuple[Item, ...]:
    return items(load_suite(ROOT / "suites" / "orders"), "public")


def test_the_answer_stays_and_its_words_stay_in_the_question(orders: tuple[Item, ...]) -> None:
    import json

    for item in orders:
        changed = noisy(item, "seed")
        assert changed.answer == item.answer
        assert changed.category == item.category
        answer = json.loads(item.answer)
        assert str(answer["city"]) in changed.prompt
        assert str(answer["count"]) in changed.prompt
        assert changed.prompt.split(": ")[0] == item.prompt.split(": ")[0]


def test_same_seed_same_noise_and_most_items_change(orders: tuple[Item, ...]) -> None:
    first = [noisy(item, "a") for item in orders]
    assert first == [noisy(item, "a") for item in orders]
    assert sum(one.prompt != item.prompt for one, item in zip(first, orders, strict=True)) > len(orders) // 2
    assert [noisy(item, "b").prompt for item in orders] != [one.prompt for one in first]
    assert len({one.id for one in first} | {item.id for item in orders}) == 2 * len(orders)
