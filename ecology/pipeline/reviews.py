"""``ecology policy review``: everything known of a policy, gathered for one page."""

from __future__ import annotations

from pathlib import Path

from ecology.pipeline.governing import govern, policy_file
from ecology.pipeline.house import House
from ecology.pipeline.past import past_of
from ecology.pipeline.policies import cases_file, used_waivers
from ecology.policy.diff import diff
from ecology.policy.lint import lint
from ecology.policy.reader import load_policy
from ecology.policy.replay import replay
from ecology.policy.testing import coverage, run_tests
from ecology.policy.waivers import status
from ecology.report.review import Review, render_review
from ecology.store.files import write_atomic


def review_file(name: str, target: Path, *, before: str, at: str, house: House) -> Review:
    """Writes the page.

    Args:
        name: Path, or name of a shipped policy.
        target: The HTML file.
        before: The policy that it replaces; empty where there is none.
        at: Instant as of which waivers and approvals count.
        house: Where past verdicts are.

    Raises:
        ConfigError: A file is missing.
        PolicyError: A policy cannot be read; all mistakes are listed.
        IntegrityError: The store is damaged.
    """
    governed = govern(name, at)
    policy = governed.policy
    cases = cases_file(governed.path)
    results = run_tests(cases, policy) if cases.exists() else ()
    old = load_policy(policy_file(before)) if before else None
    past = past_of(house)
    review = Review(
        policy=policy,
        replaces=old,
        differences=diff(old, policy) if old else (),
        replay=replay(policy, past.verdicts),
        unstored=past.unstored,
        results=results,
        remarks=lint(policy, tested=coverage(results)),
        waivers=status(policy, used_waivers(past), at),
        refused=governed.refused,
        approvals=governed.approvals,
        at=at,
    )
    write_atomic(target, render_review(review))
    return review
