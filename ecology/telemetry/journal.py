"""What a run tells while it is at work: one JSON object a line for machines, one sentence a line for people.

    {"seconds":3.214,"at":"2026-01-02T03:04:05Z","event":"stage_ended","stage":"gates","peak_memory_bytes":412876800,...}
    03:04:05     3.2 s  stage_ended: gates, 2.9 s, peak 394 MiB

The journal is for watching and for finding out what went wrong. It is no evidence: it is not signed, and nothing reads
it back. What happened for good is a fact in the audit log; what came of it is in the report. No prompt and no reply is
ever written here.

A line is written with one ``write`` to a file opened for appending, so lines of two processes do not mix, and what was
told before a kill is on disk up to the last line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol, TextIO

from ecology.contracts.ports import Clock

Told = str | int | float | bool | None
EVENTS_FILE = "events.jsonl"
LOG_FILE = "run.log"


class Journal(Protocol):
    """Where a run tells what it does."""

    def tell(self, event: str, **fields: Told) -> None:
        """Takes one event with its fields."""
        ...


class SilentJournal:
    """Keeps nothing."""

    def tell(self, event: str, **fields: Told) -> None:
        """Takes the call."""
        del event, fields


class FileJournal:
    """``events.jsonl`` and ``run.log`` in one folder, and, if asked, the same sentences on a stream.

    Args:
        folder: Exists.
        clock: Time of each line.
        stream: Where the sentences go as well, such as stderr; None is nowhere.
    """

    def __init__(self, folder: Path, clock: Clock, stream: TextIO | None = None) -> None:
        """Begins to count seconds from now."""
        self._folder, self._clock, self._stream = folder, clock, stream
        self._start = clock.monotonic()

    def tell(self, event: str, **fields: Told) -> None:
        """Writes one event to both files.

        Raises:
            OSError: The folder cannot be written.
        """
        at, seconds = self._clock.now(), round(self._clock.monotonic() - self._start, 3)
        line = json.dumps({"at": at, "seconds": seconds, "event": event, **fields}, ensure_ascii=False)
        _append(self._folder / EVENTS_FILE, line)
        sentence = f"{at[11:19]} {seconds:9.1f} s  {event}: {', '.join(_words(k, v) for k, v in fields.items())}"
        _append(self._folder / LOG_FILE, sentence)
        if self._stream is not None:
            self._stream.write(sentence + "\n")
            self._stream.flush()


def _append(path: Path, line: str) -> None:
    # one write of whole lines in append mode: lines of two processes do not mix
    with path.open("ab", buffering=0) as file:
        file.write(line.replace("\n", " ").encode("utf-8", "replace") + b"\n")


def _words(key: str, value: Told) -> str:
    if key.endswith("_bytes") and isinstance(value, int | float):
        return f"{key.removesuffix('_bytes').replace('_', ' ')} {value / 2**20:.0f} MiB"
    if key.endswith("_s") and isinstance(value, int | float):
        return f"{value:.1f} s"
    text = str(value)
    if text.startswith("sha256:"):
        text = text[7:23]
    return f"{key} {text}"
