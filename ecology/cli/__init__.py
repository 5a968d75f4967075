"""The command line: parse, call, print, exit code. What it calls is in ``ecology.pipeline``.

A group of commands is a module: its grammar as data and one short function a command. Nothing heavy is imported before
the command is known, so that ``--help`` answers at once and ``gate --static`` loads neither torch nor Hydra. Results go
to stdout; logs, progress and errors go to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

import ecology
from ecology.cli.adapters import adapter_commands
from ecology.cli.policies import policy_commands
from ecology.cli.registry import audit_commands, registry_commands
from ecology.cli.running import run_command
from ecology.cli.shelves import base_commands, report_commands, suite_commands
from ecology.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, EcologyError, from_system

EXITS = """\
exit codes:
  0   passed, promoted or held
  1   refused: a normal result with a full report
  2   the configuration, the policy or the command line is wrong
  3   something this installation holds is damaged
  4   an engine cannot start, or memory or disk gave out
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
        code = int(options.call(options))
        sys.stdout.flush()  # what cannot be written is told here, and not by the interpreter as it ends
        return code
    except KeyboardInterrupt:
        print("ecology: interrupted; the same command resumes", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has gone, as in `ecology registry list | head`
        _drop_output()
        return EXIT_OK
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        known = error if isinstance(error, EcologyError) else from_system(error)
        what = known or f"a bug of ours: {type(error).__name__}: {error}; run again with --debug"
        print(f"ecology: {what}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return known.exit_code if known is not None else EXIT_BUG


def _drop_output() -> None:
    """What could not be written to stdout is not tried again when the interpreter ends, which would exit with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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

    run_command(command)
    adapter_commands(command)
    policy_commands(command("policy", "explain, test, compare, replay, approve and review policies"), common)
    suite_commands(command("suite", "look at evaluation suites"), common)
    base_commands(command("base", "base models"), common)
    registry_commands(command("registry", "adapters, verdicts and aliases of this home"), common)
    audit_commands(command("audit", "the append-only log of this home"), common)
    report_commands(command("report", "reports of runs"), common)
    return parser
