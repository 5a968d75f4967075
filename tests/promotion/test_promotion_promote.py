"""From a canary to an alias."""

from __future__ import annotations

import pytest

from ecology.contracts.identity import Digest
from ecology.contracts.promotion import CanaryObservation, CanaryResult, CanaryStep
from ecology.errors import IntegrityError
from ecology.kernel.canonical import canonical
from ecology.promotion.promote import decide_promotion, promotion_events

NEW, OLD = Digest("sha256:" + "a" * 64), "sha256:" + "b" * 64


def canary(decision: str) -> CanaryResult:
    seen = CanaryObservation(CanaryStep(0.5, 10), 10, (), "advance", "fine")
    return CanaryResult(NEW, OLD, (seen,), decision, "because")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdict", "decision", "subject"),
    [("promote", "promoted", NEW), ("hold", "held", OLD), ("rollback", "rolled_back", OLD)],
)
def test_the_canary_decides(verdict: str, decision: str, subject: str) -> None:
    found = decide_promotion(NEW, OLD, canary(verdict))
    assert (found.decision, found.subject, found.previous, found.reason) == (decision, subject, OLD, "because")
    steps, last = promotion_events(found, canary(verdict), "2026-01-01T00:00:00Z")
    assert steps.kind == "canary_step"
    assert last.kind == ("held" if decision == "rolled_back" else decision)  # the alias was not moved
    assert last.body["subject"] == subject
    canonical(last)


def test_without_a_winner_or_a_canary_nothing_moves() -> None:
    none = decide_promotion(None, OLD, None, why_none="all 3 were refused")
    assert (none.decision, none.subject, none.reason) == ("none", OLD, "all 3 were refused")
    assert [event.kind for event in promotion_events(none, None, "t")] == ["not_promoted"]
    untried = decide_promotion(NEW, OLD, None)
    assert (untried.decision, untried.subject) == ("none", OLD)


def test_the_champion_again_is_held() -> None:
    held = decide_promotion(Digest(OLD), OLD, None)
    assert (held.decision, held.subject) == ("held", OLD)


def test_the_canary_of_somebody_else_is_an_error() -> None:
    with pytest.raises(IntegrityError):
        decide_promotion(NEW, "sha256:" + "c" * 64, canary("promote"))
    with pytest.raises(IntegrityError):
        decide_promotion(Digest("sha256:" + "c" * 64), OLD, canary("promote"))
