"""How long each stage of a run takes and how much memory it needs at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ecology.contracts.ports import Clock
from ecology.contracts.run import StageTime
from ecology.telemetry.journal import Journal
from ecology.telemetry.memory import peak_memory_bytes, reset_peak_memory


class Stages:
    """Seconds and peak memory of each stage, by the injected clock, told to the journal."""

    def __init__(self, clock: Clock, journal: Journal, check: Callable[[], None] = lambda: None) -> None:
        """Nothing measured yet.

        Args:
            clock: Times the stages.
            journal: Is told of them.
            check: Asked before and after each whether to go on; raises where not.
        """
        self._clock, self._journal, self._check = clock, journal, check
        self.times: list[StageTime] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measures the block; one that raises is told and not kept."""
        self._check()
        self._journal.tell("stage_started", stage=name)
        reset_peak_memory()
        start = self._clock.monotonic()
        try:
            yield
            self._check()
        except BaseException as error:
            self._journal.tell("stage_failed", stage=name, error=type(error).__name__)
            raise
        seconds = round(self._clock.monotonic() - start, 3)
        peak = peak_memory_bytes()
        self.times.append(StageTime(name, seconds, peak))
        self._journal.tell("stage_ended", stage=name, took_s=seconds, peak_memory_bytes=peak)
