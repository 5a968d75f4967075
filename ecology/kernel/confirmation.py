"""The best of several proves it again: every demand on hidden items becomes a demand on fresh ones.

Pure, so that whoever verifies a report decides the confirmation again from the evidence in it.
"""

from __future__ import annotations

import dataclasses

from ecology.contracts.evidence import Evidence
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Finding, Policy, Rule
from ecology.kernel.verdicts import judge


def fresh_rules(policy: Policy, items: int) -> tuple[Rule, ...]:
    """The demands on hidden items, as demands on so many fresh ones."""
    return tuple(
        dataclasses.replace(rule, split="fresh", min_samples=min(rule.min_samples, items))
        for rule in policy.rules
        if rule.split == "hidden" and rule.severity == "deny"
    )


def confirmed(policy: Policy, evidence: Evidence, subject: Digest, items: int) -> tuple[Finding, ...]:
    """What the demands find on fresh items.

    Args:
        policy: With demands on hidden items.
        evidence: Measured on fresh items; a demand on what is not measured there (robustness, contamination) is left
            out, for it does not get better by being the best of several.
        subject: Who was chosen.
        items: Fresh items of each suite, at least 1.
    """
    measured = {m.metric for m in evidence}
    return tuple(judge(rule, evidence, subject) for rule in fresh_rules(policy, items) if rule.metric in measured)
