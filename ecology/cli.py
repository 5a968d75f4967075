"""The command line: parse, call, print, exit code. What it calls is in ``ecology.pipeline``.

Nothing heavy is imported before the command is known, so that ``--help`` answers at once and ``gate --static`` loads
neither torch nor Hydra. Results go to stdout; logs, progress and errors go to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ecology
from ecology.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, EXIT_REFUSED, EcologyError, IntegrityError, from_system

if TYPE_CHECKING:
    from ecology.pipeline.house import House
    from ecology.signer.approval import Decision

DEFAULT_BASE = "smollm2-135m"

EXITS = """\
exit codes:
  0   passed, promoted or held
  1   refused: a normal result with a full report
  2   the configuration, the policy or the command line is wrong
  3   something this installation holds is damaged
  4   an engine cannot start
  70  a bug of ours
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = build_parser()
    defaults = argparse.Namespace(home=None, quiet=False, verbose=False, debug=False, call=None, parser=parser)
    options, rest = parser.parse_known_args(arguments, defaults)
    words: list[str] | None = getattr(options, "overrides", None) or getattr(options, "parents", None)
    if rest and (words is None or any(text.startswith("-") for text in rest)):
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    elif words is not None:
        words += rest  # key=value may stand behind an option, as in: breed linear A B --out C rank=8
    if options.call is None:
        options.parser.print_help()
        return EXIT_OK
    try:
        return int(options.call(options))
    except KeyboardInterrupt:
        print("ecology: interrupted; the same command resumes", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has gone, as in `ecology registry list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        known = error if isinstance(error, EcologyError) else from_system(error)
        what = known or f"a bug of ours: {type(error).__name__}: {error}; run again with --debug"
        print(f"ecology: {what}", file=sys.stderr)
        return known.exit_code if known is not None else EXIT_BUG


def build_parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    # Suppressed defaults: a sub-command must not overwrite what was said before its name. What they are when nothing
    # was said is ``main``'s to say: parsers share these actions, and set_defaults of one would give them to all.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--home", metavar="DIR", help="state of this installation (default: $ECOLOGY_HOME or ~/.ecology)"
    )
    common.add_argument("--quiet", action="store_true", help="no progress bars")
    common.add_argument("--verbose", action="store_true", help="say on stderr what a run does, line by line")
    common.add_argument("--debug", action="store_true", help="show tracebacks")
    parser = argparse.ArgumentParser(
        prog="ecology",
        description="Breed, judge and promote LoRA adapters, and prove afterwards what was done.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"ecology {ecology.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    def command(
        name: str, text: str, call: Callable[[argparse.Namespace], int] | None = None
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(parser=sub, call=call)
        return sub

    run = command("run", "breed, sign, judge, rank, try, promote and report: the main job", _run)
    run.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="Hydra overrides, such as breeder=[linear,ties] seed=2"
    )
    run.add_argument("-m", "--multirun", action="store_true", help="sweep over values with commas")
    run.add_argument("--config-dir", metavar="DIR", type=Path, help="your own configuration groups, searched first")
    run.add_argument("--dry-run", action="store_true", help="say who would be trained and bred, and at what cost")

    gate = command("gate", "judge adapters under a policy: may this go to production?", _gate)
    gate.add_argument("adapters", nargs="+", metavar="ADAPTER", type=Path, help="a PEFT adapter folder")
    gate.add_argument("--policy", default="release", metavar="FILE", help="a policy file, or the name of a shipped one")
    gate.add_argument(
        "--base", default=DEFAULT_BASE, metavar="NAME", help="a preset of conf/base (default: smollm2-135m)"
    )
    gate.add_argument("--static", action="store_true", help="only what needs no model; admits to nothing")
    gate.add_argument("--format", default="text", choices=["text", "json", "junit", "sarif", "github"])
    gate.add_argument(
        "--out", metavar="DIR", type=Path, help="also write verdicts, signed attestations, JUnit and SARIF here"
    )
    gate.add_argument("--since", default="", metavar="REV", help="only adapters that changed since this Git revision")
    gate.add_argument("--at", default="", metavar="INSTANT", help="waivers and approvals as of this instant")
    gate.add_argument("--evaluator", default="standard", metavar="NAME", help="a preset of conf/evaluator")
    gate.add_argument("--fresh", action="store_true", help="measure again what was measured before")

    breed = command("breed", "one operator: adapters in, adapter out, no base model loaded", _breed)
    breed.add_argument("operator", metavar="OPERATOR", help="linear, svd, ties, dare, slerp, crossover, mutate, ...")
    breed.add_argument("parents", nargs="+", metavar="PARENT", help="adapter folders, then options as key=value")
    target = breed.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", metavar="DIR", type=Path, help="folder of the child")
    target.add_argument(
        "--dry-run", action="store_true", help="say what would be bred and what it keeps; write nothing"
    )
    breed.add_argument(
        "--base", default=DEFAULT_BASE, metavar="NAME", help="a preset of conf/base (default: smollm2-135m)"
    )
    breed.add_argument("--seed", type=int, default=0)
    breed.add_argument("--policy", metavar="FILE", help="whose limits of reproduction apply")

    _signing_commands(command)
    _policy_commands(command("policy", "explain, test, compare, replay, approve and review policies"), common)
    _suite_commands(command("suite", "look at evaluation suites"), common)
    _base_commands(command("base", "base models"), common)
    _registry_commands(command("registry", "adapters, verdicts and aliases of this home"), common)
    _audit_commands(command("audit", "the append-only log of this home"), common)
    _report_commands(command("report", "reports of runs"), common)
    return parser


def _signing_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    sign = command("sign", "sign an adapter's bytes into its claims.jsonl", _sign)
    sign.add_argument("adapter", metavar="ADAPTER", type=Path)
    how = sign.add_mutually_exclusive_group()
    how.add_argument("--key", metavar="FILE", help="PEM private key, or a URI that securesystemslib knows (awskms:...)")
    how.add_argument("--keyless", action="store_true", help="sign as the CI job or the person that this is (Sigstore)")
    sign.add_argument("--public-key", metavar="FILE", type=Path, help="the public half of a key behind a URI")
    sign.add_argument("--trust-config", metavar="FILE", type=Path, help="a private Sigstore instance (with --keyless)")
    sign.add_argument("--identity-token", metavar="TOKEN", help="instead of the CI's own or a browser (with --keyless)")
    sign.add_argument("--oms", metavar="FILE", type=Path, help="also write an OpenSSF Model Signing bundle")

    verify = command("verify", "check an adapter's claims against a trust anchor", _verify)
    verify.add_argument("adapter", metavar="ARTIFACT", help="an adapter; with --bundle any file, or sha256:DIGEST")
    verify.add_argument("--policy", metavar="FILE", help="trust whom this policy trusts")
    verify.add_argument("--key", metavar="FILE", type=Path, help="trust this PEM public key")
    verify.add_argument("--bundle", metavar="FILE", type=Path, help="a Sigstore bundle, verified offline")
    verify.add_argument(
        "--oms", metavar="FILE", type=Path, help="an OpenSSF Model Signing bundle over the whole folder"
    )
    verify.add_argument("--trusted-root", metavar="FILE", type=Path, help="trusted_root.json of the Sigstore instance")
    verify.add_argument("--identity", metavar="ID", help="who must have signed: exactly the certificate's name")
    verify.add_argument("--issuer", metavar="URL", help="who must vouch for the identity: exactly the OIDC issuer")


Sub = argparse.ArgumentParser
Argument = tuple[str, dict[str, Any]]


def _leaf(
    parser: Sub,
    common: Sub,
    leaves: Sequence[tuple[str, str, Callable[[argparse.Namespace], int], Sequence[Argument]]],
) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, text, call, arguments in leaves:
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(call=call, parser=sub)
        for flag, more in arguments:
            sub.add_argument(flag, **more)


def _policy_commands(parser: Sub, common: Sub) -> None:
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
    _leaf(
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


def _suite_commands(parser: Sub, common: Sub) -> None:
    power: list[Argument] = [
        ("overrides", {"nargs": "*", "metavar": "OVERRIDE", "help": "Hydra overrides, such as evaluator=smoke"}),
        (
            "--drop",
            {"type": float, "default": None, "metavar": "SHARE", "help": "the loss to look for (default: 0.05)"},
        ),
    ]
    _leaf(
        parser,
        common,
        [
            ("list", "shipped suites and their digests", _suite_list, []),
            ("verify", "expand every split and check sizes, digests and overlap with the corpora", _suite_verify, []),
            (
                "power",
                "what each rule of a policy can see with the items that a configuration asks",
                _suite_power,
                power,
            ),
        ],
    )


def _base_commands(parser: Sub, common: Sub) -> None:
    name: list[Argument] = [
        ("name", {"nargs": "?", "default": DEFAULT_BASE, "metavar": "NAME", "help": "preset of conf/base"})
    ]
    _leaf(
        parser,
        common,
        [
            ("list", "presets of conf/base, and which are cached", _base_list, []),
            ("fetch", "download, convert and cache a base model", _base_fetch, name),
        ],
    )


def _registry_commands(parser: Sub, common: Sub) -> None:
    digest: Argument = (
        "digest",
        {"metavar": "DIGEST", "help": "a digest, the beginning of one, a name or an alias"},
    )
    reason: Argument = ("--reason", {"required": True, "metavar": "TEXT", "help": "why; it is kept for ever"})
    policy: Argument = ("--policy", {"default": "release", "metavar": "FILE", "help": "whose signatures count"})
    file: dict[str, Any] = {"type": Path, "metavar": "FILE"}
    approving: list[Argument] = [
        ("--key", {"metavar": "FILE", "help": "the approver's private key, or a URI (default: this home's)"}),
        ("--public-key", {**file, "help": "the public half of a key behind a URI"}),
        ("--role", {"default": "", "metavar": "TEXT", "help": "in which capacity"}),
        ("--reject", {"action": "store_true", "help": "object instead"}),
    ]
    lists: list[Argument] = [
        ("--export", {**file, "help": "write the revocations of this home here, signed"}),
        ("--import", {**file, "dest": "taken", "help": "take in a list of another home"}),
        ("--key", {**file, "help": "PEM public key of that home"}),
    ]
    alias: Argument = ("--alias", {"default": "champion", "metavar": "NAME"})
    again: list[Argument] = [
        ("--yes", {"action": "store_true", "help": "also where it has to be trained again, which takes its time"}),
        ("--batch-size", {"type": int, "default": 64, "metavar": "N", "help": "backend.batch_size of its run"}),
    ]
    _leaf(
        parser,
        common,
        [
            ("list", "every adapter with its last verdict", _registry_list, []),
            ("show", "one adapter: genome, claims, verdicts", _registry_show, [digest]),
            ("lineage", "the family tree of an adapter, verified to its founders", _registry_lineage, [digest, policy]),
            ("promote", "move an alias to an admitted adapter", _registry_promote, [digest, alias]),
            ("rollback", "move an alias back to its previous adapter", _registry_rollback, [alias]),
            ("replay", "make an adapter again from its genome: the same bytes?", _registry_replay, [digest, *again]),
            ("revoke", "quarantine an adapter and all its descendants", _registry_revoke, [digest, reason]),
            ("revocations", "export or import a signed list of revocations", _registry_revocations, lists),
            ("approve", "sign that an adapter may breed on", _registry_approve, [digest, reason, *approving]),
            ("stop", "stop every run of this home at its next step", _registry_stop, [reason]),
            ("resume", "let runs start again", _registry_resume, [reason]),
            ("rebuild", "make the registry anew from the log", _registry_rebuild, []),
        ],
    )


def _audit_commands(parser: Sub, common: Sub) -> None:
    _leaf(
        parser,
        common,
        [
            ("verify", "recompute the tree and check every checkpoint given out", _audit_verify, []),
            ("export", "print the events as JSON lines, as they were hashed", _audit_export, []),
            ("checkpoint", "print the signed checkpoint, to keep elsewhere", _audit_checkpoint, []),
            ("clock", "say that the clock was set back on purpose", _audit_clock, []),
            ("prove", "inclusion proof of one event", _audit_prove, [("index", {"type": int, "metavar": "INDEX"})]),
            (
                "consistency",
                "prove that the log only grew since an old checkpoint",
                _audit_consistency,
                [
                    (
                        "--from",
                        {
                            "dest": "old",
                            "required": True,
                            "type": Path,
                            "metavar": "FILE",
                            "help": "a checkpoint, or a report.json",
                        },
                    )
                ],
            ),
        ],
    )


def _report_commands(parser: Sub, common: Sub) -> None:
    folder: list[Argument] = [("folder", {"metavar": "DIR", "type": Path, "help": "a run's output folder"})]
    key: list[Argument] = [
        ("--key", {"metavar": "FILE", "type": Path, "help": "PEM public key to trust (default: this home's)"})
    ]
    _leaf(
        parser,
        common,
        [
            ("build", "write HTML, Markdown and JUnit again from report.json", _report_build, folder),
            ("verify", "re-check every digest, signature and verdict offline", _report_verify, [*folder, *key]),
        ],
    )


def _doors(options: argparse.Namespace) -> House:
    """The home that the command works in, opened."""
    from ecology.pipeline.house import open_house  # noqa: PLC0415

    return open_house(options.home, quiet=options.quiet)


def _run(options: argparse.Namespace) -> int:
    from ecology.pipeline.main_job import Voice, main_job  # noqa: PLC0415

    if options.dry_run:
        from ecology.pipeline.forecast import dry_run  # noqa: PLC0415

        return dry_run(options.overrides, options.config_dir)
    voice = Voice(options.quiet, options.verbose, options.debug)
    if options.multirun:
        from ecology.pipeline.sweep import sweep  # noqa: PLC0415

        return sweep(options.overrides, home=options.home, overlay=options.config_dir, voice=voice)
    return main_job(options.overrides, home=options.home, overlay=options.config_dir, voice=voice)


def _gate(options: argparse.Namespace) -> int:
    from ecology.pipeline.gating import Asked, gate  # noqa: PLC0415

    want = Asked(
        policy=options.policy,
        base=options.base,
        static=options.static,
        form=options.format,
        out=options.out,
        since=options.since,
        at=_instant(options) if options.at else "",
        evaluator=options.evaluator,
        fresh=options.fresh,
    )
    return gate(options.adapters, want, _doors(options))


def _breed(options: argparse.Namespace) -> int:
    from ecology.pipeline.breeding import breed_folders, rehearse, told  # noqa: PLC0415

    folders = [text for text in options.parents if "=" not in text or Path(text).is_dir()]
    given = [text for text in options.parents if text not in folders]
    house = _doors(options)
    paths, base, seed = [Path(f) for f in folders], options.base, options.seed
    if options.dry_run:
        bred = rehearse(options.operator, paths, given, base=base, seed=seed, house=house, policy=options.policy)
        print(f"would be {bred.artifact.digest}")
    else:
        bred = breed_folders(
            options.operator, paths, given, out=options.out, base=base, seed=seed, house=house, policy=options.policy
        )
        print(f"{bred.folder}  {bred.artifact.digest}")
    print("\n".join(told(bred, options.operator)))
    return EXIT_OK


def _sign(options: argparse.Namespace) -> int:
    from ecology.pipeline.signing import chosen_signer, sign_folder  # noqa: PLC0415

    house = _doors(options)
    signer = chosen_signer(
        house,
        key=options.key,
        public_key=options.public_key,
        keyless=options.keyless,
        trust_config=options.trust_config,
        token=options.identity_token,
    )
    digest = sign_folder(options.adapter, signer, house, options.oms)
    print(f"signed {digest}\nby {signer.keyid}{' (development)' if signer.development else ''}")
    return EXIT_OK


def _verify(options: argparse.Namespace) -> int:
    from ecology.pipeline.signing import Anchors, verify_any, verify_folder  # noqa: PLC0415

    if options.policy and (options.key or options.identity):
        options.parser.error("--policy names the trust anchors; leave --key and --identity out")
    anchors = Anchors(options.policy, options.key, options.trusted_root, options.identity, options.issuer)
    if options.bundle is None and options.oms is None:
        trusted, lines = verify_folder(Path(options.adapter), anchors, _doors(options))
    else:
        trusted, lines = verify_any(options.adapter, options.bundle, options.oms, anchors)
    print("\n".join(lines))
    return EXIT_OK if trusted else EXIT_REFUSED


def _policy_lint(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import lint_file  # noqa: PLC0415

    found = lint_file(options.policy, _instant(options), lambda: _doors(options))
    waivers = [f"waiver: {standing}" for standing in found.waivers]
    refused = [f"warning: {why}: without effect" for why in found.refused]
    print("\n".join([*map(str, found.remarks), *refused, *waivers]) or "nothing to say against it")
    return EXIT_REFUSED if found.errors else EXIT_OK


def _policy_explain(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import explain_adapter, explain_file  # noqa: PLC0415

    if options.adapter is None:
        print("\n\n".join(explain_file(options.policy, options.rule)))
        return EXIT_OK
    stored, judged, steps = explain_adapter(options.policy, options.adapter, _instant(options), _doors(options))
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

    found, past = replay_file(options.policy, options.at and _instant(options), _doors(options))
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
        house=_doors(options),
        out=options.out,
    )
    print(f"{who} signed: {decision} {governed.policy.digest}")
    if options.before:
        print(f"diff    {summary(differences)}")
    print(f"replay  {effect.sentence}\n{standing_line(governed.policy, governed.approvals)}")
    return EXIT_OK


def _policy_waive(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import waive_file  # noqa: PLC0415

    waiver, path = waive_file(options.waiver, options.policy, options.key, _doors(options), options.out)
    print(f"{waiver.approver} waived {waiver.rule} for {waiver.subject} until {waiver.expires}\n{path}")
    return EXIT_OK


def _policy_review(options: argparse.Namespace) -> int:
    from ecology.pipeline.reviews import review_file  # noqa: PLC0415

    review_file(options.policy, options.html, before=options.before, at=_instant(options), house=_doors(options))
    print(options.html)
    return EXIT_OK


def _instant(options: argparse.Namespace) -> str:
    """What ``--at`` says, or now."""
    from ecology.kernel.verdicts import instant  # noqa: PLC0415
    from ecology.telemetry.clock import SystemClock  # noqa: PLC0415

    return instant(options.at).isoformat().replace("+00:00", "Z") if options.at else SystemClock().now()


def _suite_list(options: argparse.Namespace) -> int:
    from ecology.pipeline.suites import list_suites  # noqa: PLC0415

    del options
    print("\n".join(list_suites()))
    return EXIT_OK


def _suite_verify(options: argparse.Namespace) -> int:
    from ecology.pipeline.suites import verify_suites  # noqa: PLC0415

    lines, problems = verify_suites(_doors(options))
    print("\n".join([*lines, *problems]))
    return EXIT_REFUSED if problems else EXIT_OK


def _suite_power(options: argparse.Namespace) -> int:
    from ecology.pipeline.power import power_table  # noqa: PLC0415

    lines, problems = power_table(options.overrides, options.drop)
    print("\n".join([*lines, *problems]))
    return EXIT_REFUSED if problems else EXIT_OK


def _base_list(options: argparse.Namespace) -> int:
    from ecology.pipeline.bench import list_bases  # noqa: PLC0415

    print("\n".join(list_bases(_doors(options))))
    return EXIT_OK


def _base_fetch(options: argparse.Namespace) -> int:
    from ecology.pipeline.bench import fetch_base  # noqa: PLC0415

    base = fetch_base(options.name, _doors(options))
    print(f"{base.name}  {base.identity.base_weights}\n{base.folder}")
    return EXIT_OK


def _registry_list(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.listing(_doors(options)))
    return EXIT_OK


def _registry_show(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(json.dumps(facts.show(_doors(options), options.digest), indent=2, sort_keys=True))
    return EXIT_OK


def _registry_lineage(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    found = facts.lineage(_doors(options), options.digest, options.policy)
    print(found.text)
    return EXIT_OK if found.holds else EXIT_REFUSED


def _registry_revoke(options: argparse.Namespace) -> int:
    from ecology.pipeline.revoking import revoke  # noqa: PLC0415

    print(revoke(_doors(options), options.digest, options.reason))
    return EXIT_OK


def _registry_revocations(options: argparse.Namespace) -> int:
    from ecology.pipeline.revoking import export_list, import_list  # noqa: PLC0415

    if options.taken is not None and options.key is None:
        options.parser.error("--import needs --key, the public key of the home that signed the list")
    if (options.export is None) == (options.taken is None):
        options.parser.error("give one of --export and --import")
    house = _doors(options)
    print(export_list(house, options.export) if options.export else import_list(house, options.taken, options.key))
    return EXIT_OK


def _registry_approve(options: argparse.Namespace) -> int:
    from ecology.pipeline.revoking import approve  # noqa: PLC0415
    from ecology.pipeline.signing import chosen_signer  # noqa: PLC0415

    house = _doors(options)
    signer = chosen_signer(
        house, key=options.key, public_key=options.public_key, keyless=False, trust_config=None, token=None
    )
    print(approve(house, options.digest, options.reason, signer, options.role, reject=options.reject))
    return EXIT_OK


def _registry_stop(options: argparse.Namespace) -> int:
    from ecology.pipeline.revoking import stop  # noqa: PLC0415

    print(stop(_doors(options), options.reason))
    return EXIT_OK


def _registry_resume(options: argparse.Namespace) -> int:
    from ecology.pipeline.revoking import resume  # noqa: PLC0415

    print(resume(_doors(options), options.reason))
    return EXIT_OK


def _registry_replay(options: argparse.Namespace) -> int:
    from ecology.pipeline.replaying import replayed  # noqa: PLC0415

    again = replayed(options.digest, _doors(options), agreed=options.yes, batch_size=options.batch_size)
    print(f"made again: {again.bred.artifact.digest}")
    differing = ", ".join(again.differing)
    if again.same_bytes:
        print("the same bytes")
    elif differing:
        print(f"other bytes, which proves nothing: the environment differs in {differing}")
    else:
        print("OTHER BYTES in the same environment")
    print("the same genome" if again.same_genome else "another genome")
    if again.same_bytes and differing:
        print(f"although the environment differs in {differing}")
    return EXIT_OK if again.same_bytes else EXIT_REFUSED


def _registry_promote(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.promote(_doors(options), options.digest, options.alias))
    return EXIT_OK


def _registry_rollback(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.rollback(_doors(options), options.alias))
    return EXIT_OK


def _registry_rebuild(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.rebuild(_doors(options)))
    return EXIT_OK


def _audit_verify(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.audit_verify(_doors(options)))
    return EXIT_OK


def _audit_export(options: argparse.Namespace) -> int:
    for line in _doors(options).log.export():
        print(line)
    return EXIT_OK


def _audit_checkpoint(options: argparse.Namespace) -> int:
    print(_doors(options).log.checkpoint(), end="")
    return EXIT_OK


def _audit_clock(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.accept_clock(_doors(options)))
    return EXIT_OK


def _audit_prove(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.audit_prove(_doors(options), options.index))
    return EXIT_OK


def _audit_consistency(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.audit_consistency(_doors(options), options.old))
    return EXIT_OK


def _report_build(options: argparse.Namespace) -> int:
    from ecology.pipeline.reports import build  # noqa: PLC0415

    print("\n".join(str(path) for path in build(options.folder)))
    return EXIT_OK


def _report_verify(options: argparse.Namespace) -> int:
    from ecology.pipeline.reports import verify  # noqa: PLC0415

    lines, problems = verify(options.folder, options.key, _doors(options))
    print("\n".join([*lines, *problems]))
    if problems:
        raise IntegrityError(f"{len(problems)} things in this report do not hold", where=str(options.folder))
    return EXIT_OK
