"""Answers counted."""

from __future__ import annotations

import pytest

from ecology.contracts.evidence import Count, Paired, Proportion, Samples
from ecology.errors import BackendError
from ecology.gate.measured import compared, liveness, proportions, resources
from ecology.kernel.canonical import digest

WHO, BASE = digest("who"), digest("base")


def test_scores_of_items_become_measurements() -> None:
    scores = {"exact": {"b": True, "a": False, "c": True}, "brier": {"b": 0.5, "a": 0.25}, "empty": {}}
    brier, exact = proportions(WHO, "orders", "hidden", scores, "items")
    assert (exact.metric, exact.statistic, exact.split) == ("orders.exact", Proportion(2, 3), "hidden")
    assert (exact.against, exact.comparator, exact.source) == ("absolute", "", "items")
    assert brier.statistic == Samples((0.25, 0.5), "brier")  # in the order of the item ids


def test_pairs_are_formed_by_item() -> None:
    ours = {
        "exact": {"a": True, "b": True, "c": False, "d": False, "only": True},
        "brier": {"a": 0.5},
        "mine": {"a": True},
    }
    theirs = {"exact": {"a": True, "b": False, "c": True, "d": False}, "brier": {"a": 0.75}}
    brier, exact = compared(WHO, "orders", "hidden", ours, theirs, "incumbent", BASE, "items")
    assert exact.statistic == Paired(n=4, n10=1, n01=1)
    assert (exact.against, exact.comparator, exact.source) == ("incumbent", BASE, "items")
    assert brier.statistic == Samples((-0.25,), "brier difference")
    assert compared(WHO, "orders", "hidden", {"exact": {"a": True}}, {"exact": {"b": True}}, "base", BASE) == ()


def test_an_adapter_is_as_good_as_itself() -> None:
    scores = {"exact": {"a": True, "b": False}}
    (found,) = compared(WHO, "orders", "hidden", scores, scores, "base", BASE)
    assert found.statistic == Paired(2, 0, 0)


def test_mixed_scores_are_refused() -> None:
    with pytest.raises(BackendError, match=r"orders\.exact"):
        proportions(WHO, "orders", "hidden", {"exact": {"a": True, "b": 0.5}})
    with pytest.raises(BackendError):
        compared(WHO, "orders", "hidden", {"exact": {"a": True}}, {"exact": {"a": 0.5}}, "base", BASE)


def test_liveness_is_a_count() -> None:
    (found,) = liveness(WHO, ("logits do not change",))
    assert found.statistic == Count(1, ("logits do not change",))


def test_resources_are_samples() -> None:
    ratio, seconds, peak = resources(WHO, BASE, [(2.0, 1.0), (1.0, 2.0)], 100)
    assert ratio.statistic == Samples((2.0, 0.5), "ratio")
    assert (ratio.against, ratio.comparator) == ("base", BASE)
    assert seconds.statistic == Samples((2.0, 1.0), "s")
    assert peak.statistic == Samples((100.0,), "bytes")
    assert resources(WHO, BASE, [], None) == ()
    with pytest.raises(BackendError):
        resources(WHO, BASE, [(1.0, 0.0)], None)
