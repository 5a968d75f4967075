"""What a run tells: lines for machines, lines for people, stages with their own peak."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from ecology.telemetry.clock import SystemClock
from ecology.telemetry.journal import EVENTS_FILE, LOG_FILE, FileJournal, SilentJournal
from ecology.telemetry.stages import Stages


def test_one_event_is_one_line_in_each_file_and_on_the_stream(tmp_path: Path) -> None:
    stream = io.StringIO()
    journal = FileJournal(tmp_path, SystemClock(), stream)
    journal.tell("a", text="two\nlines", digest="sha256:" + "0" * 64, size_bytes=2**20, took_s=1.25, none=None)
    journal.tell("b")
    first, second = [json.loads(line) for line in (tmp_path / EVENTS_FILE).read_text("utf-8").splitlines()]
    assert (first["event"], first["text"], first["size_bytes"]) == ("a", "two\nlines", 2**20)
    assert second["event"] == "b"
    log = (tmp_path / LOG_FILE).read_text("utf-8").splitlines()
    assert len(log) == 2
    assert "size 1 MiB" in log[0]
    assert "digest 0000000000000000," in log[0]
    assert stream.getvalue().count("\n") >= 2


def test_a_stage_has_its_own_peak_and_a_failed_one_is_told(tmp_path: Path) -> None:
    stages = Stages(SystemClock(), FileJournal(tmp_path, SystemClock()))
    with stages("large"):
        block = bytearray(64 * 2**20)
        block[::4096] = b"x" * len(block[::4096])
        del block
    with stages("small"):
        pass
    large, small = stages.times
    assert large.peak_memory_bytes - small.peak_memory_bytes > 32 * 2**20
    with pytest.raises(ValueError, match="no"), stages("failed"):
        raise ValueError("no")
    assert [stage.stage for stage in stages.times] == ["large", "small"]
    assert "stage_failed" in (tmp_path / EVENTS_FILE).read_text("utf-8")


def test_silence_keeps_nothing() -> None:
    SilentJournal().tell("a", b=1)
