"""From the canary's verdict to what the alias names.

    winner           canary        decision       alias names
    none             -             none           what it named
    the champion     -             held           what it named
    another          missing       none           what it named: nobody is promoted untried
    another          promote       promoted       the winner
    another          hold          held           what it named
    another          rollback      rolled_back    what it named: the traffic is the incumbent's again

Pure. The caller moves the alias by appending the events and applying them to the registry; ``previous`` is kept
there, so that a later rollback has somewhere to go.
"""

from __future__ import annotations

from collections.abc import Mapping

from ecology.contracts.identity import Digest, Json
from ecology.contracts.promotion import CanaryResult, Event, Promotion
from ecology.errors import IntegrityError
from ecology.kernel.canonical import digest, plain

_KINDS = {"none": "not_promoted", "rolled_back": "held"}
"""Facts where they are not called as the decision is. A trial that was broken off moved nothing: ``rolled_back`` is the
fact of an alias that names an earlier adapter again."""


def decide_promotion(
    winner: Digest | None,
    incumbent: str,
    canary: CanaryResult | None,
    *,
    alias: str = "champion",
    why_none: str = "no candidate was admitted",
) -> Promotion:
    """What the alias names after the run.

    Args:
        winner: The best admitted candidate; None where there is none.
        incumbent: What the alias names now: an artifact's digest, or that of the base's weights at genesis.
        canary: How the winner did on traffic; None where no canary was run.
        alias: Name in the registry.
        why_none: Reason to give when there is no winner.

    Raises:
        IntegrityError: The canary is about other adapters than these.
    """
    if winner is None:
        return Promotion("none", alias, incumbent, incumbent, why_none)
    if winner == incumbent:
        return Promotion("held", alias, incumbent, incumbent, "the winner is the champion already")
    if canary is None:
        return Promotion("none", alias, incumbent, incumbent, "the winner was not tried on traffic")
    if (canary.candidate, canary.incumbent) != (winner, incumbent):
        raise IntegrityError(
            f"the canary compared {canary.candidate} with {canary.incumbent}",
            where=f"promotion of {winner} over {incumbent}",
            todo="run the canary again",
        )
    if canary.decision == "promote":
        return Promotion("promoted", alias, winner, incumbent, canary.reason)
    if canary.decision == "hold":
        return Promotion("held", alias, incumbent, incumbent, canary.reason)
    return Promotion("rolled_back", alias, incumbent, incumbent, canary.reason)


def promotion_events(promotion: Promotion, canary: CanaryResult | None, at: str) -> tuple[Event, ...]:
    """The facts to append to the audit log: one a canary step, then the decision.

    Args:
        promotion: What was decided.
        canary: How it came about; None where no canary was run.
        at: RFC 3339 instant, UTC.
    """
    steps: tuple[Event, ...] = ()
    evidence: Mapping[str, Json] = {}
    if canary is not None:
        who = {"candidate": canary.candidate, "incumbent": canary.incumbent}
        steps = tuple(
            Event("canary_step", at, {**who, "index": index, "observation": plain(observation)})
            for index, observation in enumerate(canary.observations)
        )
        evidence = {"candidate": canary.candidate, "canary": digest(canary)}
    kind = _KINDS.get(promotion.decision, promotion.decision)
    return (*steps, Event(kind, at, {**plain(promotion), **evidence}))
