"""Whether a policy was approved and its waivers are what they say: asked when judging, and again when verifying.

One function each for gate, command line, report and replay, all of them over the same bytes: the policy carries the
approvers' keys, the report carries the envelopes. Nobody's word is taken for it that an approval was counted once.

Where the policy was tightened by a run's configuration, an approval of the file it came from counts: what only tightens
admits nothing that was not approved.
"""

from __future__ import annotations

from collections.abc import Sequence

from ecology.contracts.policy import APPROVAL_RULE, Finding, Outcome, Policy, Waiver
from ecology.errors import EcologyError
from ecology.policy.layers import run_layer
from ecology.policy.waivers import objections
from ecology.signer.approval import Approvals, verify_approvals
from ecology.signer.waivers import verify_waiver


def approvals_of(policy: Policy, envelopes: Sequence[str], now: str) -> Approvals | None:
    """How many of those entitled approved the policy; None where it asks for nobody.

    Args:
        policy: Compiled.
        envelopes: Approvals of whatever subject; those of others are refused.
        now: Instant as of which they count.

    Raises:
        PolicyError: A key of the policy cannot be used.
    """
    terms = policy.approvals
    if terms is None:
        return None
    layer = run_layer(policy)
    found = [
        verify_approvals(envelopes, digest, "policy", approvers=terms.approvers, threshold=terms.required, now=now)
        for digest in (policy.digest, *([layer.digest] if layer else []))
    ]
    return max(found, key=lambda one: (one.met, len(one.approved)))


def approval_finding(policy: Policy, approvals: Approvals | None) -> Finding | None:
    """What the standing of the policy contributes to every verdict; None where it asks for no approval."""
    terms = policy.approvals
    if terms is None or approvals is None:
        return None
    missed = {"deny": Outcome.DENY, "warn": Outcome.WARN, "info": Outcome.PASS}[terms.severity]
    return Finding(
        rule=APPROVAL_RULE,
        title="Those who are entitled approved this policy",
        metric="policy.approvals",
        split="none",
        severity=terms.severity,
        outcome=Outcome.PASS if approvals.met else missed,
        demand=f">= {terms.required}",
        observed=float(len(approvals.approved)),
        lower=None,
        upper=None,
        n=1,
        reason=approvals.sentence,
        details=() if approvals.met else approvals.refused,
    )


def standing_line(policy: Policy, approvals: Approvals | None) -> str:
    """One line for every report."""
    if approvals is None:
        return "UNAPPROVED: the policy names nobody who would have to approve it"
    return f"{'approved' if approvals.met else 'UNAPPROVED'}: {approvals.sentence}"


def read_waivers(policy: Policy, envelopes: Sequence[str]) -> tuple[tuple[Waiver, ...], tuple[str, ...]]:
    """The waivers that count under a policy, and why the others do not.

    Raises:
        PolicyError: A key of the policy cannot be used.
    """
    approvers = policy.waiver_rules.approvers if policy.waiver_rules else ()
    found: list[Waiver] = []
    refused: list[str] = []
    for number, line in enumerate(envelopes, start=1):
        try:
            waiver = verify_waiver(line, approvers)
            problems = objections(waiver, policy)
        except EcologyError as error:
            refused.append(f"waiver {number}: {error.what}")
            continue
        if problems:
            refused.append(f"waiver {number}: {'; '.join(what for _, what in problems)}")
        elif waiver not in found:
            found.append(waiver)
    return tuple(found), tuple(refused)


def waiver_problems(policy: Policy) -> tuple[str, ...]:
    """Waivers of a policy that nobody entitled signed, or that say something else than what was signed."""
    problems = []
    for waiver in policy.waivers:
        kept, refused = read_waivers(policy, [waiver.proof] if waiver.proof else [])
        if kept != (waiver,):
            why = refused[0].partition(": ")[2] if refused else "it carries no signature, or another's"
            problems.append(f"waiver {waiver.ticket} of {waiver.rule}: {why}")
    return tuple(problems)
