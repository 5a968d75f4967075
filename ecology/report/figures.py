"""Point estimates with their intervals, as cells of the comparison table.

Intervals are two-sided at 90 %: the pairs of the one-sided 95 % bounds that the gate works with.
"""

from __future__ import annotations

import dataclasses
import statistics as plain_statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from ecology.contracts.evidence import Count, Measurement, Paired, Proportion
from ecology.contracts.policy import Policy, Rule
from ecology.kernel import statistics
from ecology.kernel.decisions import Decision, decide_bounds
from ecology.report.words import between, quantity

CONFIDENCE = 0.95
"""One-sided, of each end of a displayed interval."""

Tone = Literal["good", "bad", "open", "plain", "accent"]


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One figure of the comparison table."""

    key: str
    title: str
    metric: str
    unit: Literal["share", "ratio"]
    what: str


COLUMNS = (
    Column("skill", "Skill", "orders.exact", "share", "orders extracted exactly right; higher is better"),
    Column("schema", "Schema", "orders.schema_valid", "share", "replies that are JSON of the schema; higher is better"),
    Column("refusal", "Refusal", "harmful.refused", "share", "harmful requests refused; higher is better"),
    Column("over", "Over-refusal", "lookalike.refused", "share", "harmless look-alikes refused; lower is better"),
    Column("latency", "Latency", "resource.latency_ratio", "ratio", "median ratio to the base; lower is better"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One measured figure with its interval; every number in the column's unit."""

    column: Column
    point: float
    lower: float | None
    upper: float | None
    n: int
    split: str
    """``hidden``, ``public`` or empty."""
    reference: bool
    """Measured after the verdict, for comparison only."""
    threshold: float | None
    """What the policy demands on hidden items; None where it demands nothing."""
    tone: Tone
    """``good`` where the interval meets the demand, ``bad`` where it misses it, ``open`` between."""

    @property
    def text(self) -> str:
        """``93.5 %``."""
        return quantity(self.point, self.column.unit)

    @property
    def interval(self) -> str:
        """``90.1 to 96.2 %``."""
        return between(self.lower, self.upper, self.column.unit)


def cells_of(
    evidence: Sequence[Measurement], reference: Sequence[Measurement], policy: Policy
) -> tuple[Cell | None, ...]:
    """One cell a column, in the order of ``COLUMNS``; None where nothing was measured.

    Args:
        evidence: What the rules saw.
        reference: What was measured afterwards, for comparison only; used where the evidence has less to say.
        policy: Names what each figure is read against.
    """
    return tuple(_cell(column, evidence, reference, policy) for column in COLUMNS)


def _cell(
    column: Column, evidence: Sequence[Measurement], reference: Sequence[Measurement], policy: Policy
) -> Cell | None:
    pool = [(m, False) for m in evidence] + [(m, True) for m in reference]
    order = ("hidden", "fresh", "public", "none")
    found = [
        (order.index(m.split), late, m)
        for m, late in pool
        if m.metric == column.metric and m.against in ("absolute", "base")
    ]
    for _, late, measurement in sorted(found, key=lambda entry: entry[:2]):
        summary = estimate(measurement)
        if summary is None:
            continue
        point, lower, upper, n = summary
        rule = demand_on(column.metric, policy)
        split = "" if measurement.split == "none" else measurement.split
        tone = _tone(rule, lower, upper)
        return Cell(column, point, lower, upper, n, split, late, rule.threshold if rule else None, tone)
    return None


def demand_on(metric: str, policy: Policy) -> Rule | None:
    """The rule that a metric's figure is to be read against: the proven one, on hidden items or none."""
    for rule in policy.rules:
        if rule.metric == metric and rule.decide == "proven" and rule.against in ("absolute", "base"):
            return rule
    return None


def estimate(measurement: Measurement) -> tuple[float, float | None, float | None, int] | None:
    """Point, lower, upper and n of a measurement; None where it holds no sample.

    A rate with Clopper-Pearson bounds, a paired difference with Tango's, the median of samples with those of order
    statistics.
    """
    statistic = measurement.statistic
    n = statistics.sample_size(statistic)
    if n == 0:
        return None
    if isinstance(statistic, Count):
        return float(statistic.count), None, None, n
    if isinstance(statistic, Proportion):
        return (statistic.k / n, *statistics.clopper_pearson(statistic.k, n, CONFIDENCE), n)
    if isinstance(statistic, Paired):
        bounds = statistics.tango(statistic.n10, statistic.n01, n, CONFIDENCE)
        return ((statistic.n10 - statistic.n01) / n, *bounds, n)
    return (
        plain_statistics.median(statistic.values),
        *statistics.quantile_bounds(statistic.values, 0.5, CONFIDENCE),
        n,
    )


def _tone(rule: Rule | None, lower: float | None, upper: float | None) -> Tone:
    if rule is None:
        return "plain"
    return _TONES[decide_bounds(rule, lower, upper)]


_TONES: Mapping[Decision, Tone] = {"met": "good", "missed": "bad", "open": "open"}


def unit_of(metric: str, against: str = "absolute") -> str:
    """The unit that a metric's values are shown in, a word of ``words.quantity``."""
    if metric.startswith(("static.", "liveness.")):
        return "count"
    if metric.startswith("resource."):
        return {"ratio": "ratio", "s": "s", "bytes": "bytes"}.get(metric.rpartition("_")[2], "")
    return "share" if against == "absolute" else "points"


def demand_text(rule: Rule) -> str:
    """What a rule demands, in the unit of its metric: ``≥ 90.0 %``."""
    sign = {">=": "≥", "<=": "≤", "==": "="}[rule.comparator]
    return f"{sign} {quantity(rule.threshold, unit_of(rule.metric, rule.against))}"
