"""What is usual, and what is said of what is not."""

from __future__ import annotations

import dataclasses
import json
import math
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from ecology.contracts.evidence import Count
from ecology.gate import anomaly
from ecology.gate.anomaly import STATISTICS, anomalies, calibrated, calibration_of, statistics
from ecology.gate.static import static_evidence
from ecology.gate.tensors import Module
from ecology.gate.weighing import Change
from ecology.testing import gates


def change(norm: float, *spectrum: float) -> Change:
    return Change(norm, spectrum, 0.0, norm, 1.0, Module(f"m{norm}", 4, 4, len(spectrum), 1.0))


def test_the_statistics_are_what_they_say() -> None:
    found = [change(5.0, 3.0, 4.0), change(0.5, 0.5)]
    norms = {"m5.0.weight": 10.0, "m0.5.weight": 10.0}
    said = statistics(found, norms)
    assert tuple(said) == STATISTICS
    assert said["largest_share"] == 0.5
    assert said["median_share"] == pytest.approx(0.275)
    assert said["spread"] == pytest.approx(0.5)
    assert said["concentration"] == pytest.approx((9 / 25 + 1) / 2)
    assert statistics([change(0.0, 0.0), change(math.inf)], norms) == {}


@pytest.mark.parametrize("scale", [1e-300, 5e-324, 1e-160, 1e150, 1e300])
def test_the_statistics_of_very_small_and_very_large_changes(scale: float) -> None:
    """Squares would be 0 or infinite."""
    said = statistics([change(5.0 * scale, 4.0 * scale, 3.0 * scale)], {f"m{5.0 * scale}.weight": 10.0})
    assert said["concentration"] == pytest.approx(16 / 25, rel=0.1)
    assert all(math.isfinite(value) for value in said.values())
    assert statistics([change(5e-324, 0.0)], {"m5e-324.weight": 1.0}) == {}


def test_outside_of_the_widened_range_is_an_anomaly() -> None:
    population = [dict.fromkeys(STATISTICS, value) for value in (1.0, 2.0, 3.0)]
    known = calibrated(population, gates.IDENTITY.base_weights)
    for value, count in ((0.0, 0), (4.0, 0), (-0.01, 4), (4.01, 4)):
        assert len(anomalies(dict.fromkeys(STATISTICS, value), known)) == count
    (first, *_) = anomalies(dict.fromkeys(STATISTICS, 9.0), known)
    assert "3 adapters bred here" in first.sentence()


def test_the_gate_asks_only_where_its_base_was_measured(tmp_path: Path) -> None:
    submission, context = gates.submit(None, tmp_path / "adapter", tmp_path / "home")
    assert "static.anomaly" not in {m.metric for m in static_evidence(submission, context)}
    for high, count in ((1e9, 0), (1e-9, 4)):
        ranges = {name: (0.0, high) for name in STATISTICS}
        known = anomaly.Calibration(gates.IDENTITY.base_weights, 7, ranges)
        measured = static_evidence(submission, dataclasses.replace(context, calibration=known))
        (found,) = [m.statistic for m in measured if m.metric == "static.anomaly"]
        assert isinstance(found, Count)
        assert found.count == count


def test_the_shipped_calibration_is_of_the_default_base() -> None:
    folder = resources.files("ecology.gate") / "calibrations"
    (file,) = [one for one in folder.iterdir() if one.name.endswith(".json")]
    known = calibration_of(json.loads(file.read_text("utf-8"))["base_weights"])
    assert known is not None
    assert known.population >= 10
    assert all(low < high and np.isfinite([low, high]).all() for low, high in known.ranges.values())
    assert calibration_of(gates.IDENTITY.base_weights) is None
