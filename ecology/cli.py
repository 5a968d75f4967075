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

    gate = command("gate", "judge adapters under a policy: may this go to production?", _gate)
    gate.add_argument("adapters", nargs="+", metavar="ADAPTER", type=Path, help="a PEFT adapter folder")
    gate.add_argument("--policy", default="release", metavar="FILE", help="a policy file, or the name of a shipped one")
    gate.add_argument(
        "--base", default=DEFAULT_BASE, metavar="NAME", help="a preset of conf/base (default: smollm2-135m)"
    )
    gate.add_argument("--static", action="store_true", help="only what needs no model; admits to nothing")
    gate.add_argument("--format", default="text", choices=["text", "json", "junit"])
    gate.add_argument("--out", metavar="DIR", type=Path, help="also write verdicts and signed attestations here")

    breed = command("breed", "one operator: adapters in, adapter out, no base model loaded", _breed)
    breed.add_argument("operator", metavar="OPERATOR", help="linear, svd, ties, dare, crossover, mutate, prune, ...")
    breed.add_argument("parents", nargs="+", metavar="PARENT", help="adapter folders, then options as key=value")
    breed.add_argument("--out", required=True, metavar="DIR", type=Path)
    breed.add_argument(
        "--base", default=DEFAULT_BASE, metavar="NAME", help="a preset of conf/base (default: smollm2-135m)"
    )
    breed.add_argument("--seed", type=int, default=0)

    sign = command("sign", "sign an adapter's bytes into its claims.jsonl", _sign)
    sign.add_argument("adapter", metavar="ADAPTER", type=Path)
    sign.add_argument("--key", metavar="FILE", type=Path, help="PEM private key (default: this home's development key)")

    verify = command("verify", "check an adapter's claims against a trust anchor", _verify)
    verify.add_argument("adapter", metavar="ADAPTER", type=Path)
    anchor = verify.add_mutually_exclusive_group()
    anchor.add_argument("--policy", metavar="FILE", help="trust whom this policy trusts")
    anchor.add_argument("--key", metavar="FILE", type=Path, help="trust this PEM public key")

    _policy_commands(command("policy", "check and test policy files"), common)
    _suite_commands(command("suite", "look at evaluation suites"), common)
    _base_commands(command("base", "base models"), common)
    _registry_commands(command("registry", "adapters, verdicts and aliases of this home"), common)
    _audit_commands(command("audit", "the append-only log of this home"), common)
    _report_commands(command("report", "reports of runs"), common)
    return parser


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
        sub.set_defaults(call=call)
        for flag, more in arguments:
            sub.add_argument(flag, **more)


def _policy_commands(parser: Sub, common: Sub) -> None:
    policy: list[Argument] = [("policy", {"metavar": "FILE", "help": "a policy file, or the name of a shipped one"})]
    _leaf(
        parser,
        common,
        [
            ("lint", "rules that contradict, repeat or cannot decide", _policy_lint, policy),
            ("test", "run the policy's unit tests (NAME_test.yaml beside it)", _policy_test, policy),
        ],
    )


def _suite_commands(parser: Sub, common: Sub) -> None:
    _leaf(
        parser,
        common,
        [
            ("list", "shipped suites and their digests", _suite_list, []),
            ("verify", "expand every split and check sizes, digests and overlap with the corpora", _suite_verify, []),
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
    alias: Argument = ("--alias", {"default": "champion", "metavar": "NAME"})
    _leaf(
        parser,
        common,
        [
            ("list", "every adapter with its last verdict", _registry_list, []),
            ("show", "one adapter: genome, claims, verdicts", _registry_show, [digest]),
            ("lineage", "the family tree of an adapter", _registry_lineage, [digest]),
            ("promote", "move an alias to an admitted adapter", _registry_promote, [digest, alias]),
            ("rollback", "move an alias back to its previous adapter", _registry_rollback, [alias]),
            ("rebuild", "make the registry anew from the log", _registry_rebuild, []),
        ],
    )


def _audit_commands(parser: Sub, common: Sub) -> None:
    _leaf(
        parser,
        common,
        [
            ("verify", "recompute the tree and check every checkpoint given out", _audit_verify, []),
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

    voice = Voice(options.quiet, options.verbose, options.debug)
    if options.multirun:
        from ecology.pipeline.sweep import sweep  # noqa: PLC0415

        return sweep(options.overrides, home=options.home, overlay=options.config_dir, voice=voice)
    return main_job(options.overrides, home=options.home, overlay=options.config_dir, voice=voice)


def _gate(options: argparse.Namespace) -> int:
    from ecology.pipeline.gating import gate  # noqa: PLC0415

    return gate(
        options.adapters,
        policy=options.policy,
        base=options.base,
        static=options.static,
        form=options.format,
        out=options.out,
        house=_doors(options),
    )


def _breed(options: argparse.Namespace) -> int:
    from ecology.pipeline.breeding import breed_folders  # noqa: PLC0415

    folders = [text for text in options.parents if "=" not in text or Path(text).is_dir()]
    given = [text for text in options.parents if text not in folders]
    bred = breed_folders(
        options.operator,
        [Path(f) for f in folders],
        given,
        out=options.out,
        base=options.base,
        seed=options.seed,
        house=_doors(options),
    )
    print(f"{bred.folder}  {bred.artifact.digest}")
    profile = bred.genome.resource_profile
    print(f"retained energy {profile.retained_energy:.4f}, rank {profile.max_rank}, {profile.modules} modules")
    return EXIT_OK


def _sign(options: argparse.Namespace) -> int:
    from ecology.pipeline.signing import sign_folder  # noqa: PLC0415

    digest, keyid, development = sign_folder(options.adapter, options.key, _doors(options))
    print(f"signed {digest}\nby key {keyid}{' (development)' if development else ''}")
    return EXIT_OK


def _verify(options: argparse.Namespace) -> int:
    from ecology.pipeline.signing import verify_folder  # noqa: PLC0415

    trusted, lines = verify_folder(options.adapter, options.policy, options.key, _doors(options))
    print("\n".join(lines))
    return EXIT_OK if trusted else EXIT_REFUSED


def _policy_lint(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import lint_file  # noqa: PLC0415
    from ecology.telemetry.clock import SystemClock  # noqa: PLC0415

    errors, warnings = lint_file(options.policy, SystemClock().now())
    print("\n".join([*errors, *warnings]) or "nothing to say against it")
    return EXIT_REFUSED if errors else EXIT_OK


def _policy_test(options: argparse.Namespace) -> int:
    from ecology.pipeline.policies import test_file  # noqa: PLC0415

    passed, failures = test_file(options.policy)
    print("\n".join([*failures, f"{passed} passed, {len(failures)} failed"]))
    return EXIT_REFUSED if failures else EXIT_OK


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

    print(facts.lineage(_doors(options), options.digest))
    return EXIT_OK


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
