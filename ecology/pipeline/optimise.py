"""Search over mixing weights: children of one parent set, one point of the weight space each, against the evaluator.

A further child of the same parents costs milliseconds, so what a point costs is its answers, and those are cached by
the child's digest: the same search again, or a killed one, asks nothing twice. Only public items are asked. The best
point is a candidate like any other, to be bred, judged on hidden items and tried; a search over K points flatters its
winner, and this module promotes nobody.

``grid``     every combination of ``steps`` values between ``low`` and ``high``
``random``   ``trials`` uniform draws
``optuna``   ``trials`` proposals of Optuna's TPE sampler, each after the last was scored (extra ``optimise``)
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ecology.breeder.breed import written
from ecology.breeder.operators import find
from ecology.contracts.artifact import Artifact
from ecology.contracts.evidence import Suite
from ecology.contracts.identity import Digest, Json
from ecology.errors import ConfigError
from ecology.kernel import canonical
from ecology.lowrank.core import ParentSet
from ecology.lowrank.lowrank import LowRank, Stored
from ecology.lowrank.lowrank import canonical as settle
from ecology.pipeline.bench import Bench, open_bench
from ecology.pipeline.house import House
from ecology.pipeline.members import Member
from ecology.pipeline.options import read_options
from ecology.pipeline.plan import load_suites, make_plan
from ecology.pipeline.population import populate
from ecology.pipeline.settings import OptimiseSettings, Settings
from ecology.report.weights import Panel, weight_plane
from ecology.store.adapters import read_adapter
from ecology.store.files import write_atomic

Weights = tuple[float, ...]
WHOLE = 1.0 - 1e-9
"""Share of a child's change that projection must have kept for the child to be the weighted sum of its parents."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """One point of the weight space."""

    weights: Weights
    digest: Digest
    """Of the child."""
    scores: Mapping[str, float]
    """Metric -> share of the public items, 0 to 1."""
    items: Mapping[str, int]
    """Metric -> items asked."""
    objective: float
    """Sum of the scores times their coefficients."""
    retained_energy: float


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """A finished search."""

    operator: str
    parents: tuple[str, ...]
    """Names, in the order of the weights."""
    digests: tuple[Digest, ...]
    method: str
    objective: Mapping[str, float]
    trials: tuple[Trial, ...]
    """In the order asked."""

    @property
    def best(self) -> Trial:
        """Largest objective; the first of equals."""
        return max(self.trials, key=lambda trial: trial.objective)


def optimise(settings: Settings, config: Mapping[str, Json], house: House, folder: Path) -> Search:
    """Runs the search that ``settings.optimise`` describes; writes ``weights.json`` and ``weights.svg``.

    Args:
        settings: Checked configuration.
        config: The plain data it came from.
        house: Where founders and answers are kept.
        folder: For the two files; made when missing.

    Raises:
        ConfigError: All mistakes of the configuration at once, or a suite has no score of a name.
        BackendError: The engine cannot be had.
    """
    wanted = settings.optimise
    if wanted is None:
        raise ConfigError("there is no search in this configuration", where="optimise", todo="experiment=optimise")
    plan = make_plan(settings, config)
    suites = load_suites(settings)
    scores = {name: name.partition(".") for name in wanted.objective}
    metrics = [(name, suites[suite], score) for name, (suite, _, score) in scores.items()]
    bench = open_bench(settings.base, settings.backend, house)
    members = {member.name: member for member in populate(plan, house, bench)}
    names = wanted.parents or tuple(name for name, member in members.items() if member.breeds)
    parents = ParentSet([_adapter(members[name].folder) for name in names])
    make = _maker(wanted, parents, settings.seed)
    total = wanted.steps ** len(names) if wanted.method == "grid" else wanted.trials
    trials: list[Trial] = []
    with house.progress.track("weights", total, "point") as step:
        proposals = _proposals(wanted, len(names), settings.seed, lambda: trials[-1].objective)
        if wanted.method != "optuna":  # which proposes a point only when it has seen the last one
            known = list(proposals)
            _ahead(known, make, [members[name] for name in names], wanted, metrics, bench)
            proposals = iter(known)
        for weights in proposals:
            trials.append(_trial(weights, make(weights), metrics, wanted, suites, bench))
            step.advance(1, f"best {max(trial.objective for trial in trials):.3f}")
    digests = tuple(members[name].digest for name in names)
    search = Search(wanted.operator, tuple(names), digests, wanted.method, wanted.objective, tuple(trials))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "weights.json", canonical.canonical(search) + b"\n")
    if len(names) == 2:
        write_atomic(folder / "weights.svg", picture(search).encode())
    return search


def picture(search: Search) -> str:
    """The weight plane of two parents: one panel a metric, and one for the objective."""
    points = [(trial.weights[0], trial.weights[1]) for trial in search.trials]
    panels = [
        Panel(name.replace(".", " "), [trial.scores[name] for trial in search.trials], good=coefficient > 0)
        for name, coefficient in search.objective.items()
    ]
    panels.append(Panel("objective", [trial.objective for trial in search.trials], good=True, share=False))
    best = search.trials.index(search.best)
    return str(weight_plane(points, panels, (search.parents[0], search.parents[1]), best))


def summary(search: Search) -> list[str]:
    """The search in lines for people, best points first."""
    head = [f"w({name})" for name in search.parents] + [*search.objective, "objective"]
    rows = [head]
    for trial in sorted(search.trials, key=lambda trial: -trial.objective)[:5]:
        scores = [f"{100 * trial.scores[name]:.0f} %" for name in search.objective]
        rows.append([f"{weight:g}" for weight in trial.weights] + [*scores, f"{trial.objective:.3f}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    asked = sum(next(iter(search.trials)).items.values()) if search.trials else 0
    return [f"{len(search.trials)} points, {asked} public answers each", "", *lines]


def _adapter(folder: Path) -> LowRank:
    return LowRank.of({name: Stored(f.left, f.right, f.scale) for name, f in read_adapter(folder).modules.items()})


def _maker(wanted: OptimiseSettings, parents: ParentSet, seed: int) -> Callable[[Weights], LowRank]:
    row = find(wanted.operator)

    def make(weights: Weights) -> LowRank:
        options = read_options(row.options, {**wanted.options, "weights": list(weights)}, "optimise.options")
        with threadpool_limits(1, user_api="blas"):
            return settle(row.function(parents, options, seed))

    return make


def _ahead(
    points: Sequence[Weights],
    make: Callable[[Weights], LowRank],
    parents: Sequence[Member],
    wanted: OptimiseSettings,
    metrics: Sequence[tuple[str, Suite, str]],
    bench: Bench,
) -> None:
    """Has children that are nothing but weighted sums answer together, where that is faster than one after the other.

    A child that projection has changed is not such a sum, and answers for itself.
    """
    from ecology.evaluator.suites import items as expand  # noqa: PLC0415

    if wanted.operator != "linear":
        return
    children: dict[Digest, Weights] = {}
    with tempfile.TemporaryDirectory(prefix="weights-") as scratch:
        for number, weights in enumerate(points):
            child = make(weights)
            if child.retained_energy >= WHOLE:
                folder = Path(scratch) / str(number)
                children[written(child, folder, bench.base.name, bench.identity.base_weights).digest] = weights
    for suite in {suite.id: suite for _, suite, _ in metrics}.values():
        asked = expand(suite, "public", None, wanted.items)
        bench.evaluator.ask_mixtures([(p.digest, p.folder) for p in parents], children, suite, asked)


def _trial(
    weights: Weights,
    child: LowRank,
    metrics: Sequence[tuple[str, Suite, str]],
    wanted: OptimiseSettings,
    suites: Mapping[str, Suite],
    bench: Bench,
) -> Trial:
    from ecology.evaluator.suites import items as expand  # noqa: PLC0415

    scores, asked = {}, {}
    with tempfile.TemporaryDirectory(prefix="weights-") as scratch:
        folder = Path(scratch) / "child"
        artifact: Artifact = written(child, folder, bench.base.name, bench.identity.base_weights)
        for name, suite, score in metrics:
            items = expand(suites[suite.id], "public", None, wanted.items)
            found = bench.evaluator.ask(artifact.digest, folder, suite, "public", items)
            if score not in found:
                raise ConfigError(f"{suite.id} has no score {score!r}", where="optimise.objective", todo=str([*found]))
            values = [float(value) for value in found[score].values()]
            scores[name], asked[name] = sum(values) / len(values), len(values)
    objective = sum(coefficient * scores[name] for name, coefficient in wanted.objective.items())
    return Trial(weights, artifact.digest, scores, asked, objective, round(child.retained_energy, 6))


def _proposals(wanted: OptimiseSettings, count: int, seed: int, last: Callable[[], float]) -> Iterator[Weights]:
    """Points to try; ``last`` tells the objective of the one before."""
    if wanted.method == "grid":
        axis = [round(float(value), 12) for value in np.linspace(wanted.low, wanted.high, wanted.steps)]
        yield from itertools.product(axis, repeat=count)
    elif wanted.method == "random":
        generator = np.random.Generator(np.random.PCG64(seed))
        for _ in range(wanted.trials):
            yield tuple(round(float(value), 4) for value in generator.uniform(wanted.low, wanted.high, count))
    else:
        yield from _optuna(wanted, count, seed, last)


def _optuna(wanted: OptimiseSettings, count: int, seed: int, last: Callable[[], float]) -> Iterator[Weights]:
    import optuna  # noqa: PLC0415  (an extra: ``search_mistakes`` has seen that it is there)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study: Any = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for _ in range(wanted.trials):
        trial = study.ask()
        yield tuple(round(trial.suggest_float(f"w{i}", wanted.low, wanted.high), 4) for i in range(count))
        study.tell(trial, last())
