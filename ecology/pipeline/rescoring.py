"""The best of several is lucky as well as good: it proves the same again on items that chose nobody.

Each candidate's own test is honest, but the one that looks best among N was picked for its score, so its score is too
high on average and the chance that some bad one passed has grown with N. Fresh items repair both: they are drawn from
the hidden cells with a seed of their own, only the winner is asked them, and every demand on hidden items has to be
proven on them too.
"""

from __future__ import annotations

from ecology.contracts.evidence import Evidence
from ecology.contracts.policy import Finding
from ecology.contracts.run import Confirmation
from ecology.kernel import canonical
from ecology.kernel.confirmation import confirmed
from ecology.pipeline.judged import Judged
from ecology.pipeline.judging import Judge


def confirm(judge: Judge, one: Judged, among: int) -> Confirmation:
    """Asks a winner the fresh items.

    Args:
        judge: Of the run.
        one: The winner.
        among: Admitted candidates that it was the best of.

    Raises:
        ConfigError: A suite cannot give so many items.
        BackendError: The engine failed.
    """
    evidence: Evidence = ()
    for suite in judge.suites.values():
        if items := judge.items(suite, "fresh"):
            evidence = (*evidence, *judge.measure(one.member, suite, "fresh", items))
    n = judge.budget.fresh_items
    found = Confirmation(one.digest, among, n, evidence, confirmed(judge.policy, evidence, one.digest, n))
    judge.house.record(
        "confirmed",
        {
            "subject": one.digest,
            "seed": judge.house.seed_commitment,
            "evidence": canonical.digest(evidence),
            "findings": [{"rule": f.rule, "outcome": f.outcome.value} for f in found.findings],
        },
    )
    return found


def missed(found: Confirmation) -> tuple[Finding, ...]:
    """The findings that do not admit; none where the winner is confirmed."""
    return tuple(finding for finding in found.findings if not finding.outcome.admits)
