"""``ecology suite``, ``base`` and ``report``: what lies ready, and what lies finished."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecology.cli.grammar import DEFAULT_BASE, Argument, Sub, doors, leaf, share
from ecology.errors import EXIT_OK, EXIT_REFUSED, IntegrityError


def suite_commands(parser: Sub, common: Sub) -> None:
    """Adds what is asked of suites."""
    power: list[Argument] = [
        ("overrides", {"nargs": "*", "metavar": "OVERRIDE", "help": "Hydra overrides, such as evaluator=smoke"}),
        (
            "--drop",
            {"type": share, "default": None, "metavar": "SHARE", "help": "the loss to look for (default: 0.05)"},
        ),
    ]
    leaf(
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


def base_commands(parser: Sub, common: Sub) -> None:
    """Adds what is done with bases."""
    name: list[Argument] = [
        ("name", {"nargs": "?", "default": DEFAULT_BASE, "metavar": "NAME", "help": "preset of conf/base"})
    ]
    leaf(
        parser,
        common,
        [
            ("list", "presets of conf/base, and which are cached", _base_list, []),
            ("fetch", "download, convert and cache a base model", _base_fetch, name),
        ],
    )


def report_commands(parser: Sub, common: Sub) -> None:
    """Adds what is done with a run's report."""
    folder: list[Argument] = [("folder", {"metavar": "DIR", "type": Path, "help": "a run's output folder"})]
    out: list[Argument] = [
        (
            "--out",
            {"metavar": "DIR", "type": Path, "help": "where to (default: there, if it comes out as it was signed)"},
        )
    ]
    key: list[Argument] = [
        ("--key", {"metavar": "FILE", "type": Path, "help": "PEM public key to trust (default: this home's)"})
    ]
    leaf(
        parser,
        common,
        [
            ("build", "write HTML, Markdown and JUnit again from report.json", _report_build, [*folder, *out]),
            ("verify", "re-check every digest, signature and verdict offline", _report_verify, [*folder, *key]),
        ],
    )


def _suite_list(options: argparse.Namespace) -> int:
    from ecology.pipeline.suites import list_suites  # noqa: PLC0415

    del options
    print("\n".join(list_suites()))
    return EXIT_OK


def _suite_verify(options: argparse.Namespace) -> int:
    from ecology.pipeline.suites import verify_suites  # noqa: PLC0415

    lines, problems = verify_suites(doors(options))
    print("\n".join([*lines, *problems]))
    return EXIT_REFUSED if problems else EXIT_OK


def _suite_power(options: argparse.Namespace) -> int:
    from ecology.pipeline.power import power_table  # noqa: PLC0415

    lines, problems = power_table(options.overrides, options.drop)
    print("\n".join([*lines, *problems]))
    return EXIT_REFUSED if problems else EXIT_OK


def _base_list(options: argparse.Namespace) -> int:
    from ecology.pipeline.bench import list_bases  # noqa: PLC0415

    print("\n".join(list_bases(doors(options))))
    return EXIT_OK


def _base_fetch(options: argparse.Namespace) -> int:
    from ecology.pipeline.bench import fetch_base  # noqa: PLC0415

    base = fetch_base(options.name, doors(options))
    print(f"{base.name}  {base.identity.base_weights}\n{base.folder}")
    return EXIT_OK


def _report_build(options: argparse.Namespace) -> int:
    from ecology.pipeline.reports import build  # noqa: PLC0415

    print("\n".join(str(path) for path in build(options.folder, options.out)))
    return EXIT_OK


def _report_verify(options: argparse.Namespace) -> int:
    from ecology.pipeline.reports import verify  # noqa: PLC0415

    lines, problems = verify(options.folder, options.key, doors(options))
    print("\n".join([*lines, *problems]))
    if problems:
        raise IntegrityError(f"{len(problems)} things in this report do not hold", where=str(options.folder))
    return EXIT_OK
