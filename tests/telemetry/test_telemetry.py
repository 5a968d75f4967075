from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ecology.errors import BackendError
from ecology.telemetry import memory
from ecology.telemetry.clock import SystemClock
from ecology.telemetry.environment import environment
from ecology.telemetry.memory import give_back_memory, measure_serving_memory, peak_memory_bytes
from ecology.telemetry.progress import BarProgress, SilentProgress


class Seconds:
    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __call__(self) -> float:
        return self.values.pop(0)


def test_the_clock() -> None:
    clock = SystemClock()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", clock.now())
    assert clock.monotonic() <= clock.monotonic()


def test_the_environment_names_what_rounding_depends_on() -> None:
    found = environment(3)
    assert found["threads"] == "3"
    assert {"torch", "numpy", "transformers", "peft", "cpu", "python"} <= set(found)
    assert list(found) == sorted(found)
    assert str(Path.home()) not in str(found)


def test_peak_memory_is_in_bytes() -> None:
    assert 5e6 < peak_memory_bytes() < 1e11


def test_a_failed_measurement_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = tmp_path / "python"
    fails.write_text("#!/bin/sh\necho no such base >&2\nexit 1\n")
    fails.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fails))
    with pytest.raises(BackendError, match="no such base"):
        measure_serving_memory(tmp_path, None, ["hello"])


def test_lines_in_a_log() -> None:
    stream = io.StringIO()
    #                      start, advance x3, end
    seconds = Seconds(0.0, 1.0, 20.0, 21.0, 30.0)
    with BarProgress(stream, seconds).track("ask", 4, "items") as bar:
        bar.advance(1)
        bar.advance(1, "loss 0.5")
        bar.advance(2)
    assert stream.getvalue() == ("ask: 2/4 items, 20 s, about 20 s to go, loss 0.5\nask: 4/4 items, 30 s, loss 0.5\n")


def test_short_work_leaves_no_line_and_unknown_totals_are_left_out() -> None:
    stream = io.StringIO()
    with BarProgress(stream, Seconds(0.0, 0.5, 1.0)).track("quick", 1) as bar:
        bar.advance()
    assert stream.getvalue() == ""
    with BarProgress(stream, Seconds(0.0, 16.0, 17.0)).track("download", 0, "MiB") as bar:
        bar.advance(5)
    assert stream.getvalue() == "download: 5 MiB, 16 s\n"


def test_a_terminal_gets_a_bar_and_stdout_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with BarProgress(stream).track("work", 2) as bar:
        bar.advance(2, "done")
    assert capsys.readouterr().out == ""


def test_silence() -> None:
    with SilentProgress().track("anything", 5) as bar:
        bar.advance(3, "note")


def test_freed_memory_is_given_back_where_the_c_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=asked.append))
    give_back_memory()
    assert asked == [0]
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: SimpleNamespace())
    give_back_memory()  # musl has no such call

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(memory.ctypes, "CDLL", missing)
    give_back_memory()
