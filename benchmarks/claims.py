"""How often the rule on learned gains errs, on recipes whose truth is known.

    python benchmarks/claims.py [--json] [--recipes 2000]

Each simulated recipe is run with three seeds of 200 disjoint test items. A run's true gain is the recipe's plus a
normal deviation between runs; of the items on which adapter and base differ, one in five is the other way round.
Everything that is not varied in a row is fine. Rows:

- nothing is learned, runs alike or scattered by 10 and 20 points: "supported" is an error here;
- a gain of 10 to 30 points: "supported" is right;
- the shuffled-reward control gains as much, or a better prompt does: "supported" is an error;
- one seed instead of three, however large its gain: "supported" is an error.

The second figure is what the naive rule says that looks at the pooled paired interval alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
from typing import Any

import numpy as np

from ecology.contracts.evidence import Paired
from ecology.contracts.gain import Drift, GainEvidence, SeedEvidence
from ecology.contracts.identity import Digest
from ecology.kernel.gain import decide
from ecology.kernel.statistics import tango

ITEMS, SEEDS, SEED, BASE_NOISE = 200, 3, 20261122, 0.05
SUBJECT = Digest("sha256:" + "0" * 64)


@dataclasses.dataclass(frozen=True)
class Truth:
    """A recipe as it really is."""

    what: str
    gain: float
    between: float = 0.03
    control: float = 0.0
    prompt: float = 0.0
    seeds: int = SEEDS
    right: bool = False
    """Whether "supported" is the right answer."""


TRUTHS = (
    Truth("nothing learned, runs alike", 0.0, 0.0),
    Truth("nothing learned, runs 10 points apart", 0.0, 0.10),
    Truth("nothing learned, runs 20 points apart", 0.0, 0.20),
    Truth("5 points, half of what is demanded", 0.05, 0.03),
    Truth("10 points, just what is demanded", 0.10, 0.03, right=True),
    Truth("15 points", 0.15, 0.03, right=True),
    Truth("20 points", 0.20, 0.03, right=True),
    Truth("30 points", 0.30, 0.03, right=True),
    Truth("20 points, runs 10 points apart", 0.20, 0.10, right=True),
    Truth("20 points, and so do shuffled rewards", 0.20, 0.03, control=0.20),
    Truth("20 points, and so does a better prompt", 0.20, 0.03, prompt=0.20),
    Truth("30 points on one seed", 0.30, 0.03, seeds=1),
)


def paired(random: np.random.Generator, gain: float) -> Paired:
    """Two answerers whose difference is ``gain`` on average."""
    gain = float(np.clip(gain, -0.85, 0.85))
    won, lost = max(gain, 0.0) + BASE_NOISE, max(-gain, 0.0) + BASE_NOISE
    n10, n01, _ = random.multinomial(ITEMS, [won, lost, 1 - won - lost])
    return Paired(ITEMS, int(n10), int(n01))


def recipe(random: np.random.Generator, truth: Truth) -> GainEvidence:
    """What three runs of a recipe show."""
    seeds = []
    for number in range(truth.seeds):
        gain = truth.gain + truth.between * random.standard_normal()
        seeds.append(
            SeedEvidence(
                seed=number,
                subject=SUBJECT,
                strict=paired(random, gain),
                lenient=paired(random, gain),
                prompt=paired(random, gain - truth.prompt),
                shuffled=paired(random, truth.control),
                over_shuffled=paired(random, gain - truth.control),
                refusals=Paired(100, 0, 0),
                task_form=Paired(100, 0, 0),
                transfer=Paired(100, 3, 3),
                perplexity=Drift(10.1, 10.0),
                length=Drift(100.0, 100.0),
            )
        )
    return GainEvidence("recipe", "task", tuple(range(truth.seeds)), ITEMS, 0, tuple(seeds))


def naive(evidence: GainEvidence) -> bool:
    """Whether the pooled interval lies above 0, and nothing else."""
    pairs = [seed.strict for seed in evidence.seeds if seed.strict is not None]
    n10, n01, n = (sum(getattr(pair, key) for pair in pairs) for key in ("n10", "n01", "n"))
    return tango(n10, n01, n, 0.975)[0] > 0


def rows(recipes: int) -> list[dict[str, Any]]:
    """Share of recipes of each truth that are called supported, not supported and inconclusive."""
    found = []
    for truth in TRUTHS:
        random = np.random.default_rng(SEED)
        drawn = [recipe(random, truth) for _ in range(recipes)]
        said = [decide(evidence).standing for evidence in drawn]
        supported, plain = said.count("supported") / recipes, sum(map(naive, drawn)) / recipes
        found.append(
            {
                "what": f"supported: {truth.what}",
                "ours": supported,
                "peer": plain,
                "peer_name": "pooled paired interval above 0",
                "ratio": supported / plain if plain else None,
                "unit": "share of recipes",
                "samples": recipes,
                "right": truth.right,
                "not_supported": said.count("not supported") / recipes,
                "inconclusive": said.count("inconclusive") / recipes,
            }
        )
    return found


def main() -> None:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description="error rates of the rule on learned gains")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--recipes", type=int, default=2000)
    options = parser.parse_args()
    found = rows(options.recipes)
    if options.json:
        machine = {"python": platform.python_version(), "processor": platform.machine()}
        print(json.dumps({"rows": found, "machine": machine}, indent=2))
        return
    print(f"{'truth':<42}{'supported':>10}{'not':>8}{'open':>8}{'naive':>8}")
    for row in found:
        mark = "" if row["right"] else "  (an error)"
        print(
            f"{row['what'].removeprefix('supported: '):<42}{row['ours']:>10.3f}{row['not_supported']:>8.3f}"
            f"{row['inconclusive']:>8.3f}{row['peer']:>8.3f}{mark}"
        )


if __name__ == "__main__":
    main()
