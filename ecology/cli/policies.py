"""``ecology policy``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ecology.cli.grammar import Argument, Sub, doors, instant_of, leaf
from ecology.errors import EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:
    from ecology.signer.approval import Decision


def policy_commands(parser: Sub, common: Sub) -> None:
    """Adds what is done with policies."""
    policy: Argument = ("policy", {"metavar": "FILE", "help": "a policy file, or the name of a shipped one"})
    policies: Argument = (
        "policies",
        {"metavar": "FILE", "nargs": "+", "help": "policy files, or names of shipped ones"},
    )
    at: Argument = (
        "--at",
        {"metavar": "INSTANT", "default": "", "help": "judge as of this instant, as 2027-01-31T00:00:00Z"},
    )
    key: Argument = (
        "--key",
        {"metavar": "FILE", "type": Path, "required": True, "help": "PEM private key to sign with"},
    )
    out: Argument = ("--out", {"metavar": "FILE", "type": Path, "help": "where to (default: beside the policy)"})
    before: Argument = (
        "--from",
        {"dest": "before", "metavar": "FILE", "default": "", "help": "the policy it replaces"},
    )
    leaf(
        parser,
        common,
        [
            (
                "lint",
                "rules that contradict, shadow, are untested or cannot decide; waivers",
                _policy_lint,
                [policy, at],
            ),
            (
                "explain",
                "plain words: what each rule means, and what an adapter would need to pass",
                _policy_explain,
                [
                    policy,
                    ("--rule", {"action": "append", "default": [], "metavar": "ID"}),
                    (
                        "--adapter",
                        {"metavar": "DIGEST", "help": "a judged adapter: what each rule saw, what is needed"},
                    ),
                    at,
                ],
            ),
            ("test", "run the policy's unit tests (NAME_test.yaml beside it), with coverage", _policy_test, [policies]),
            (
                "diff",
                "what changed from one policy to another, in words",
                _policy_diff,
                [("old", {"metavar": "OLD"}), ("new", {"metavar": "NEW"})],
            ),
            ("replay", "which past verdicts the policy would flip, from stored evidence", _policy_replay, [policy, at]),
            (
                "approve",
                "sign the compiled policy, with diff and replay attached",
                _policy_approve,
                [
                    policy,
                    key,
                    ("--reason", {"required": True, "metavar": "TEXT"}),
                    ("--reject", {"action": "store_true", "help": "sign an objection instead"}),
                    before,
                    out,
                ],
            ),
            (
                "waive",
                "check and sign a waiver",
                _policy_waive,
                [
                    ("waiver", {"metavar": "WAIVER", "type": Path}),
                    ("--policy", {"required": True, "metavar": "FILE"}),
                    key,
                    out,
                ],
            ),
            (
                "review",
                "one page for a reviewer: policy, diff, replay, tests, waivers, approvals",
                _policy_review,
                [policy, ("--html", {"metavar": "FILE", "type": Path, "required": True}), before, at],
            ),
        ],
    )


def _policy_lint(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import lint_file  # noqa: PLC0415

    found = lint_file(options.policy, instant_of(options), lambda: doors(options))
    waivers = [f"waiver: {standing}" for standing in found.waivers]
    refused = [f"warning: {why}: without effect" for why in found.refused]
    print("\n".join([*map(str, found.remarks), *refused, *waivers]) or "nothing to say against it")
    return EXIT_REFUSED if found.errors else EXIT_OK


def _policy_explain(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import explain_adapter, explain_file  # noqa: PLC0415

    if options.adapter is None:
        print("\n\n".join(explain_file(options.policy, options.rule)))
        return EXIT_OK
    stored, judged, steps = explain_adapter(options.policy, options.adapter, instant_of(options), doors(options))
    word = "passes" if judged.outcome.admits else "does not pass"
    print(f"{stored.name}  {stored.subject}\n{word} ({judged.outcome.value}), on evidence of {stored.decided_at}\n")
    print("\n".join(str(step) for step in steps if not options.rule or step.rule in options.rule))
    return EXIT_OK if judged.outcome.admits else EXIT_REFUSED


def _policy_test(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import coverage_lines, test_file  # noqa: PLC0415

    failed = 0
    for name in options.policies:
        results, policy = test_file(name)
        failures = [str(result) for result in results if not result.passed]
        failed += len(failures)
        counted = f"{policy.id}: {len(results) - len(failures)} passed, {len(failures)} failed"
        print("\n".join([*failures, counted, *coverage_lines(results, policy)]))
    return EXIT_REFUSED if failed else EXIT_OK


def _policy_diff(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import diff_files, summary  # noqa: PLC0415

    found = diff_files(options.old, options.new)
    print("\n".join([summary(found), *(f"  {difference}" for difference in found)]))
    return EXIT_OK


def _policy_replay(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import replay_file  # noqa: PLC0415

    found, past = replay_file(options.policy, options.at and instant_of(options), doors(options))
    print("\n".join([found.sentence, *(f"  {line}" for line in found.lines)]))
    if past.unstored:
        print(f"  of {past.unstored} more the log knows, and no evidence of them is kept here")
    return EXIT_OK


def _policy_approve(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import approve_file, summary  # noqa: PLC0415
    from ecology.report.standing import standing_line  # noqa: PLC0415

    decision: Decision = "reject" if options.reject else "approve"
    governed, differences, effect, who = approve_file(
        options.policy,
        options.key,
        reason=options.reason,
        decision=decision,
        before=options.before,
        house=doors(options),
        out=options.out,
    )
    print(f"{who} signed: {decision} {governed.policy.digest}")
    if options.before:
        print(f"diff    {summary(differences)}")
    print(f"replay  {effect.sentence}\n{standing_line(governed.policy, governed.approvals)}")
    return EXIT_OK


def _policy_waive(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import waive_file  # noqa: PLC0415

    waiver, path = waive_file(options.waiver, options.policy, options.key, doors(options), options.out)
    print(f"{waiver.approver} waived {waiver.rule} for {waiver.subject} until {waiver.expires}\n{path}")
    return EXIT_OK


def _policy_review(options: argparse.Namespace) -> int:
    from ecology.pipeline.reviews import review_file  # noqa: PLC0415

    review_file(options.policy, options.html, before=options.before, at=instant_of(options), house=doors(options))
    print(options.html)
    return EXIT_OK
