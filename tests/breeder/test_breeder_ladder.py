"""The ladder's rules: which range, which rates, and in which order rows are run."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("ladder", ROOT / "benchmarks" / "ladder.py")
assert SPEC is not None
assert SPEC.loader is not None
ladder = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ladder)


def scout(range_: tuple[int, int], reward: float) -> dict[str, Any]:
    return {"name": "scout", "range": list(range_), "reward": reward}


def pilot(name: str, rate: float, curve: Sequence[float], seed: int = ladder.PILOT) -> dict[str, Any]:
    return {"name": name, "seed": seed, "rate": rate, "curve": list(curve)}


class Pool:
    """Runs nothing and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.done: list[Mapping[str, Any]] = []

    def run(self, jobs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        self.asked += jobs
        return []


def test_the_range_is_the_first_that_is_neither_too_hard_nor_too_easy() -> None:
    scouts = [scout((1, 9), 0.15), scout((1, 30), 0.05), scout((1, 15), 0.11), scout((1, 20), 0.07)]
    assert ladder.range_of(scouts) == [1, 15]
    assert ladder.range_of([scout((1, 30), 0.01), scout((1, 9), 0.03)]) == [1, 9]


def test_a_rate_is_the_best_pilot_of_reward_or_loss_and_others_take_it() -> None:
    runs = [
        pilot("TinyLoRA 210", 0.01, [0.9] * 9 + [0.2] * 10),  # the last ten count
        pilot("TinyLoRA 210", 0.03, [0.1] * 9 + [0.4] * 10),
        pilot("TinyLoRA 210", 0.5, [0.9] * 19, seed=0),  # reported, and so no pilot
        pilot("SFT 14", 0.01, [2.0] * 10),
        pilot("SFT 14", 0.03, [3.0] * 10),
    ]
    rates = ladder.rates_of(runs)
    assert rates["TinyLoRA 210"] == rates["210, r=4"] == rates["105 (420 bytes)"] == 0.03
    assert rates["210: u=15, 14 groups"] == pytest.approx(0.03 / math.sqrt(15))
    assert rates["SFT 14"] == 0.01
    assert "14, r=1" not in rates


def test_like_an_earlier_ladder_no_pilot_is_run_and_one_seed_of_all_comes_before_the_next() -> None:
    earlier = json.loads((ROOT / "benchmarks" / "results" / "ladder-h100.json").read_text("utf-8"))["runs"]
    pool, names = Pool(), ["210, r=4", "TinyLoRA 210", "ES 14"]
    rows = {name: ladder.ROWS[name] for name in names}
    ladder.climb(pool, rows, steps=15, prompts=4, seeds=(0, 1), like=earlier)
    base, *jobs = pool.asked
    assert base == {"name": "base", "range": [1, 15]}
    assert [(job["name"], job["seed"]) for job in jobs] == [(name, seed) for seed in (0, 1) for name in names]
    assert {job["steps"] for job in jobs} == {15}
    assert {job["rate"] for job in jobs if "210" in job["name"]} == {0.03}
    reported = {run["rate"] for run in earlier if run["name"] == "TinyLoRA 210" and run["seed"] in ladder.SEEDS}
    assert reported == {0.03}
