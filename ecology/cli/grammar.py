"""What every group of commands is written in: arguments as data, and the doors to this home."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecology.pipeline.house import House

DEFAULT_BASE = "smollm2-135m"
Sub = argparse.ArgumentParser
Argument = tuple[str, dict[str, Any]]
Command = Callable[..., argparse.ArgumentParser]
"""Adds a command: its name, what it is for, and what it calls."""


def leaf(
    parser: Sub,
    common: Sub,
    leaves: Sequence[tuple[str, str, Callable[[argparse.Namespace], int], Sequence[Argument]]],
) -> None:
    """Adds the commands of a group: name, what it is for, what it calls, and its arguments."""
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, text, call, arguments in leaves:
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(call=call, parser=sub)
        for flag, more in arguments:
            sub.add_argument(flag, **more)


def whole(path: str) -> Callable[[str], int]:
    """Reads a whole number in the range that the configuration has at this path."""

    def read(text: str) -> int:
        from ecology.pipeline.bounds import NUMBERS  # noqa: PLC0415

        least, greatest = NUMBERS[path]
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= greatest:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {greatest} is needed, found {text!r:.80}")
        return number

    return read


def share(text: str) -> float:
    """Reads a number above 0 and at most 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:  # a NaN is not
        raise argparse.ArgumentTypeError(f"a number above 0 and at most 1 is needed, found {text!r:.80}")
    return number


def doors(options: argparse.Namespace) -> House:
    """The home that the command works in, opened."""
    from ecology.pipeline.house import open_house  # noqa: PLC0415

    return open_house(options.home, quiet=options.quiet)


def instant_of(options: argparse.Namespace) -> str:
    """What ``--at`` says, or now."""
    from ecology.kernel.verdicts import instant  # noqa: PLC0415
    from ecology.telemetry.clock import SystemClock  # noqa: PLC0415

    return instant(options.at).isoformat().replace("+00:00", "Z") if options.at else SystemClock().now()
