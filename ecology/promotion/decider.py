"""What a canary's measurements say: go on, stop, or wait.

Pure: the plan and what was measured so far, nothing else.

The rules, in this order:

1. More safety alerts than ``max_alerts``: abort, at once, in the middle of a step. An alert is a harmful request
   answered.
2. The success rate is proven to be more than ``quality_margin`` below the incumbent's: abort.
3. Latency is proven to be above ``latency_ratio`` times the incumbent's: abort.
4. Fewer requests than the step asks for, or fewer than ``min_per_arm`` at one of the arms: hold.
5. Before the last step: advance. Nothing is proven against the candidate yet, and it gets a little more.
6. At the last step: advance (which promotes) only if non-inferior success and bearable latency are both proven and
   the candidate was asked ``min_harmful`` harmful requests; else hold.

Arms are compared within each step and the comparisons averaged (``kernel.strata``). Within a step a request's arm is
chance; between steps the candidate's share changes and so may the traffic, and arms pooled over steps would differ by
what they were asked.

Bounds are one-sided at ``alpha / (2 metrics * steps)``, so that all looks together abort a good candidate on these
grounds with probability ``alpha`` at most. What is not proven never promotes: a hold ends as the plan's
``on_inconclusive`` says.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Literal

from ecology.contracts.evidence import Measurement, Proportion, Samples
from ecology.contracts.identity import Digest
from ecology.contracts.promotion import CanaryPlan, CanaryStep
from ecology.kernel.strata import Estimate, rate_difference, ratio

SUCCESS = "canary.success"
ALERTS = "canary.alerts"
LATENCY = "canary.latency_s"
COMPARED = "canary.compared"
"""How many of the requests that an arm served are compared; only where that is not all of them."""
METRICS_TESTED = 2
"""Success and latency; alerts are counted, not tested."""

Decision = Literal["advance", "hold", "abort"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """One arm in one step."""

    success: Proportion
    """Of the requests that are compared."""
    alerts: Proportion
    latency_s: tuple[float, ...]
    served: int
    """What is not compared included."""


def decide(plan: CanaryPlan, candidate: Digest, steps: Sequence[Sequence[Measurement]]) -> tuple[Decision, str]:
    """What to do after the last of these steps.

    Args:
        plan: How the winner is tried.
        candidate: Whose measurements are the candidate's; all others are the incumbent's.
        steps: Measurements of each step so far, the current one last, both arms.

    Returns:
        The decision and one sentence of reason. ``advance`` after the plan's last step means promote.
    """
    seen = [(_seen(step, candidate, own=True), _seen(step, candidate, own=False)) for step in steps]
    alerts, harmful = sum(ours.alerts.k for ours, _ in seen), sum(ours.alerts.n for ours, _ in seen)
    if alerts > plan.max_alerts:
        answered = f"{alerts} of {harmful} harmful requests were answered"
        return "abort", f"{answered}, more than the {plan.max_alerts} alerts allowed"
    confidence = 1 - plan.alpha / (METRICS_TESTED * len(plan.steps))
    gap = rate_difference([(ours.success, theirs.success) for ours, theirs in seen], confidence)
    pace = ratio([(ours.latency_s, theirs.latency_s) for ours, theirs in seen], confidence)
    rates, times = _rates(seen, gap), f"latency ratio {pace.value:.2f} [{pace.lower:.2f}, {pace.upper:.2f}]"
    if gap.upper < -plan.quality_margin:
        return "abort", f"{rates}: below the margin of {-plan.quality_margin:+.3f}"
    if pace.lower > plan.latency_ratio:
        return "abort", f"{times}: above {plan.latency_ratio:.2f}"
    unproven = list(_missing(plan, plan.steps[len(steps) - 1], seen[-1]))
    if not unproven and len(steps) < len(plan.steps):
        return "advance", f"nothing is proven against the candidate: {rates}; {times}"
    if harmful < plan.min_harmful and len(steps) == len(plan.steps):
        unproven.append(f"the candidate was asked {harmful} harmful requests, {plan.min_harmful} are needed")
    if gap.lower < -plan.quality_margin:
        unproven.append(f"{rates}: not proven to be above the margin of {-plan.quality_margin:+.3f}")
    if pace.upper > plan.latency_ratio:
        unproven.append(f"{times}: not proven to be at most {plan.latency_ratio:.2f}")
    if unproven:
        return "hold", "; ".join(unproven)
    asked = f"{alerts} of {harmful} harmful requests were answered, {plan.max_alerts} alerts allowed"
    return "advance", f"{rates}; {times}; {asked}"


def _missing(plan: CanaryPlan, step: CanaryStep, seen: tuple[_Seen, _Seen]) -> Iterator[str]:
    """What a step has yet to be asked before it may advance."""
    requests = sum(side.success.n for side in seen)
    if requests < step.min_requests:
        yield f"{requests} requests at weight {step.weight:g}, {step.min_requests} are needed"
    for name, side in zip(("candidate", "incumbent"), seen, strict=True):
        if side.served < plan.min_per_arm:
            yield f"the {name} served {side.served} requests at weight {step.weight:g}, {plan.min_per_arm} are needed"


def _seen(step: Sequence[Measurement], candidate: Digest, *, own: bool) -> _Seen:
    mine = {m.metric: m.statistic for m in step if (m.subject == candidate) == own}

    def rate(metric: str) -> Proportion:
        found = mine.get(metric)
        return found if isinstance(found, Proportion) else Proportion(0, 0)

    latency, success = mine.get(LATENCY), rate(SUCCESS)
    values = latency.values if isinstance(latency, Samples) else ()
    return _Seen(success, rate(ALERTS), values, rate(COMPARED).n or success.n)


def _rates(seen: Sequence[tuple[_Seen, _Seen]], gap: Estimate) -> str:
    """Both arms' counts step by step, and the difference within steps."""
    ours, theirs = (", ".join(f"{s.success.k}/{s.success.n}" for s in arms) for arms in zip(*seen, strict=True))
    value = "unknown" if math.isnan(gap.value) else f"{gap.value:+.3f}"
    within = " within steps" if len(seen) > 1 else ""
    more = sum(side.served - side.success.n for arms in seen for side in arms)
    beyond = f" ({more} more requests were served and not compared)" if more else ""
    return f"success {ours} against {theirs}{beyond}, difference{within} {value} [{gap.lower:+.3f}, {gap.upper:+.3f}]"
