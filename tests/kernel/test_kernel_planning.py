"""How many samples would decide and how probable a pass is, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ecology.contracts.evidence import Count, Paired, Proportion, Samples
from ecology.contracts.policy import Rule
from ecology.errors import ConfigError
from ecology.kernel import planning, statistics
from ecology.kernel.decisions import decide, decide_bounds

RATE = Rule("r", "t", "orders.exact", ">=", 0.9, split="hidden", min_samples=10)
PAIR = Rule("p", "t", "orders.exact", ">=", -0.05, split="hidden", against="incumbent", min_samples=10)
SLOW = Rule("s", "t", "resource.latency_s", "<=", 5.0, quantile=0.95, min_samples=59)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([">=", "<="]), st.floats(0.05, 0.95), st.integers(1, 60), st.data())
def test_needed_n_is_where_the_rate_begins_to_decide(
    comparator: str, threshold: float, n: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, n))
    rule = Rule("r", "t", "m", comparator, threshold)  # type: ignore[arg-type]
    needed = planning.needed_n(rule, Proportion(k, n))

    def decides(size: int) -> bool:
        edges = statistics.clopper_pearson(k / n * size, size, rule.confidence)
        return decide_bounds(rule, *edges) != "open"

    if needed is None:
        assert not decides(5000)
    else:
        assert decides(needed)
        assert needed == 1 or not decides(needed - 1)


def test_needed_n_of_every_kind() -> None:
    assert planning.needed_n(RATE, Proportion(186, 200)) == 288
    assert planning.needed_n(RATE, Proportion(180, 200)) is None  # at the threshold itself
    assert planning.needed_n(RATE, Proportion(0, 0)) is None
    assert planning.needed_n(RATE, Count(3, ())) is None
    assert planning.needed_n(RATE, Proportion(10, 10)) == 29  # 0.9^29 < 5 %
    needed = planning.needed_n(PAIR, Paired(200, 8, 16))
    assert needed is not None
    assert statistics.tango(8 / 200 * needed, 16 / 200 * needed, needed, 0.95)[0] >= -0.05
    assert planning.needed_n(SLOW, Samples((1.0,) * 20, "s")) == 59


@settings(max_examples=20, deadline=None)
@given(st.floats(0.02, 0.3), st.integers(20, 80))
def test_needed_n_of_samples_decides(slow: float, n: int) -> None:
    late = round(slow * n)
    samples = Samples((1.0,) * (n - late) + (9.0,) * late, "s")
    rule = Rule("s", "t", "resource.latency_s", "<=", 5.0, quantile=0.9)
    needed = planning.needed_n(rule, samples)
    if needed is not None:
        more = 2 * needed + 20  # whole samples, so not at the very edge
        tardy = round(late / n * more)
        grown = Samples((1.0,) * (more - tardy) + (9.0,) * tardy, "s")
        edges = statistics.bounds(rule, grown)
        assert decide_bounds(rule, *edges) != "open"


@pytest.mark.parametrize("truth", [0.85, 0.9, 0.95, 1.0])
def test_power_of_a_rate_is_the_probability_of_a_pass(truth: float) -> None:
    n = 120
    brute = sum(
        stats.binom.pmf(k, n, truth)
        for k in range(n + 1)
        if statistics.clopper_pearson(k, n, 0.95)[0] >= RATE.threshold
    )
    assert planning.power(RATE, n, truth) == pytest.approx(brute, abs=1e-9)


def test_power_never_exceeds_the_error_rate_at_the_threshold() -> None:
    assert planning.power(RATE, 200, 0.9) <= 0.05
    assert planning.power(PAIR, 200, -0.05, 0.1) <= 0.055  # the score interval is not exact


def test_power_of_a_pair_equals_enumeration() -> None:
    n, p10, p01 = 30, 0.15, 0.1
    brute = sum(
        stats.multinomial.pmf((a, b, n - a - b), n, (p10, p01, 1 - p10 - p01))
        for a in range(n + 1)
        for b in range(n + 1 - a)
        if statistics.tango(a, b, n, 0.95)[0] >= PAIR.threshold
    )
    assert planning.power(PAIR, n, p10 - p01, p10 + p01) == pytest.approx(brute, abs=1e-6)


def test_power_of_samples_equals_simulation() -> None:
    rng = np.random.Generator(np.random.PCG64(7))
    share, n = 0.99, 200
    passes = 0
    for _ in range(300):
        values = np.where(rng.random(n) < share, 1.0, 9.0)
        passes += decide(SLOW, Samples(tuple(values), "s")) == "met"
    assert planning.power(SLOW, n, share) == pytest.approx(passes / 300, abs=0.06)


def test_power_of_what_is_not_refuted_and_of_too_few() -> None:
    screen = Rule("c", "t", "orders.exact", ">=", 0.9, split="public", decide="not_refuted", min_samples=64)
    assert planning.power(screen, 64, 0.9) >= 0.95
    assert planning.power(screen, 64, 0.5) < 0.001
    assert planning.power(screen, 63, 1.0) == 0.0
    assert planning.power(PAIR, 200, 0.0, 0.0) == 1.0
    one = Rule("m", "t", "resource.peak_memory_bytes", "<=", 5)
    assert planning.power(one, 1, 0.25) == 0.25


@pytest.mark.parametrize(
    ("rule", "n", "truth", "discordance"),
    [(RATE, 0, 0.5, 0), (RATE, 20, 1.5, 0), (PAIR, 20, 0.2, 0.1), (SLOW, 60, -1, 0)],
)
def test_impossible_plans_are_refused(rule: Rule, n: int, truth: float, discordance: float) -> None:
    with pytest.raises(ConfigError):
        planning.power(rule, n, truth, discordance)
