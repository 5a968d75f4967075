"""How unlike the adapters that were bred here does this one look? Evidence for a warning, never for a refusal.

Detectors of poisoned LoRAs read the spectrum of dW (arXiv:2602.15195: statistics of its singular values;
arXiv:2605.30189: the spread of Frobenius norms over modules). They are tied to a base and a way of training, so what is
usual is measured on a population of the same base (``benchmarks/calibrate.py``) and kept, with its size, in
``calibrations/``. A statistic
outside what the population showed, widened by half of its range on either side, is one anomaly. An unusual adapter is
not a bad one, and a usual one not a good one: an attacker who knows the bounds can stay inside them.

Four statistics, over the modules that an adapter changes:

    largest_share     max of ||dW||_F / ||W||_F
    median_share      median of the same
    spread            standard deviation of log10 ||dW||_F
    concentration     median of s_1^2 / sum s_i^2, 1 for a change of rank one
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from statistics import median, pstdev

from ecology.contracts.artifact import WEIGHTS_FILE
from ecology.contracts.identity import Digest
from ecology.errors import IntegrityError
from ecology.gate.violation import Violation
from ecology.gate.weighing import Change

WIDENED = 0.5
"""Of the population's range, on either side."""
STATISTICS = ("largest_share", "median_share", "spread", "concentration")


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """What a population of one base showed."""

    base_weights: Digest
    population: int
    """Adapters in it."""
    ranges: Mapping[str, tuple[float, float]]
    """Statistic to its smallest and largest value."""


def statistics(found: Sequence[Change], weight_norms: Mapping[str, float]) -> dict[str, float]:
    """The four numbers; none for an adapter that changes nothing or is not finite.

    Args:
        found: What ``weighing.weigh`` measured.
        weight_norms: ||W||_F by name of the base's tensor.
    """
    live = [one for one in found if one.spectrum and one.spectrum[0] > 0 and 0 < one.norm < math.inf]
    known = [(one, weight_norms.get(f"{one.module.name}.weight", 0.0)) for one in live]
    shares = [one.norm / base for one, base in known if base > 0]
    if not shares:
        return {}
    # shares before squares: the square of a small number is 0
    energies = [1 / sum((value / one.spectrum[0]) ** 2 for value in one.spectrum) for one in live]
    return {
        "largest_share": max(shares),
        "median_share": median(shares),
        "spread": pstdev([math.log10(one.norm) for one in live]),
        "concentration": median(energies),
    }


def anomalies(said: Mapping[str, float], calibration: Calibration) -> list[Violation]:
    """Statistics that are outside what the population showed.

    Args:
        said: Result of ``statistics``.
        calibration: Of this base.
    """
    found = []
    for name, value in said.items():
        low, high = calibration.ranges[name]
        slack = WIDENED * (high - low)
        if not low - slack <= value <= high + slack:
            usual = f"{low - slack:.3g} to {high + slack:.3g}, as {calibration.population} adapters bred here have"
            found.append(Violation("anomaly", WEIGHTS_FILE, name, f"{value:.3g}", usual))
    return found


def calibrated(population: Sequence[Mapping[str, float]], base_weights: Digest) -> Calibration:
    """What a population shows.

    Args:
        population: One result of ``statistics`` for each adapter; at least two, none empty.
        base_weights: Digest of the base that all were made for.
    """
    ranges = {name: (min(one[name] for one in population), max(one[name] for one in population)) for name in STATISTICS}
    return Calibration(base_weights, len(population), ranges)


def calibration_of(base_weights: Digest) -> Calibration | None:
    """The shipped calibration of a base, or None.

    Raises:
        IntegrityError: It is there and cannot be read.
    """
    file = resources.files("ecology.gate") / "calibrations" / f"{base_weights.removeprefix('sha256:')[:16]}.json"
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text("utf-8"))
        if said["base_weights"] != base_weights:
            return None
        ranges = {name: (float(said["ranges"][name][0]), float(said["ranges"][name][1])) for name in STATISTICS}
        return Calibration(Digest(said["base_weights"]), int(said["population"]), ranges)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise IntegrityError(
            f"not a calibration: {error}", where=str(file), todo="install tiny-ecology again"
        ) from error
