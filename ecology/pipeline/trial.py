"""The winner's trial: replayed traffic against the incumbent, then the alias.

Every answer of the canary is kept, a chunk at a time, under the digest of what it follows from: who was asked what, by
which engine, in which rollout. So a killed canary goes on where it was and a repeated one asks nothing; the latencies
are those that were measured the first time.

The alias is moved by one fact, while nobody else can move it (``aliases``). Whoever finds that it no longer names the
incumbent that the canary compared with moves nothing: what was proven was proven against somebody else. Nor is anybody
promoted who was quarantined meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ecology.contracts.identity import Digest
from ecology.contracts.promotion import CanaryPlan, CanaryResult, Promotion
from ecology.kernel import canonical
from ecology.kernel.buckets import Arm
from ecology.pipeline.aliases import Standing, standing
from ecology.pipeline.attempt import Attempt, intend
from ecology.pipeline.bench import Bench
from ecology.pipeline.house import ATTEMPT, House
from ecology.pipeline.judged import Comparator
from ecology.pipeline.traffic import server
from ecology.promotion.canary import Serve, Served
from ecology.promotion.canary import run as run_canary
from ecology.promotion.promote import decide_promotion, promotion_events
from ecology.promotion.traffic import Request, Traffic


@dataclasses.dataclass(frozen=True)
class Trial:
    """How winners are tried in one run or sweep."""

    plan: CanaryPlan
    traffic: Traffic
    bench: Bench
    incumbent: Comparator
    salt: Digest
    """Of the run or sweep: decides with a request's id which arm it goes to."""

    def of(self, winner: Digest, folder: Path) -> CanaryResult:
        """Replays the traffic to the winner and the incumbent.

        Raises:
            BackendError: The engine failed.
        """
        house = self.bench.house
        arms: dict[Arm, tuple[Digest, Path | None]] = {
            "candidate": (winner, folder),
            "incumbent": (self.incumbent.digest, self.incumbent.folder),
        }
        serve = server(self.bench, {arm: place for arm, (_, place) in arms.items()})
        total = sum(step.min_requests for step in self.plan.steps)
        with house.progress.track("canary: replaying requests", total, "request") as step:
            return run_canary(
                self.plan,
                self.traffic.requests,
                self._kept(serve, {arm: who for arm, (who, _) in arms.items()}),
                candidate=winner,
                incumbent=self.incumbent.digest,
                salt=self.salt,
                progress=step,
            )

    def _kept(self, serve: Serve, who: dict[Arm, Digest]) -> Serve:
        house, base = self.bench.house, self.bench.identity

        def kept(arm: Arm, requests: Sequence[Request]) -> Sequence[Served]:
            asked = {
                "rollout": [self.salt, who["candidate"], who["incumbent"], self.plan],
                "traffic": self.traffic.digest,
                "base": base,
                "engine": self.bench.engine.fingerprint,
                "subject": who[arm],
                "requests": [request.id for request in requests],
            }
            key = canonical.digest(asked)
            known = house.recall("canary", key, tuple[Served, ...])
            if known is None:
                known = tuple(serve(arm, requests))
                house.remember("canary", key, known)
            return known

        return kept


def settle(
    house: House,
    attempt: Attempt,
    winner: Digest | None,
    trial: CanaryResult | None,
    *,
    alias: str,
    genesis: str,
    why_none: str,
) -> Promotion:
    """Decides what the alias names and moves it, once, however often the attempt is made.

    Args:
        house: Facts.
        attempt: Whose incumbent the trial compared with.
        winner: Best admitted candidate, if any.
        trial: Its canary; None where there was none to run.
        alias: Name in the registry.
        genesis: What an alias that names nobody stands for: the base's weights digest.
        why_none: What to say where there is no winner.
    """
    promotion = decide_promotion(winner, attempt.incumbent, trial, alias=alias, why_none=why_none)
    with standing(house, alias) as now:
        made = attempt.moved == promotion and house.recorded("promoted", _body(promotion, trial, attempt))
        if why := _overtaken(promotion, now, winner, genesis, made=made):
            current = now.current or genesis
            promotion = Promotion("none", alias, current, current, why)
        if promotion.decision == "promoted":
            attempt = intend(house, attempt, promotion)
        for event in promotion_events(promotion, trial, house.clock.now()):
            house.record(event.kind, {**event.body, "run": attempt.run, ATTEMPT: attempt.id}, event.at)
    return promotion


def _overtaken(promotion: Promotion, now: Standing, winner: Digest | None, genesis: str, *, made: bool) -> str:
    """Why a decision does not hold any more; empty where it does."""
    current = now.current or genesis
    if winner is not None and winner in now.banned:
        return f"the winner was quarantined while it was tried: {now.banned[winner]}"
    if promotion.decision == "none" or current == (promotion.subject if made else promotion.previous):
        return ""
    if made:
        return f"this run promoted {promotion.subject}, and {now.alias} has come to name {current} since"
    return f"{now.alias} came to name {current} while this run compared with {promotion.previous}; run it again"


def _body(promotion: Promotion, trial: CanaryResult | None, attempt: Attempt) -> dict[str, object]:
    last = promotion_events(promotion, trial, "")[-1]
    return {**last.body, "run": attempt.run, ATTEMPT: attempt.id}
