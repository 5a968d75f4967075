"""A winner is tried on a little traffic before it gets all of it.

The decider and the actor are kept apart. ``decider.decide`` is a pure function of the plan and of what was measured so
far, so anyone can ask it again later and must get the same answer (``recheck``). ``run`` only serves requests and asks
it.

A step compares its first ``min_requests`` requests. Where chance gave an arm too few, or the candidate too few harmful
ones before the end, it goes on while there is traffic; what comes on top is watched for alerts and compared with
nothing, since to stop when the candidate was asked something would give it another mix of requests.

The incumbent serves at the same time, on the rest of the same traffic: yesterday's figures are another day's. A
request's arm follows from its id and the salt alone, so a wider step only adds requests to the candidate's arm.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from ecology.contracts.evidence import Measurement, Proportion, Samples
from ecology.contracts.identity import Digest, Json
from ecology.contracts.ports import Step
from ecology.contracts.promotion import CanaryObservation, CanaryPlan, CanaryResult, CanaryStep
from ecology.errors import BackendError, ConfigError
from ecology.kernel.buckets import Arm, arm
from ecology.kernel.canonical import digest
from ecology.kernel.codec import structure
from ecology.promotion.decider import ALERTS, COMPARED, LATENCY, SUCCESS, decide
from ecology.promotion.traffic import Request


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
        ("min_per_arm", plan.min_per_arm >= 1, "at least 1"),
        ("min_harmful", plan.min_harmful >= 0, "at least 0"),
        ("latency_ratio", 1 <= plan.latency_ratio < math.inf, "at least 1"),
    ):
        if not good:
            raise ConfigError(f"{name} is {getattr(plan, name)}, must be {allowed}", where=f"{where}.{name}")
    return plan


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
        requests: Recorded traffic in its order; each step takes the next ``min_requests`` of it, and more where an
            arm was asked too little.
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
    start = alerts = asked = 0
    for index, step in enumerate(plan.steps):
        needed = plan.min_harmful - asked if index == len(plan.steps) - 1 else 0
        batch = requests[start : start + _length(plan, step, requests[start:], salt, needed)]
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
        asked += sum(answer.id in harmful for answer in served["candidate"])
        compared = {request.id for request in batch[: step.min_requests]}
        measurements = (
            *_measure(served["candidate"], candidate, harmful, compared),
            *_measure(served["incumbent"], Digest(incumbent), harmful, compared),
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
        if decision != observation.decision:
            problems.append(f"step {index} says {observation.decision} and its measurements say {decision}: {reason}")
        elif reason != observation.reason:
            problems.append(f"step {index} says {observation.reason} and its measurements say: {reason}")
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


def _length(plan: CanaryPlan, step: CanaryStep, requests: Sequence[Request], salt: str, harmful: int) -> int:
    """How many of these requests a step takes; all of them where they are too few.

    It follows from ids and kinds alone, not from any reply.

    Args:
        plan: Says how many each arm must serve.
        step: The step.
        requests: What is left of the traffic.
        salt: Of the rollout.
        harmful: So many harmful requests must still reach the candidate in this step.
    """
    left = {"candidate": plan.min_per_arm, "incumbent": plan.min_per_arm}
    for index, request in enumerate(requests):
        if index >= step.min_requests and harmful <= 0 and max(left.values()) <= 0:
            return index
        name = arm(request.id, salt, step.weight)
        left[name] -= 1
        harmful -= name == "candidate" and request.kind == "harmful"
    return len(requests)


def _measure(
    served: Sequence[Served], subject: Digest, harmful: set[str], compared: set[str]
) -> tuple[Measurement, ...]:
    source = digest(sorted(answer.id for answer in served))
    alerts = Proportion(sum(answer.alert for answer in served), sum(answer.id in harmful for answer in served))
    within = [answer for answer in served if answer.id in compared]
    success = Proportion(sum(answer.success for answer in within), len(within))
    latency = Samples(tuple(answer.latency_s for answer in within), "s")
    measured = (
        Measurement(SUCCESS, subject, success, source=source),
        Measurement(ALERTS, subject, alerts, source=source),
        Measurement(LATENCY, subject, latency, source=source),
    )
    if len(within) == len(served):
        return measured
    return (*measured, Measurement(COMPARED, subject, Proportion(len(within), len(served)), source=source))
