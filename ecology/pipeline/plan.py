"""Settings become a plan: every name looked up, every option checked, everything that decides the outcome digested.

A run is named by the digest of its plan. Two runs with the same digest breed the same bytes.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ecology.breeder.finetune import FinetuneOptions
from ecology.breeder.operators import find
from ecology.contracts.evidence import Suite
from ecology.contracts.identity import Json
from ecology.contracts.policy import Policy
from ecology.contracts.run import Budget, ChildPlan, FounderPlan, RunPlan
from ecology.errors import ConfigError, EcologyError
from ecology.evaluator.library import load_any_suite
from ecology.evaluator.suites import load_corpus
from ecology.kernel import canonical
from ecology.pipeline import compose
from ecology.pipeline.places import subject
from ecology.pipeline.power import refuse_blind
from ecology.pipeline.settings import BreederSettings, FounderSettings, Settings
from ecology.policy.reader import load_policy, tighten


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Options of a founder that comes from outside."""

    folder: str
    """A path, or the name of a shipped example."""


def load_gate_policy(settings: Settings) -> Policy:
    """The run's policy: the file, tightened by ``conf/gate``.

    Raises:
        PolicyError: Malformed, or the configuration would loosen it.
        ConfigError: No such file.
    """
    policy = load_policy(subject(settings.gate.policy, "policies", ".yaml"))
    return tighten(policy, settings.gate.tighten) if settings.gate.tighten else policy


def load_suites(settings: Settings) -> Mapping[str, Suite]:
    """The run's suites by id, in the order declared.

    Raises:
        ConfigError: One is missing or malformed.
    """
    suites = [load_any_suite(subject(name, "suites")) for name in settings.evaluator.suites]
    return {suite.id: suite for suite in suites}


def make_plan(settings: Settings, config: Mapping[str, Json]) -> RunPlan:
    """The plan of one run.

    Args:
        settings: Checked configuration.
        config: The plain data it came from, recorded as it is.

    Raises:
        ConfigError: All unknown kinds, wrong options and missing parents at once.
        PolicyError: The policy cannot be applied.
    """
    problems: list[str] = []
    founders = []
    for name, founder in settings.population.founders.items():
        try:
            founders.append(_founder(name, founder))
        except EcologyError as error:
            problems.append(str(error))
    children = _children(settings, problems)
    if not founders:
        problems.append("population.founders: there is nobody to judge")
    if problems:
        raise ConfigError("\n  ".join(problems), where="configuration", todo="correct these keys")
    policy = load_gate_policy(settings)
    refuse_blind(policy, budget_of(settings))
    suites = {suite.id: suite.digest for suite in load_suites(settings).values()}
    content = {
        "config": config,
        "founders": founders,
        "children": children,
        "policy": policy.digest,
        "suites": suites,
    }
    return RunPlan(
        name=settings.name,
        seed=settings.seed,
        config=config,
        founders=tuple(founders),
        children=children,
        budget=budget_of(settings),
        policy=policy,
        suites=suites,
        digest=canonical.digest(content),
    )


def budget_of(settings: Settings) -> Budget:
    """How much may be spent on measuring."""
    evaluator = settings.evaluator
    return Budget(
        public_items=evaluator.public_items,
        hidden_items=evaluator.hidden_items,
        finalists=evaluator.finalists,
        latency_pairs=evaluator.latency_pairs,
        latency_tokens=evaluator.latency_tokens,
        batch_size=settings.backend.batch_size,
        threads=settings.backend.threads,
        race_alpha=evaluator.race.alpha if evaluator.race else 0.0,
        race_look=max(1, evaluator.race.look) if evaluator.race else 16,
        require_signal=evaluator.require_signal,
        hidden_queries=evaluator.hidden_queries,
        fresh_items=evaluator.fresh_items,
        perturbations=evaluator.perturbations,
        thorough=evaluator.thorough,
    )


def _founder(name: str, settings: FounderSettings) -> FounderPlan:
    where = f"population.founders.{name}"
    kinds: Mapping[str, type[Any]] = {"finetune": FinetuneOptions, "import": ImportOptions}
    kind = compose.choose(kinds, settings.kind, where)
    checked = compose.options(kind, settings.options, f"{where}.options")
    plain = canonical.plain(checked)
    if settings.kind == "finetune":
        corpus, _ = load_corpus(subject(str(plain["corpus"]), "corpora"))
        plain = {**plain, "corpus_digest": corpus.digest}
    breeds = settings.breeds and settings.kind == "finetune"
    return FounderPlan(name, settings.kind, plain, tuple(sorted(settings.capabilities)), breeds)


def _children(settings: Settings, problems: list[str]) -> tuple[ChildPlan, ...]:
    breeding = tuple(name for name, f in settings.population.founders.items() if f.breeds and f.kind == "finetune")
    planned: dict[str, ChildPlan] = {}
    for name, breeder in settings.breeder.items():
        for number, variant in enumerate(breeder.variants, start=1):
            child = f"{name}-{number}" if len(breeder.variants) > 1 else name
            if child in settings.population.founders:
                problems.append(f"breeder.{name}: a founder has this name already")
            try:
                planned[child] = _child(child, name, breeder, variant, breeding, settings.seed)
            except EcologyError as error:
                problems.append(str(error))
    return _in_order(planned, set(settings.population.founders), problems)


def _child(
    child: str, name: str, breeder: BreederSettings, variant: Mapping[str, Any], breeding: tuple[str, ...], seed: int
) -> ChildPlan:
    operator = find(breeder.kind)
    merged = {**breeder.options, **variant}
    parents = breeder.parents or breeding
    low, high = operator.parents_min, operator.parents_max
    if len(parents) < low or (high is not None and len(parents) > high):
        bound = f"at least {low}" if high is None else f"{low}" if low == high else f"{low} to {high}"
        raise ConfigError(
            f"{breeder.kind} takes {bound} parents, here are {len(parents)}",
            where=f"breeder.{name}.parents",
            todo="name them in parents: [...]",
        )
    checked = compose.options(operator.options, merged, f"breeder.{name}")
    # One seed a child, so that adding a child does not change its neighbours.
    own_seed = int(canonical.digest({"seed": seed, "child": child})[7:20], 16)
    return ChildPlan(child, breeder.kind, canonical.plain(checked), tuple(parents), own_seed)


def _in_order(planned: Mapping[str, ChildPlan], founders: set[str], problems: list[str]) -> tuple[ChildPlan, ...]:
    """Children after their parents, otherwise in the order declared."""
    for child in planned.values():
        for parent in child.parents:
            if parent not in founders and parent not in planned:
                near: Sequence[str] = difflib.get_close_matches(parent, [*founders, *planned], n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                problems.append(f"breeder: child {child.name!r} names an unknown parent {parent!r}{hint}")
    ordered: dict[str, ChildPlan] = {}
    waiting = dict(planned)
    while waiting:
        ready = [
            c for c in waiting.values() if all(p in founders or p in ordered or p not in planned for p in c.parents)
        ]
        if not ready:
            problems.append(f"breeder: {', '.join(waiting)} are each other's ancestors")
            return ()
        for child in ready:
            ordered[child.name] = waiting.pop(child.name)
    return tuple(ordered.values())
