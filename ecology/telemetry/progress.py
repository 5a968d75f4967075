"""Where long work tells how far it is: a bar on stderr, or nothing at all.

stdout belongs to results. A bar shows what is being done, how far it is, how long it has taken and how long it will
take. Where stderr is no terminal (a log file, CI) a plain line is written now and then instead of redrawing one.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Never, TextIO

from ecology.contracts.ports import Step

if TYPE_CHECKING:
    from tqdm import tqdm

QUIET_S = 2.0
"""Work that ends sooner than this, in seconds, leaves no trace."""
LOG_EVERY_S = 15.0
"""Seconds between lines where stderr is no terminal."""
LABEL_CHARACTERS = 34


class BarProgress:
    """``ports.Progress`` on a stream."""

    def __init__(self, stream: TextIO | None = None, seconds: Callable[[], float] = time.monotonic) -> None:
        """Shows how far work is.

        Args:
            stream: stderr where none is given.
            seconds: Clock of the lines in a log.
        """
        self._stream = stream
        self._seconds = seconds

    @contextlib.contextmanager
    def track(self, what: str, total: int, unit: str = "it") -> Iterator[Step]:
        """Opens a bar of ``total`` units; 0 where the total is not known."""
        stream = self._stream if self._stream is not None else sys.stderr
        if not stream.isatty():
            lines = _Lines(what, total, unit, stream, self._seconds)
            yield lines
            lines.end()
            return
        from tqdm import tqdm  # noqa: PLC0415  (a bar is drawn for people only; a gate in CI need not wait for it)

        label = f"{what:<{LABEL_CHARACTERS}.{LABEL_CHARACTERS}}"
        with tqdm(
            desc=label, total=total or None, unit=f" {unit}", file=stream, dynamic_ncols=True, delay=QUIET_S
        ) as bar:
            yield _Bar(bar)


class _Bar:
    """``ports.Step`` on a terminal."""

    def __init__(self, bar: tqdm[Never]) -> None:
        self._bar = bar

    def advance(self, amount: int = 1, note: str = "") -> None:
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(amount)


class _Lines:
    """``ports.Step`` in a log."""

    def __init__(self, what: str, total: int, unit: str, stream: TextIO, seconds: Callable[[], float]) -> None:
        self._what, self._total, self._unit, self._stream, self._seconds = what, total, unit, stream, seconds
        self._start = self._last = seconds()
        self._done = 0
        self._shown = -1
        self._note = ""

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._done += amount
        self._note = note or self._note
        now = self._seconds()
        if now - self._last >= LOG_EVERY_S:
            self._last = now
            self._write(now - self._start)

    def end(self) -> None:
        spent = self._seconds() - self._start
        if spent >= QUIET_S and self._shown != self._done:
            self._write(spent, ended=True)

    def _write(self, spent: float, *, ended: bool = False) -> None:
        self._shown = self._done
        of = f"/{self._total}" if self._total else ""
        line = f"{self._what}: {self._done}{of} {self._unit}, {spent:.0f} s"
        if not ended and 0 < self._done < self._total:
            line += f", about {spent / self._done * (self._total - self._done):.0f} s to go"
        self._stream.write(f"{line}{f', {self._note}' if self._note else ''}\n")
        self._stream.flush()


class SilentProgress:
    """``ports.Progress`` that says nothing; for tests, and for readers of ``--format json``."""

    @contextlib.contextmanager
    def track(self, what: str, total: int, unit: str = "it") -> Iterator[Step]:
        """Takes the calls and shows nothing."""
        del what, total, unit
        yield _Nothing()


class _Nothing:
    def advance(self, amount: int = 1, note: str = "") -> None:
        del amount, note
