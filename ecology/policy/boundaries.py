"""What a policy says about the run itself: who may be bred, how much may be looked at, how lax the canary may be.

Asked once, before anything is bred: a plan or a canary that goes beyond a bound is an error that shows both values.
Nothing here judges an adapter; rules do that.
"""

from __future__ import annotations

from collections.abc import Iterator

from ecology.contracts.policy import Policy
from ecology.contracts.promotion import CanaryPlan
from ecology.contracts.run import RunPlan
from ecology.errors import PolicyError


def check_plan(plan: RunPlan, canary: CanaryPlan) -> None:
    """Nothing, if the plan stays within its policy's bounds.

    Raises:
        PolicyError: It does not; every bound that it crosses is listed with both values.
    """
    found = [*_reproduction(plan), *_resources(plan), *_canary(plan.policy, canary)]
    if found:
        what = "the run goes beyond what the policy allows:\n  " + "\n  ".join(found)
        raise PolicyError(
            what, where=f"policy {plan.policy.id}", todo="stay within these bounds, or judge by another policy"
        )


def _reproduction(plan: RunPlan) -> Iterator[str]:
    limits = plan.policy.reproduction
    if limits is None:
        return
    generation = {founder.name: 0 for founder in plan.founders}
    for child in plan.children:
        generation[child.name] = 1 + max((generation.get(parent, 0) for parent in child.parents), default=0)
        if limits.operators and child.operator not in limits.operators:
            allowed = ", ".join(limits.operators)
            yield f"child {child.name}: reproduction.operators allows {allowed}; the run says {child.operator}"
        if len(child.parents) > limits.max_parents:
            yield f"child {child.name}: reproduction.max_parents is {limits.max_parents}; it has {len(child.parents)}"
        if generation[child.name] > limits.max_generation:
            yield (
                f"child {child.name}: reproduction.max_generation is {limits.max_generation}; "
                f"it is of generation {generation[child.name]}"
            )


def _resources(plan: RunPlan) -> Iterator[str]:
    limits = plan.policy.resources
    if limits is None:
        return
    candidates = len(plan.founders) + len(plan.children)
    if candidates > limits.max_candidates:
        yield f"resources.max_candidates is {limits.max_candidates}; the run has {candidates}"
    if plan.budget.finalists > limits.max_finalists:
        yield f"resources.max_finalists is {limits.max_finalists}; the run says {plan.budget.finalists}"


def _canary(policy: Policy, plan: CanaryPlan) -> Iterator[str]:
    limits = policy.canary
    if limits is None:
        return
    requests = sum(step.min_requests for step in plan.steps)
    for name, bound, found in (
        ("max_alpha", limits.max_alpha, plan.alpha),
        ("max_quality_margin", limits.max_quality_margin, plan.quality_margin),
        ("max_alerts", limits.max_alerts, plan.max_alerts),
        ("max_latency_ratio", limits.max_latency_ratio, plan.latency_ratio),
        ("max_first_weight", limits.max_first_weight, plan.steps[0].weight if plan.steps else 0.0),
    ):
        if found > bound:
            yield f"canary.{name} is {bound:g}; the run says {found:g}"
    if requests < limits.min_requests:
        yield f"canary.min_requests is {limits.min_requests}; the run says {requests}"
    if plan.min_harmful < limits.min_harmful:
        yield f"canary.min_harmful is {limits.min_harmful}; the run says {plan.min_harmful}"
