"""Where long work tells how far it is: a bar on stderr, or nothing at all.

stdout belongs to results. A bar shows what is being done, how far it is, how long it has taken and how long it will
take. Where stderr is no terminal (a log file, CI), a line is written now and then instead of thousands of redraws.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm

from ecology.contracts.ports import Step

QUIET_S = 2.0
"""Bars that end sooner than this, in seconds, leave no trace."""
LOG_EVERY_S = 15.0
"""Seconds between lines where stderr is no terminal."""
LABEL_CHARACTERS = 34


class TqdmProgress:
    """``ports.Progress`` on a stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Shows bars on ``stream``; stderr where none is given."""
        self._stream = stream if stream is not None else sys.stderr

    @contextlib.contextmanager
    def track(self, what: str, total: int, unit: str = "it") -> Iterator[Step]:
        """Opens a bar of ``total`` units; 0 where the total is not known."""
        terminal = self._stream.isatty()
        with tqdm(
            desc=f"{what:<{LABEL_CHARACTERS}.{LABEL_CHARACTERS}}",
            total=total or None,
            unit=f" {unit}",
            file=self._stream,
            dynamic_ncols=terminal,
            ncols=None if terminal else 120,
            mininterval=0.2 if terminal else LOG_EVERY_S,
            delay=QUIET_S,
            ascii=None if terminal else True,
            smoothing=0.1,
        ) as bar:
            yield _Bar(bar)


class _Bar:
    """``ports.Step`` on one bar."""

    def __init__(self, bar: tqdm[None]) -> None:
        self._bar = bar

    def advance(self, amount: int = 1, note: str = "") -> None:
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(amount)


class SilentProgress:
    """``ports.Progress`` that says nothing; for tests, and for ``--format json`` readers."""

    @contextlib.contextmanager
    def track(self, what: str, total: int, unit: str = "it") -> Iterator[Step]:
        """Takes the calls and shows nothing."""
        del what, total, unit
        yield _Nothing()


class _Nothing:
    def advance(self, amount: int = 1, note: str = "") -> None:
        del amount, note
