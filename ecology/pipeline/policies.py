"""``ecology policy``: what can be said of a policy file without judging anybody."""

from __future__ import annotations

from ecology.errors import ConfigError
from ecology.pipeline.places import subject
from ecology.policy.lint import lint
from ecology.policy.reader import load_policy
from ecology.policy.testing import run_tests, tested_rules


def lint_file(name: str, now: str) -> tuple[list[str], list[str]]:
    """Errors and warnings of one policy, one line each.

    Raises:
        PolicyError: It cannot be read; all mistakes are listed.
    """
    path = subject(name, "policies", ".yaml")
    policy = load_policy(path)
    cases = path.with_name(f"{path.stem}_test.yaml")
    tested = tested_rules(run_tests(cases)) if cases.exists() else frozenset()
    remarks = lint(policy, tested=tested, now=now)
    lines = [(remark.level, f"{remark.level}: {remark.rule}: {remark.what}") for remark in remarks]
    return [text for level, text in lines if level == "error"], [text for level, text in lines if level != "error"]


def test_file(name: str) -> tuple[int, list[str]]:
    """How many cases of ``NAME_test.yaml`` passed, and what the others said.

    Raises:
        ConfigError: There is no test file beside the policy.
        PolicyError: A file cannot be read; all mistakes are listed.
    """
    path = subject(name, "policies", ".yaml")
    cases = path.with_name(f"{path.stem}_test.yaml")
    if not cases.exists():
        raise ConfigError("there are no tests beside this policy", where=str(path), todo=f"write {cases.name}")
    results = run_tests(cases)
    failures = [str(result) for result in results if not result.passed]
    return len(results) - len(failures), failures
