"""What a rule saw: value, interval and number of samples beside what it demands, alike in every format."""

from __future__ import annotations

import dataclasses

from ecology.contracts.policy import Finding, Policy
from ecology.report.figures import demand_text, unit_of
from ecology.report.words import between, quantity, visible


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """One finding in the units of its metric."""

    observed: str
    """``93.0 %``; empty where nothing was observed."""
    within: str
    """The one-sided bounds as ``89.3 to 95.7 %``; empty where the value is exact."""
    n: int
    """Samples; 0 of a count, which rests on none."""
    split: str
    """``hidden``, ``public`` or empty."""
    demand: str
    """``≥ 90.0 %``."""

    def __str__(self) -> str:
        """``93.0 % (89.3 to 95.7 %), n = 200 hidden; demanded: ≥ 90.0 %``."""
        seen = self.observed or "nothing observed"
        if self.within:
            seen += f" ({self.within})"
        if self.n:
            seen += f", n = {self.n}{f' {self.split}' if self.split else ''}"
        return f"{seen}; demanded: {self.demand}" if self.demand else seen


def measured(finding: Finding, policy: Policy) -> Measured:
    """What stands behind a finding.

    Args:
        finding: Of a rule of the policy, or of none, such as an engine that failed.
        policy: Knows with whom a rule compares, and so the unit.
    """
    rule = next((rule for rule in policy.rules if rule.id == finding.rule), None)
    unit = unit_of(finding.metric, rule.against if rule else "absolute")
    return Measured(
        observed="" if finding.observed is None else quantity(finding.observed, unit),
        within=between(finding.lower, finding.upper, unit),
        n=0 if unit == "count" else finding.n,
        split="" if finding.split == "none" else finding.split,
        demand=demand_text(rule) if rule else visible(finding.demand),
    )
