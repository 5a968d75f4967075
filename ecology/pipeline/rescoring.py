"""The best of several is lucky as well as good: it proves the same again on items that chose nobody.

Each candidate's own test is honest, but the one that looks best among N was picked for its score, so its score is too
high on average and the chance that some bad one passed has grown with N. Fresh items repair both: they are drawn from
the hidden cells with a seed of their own, only the winner is asked them, and every demand on hidden items has to be
proven on them too.
"""

from __future__ import annotations

import dataclasses

from ecology.contracts.evidence import Evidence
from ecology.contracts.policy import Finding, Policy
from ecology.kernel import canonical
from ecology.kernel.verdicts import judge as judge_rule
from ecology.pipeline.judging import Judge, Judged


def confirming(policy: Policy, n: int) -> Policy:
    """The demands on hidden items, as demands on n fresh ones."""
    rules = tuple(
        dataclasses.replace(rule, split="fresh", min_samples=min(rule.min_samples, n))
        for rule in policy.rules
        if rule.split == "hidden" and rule.severity == "deny"
    )
    return dataclasses.replace(policy, rules=rules)


def confirm(judge: Judge, one: Judged) -> tuple[Evidence, tuple[Finding, ...]]:
    """Asks a winner the fresh items.

    Returns:
        What was measured, and the findings that do not admit; none where the winner is confirmed.

    Raises:
        ConfigError: A suite cannot give so many items.
        BackendError: The engine failed.
    """
    evidence: Evidence = ()
    for suite in judge.suites.values():
        if items := judge.items(suite, "fresh"):
            evidence = (*evidence, *judge.measure(one.member, suite, "fresh", items))
    rules = confirming(judge.policy, judge.budget.fresh_items).rules
    measured = {m.metric for m in evidence}
    findings = [judge_rule(rule, evidence, one.digest) for rule in rules if rule.metric in measured]
    judge.house.record(
        "confirmed",
        {
            "subject": one.digest,
            "seed": judge.house.seed_commitment,
            "evidence": canonical.digest(evidence),
            "findings": [{"rule": f.rule, "outcome": f.outcome.value} for f in findings],
        },
    )
    return evidence, tuple(finding for finding in findings if not finding.outcome.admits)
