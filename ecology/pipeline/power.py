"""``ecology suite power``: what a gate can see before it asks anything; and the refusal of one that cannot decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ecology.contracts.policy import Policy, Rule
from ecology.contracts.run import Budget
from ecology.errors import PolicyError
from ecology.kernel.accounting import any_of, false_admission, false_refusal
from ecology.kernel.sight import USUAL, blind, sight, sufficient
from ecology.policy.metrics import known_metrics

AGAIN = (".worst", ".twins", ".shuffled")
"""Scores of hidden items of which as many are asked as there are public ones."""


def samples_of(policy: Policy, budget: Budget) -> Mapping[str, int]:
    """Rule id -> samples that a configuration gives it; rules whose power is not known beforehand are left out."""
    metrics = known_metrics()
    given = {"public": budget.public_items, "fresh": budget.fresh_items}
    found = {}
    for rule in policy.rules:
        kind = metrics[rule.metric].kind if rule.metric in metrics else "proportion"
        if rule.split != "none" and kind == "proportion":
            small = rule.metric.startswith("robust.") or rule.metric.endswith(AGAIN)
            hidden = budget.hidden(rule.metric.split(".", 1)[0])
            found[rule.id] = budget.public_items if small else given.get(rule.split, hidden)
        elif rule.metric.startswith("resource.latency"):
            found[rule.id] = budget.latency_pairs
    return {name: n for name, n in found.items() if n > 0}


def refuse_blind(policy: Policy, budget: Budget, finalists: int | None = None) -> None:
    """Refuses a configuration that cannot decide, or that may be wrong more often than the policy allows.

    It cannot decide where a rule does not see what the section ``decidable`` wants seen.

    Args:
        policy: With or without ``decidable`` and ``error_budget``.
        budget: Items and pairs of the configuration.
        finalists: Candidates that are asked the hidden items; None takes the budget's.

    Raises:
        PolicyError: Lists every such rule with what it sees and the n that would do, or says how often any of the
            finalists would be admitted wrongly.
    """
    problems = blind(policy.rules, samples_of(policy, budget), policy.decidable) if policy.decidable else ()
    if problems:
        raise PolicyError(
            "this configuration cannot decide:\n  " + "\n  ".join(problems),
            where=f"policy {policy.id}: decidable",
            todo="ask for more items (evaluator.hidden_items, evaluator.hidden_of), or ask less of the gate",
        )
    count = budget.finalists if finalists is None else finalists
    allowed = policy.error_budget.admission if policy.error_budget else 1.0
    found = any_of(false_admission(policy), count)
    if found > allowed + 1e-12:
        raise PolicyError(
            f"one of {count} finalists that misses a demand would be admitted with probability {found:.3g} at most, "
            f"the policy allows {allowed:.3g}",
            where=f"policy {policy.id}: error_budget.admission",
            todo="have fewer finalists, or raise the confidence of the rules that prove",
        )


def power_table(overrides: Sequence[str], drop: float | None) -> tuple[list[str], list[str]]:
    """One line a rule, and what the policy objects to.

    Args:
        overrides: Of the configuration.
        drop: Loss and gain to look for, 0 to 1; None takes the policy's own, or five points.

    Raises:
        ConfigError: The configuration is wrong.
        PolicyError: The policy is wrong.
    """
    from ecology.pipeline.compose import compose  # noqa: PLC0415  (Hydra only where it composes)
    from ecology.pipeline.plan import budget_of, load_gate_policy  # noqa: PLC0415

    settings, _ = compose(overrides)
    policy, budget = load_gate_policy(settings.gate), budget_of(settings)
    wanted = policy.decidable or USUAL
    if drop is not None:
        wanted = dataclasses.replace(wanted, drop=drop, gain=drop)
    given = samples_of(policy, budget)
    judged = [rule for rule in policy.rules if rule.id in given]
    points = f"{100 * wanted.drop:.3g} points"
    head = ("rule", "n", f"{points} worse: refuted", f"{points} better: passes", "n that would do", "demand")
    rows = [head]
    for rule in judged:
        seen, enough = sight(rule, given[rule.id], wanted), sufficient(rule, wanted)
        short = "too few" if given[rule.id] < rule.min_samples else f"{seen.passes:.2f}"
        rows.append((rule.id, str(seen.n), f"{seen.denies:.2f}", short, str(enough or "over 20000"), _demand(rule)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(
        f"admitted wrongly: at most {false_admission(policy):.3g} a candidate, "
        f"{any_of(false_admission(policy), budget.finalists):.3g} for any of {budget.finalists} finalists; "
        f"denied wrongly, over all rules: at most {min(1.0, false_refusal(policy) + 2 * budget.race_alpha):.3g}"
    )
    problems = list(blind(policy.rules, given, policy.decidable)) if policy.decidable else []
    return lines, problems


def _demand(rule: Rule) -> str:
    against = "" if rule.against == "absolute" else f" against {rule.against}"
    return f"{rule.metric} {rule.comparator} {rule.threshold:g}{against}, {rule.confidence:.0%}"
