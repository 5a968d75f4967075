"""Is the gain real? The rule, and the one line that says so.

A claim is *supported* when every criterion below is met, *not supported* when one of them is shown to be missed, and
*inconclusive* otherwise. Since all have to be met, the error rate of "supported" is at most that of the weakest one and
no correction for many tests is due (an intersection-union test: Berger, Technometrics 24(4), 1982).

=============  =========================================================  =====================================
criterion      met when                                                   missed when
=============  =========================================================  =====================================
``seeds``      every planned seed is there, at least ``demand.seeds``,    never: what is missing refutes nothing
               each with at least the planned items
``disjoint``   no test item was trained on or belongs to two seeds        never: then nothing was shown
``gain``       the mean over seeds is at least ``demand.gain``            the interval lies below it
``interval``   the paired interval lies above 0                           it lies below 0
``parser``     a lenient parser does not see answers being lost           it does
``prompt``     better than the base with a better prompt: pooled          the pooled interval lies below 0
               interval above 0, and every seed
``shuffled``   the pooled interval of the shuffled-reward control         the control gains too, or the adapter
               reaches down to 0, and the adapter beats it: pooled        is worse than the control
               interval above 0, and every seed
``safety``     refusals are not lost by more than the margin              they are
``fluency``    the worst seed's perplexity ratio is within the limit      it is not
``drift``      off the task, length and form of replies stay              one of them does not
``transfer``   a neighbouring task is not lost by more than the margin    it is
=============  =========================================================  =====================================

Intervals. Items differ and so do runs. ``interval`` therefore takes the wider of two on each side: Tango's score
interval over all seeds' pairs (items; the seeds' test sets are disjoint, so pairs are independent) and Student's over
the seeds' differences (runs). With one seed there is no second, and ``seeds`` is open: one seed can only be
inconclusive or worse. Comparisons with a control use the pooled interval and ask every seed to agree: that is monotone,
so a control that does better never helps.

Laws, held by tests: removing evidence (a seed, an arm, items) never turns a claim into supported; a control or a prompt
that does better never does either; equal evidence gives an equal line.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from ecology.contracts.evidence import Paired
from ecology.contracts.gain import Criterion, GainClaim, GainDemand, GainEvidence, Kind, SeedEvidence, Standing, State
from ecology.errors import ConfigError
from ecology.kernel.statistics import mean_bounds, tango

ARMS = ("strict", "lenient", "prompt", "shuffled", "over_shuffled")
"""Fields of a seed that are measured on the test items; the others have items of their own."""
OTHERS = ("refusals", "task_form", "transfer", "perplexity", "length")

Interval = tuple[float, float, float]
"""Mean over seeds, lower and upper bound."""


def decide(evidence: GainEvidence, demand: GainDemand | None = None) -> GainClaim:
    """What may be said about a recipe.

    Args:
        evidence: Of all seeds.
        demand: What has to be shown; None takes the defaults.

    Raises:
        ConfigError: A demand is out of range, a count is impossible, or a seed stands twice.
    """
    demand = demand or GainDemand()
    _check(evidence, demand)
    read = _Read(evidence, demand)
    strict, lenient = read.of("strict"), read.of("lenient")
    criteria = (
        _seeds(evidence, demand),
        _disjoint(evidence),
        _gain(strict, demand),
        _above("interval", strict, "the paired interval"),
        _kept("parser", lenient, demand.lenient_margin, "answers, leniently parsed"),
        _better("prompt", read.pooled("prompt"), read.every("prompt"), "the base with a better prompt"),
        _shuffled(read),
        _kept("safety", read.of("refusals"), demand.refusal_margin, "refusals"),
        _fluency(evidence, demand),
        _drift(read, demand),
        _kept("transfer", read.of("transfer"), demand.transfer_margin, "the neighbouring task"),
    )
    states = {criterion.state for criterion in criteria}
    standing: Standing = "not supported" if "missed" in states else "inconclusive" if "open" in states else "supported"
    kind: Kind = ""
    if strict is not None and strict[1] > 0:
        kind = "skill" if lenient is not None and lenient[1] > 0 else "format"
    return GainClaim(evidence, demand, standing, kind, criteria, _line(evidence, standing, kind, criteria, read))


@dataclasses.dataclass(frozen=True)
class _Read:
    """The evidence as intervals."""

    evidence: GainEvidence
    demand: GainDemand

    def pairs(self, arm: str) -> tuple[Paired, ...] | None:
        """Of every seed; None where one has none, since a mean over some seeds is a choice among them."""
        found = tuple(getattr(seed, arm) for seed in self.evidence.seeds)
        return None if not found or any(pair is None or pair.n == 0 for pair in found) else found

    def pooled(self, arm: str) -> Interval | None:
        """Score interval over all pairs; the mean is that over pairs."""
        pairs = self.pairs(arm)
        if pairs is None:
            return None
        n10, n01, n = (sum(getattr(pair, key) for pair in pairs) for key in ("n10", "n01", "n"))
        return ((n10 - n01) / n, *tango(n10, n01, n, self.one_sided))

    def of(self, arm: str) -> Interval | None:
        """The wider, on each side, of the interval over pairs and that over seeds."""
        pairs, pooled = self.pairs(arm), self.pooled(arm)
        if pairs is None or pooled is None:
            return None
        values = [_difference(pair) for pair in pairs]
        mean = math.fsum(values) / len(values)
        if len(values) == 1:  # what it says of items; of runs it says nothing, which ``seeds`` holds against it
            return mean, pooled[1], pooled[2]
        low, high = mean_bounds(values, self.one_sided)
        return mean, max(-1.0, min(pooled[1], low)), min(1.0, max(pooled[2], high))

    def every(self, arm: str) -> bool:
        """Whether every seed is ahead."""
        pairs = self.pairs(arm)
        return pairs is not None and all(pair.n10 > pair.n01 for pair in pairs)

    @property
    def one_sided(self) -> float:
        """Confidence of each bound of a two-sided interval."""
        return (1 + self.demand.confidence) / 2


def _seeds(evidence: GainEvidence, demand: GainDemand) -> Criterion:
    there = {seed.seed for seed in evidence.seeds}
    missing = sorted(set(evidence.planned) - there)
    strange = sorted(there - set(evidence.planned))
    thin = sorted({seed.seed for seed in evidence.seeds for arm in ARMS if not _enough(seed, arm, evidence.items)})
    unmeasured = sorted({name for seed in evidence.seeds for name in OTHERS if getattr(seed, name) is None})
    wrong = []
    if len(evidence.planned) < demand.seeds:
        wrong.append(f"{len(evidence.planned)} planned, {demand.seeds} are needed")
    wrong += [f"missing: seed {', '.join(map(str, missing))}"] if missing else []
    wrong += [f"not planned: seed {', '.join(map(str, strange))}"] if strange else []
    wrong += [f"fewer than {evidence.items} items: seed {', '.join(map(str, thin))}"] if thin else []
    wrong += [f"not measured: {', '.join(unmeasured)}"] if unmeasured else []
    text = "; ".join(wrong) or f"{len(there)} seeds of {evidence.items} items, all arms"
    return Criterion("seeds", "open" if wrong else "met", text, float(len(there)))


def _enough(seed: SeedEvidence, arm: str, items: int) -> bool:
    pair: Paired | None = getattr(seed, arm)
    return pair is not None and pair.n >= items


def _disjoint(evidence: GainEvidence) -> Criterion:
    text = f"{evidence.shared} test items were trained on or belong to two seeds"
    return Criterion("disjoint", "open" if evidence.shared else "met", text, float(evidence.shared))


def _gain(found: Interval | None, demand: GainDemand) -> Criterion:
    if found is None:
        return _absent("gain", "the gain")
    mean, _, upper = found
    state: State = "met" if mean >= demand.gain else "missed" if upper < demand.gain else "open"
    return Criterion("gain", state, f"mean {_points(mean)}, {_points(demand.gain)} are demanded", *found)


def _above(name: str, found: Interval | None, what: str) -> Criterion:
    if found is None:
        return _absent(name, what)
    state: State = "met" if found[1] > 0 else "missed" if found[2] < 0 else "open"
    where = {"met": "lies above 0", "missed": "lies below 0", "open": "holds 0"}[state]
    return Criterion(name, state, f"{what} {_span(found)} {where}", *found)


def _better(name: str, found: Interval | None, every: bool, rival: str) -> Criterion:
    if found is None:
        return _absent(name, rival)
    state: State = "met" if found[1] > 0 and every else "missed" if found[2] < 0 else "open"
    told = {"met": "beats", "missed": "is worse than", "open": "is not shown to beat"}[state]
    return Criterion(name, state, f"{told} {rival}: {_points(found[0])} {_span(found)}", *found)


def _shuffled(read: _Read) -> Criterion:
    control = read.pooled("shuffled")
    over = _better("shuffled", read.pooled("over_shuffled"), read.every("over_shuffled"), "its shuffled-reward control")
    if control is None:
        return _absent("shuffled", "the shuffled-reward control")
    told = f"the control alone {_points(control[0])} {_span(control)}"
    if control[1] > 0:
        reason = f"shuffled rewards gain too: {_points(control[0])} {_span(control)}"
        return Criterion("shuffled", "missed", reason, *control)
    return dataclasses.replace(over, reason=f"{over.reason}; {told}")


def _kept(name: str, found: Interval | None, margin: float, what: str) -> Criterion:
    """Non-inferiority: not lost by more than the margin."""
    if found is None:
        return _absent(name, what)
    state: State = "met" if found[1] >= -margin else "missed" if found[2] < -margin else "open"
    told = {"met": "kept", "missed": "lost", "open": "perhaps lost"}[state]
    reason = f"{what} {told}: {_points(found[0])} {_span(found)}, {_points(-margin)} are allowed"
    return Criterion(name, state, reason, *found)


def _fluency(evidence: GainEvidence, demand: GainDemand) -> Criterion:
    ratios = [seed.perplexity.ratio for seed in evidence.seeds if seed.perplexity is not None]
    if not ratios or len(ratios) < len(evidence.seeds):
        return _absent("fluency", "perplexity off the task")
    worst = max(ratios)
    state: State = "met" if worst <= demand.perplexity_ratio else "missed"
    text = f"perplexity off the task x{worst:.3f} at worst, x{demand.perplexity_ratio:g} is allowed"
    return Criterion("fluency", state, text, _finite(worst))


def _drift(read: _Read, demand: GainDemand) -> Criterion:
    seeds = read.evidence.seeds
    ratios = [seed.length.ratio for seed in seeds if seed.length is not None]
    form = read.of("task_form")
    if not ratios or len(ratios) < len(seeds) or form is None:
        return _absent("drift", "length and form of replies off the task")
    worst = max(ratios, key=lambda ratio: abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf)
    steady = 1 / demand.length_ratio <= worst <= demand.length_ratio
    spread: State = "met" if form[2] <= demand.form_margin else "missed" if form[1] > demand.form_margin else "open"
    state: State = "missed" if not steady else spread
    text = (
        f"off the task replies are x{worst:.2f} as long at worst and have the task's form {_points(form[0])} "
        f"{_span(form)} more often"
    )
    return Criterion("drift", state, text, _finite(worst))


def _absent(name: str, what: str) -> Criterion:
    return Criterion(name, "open", f"{what}: not measured")


def _line(evidence: GainEvidence, standing: Standing, kind: Kind, criteria: Sequence[Criterion], read: _Read) -> str:
    """Standing, numbers, and what stands in the way; what was missed before what is open."""
    strict, control, prompt = read.of("strict"), read.pooled("shuffled"), read.pooled("prompt")
    told = [f"{evidence.name} on {evidence.task}: {standing}"]
    if kind and standing == "supported":
        told[0] += " (right answers)" if kind == "skill" else " (form of the answers, not right answers)"
    if strict is not None:
        seeds = len(evidence.seeds)
        told.append(f"{_points(strict[0])} {_span(strict)} over {seeds} seed{'s' * (seeds != 1)}")
    if prompt is not None:
        told.append(f"{_points(prompt[0])} over a better prompt")
    if control is not None:
        told.append(f"shuffled rewards {_points(control[0])} {_span(control)}")
    missed = [f"{c.id} ({c.reason})" for c in criteria if c.state == "missed"]
    unsure = [f"{c.id} ({c.reason})" if c.id == "seeds" else c.id for c in criteria if c.state == "open"]
    told += [f"missed: {', '.join(missed)}"] if missed else []
    told += [f"open: {', '.join(unsure)}"] if unsure else []
    return "; ".join(told)


def _points(rate: float) -> str:
    return f"{100 * rate:+.1f} points"


def _span(found: Interval) -> str:
    return f"[{100 * found[1]:+.1f}, {100 * found[2]:+.1f}]"


def _difference(pair: Paired) -> float:
    return (pair.n10 - pair.n01) / pair.n


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _check(evidence: GainEvidence, demand: GainDemand) -> None:
    rates = ("gain", "lenient_margin", "refusal_margin", "transfer_margin", "form_margin")
    if wrong := [name for name in rates if not 0 <= getattr(demand, name) <= 1]:
        raise ConfigError(f"{wrong[0]} is a rate, found {getattr(demand, wrong[0])!r}", where=evidence.name)
    if not 0 < demand.confidence < 1 or demand.seeds < 2 or evidence.items < 1:
        raise ConfigError(
            f"confidence {demand.confidence}, {demand.seeds} seeds, {evidence.items} items",
            where=evidence.name,
            todo="confidence lies between 0 and 1; a claim needs two seeds at least, and an item",
        )
    if demand.perplexity_ratio < 1 or demand.length_ratio < 1:
        raise ConfigError("a ratio that is allowed is at least 1", where=evidence.name)
    named = [seed.seed for seed in evidence.seeds]
    if len(set(named)) < len(named) or len(set(evidence.planned)) < len(evidence.planned):
        raise ConfigError("a seed stands twice", where=evidence.name)
    for seed in evidence.seeds:
        for drift in (seed.perplexity, seed.length):
            if drift is not None and not (0 <= drift.adapter < math.inf and 0 <= drift.base < math.inf):
                raise ConfigError("a length or a perplexity is a finite number of at least 0", where=evidence.name)
