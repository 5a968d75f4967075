"""A winner is tried on a little traffic before it gets all of it.

The decider and the actor are kept apart. ``decide`` is a pure function of the plan and of what was measured so far,
so anyone can ask it again later and must get the same answer (``recheck``). ``run`` only serves requests and asks
it.

The rules, in this order:

1. More safety alerts than ``max_alerts``: abort, at once, in the middle of a step. An alert is a harmful request
   answered.
2. The success rate is proven to be more than ``quality_margin`` below the incumbent's: abort.
3. Latency is proven to be above ``latency_ratio`` times the incumbent's: abort.
4. Fewer requests than the step asks for: hold.
5. Before the last step: advance. Nothing is proven against the candidate yet, and it gets a little more.
6. At the last step: advance (which promotes) only if non-inferior success and bearable latency are both proven;
   else hold.

Bounds are one-sided at ``alpha / (2 metrics * steps)``, so that all looks together abort a good candidate on these
grounds with probability ``alpha`` at most. What is not proven never promotes: a hold ends as the plan's
``on_inconclusive`` says.

The incumbent serves at the same time, on the rest of the same traffic: yesterday's figures are another day's. A
request's arm follows from its id and the salt alone, so a wider step only adds requests to the candidate's arm.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

from ecology.contracts.evidence import Measurement, Proportion, Samples
from ecology.contracts.identity import Digest, Json
from ecology.contracts.ports import Step
from ecology.contracts.promotion import CanaryObservation, CanaryPlan, CanaryResult
from ecology.errors import BackendError, ConfigError
from ecology.kernel.buckets import Arm, arm
from ecology.kernel.canonical import digest
from ecology.kernel.codec import structure
from ecology.promotion.comparison import difference, latency_ratio
from ecology.promotion.traffic import Request

SUCCESS = "canary.success"
ALERTS = "canary.alerts"
LATENCY = "canary.latency_s"
METRICS_TESTED = 2
"""Success and latency; alerts are counted, not tested."""

Decision = Literal["advance", "hold", "abort"]


@dataclasses.dataclass(frozen=True, slots=True)
class Served:
    """One request, served and checked."""

    id: str
    success: bool
    """Whether the reply was what was expected; False where the engine failed."""
    alert: bool
    """Whether a harmful request was answered."""
    latency_s: float
    """Above 0."""


Serve = Callable[[Arm, Sequence[Request]], Sequence[Served]]
"""Serves requests with one arm's adapter and checks the replies; one ``Served`` a request, in any order."""


def canary_plan(data: Json, where: str = "canary") -> CanaryPlan:
    """Reads a plan from plain data and checks its ranges.

    Raises:
        ConfigError: Wrong shape, no step, shrinking or impossible weights, or a number out of range.
    """
    plan = structure(CanaryPlan, data, where)
    if not plan.steps:
        raise ConfigError(
            "a canary without a step promotes untried", where=f"{where}.steps", todo="name at least one step"
        )
    weights = [step.weight for step in plan.steps]
    if not all(0 < weight < 1 for weight in weights) or weights != sorted(weights):
        raise ConfigError(f"weights {weights} must lie between 0 and 1 and not shrink", where=f"{where}.steps")
    if any(step.min_requests < 1 for step in plan.steps):
        raise ConfigError("min_requests must be at least 1", where=f"{where}.steps")
    for name, good, allowed in (
        ("alpha", 0 < plan.alpha < 0.5, "between 0 and 0.5"),
        ("quality_margin", 0 <= plan.quality_margin < 1, "0 to 1"),
        ("max_alerts", plan.max_alerts >= 0, "at least 0"),
        ("latency_ratio", 1 <= plan.latency_ratio < math.inf, "at least 1"),
    ):
        if not good:
            raise ConfigError(f"{name} is {getattr(plan, name)}, must be {allowed}", where=f"{where}.{name}")
    return plan


def decide(plan: CanaryPlan, candidate: Digest, steps: Sequence[Sequence[Measurement]]) -> tuple[Decision, str]:
    """What to do after the last of these steps.

    Args:
        plan: How the winner is tried.
        candidate: Whose measurements are the candidate's; all others are the incumbent's.
        steps: Measurements of each step so far, the current one last, both arms.

    Returns:
        The decision and one sentence of reason. ``advance`` after the plan's last step means promote.
    """
    ours, theirs = (_pool(steps, candidate, own=own) for own in (True, False))
    if ours.alerts.k > plan.max_alerts:
        seen = f"{ours.alerts.k} of {ours.alerts.n} harmful requests were answered"
        return "abort", f"{seen}, more than the {plan.max_alerts} alerts allowed"
    alpha = plan.alpha / (METRICS_TESTED * len(plan.steps))
    low, high = difference(ours.success, theirs.success, alpha)
    ratio, ratio_low, ratio_high = latency_ratio(ours.latency_s, theirs.latency_s, alpha)
    success = (
        f"success {_share(ours.success)} against {_share(theirs.success)}, "
        f"difference {_point(ours.success, theirs.success)} [{low:+.3f}, {high:+.3f}]"
    )
    pace = f"latency ratio {ratio:.2f} [{ratio_low:.2f}, {ratio_high:.2f}]"
    if high < -plan.quality_margin:
        return "abort", f"{success}: below the margin of {-plan.quality_margin:+.3f}"
    if ratio_low > plan.latency_ratio:
        return "abort", f"{pace}: above {plan.latency_ratio:.2f}"
    step = plan.steps[len(steps) - 1]
    requests = sum(s.n for m in steps[-1] if m.metric == SUCCESS and isinstance(s := m.statistic, Proportion))
    unproven = []
    if requests < step.min_requests:
        unproven.append(f"{requests} requests at weight {step.weight:g}, {step.min_requests} are needed")
    elif len(steps) < len(plan.steps):
        return "advance", f"nothing is proven against the candidate: {success}; {pace}"
    if low < -plan.quality_margin:
        unproven.append(f"{success}: not proven to be above the margin of {-plan.quality_margin:+.3f}")
    if ratio_high > plan.latency_ratio:
        unproven.append(f"{pace}: not proven to be at most {plan.latency_ratio:.2f}")
    if unproven:
        return "hold", "; ".join(unproven)
    return "advance", f"{success}; {pace}; {ours.alerts.k} alerts of {plan.max_alerts} allowed"


def run(
    plan: CanaryPlan,
    requests: Sequence[Request],
    serve: Serve,
    *,
    candidate: Digest,
    incumbent: str,
    salt: str,
    chunk: int = 8,
    progress: Step | None = None,
) -> CanaryResult:
    """Replays recorded requests, step by step, until the decider stops it or the last step is done.

    Args:
        plan: How the winner is tried.
        requests: Recorded traffic in its order; each step takes the next ``min_requests`` of it.
        serve: Serves and checks.
        candidate: Digest of the winner.
        incumbent: Digest of what serves now; another one.
        salt: Decides with a request's id which arm it goes to; the same for the whole rollout.
        chunk: So many requests are served between two looks at the alerts.
        progress: Told of every request served.

    Raises:
        ConfigError: Candidate and incumbent are the same, or two requests have the same id.
        BackendError: ``serve`` did not answer the requests it was given, or gave a latency that is none.
    """
    if candidate == incumbent:
        raise ConfigError("a canary compares two different adapters", where=candidate, todo="hold the champion instead")
    if len({request.id for request in requests}) != len(requests):
        raise ConfigError("two recorded requests have the same id", where="traffic", todo="make the ids unique")
    observations: list[CanaryObservation] = []
    start = alerts = 0
    for step in plan.steps:
        batch = requests[start : start + step.min_requests]
        start += len(batch)
        served: dict[Arm, list[Served]] = {"candidate": [], "incumbent": []}
        for first in range(0, len(batch), chunk):
            part = batch[first : first + chunk]
            for name in served:
                served[name] += _ask(serve, name, [r for r in part if arm(r.id, salt, step.weight) == name])
            if progress is not None:
                progress.advance(len(part), f"{step.weight:.0%} of traffic")
            if alerts + sum(s.alert for s in served["candidate"]) > plan.max_alerts:
                break
        alerts += sum(s.alert for s in served["candidate"])
        harmful = {request.id for request in batch if request.kind == "harmful"}
        measurements = (
            *_measure(served["candidate"], candidate, harmful),
            *_measure(served["incumbent"], Digest(incumbent), harmful),
        )
        decision, reason = decide(plan, candidate, (*(o.measurements for o in observations), measurements))
        answered = sum(map(len, served.values()))
        observations.append(CanaryObservation(step, answered, measurements, decision, reason))
        if decision != "advance":
            break
    return _result(plan, candidate, incumbent, tuple(observations))


def recheck(plan: CanaryPlan, result: CanaryResult) -> tuple[str, ...]:
    """What a recorded canary says that its own measurements do not bear out, one sentence each.

    Args:
        plan: The plan it was run under.
        result: What was recorded.
    """
    problems = []
    for index, observation in enumerate(result.observations):
        if index >= len(plan.steps) or observation.step != plan.steps[index]:
            problems.append(f"step {index} is not the plan's")
            break
        seen = [o.measurements for o in result.observations[: index + 1]]
        decision, reason = decide(plan, result.candidate, seen)
        if (decision, reason) != (observation.decision, observation.reason):
            problems.append(f"step {index} says {observation.decision} and its measurements say {decision}: {reason}")
    expected = _result(plan, result.candidate, result.incumbent, result.observations)
    if not problems and expected != result:
        problems.append(f"the canary says {result.decision} and its steps say {expected.decision}")
    return tuple(problems)


def _result(
    plan: CanaryPlan, candidate: Digest, incumbent: str, observations: tuple[CanaryObservation, ...]
) -> CanaryResult:
    if not observations:
        return CanaryResult(candidate, incumbent, (), plan.on_inconclusive, "no step was taken")
    last = observations[-1]
    if last.decision == "abort":
        return CanaryResult(candidate, incumbent, observations, "rollback", last.reason)
    if last.decision == "hold" or len(observations) < len(plan.steps):
        return CanaryResult(candidate, incumbent, observations, plan.on_inconclusive, last.reason)
    return CanaryResult(candidate, incumbent, observations, "promote", last.reason)


def _ask(serve: Serve, name: Arm, requests: Sequence[Request]) -> Sequence[Served]:
    if not requests:
        return ()
    answers = serve(name, requests)
    if sorted(answer.id for answer in answers) != sorted(request.id for request in requests):
        raise BackendError(
            f"{len(requests)} requests were sent and {len(answers)} answers with other ids came back",
            where=f"canary, {name}",
        )
    if not all(0 < answer.latency_s < math.inf for answer in answers):
        raise BackendError("a latency is not above 0 seconds", where=f"canary, {name}")
    return answers


def _measure(served: Sequence[Served], subject: Digest, harmful: set[str]) -> tuple[Measurement, ...]:
    source = digest(sorted(answer.id for answer in served))
    alerts = Proportion(sum(answer.alert for answer in served), sum(answer.id in harmful for answer in served))
    success = Proportion(sum(answer.success for answer in served), len(served))
    latency = Samples(tuple(answer.latency_s for answer in served), "s")
    return (
        Measurement(SUCCESS, subject, success, source=source),
        Measurement(ALERTS, subject, alerts, source=source),
        Measurement(LATENCY, subject, latency, source=source),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Pooled:
    """All steps of one arm together."""

    success: Proportion
    alerts: Proportion
    latency_s: tuple[float, ...]


def _pool(steps: Sequence[Sequence[Measurement]], candidate: Digest, *, own: bool) -> _Pooled:
    mine = [m for step in steps for m in step if (m.subject == candidate) == own]

    def total(metric: str) -> Proportion:
        found = [m.statistic for m in mine if m.metric == metric and isinstance(m.statistic, Proportion)]
        return Proportion(sum(f.k for f in found), sum(f.n for f in found))

    latency = [m.statistic.values for m in mine if m.metric == LATENCY and isinstance(m.statistic, Samples)]
    return _Pooled(total(SUCCESS), total(ALERTS), tuple(value for values in latency for value in values))


def _share(seen: Proportion) -> str:
    return f"{seen.k}/{seen.n}"


def _point(ours: Proportion, theirs: Proportion) -> str:
    return f"{ours.k / ours.n - theirs.k / theirs.n:+.3f}" if ours.n and theirs.n else "unknown"
