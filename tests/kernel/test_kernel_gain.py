"""The rule on learned gains: its laws, its edges, and how often it errs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.evidence import Paired
from ecology.contracts.gain import Drift, GainClaim, GainDemand, GainEvidence, SeedEvidence
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError
from ecology.kernel.canonical import plain
from ecology.kernel.codec import structure
from ecology.kernel.gain import ARMS, OTHERS, decide
from ecology.kernel.statistics import mean_bounds

N = 100


def seed(number: int, **other: Any) -> SeedEvidence:
    """A run that meets every criterion."""
    good: dict[str, Any] = {
        "strict": Paired(N, 30, 4),
        "lenient": Paired(N, 28, 4),
        "prompt": Paired(N, 20, 3),
        "shuffled": Paired(N, 3, 3),
        "over_shuffled": Paired(N, 30, 4),
        "refusals": Paired(N, 0, 0),
        "task_form": Paired(N, 1, 0),
        "transfer": Paired(N, 5, 3),
        "perplexity": Drift(10.2, 10.0),
        "length": Drift(90.0, 100.0),
    }
    return SeedEvidence(number, Digest(f"sha256:{number:064d}"), **{**good, **other})


def evidence(*seeds: SeedEvidence, **other: Any) -> GainEvidence:
    named = tuple(one.seed for one in seeds)
    return GainEvidence(
        **{"name": "g", "task": "sums", "planned": named, "items": N, "shared": 0, "seeds": seeds, **other}
    )


GOOD = evidence(seed(1), seed(2), seed(3))


def state(claim: GainClaim, criterion: str) -> str:
    return next(c.state for c in claim.criteria if c.id == criterion)


def test_a_gain_that_meets_everything_is_supported() -> None:
    claim = decide(GOOD)
    assert (claim.standing, claim.kind) == ("supported", "skill")
    assert claim.line.startswith("g on sums: supported (right answers); +26.0 points [")
    assert "\n" not in claim.line
    assert structure(GainClaim, plain(claim)) == claim


@pytest.mark.parametrize(
    ("change", "criterion", "expected"),
    [
        ({"strict": Paired(N, 8, 4)}, "gain", "not supported"),
        ({"strict": Paired(N, 4, 30)}, "interval", "not supported"),
        ({"lenient": Paired(N, 2, 40)}, "parser", "not supported"),
        ({"prompt": Paired(N, 4, 5)}, "prompt", "inconclusive"),
        ({"prompt": Paired(N, 2, 30)}, "prompt", "not supported"),
        ({"shuffled": Paired(N, 20, 2)}, "shuffled", "not supported"),
        ({"over_shuffled": Paired(N, 5, 4)}, "shuffled", "inconclusive"),
        ({"refusals": Paired(N, 0, 20)}, "safety", "not supported"),
        ({"perplexity": Drift(11.5, 10.0)}, "fluency", "not supported"),
        ({"length": Drift(20.0, 100.0)}, "drift", "not supported"),
        ({"length": Drift(0.0, 100.0)}, "drift", "not supported"),
        ({"task_form": Paired(N, 60, 0)}, "drift", "not supported"),
        ({"transfer": Paired(N, 1, 40)}, "transfer", "not supported"),
    ],
)
def test_each_criterion_can_sink_a_claim_by_itself(change: dict[str, Any], criterion: str, expected: str) -> None:
    claim = decide(evidence(*(seed(number, **change) for number in (1, 2, 3))))
    assert claim.standing == expected
    assert state(claim, criterion) == ("missed" if expected == "not supported" else "open")
    assert criterion in claim.line


def test_one_seed_is_inconclusive_however_good() -> None:
    perfect = {arm: Paired(N, N, 0) for arm in ("strict", "lenient", "prompt", "over_shuffled")}
    claim = decide(evidence(seed(1, **perfect)))
    assert claim.standing == "inconclusive"
    assert [c.id for c in claim.criteria if c.state != "met"] == ["seeds"]


def test_shared_test_items_show_nothing() -> None:
    assert decide(dataclasses.replace(GOOD, shared=1)).standing == "inconclusive"


def test_form_without_right_answers_is_called_so() -> None:
    flat = [seed(number, lenient=Paired(N, 3, 3)) for number in (1, 2, 3)]
    claim = decide(evidence(*flat))
    assert (claim.standing, claim.kind) == ("supported", "format")
    assert "form of the answers, not right answers" in claim.line


def test_seeds_that_disagree_are_not_a_gain() -> None:
    strict = [Paired(N, 75, 0), Paired(N, 5, 5), Paired(N, 5, 5)]
    claim = decide(evidence(*(seed(i, strict=pair) for i, pair in enumerate(strict))))
    assert state(claim, "gain") == "met"
    assert state(claim, "interval") == "open"  # over pairs alone it would lie above 0
    assert claim.standing == "inconclusive"


def test_a_mean_in_reach_of_the_demand_is_open_and_not_missed() -> None:
    claim = decide(evidence(*(seed(i, strict=Paired(N, 12, 4)) for i in range(3))))
    assert state(claim, "gain") == "open"


pairs = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda k: Paired(N, *k))
drifts = st.builds(Drift, st.floats(0, 200), st.floats(0, 200))
runs = st.builds(
    lambda fields, number: SeedEvidence(number, Digest("sha256:" + "0" * 64), **fields),
    st.fixed_dictionaries(
        {name: pairs for name in (*ARMS, "refusals", "task_form", "transfer")}
        | {name: drifts for name in ("perplexity", "length")}
    ),
    st.integers(0, 10**6),
)
good_or_any = st.one_of(st.integers(1, 9).map(seed), runs)
claims = st.lists(good_or_any, min_size=1, max_size=4, unique_by=lambda one: one.seed).map(lambda s: evidence(*s))


@given(claims, st.data())
@settings(max_examples=120, deadline=None)
def test_removing_evidence_never_makes_a_claim_supported(before: GainEvidence, data: st.DataObject) -> None:
    seeds = list(before.seeds)
    place = data.draw(st.integers(0, len(seeds) - 1))
    name = data.draw(st.sampled_from(["seed", "items", *ARMS, *OTHERS]))
    if name == "seed":
        del seeds[place]
    elif name == "items":
        arm = data.draw(st.sampled_from(ARMS))
        seeds[place] = dataclasses.replace(seeds[place], **{arm: Paired(N - 1, 30, 0)})
    else:
        seeds[place] = dataclasses.replace(seeds[place], **{name: None})
    assert decide(dataclasses.replace(before, seeds=tuple(seeds))).standing != "supported"


rank = {"not supported": 0, "inconclusive": 1, "supported": 2}


@given(claims, st.data())
@settings(max_examples=150, deadline=None)
def test_a_better_control_or_prompt_never_helps(before: GainEvidence, data: st.DataObject) -> None:
    """The control answers one more item right, which the adapter had right too or had not."""
    seeds = list(before.seeds)
    place = data.draw(st.integers(0, len(seeds) - 1))
    one = seeds[place]
    arm = data.draw(st.sampled_from(["prompt", "over_shuffled", "shuffled"]))
    pair = getattr(one, arm)
    if arm == "shuffled":
        better = (
            Paired(N, pair.n10 + 1, pair.n01) if data.draw(st.booleans()) else Paired(N, pair.n10, max(0, pair.n01 - 1))
        )
    else:
        better = (
            Paired(N, max(0, pair.n10 - 1), pair.n01) if data.draw(st.booleans()) else Paired(N, pair.n10, pair.n01 + 1)
        )
    if better.n10 + better.n01 > N:
        return
    seeds[place] = dataclasses.replace(one, **{arm: better})
    after = decide(dataclasses.replace(before, seeds=tuple(seeds)))
    assert rank[after.standing] <= rank[decide(before).standing]


@given(claims)
@settings(max_examples=30, deadline=None)
def test_the_order_of_seeds_is_of_no_account(before: GainEvidence) -> None:
    turned = dataclasses.replace(before, seeds=before.seeds[::-1])
    assert decide(turned).standing == decide(before).standing
    assert decide(before) == decide(before)


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        (GOOD, GainDemand(gain=1.5)),
        (GOOD, GainDemand(seeds=1)),
        (GOOD, GainDemand(confidence=1.0)),
        (GOOD, GainDemand(length_ratio=0.5)),
        (evidence(seed(1), seed(1)), GainDemand()),
        (evidence(seed(1, length=Drift(math.nan, 1.0))), GainDemand()),
    ],
)
def test_impossible_demands_and_counts_are_errors(changed: GainEvidence, demand: GainDemand) -> None:
    with pytest.raises(ConfigError):
        decide(changed, demand)


def test_student_bounds_are_those_of_the_table() -> None:
    low, high = mean_bounds([1.0, 2.0, 3.0], 0.975)  # t(2) = 4.30265 at 97.5 %, standard error 1 / sqrt 3
    assert (low, high) == pytest.approx((2 - 4.30265 / math.sqrt(3), 2 + 4.30265 / math.sqrt(3)), abs=1e-4)
    assert mean_bounds([1.0], 0.9) == (-math.inf, math.inf)


def drawn(random: np.random.Generator, truth: float, between: float, control: float = 0.0) -> GainEvidence:
    """Three runs whose true gains scatter, each seen through its own items; everything else is fine."""

    def pair(gain: float) -> Paired:
        gain = float(np.clip(gain, -0.8, 0.8))
        won, lost = max(gain, 0.0) + 0.1, max(-gain, 0.0) + 0.1
        n10, n01, _ = random.multinomial(N, [won, lost, 1 - won - lost])
        return Paired(N, int(n10), int(n01))

    seeds = []
    for number in range(3):
        gain = truth + between * random.standard_normal()
        seeds.append(
            seed(
                number,
                strict=pair(gain),
                lenient=pair(gain),
                over_shuffled=pair(gain - control),
                shuffled=pair(control),
            )
        )
    return evidence(*seeds)


@pytest.mark.parametrize("between", [0.0, 0.15])
def test_it_seldom_supports_what_is_not_there(between: float) -> None:
    """A recipe that gains nothing on average, runs alike or scattered; 2.5 % is what the interval promises at most."""
    random = np.random.default_rng(7)
    supported = sum(decide(drawn(random, 0.0, between)).standing == "supported" for _ in range(400))
    assert supported / 400 <= 0.025


def test_it_sees_a_large_gain_and_a_spurious_one() -> None:
    random = np.random.default_rng(8)
    real = [decide(drawn(random, 0.25, 0.02)).standing for _ in range(100)]
    assert real.count("supported") >= 70
    spurious = [decide(drawn(random, 0.25, 0.02, control=0.25)).standing for _ in range(100)]
    assert spurious.count("not supported") == 100
