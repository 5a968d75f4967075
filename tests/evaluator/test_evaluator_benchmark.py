"""The benchmark of evaluation goes on where it was interrupted; what it measures is no matter of tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "evaluation.py"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("evaluation_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_rows_that_were_measured_are_not_measured_again(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark.tempfile, "gettempdir", lambda: str(tmp_path))
    done: list[str] = []

    def broken(_bench: Any) -> list[Any]:
        raise KeyboardInterrupt

    def row(name: str) -> Any:
        return lambda _bench: [{"what": name, "n": done.append(name)}]

    rows = {"a": row("a"), "b": broken, "c": row("c")}
    monkeypatch.setattr(benchmark, "ROWS", rows)
    with pytest.raises(KeyboardInterrupt):
        benchmark.measured(None, [*rows], benchmark.Notes("sha256:key", fresh=False))
    rows["b"] = row("b")
    found = benchmark.measured(None, [*rows], benchmark.Notes("sha256:key", fresh=False))
    assert [one["what"] for one in found] == ["a", "b", "c"]
    assert done == ["a", "b", "c"]
    assert "1 of 3: a, kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [], "a finished run forgets its notes"


def test_other_settings_or_a_fresh_run_start_anew(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(benchmark.tempfile, "gettempdir", lambda: str(tmp_path))
    benchmark.Notes("sha256:key", fresh=False).keep("a", [{"what": "a"}])
    assert benchmark.Notes("sha256:key", fresh=False).rows == {"a": [{"what": "a"}]}
    assert benchmark.Notes("sha256:other", fresh=False).rows == {}
    assert benchmark.Notes("sha256:key", fresh=True).rows == {}


def test_curves_are_drawn_to_scale(benchmark: Any) -> None:
    drawn = benchmark.drawn({"items": {4: 1.0, 8: 2.0}, "tokens": {0: 1.0, 128: 1.5}})
    assert drawn.count("<circle") == 4
    assert drawn.count("<polyline") == 2
    assert "2.0 s" in drawn
