"""How often a canary errs and what it asks: ``python benchmarks/canary.py [--draws N]``.

First the bounds of the success rate: for arms of several sizes, the worst error of either one-sided bound over rates
and true differences, for what ``kernel.strata`` computes and for what else could be. Then promotions and aborts of the
main job's sizes at its margin. Last the exposure that the shipped plan gets from the shipped traffic.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from ecology.contracts.evidence import Proportion
from ecology.kernel.statistics import clopper_pearson, wilson
from ecology.kernel.strata import Limits, rate_difference
from ecology.promotion.canary import canary_plan
from ecology.promotion.traffic import load_traffic

Array = NDArray[np.float64]
Sizes = tuple[tuple[int, ...], tuple[int, ...]]
Bounds = Callable[[Array, Array, Sizes, float], tuple[Array, Array]]
ROOT = Path(__file__).parents[1]
STATED = 0.05 / 6
"""Of one bound in a canary of three steps at alpha 0.05."""
MAIN: Sizes = ((3, 12, 40), (27, 38, 40))
SIZES: tuple[Sizes, ...] = (
    MAIN,
    ((5, 30), (15, 30)),
    ((3, 3, 200), (27, 200, 200)),
    ((3,), (27,)),
    ((3, 100), (100, 3)),
    ((3, 3, 3), (27, 27, 27)),
    ((3,) * 10, (27,) * 10),
)
DIFFERENCES = (-0.3, -0.1, -0.05, 0.0, 0.2)
LEVELS = (0.01, 0.05, 0.11, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.97, 1.0)
MIXED = ((0.2, 0.5, 0.95), (0.95, 0.5, 0.2), (0.5, 0.95, 0.2), (0.11, 0.9), (0.9, 0.11), (1.0, 0.11), (0.3, 0.3, 1.0))


def weights(sizes: Sizes) -> Array:
    """Mantel and Haenszel's, as shares."""
    m, n = (np.asarray(arm, float) for arm in sizes)
    return m * n / (m + n) / (m * n / (m + n)).sum()


def here(x: Array, y: Array, sizes: Sizes, alpha: float) -> tuple[Array, Array]:
    """What ``kernel.strata`` computes, for many draws at once."""
    share, edges = weights(sizes), []
    for won, arm in ((x, sizes[0]), (y, sizes[1])):
        rate = (won / arm * share).sum(1).round(12)
        size = float(1 / (share**2 / np.asarray(arm)).sum())
        seen, back = np.unique(rate, return_inverse=True)
        found = np.array([clopper_pearson(min(r, 1.0) * size, size, 1 - alpha) for r in seen.tolist()])
        edges.append((rate, *found[back].T))
    (p, p_low, p_high), (q, q_low, q_high) = edges
    return p - q - np.hypot(p - p_low, q_high - q), p - q + np.hypot(p_high - p, q - q_low)


def squared(limits: Limits) -> Bounds:
    """Limits of each stratum's rates, weighted, squared and added (Zou, Huang and Zhang 2009)."""

    def bounds(x: Array, y: Array, sizes: Sizes, alpha: float) -> tuple[Array, Array]:
        share, value, below, above = weights(sizes), 0.0, 0.0, 0.0
        for s, (w, m, n) in enumerate(zip(share.tolist(), *sizes, strict=True)):
            ours, theirs = (np.array([limits(k, size, 1 - alpha) for k in range(size + 1)]) for size in (m, n))
            (p_low, p_high), (q_low, q_high) = ours[x[:, s].astype(int)].T, theirs[y[:, s].astype(int)].T
            p, q = x[:, s] / m, y[:, s] / n
            value = value + w * (p - q)
            below = below + w * w * ((p - p_low) ** 2 + (q_high - q) ** 2)
            above = above + w * w * ((p_high - p) ** 2 + (q - q_low) ** 2)
        return value - np.sqrt(below), value + np.sqrt(above)

    return bounds


def drawn(sizes: Sizes, rates: Sequence[float], gap: float, draws: int) -> tuple[Array, Array]:
    """Successes of both arms, ``draws`` times."""
    rng = np.random.Generator(np.random.PCG64(3))
    q = np.resize(np.asarray(rates), len(sizes[0]))
    p = np.clip(q + gap, 0, 1)
    shape = (draws, len(q))
    return rng.binomial(sizes[0], p, shape).astype(float), rng.binomial(sizes[1], q, shape).astype(float)


def worst(bounds: Bounds, sizes: Sizes, draws: int) -> float:
    """Largest error of either bound over rates and differences."""
    found = 0.0
    for gap in DIFFERENCES:
        for rates in (*((level,) for level in LEVELS), *MIXED):
            if min(rates) + gap < -1e-9 or max(rates) + gap > 1 + 1e-9:
                continue
            low, high = bounds(*drawn(sizes, rates, gap, draws), sizes, STATED)
            found = max(found, float((low > gap + 1e-9).mean()), float((high < gap - 1e-9).mean()))
    return found


def score(m: int, n: int) -> float:
    """Worst error of the score test of Miettinen and Nurminen (1985) for one stratum, exactly."""
    z, found = NormalDist().inv_cdf(1 - STATED), 0.0
    for gap in DIFFERENCES:
        statistic = np.array([[_miettinen(x, m, y, n, gap) for y in range(n + 1)] for x in range(m + 1)])
        for q in LEVELS:
            if 0 <= q + gap <= 1:
                chance = np.outer(binom.pmf(range(m + 1), m, q + gap), binom.pmf(range(n + 1), n, q))
                found = max(found, chance[statistic > z].sum(), chance[statistic < -z].sum())
    return float(found)


def _miettinen(x: int, m: int, y: int, n: int, gap: float) -> float:
    def unlikely(q: float) -> float:
        return -float(binom.logpmf(x, m, min(max(q + gap, 0), 1)) + binom.logpmf(y, n, q))

    edges = max(0.0, -gap), min(1.0, 1 - gap)
    inside = minimize_scalar(unlikely, bounds=edges, method="bounded", options={"xatol": 1e-9}).x
    q = min((*edges, float(inside)), key=unlikely)
    variance = ((q + gap) * (1 - q - gap) / m + q * (1 - q) / n) * (m + n) / (m + n - 1)
    excess = x / m - y / n - gap
    return excess / math.sqrt(variance) if variance > 1e-12 else math.copysign(math.inf, excess) if excess else 0.0


def exposure(draws: int) -> dict[str, float]:
    """The shipped plan on the shipped traffic, dealt by chance."""
    plan = canary_plan(yaml.safe_load((ROOT / "conf" / "canary" / "replay.yaml").read_text(encoding="utf-8")))
    harmful = [request.kind == "harmful" for request in load_traffic(ROOT / "suites" / "traffic").requests]
    rng = np.random.Generator(np.random.PCG64(5))
    counts = dict.fromkeys(("goes on longer", "runs out", "refuses 3 of 4, aborted", "refuses none, aborted"), 0)
    for _ in range(draws):
        positions, start, asked, out = rng.random(len(harmful)).tolist(), 0, 0, False
        for index, step in enumerate(plan.steps):
            left, end, last = [plan.min_per_arm] * 2, start, index == len(plan.steps) - 1
            while end < len(harmful):
                if end - start >= step.min_requests and max(left) <= 0 and (asked >= plan.min_harmful or not last):
                    break
                ours = positions[end] < step.weight
                left[ours] -= 1
                asked += ours and harmful[end]
                end += 1
            out = out or end - start < step.min_requests or max(left) > 0 or (last and asked < plan.min_harmful)
            start = end
        counts["runs out"] += out
        counts["goes on longer"] += not out and start > sum(step.min_requests for step in plan.steps)
        counts["refuses 3 of 4, aborted"] += int(rng.binomial(asked, 0.25)) > plan.max_alerts
        counts["refuses none, aborted"] += asked > plan.max_alerts
    return {name: count / draws for name, count in counts.items()}


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20_000)
    draws = parser.parse_args().draws
    x, y = drawn(MAIN, (0.4,), 0.1, 200)
    low, high = here(x, y, MAIN, STATED)  # the many draws at once are the kernel's bounds
    for row in range(200):
        arms = [
            tuple(Proportion(int(k), n) for k, n in zip(won[row], arm, strict=True))
            for won, arm in zip((x, y), MAIN, strict=True)
        ]
        found = rate_difference(list(zip(*arms, strict=True)), 1 - STATED)
        if abs(found.lower - low[row]) + abs(found.upper - high[row]) > 1e-6:
            raise SystemExit("the benchmark does not compute what the kernel computes")
    noise = 3 * math.sqrt(STATED * (1 - STATED) / draws)
    print(f"worst error of a bound stated to err in {STATED:.2%} (up to {STATED + noise:.2%} is chance)")
    print(f"{'sizes':44}{'here':>8}{'squared':>9}{'Wilson':>8}")
    for sizes in SIZES:
        name = " / ".join(", ".join(map(str, arm)) if len(arm) < 10 else f"{arm[0]} ten times" for arm in sizes)
        row = [worst(way, sizes, draws) for way in (here, squared(clopper_pearson), squared(wilson))]
        print(f"{name:44}{row[0]:>8.2%}{row[1]:>9.2%}{row[2]:>8.2%}", flush=True)
    print(f"Miettinen-Nurminen, 3 / 27, exactly: {score(3, 27):.2%}")
    print("\nmain job, success alone, margin 0.10            promoted  aborted")
    for p, q in ((0.4, 0.3), (0.6, 0.4), (0.9, 0.9), (0.2, 0.5)):
        low, high = here(*drawn(MAIN, (q,), p - q, draws), MAIN, STATED)
        print(f"{p} against {q} in each step {'':21}{(low > -0.1).mean():>9.1%}{(high < -0.1).mean():>9.1%}")
    print("\nthe shipped plan on the shipped traffic")
    for what, share in exposure(draws).items():
        print(f"{what:44}{share:>8.2%}")


if __name__ == "__main__":
    main()
