"""Settings become a plan: every name looked up, every option checked, everything that decides the outcome digested.

A run is named by the digest of its plan. Two runs with the same digest breed the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecology.breeder.learners import LEARNERS
from ecology.breeder.schooling import SCHOOLS, breeder_of
from ecology.contracts.evidence import Suite
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import Policy
from ecology.contracts.run import Budget, ChildPlan, FounderPlan, RunPlan
from ecology.errors import ConfigError, EcologyError, from_system
from ecology.evaluator.corpora import load_corpus
from ecology.evaluator.library import load_any_suite
from ecology.evaluator.perturb import KINDS
from ecology.evaluator.stock import stock_suite
from ecology.kernel import canonical
from ecology.pipeline import compose
from ecology.pipeline.bench import base_spec
from ecology.pipeline.bench import preset as base_preset
from ecology.pipeline.options import choose, nearest, read_options
from ecology.pipeline.places import subject
from ecology.pipeline.power import refuse_blind
from ecology.pipeline.searching import search_mistakes
from ecology.pipeline.settings import (
    CLAIM_SUITES,
    BreederSettings,
    ClaimSettings,
    FounderSettings,
    GateSettings,
    PopulationSettings,
    Settings,
    TaskSettings,
)
from ecology.pipeline.teaching import planned_options
from ecology.policy.metrics import SHIPPED_SUITES
from ecology.policy.reader import load_policy, tighten
from ecology.promotion.canary import canary_plan
from ecology.promotion.fitness import fitness_spec
from ecology.promotion.traffic import load_traffic
from ecology.signer.keys import LocalSigner


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Options of a founder that comes from outside."""

    folder: str
    """A path, or the name of a shipped example."""


def load_gate_policy(gate: GateSettings) -> Policy:
    """The run's policy: the file, tightened by ``conf/gate``.

    Raises:
        PolicyError: Malformed, or the configuration would loosen it.
        ConfigError: No such file.
    """
    policy = load_policy(subject(gate.policy, "policies", ".yaml"))
    return tighten(policy, gate.tighten) if gate.tighten else policy


def load_suites(settings: Settings, policy: Policy | None = None) -> Mapping[str, Suite]:
    """The run's suites by id, in the order declared, then its stock tasks.

    Args:
        settings: Names them.
        policy: Whose code their tasks may run; None takes the settings' own.

    Raises:
        ConfigError: One is missing or malformed.
    """
    policy = policy or load_gate_policy(settings.gate)
    trusted = trusted_functions(policy)
    suites = [named_suite(name, trusted) for name in settings.evaluator.suites]
    suites += stock_suites(settings, trusted)
    known = {*(suite.id for suite in suites), *SHIPPED_SUITES}
    if strange := sorted(set(settings.evaluator.hidden_of) - known):
        what = f"there is no suite {strange[0]!r}{nearest(strange[0], sorted(known))}"
        raise ConfigError(what, where="evaluator.hidden_of")
    return {suite.id: suite for suite in suites}


def claim_suites(settings: Settings) -> tuple[str, ...]:
    """Names of the suites that claims ask, sorted."""
    return tuple(sorted({getattr(claim, key) for claim in settings.claims.values() for key in CLAIM_SUITES}))


def named_suite(name: str, trusted: tuple[str, ...] = ()) -> Suite:
    """One suite, by the name of a shipped one or by path.

    Args:
        name: Its name or path.
        trusted: Digests of the functions that its tasks may call.

    Raises:
        ConfigError: It is missing or malformed.
    """
    path = subject(name, "suites").resolve()
    file = path / "suite.yaml" if path.is_dir() else path
    seen = file.stat() if file.exists() else None
    return _read_suite(path, (seen.st_mtime_ns, seen.st_size, seen.st_ino) if seen else (), trusted)


def stock_suites(settings: Settings, trusted: tuple[str, ...]) -> list[Suite]:
    """The stock tasks that a configuration names, as its data lie there now.

    Raises:
        ConfigError: There is no such task or data.
    """
    return [_stock(name, task, trusted) for name, task in settings.evaluator.tasks.items()]


def trusted_functions(policy: Policy) -> tuple[str, ...]:
    """Digests of the Python files that a policy lets tasks run."""
    return policy.evaluation.functions if policy.evaluation else ()


def _stock(name: str, task: TaskSettings, trusted: tuple[str, ...]) -> Suite:
    folder = Path(task.folder).expanduser() if task.folder is not None else None
    return stock_suite(name, folder, task.revision, task.documents, tuple(map(Digest, trusted)))


@functools.lru_cache(maxsize=64)
def _read_suite(path: Path, stamp: tuple[int, ...], trusted: tuple[str, ...]) -> Suite:
    """One reading of a file serves the whole process: what is asked is what was planned."""
    del stamp
    return load_any_suite(path, tuple(map(Digest, trusted)))


def mistakes(plain: Mapping[str, Json]) -> tuple[str, ...]:
    """Everything that is wrong with a composed configuration, each with its path; empty when a run can be planned.

    Types and ranges first; then, for the groups that have the right shape, whatever the rooms know: kinds, options,
    parents, corpora, the policy and what would tighten it, suites, traffic, fitness, canary, base and key.
    """
    groups, problems = compose.sort_out(plain)
    population, breeders, evaluator = (groups.get(key) for key in ("population", "breeder", "evaluator"))
    if population is not None:
        if not population.founders:
            problems.append("population.founders: there is nobody to judge")
        problems += _told(*(functools.partial(_founder, name, f) for name, f in population.founders.items()))
        if breeders is not None:
            _children(population, breeders, 0, problems)
    trusted: list[str] = []
    if "gate" in groups:
        problems += _told(lambda: trusted.extend(trusted_functions(load_gate_policy(groups["gate"]))))
    if evaluator is not None:
        problems += _told(*(functools.partial(named_suite, name, tuple(trusted)) for name in evaluator.suites))
        problems += _told(
            *(functools.partial(_stock, name, task, tuple(trusted)) for name, task in evaluator.tasks.items())
        )
        problems += [] if evaluator.suites else ["evaluator.suites: there is nothing to ask"]
        twice = [name for name in dict.fromkeys(evaluator.suites) if evaluator.suites.count(name) > 1]
        problems += [f"evaluator.suites: {name!r} stands twice" for name in twice]
        unknown = [kind for kind in evaluator.perturbations if kind not in KINDS]
        problems += [f"evaluator.perturbations: {kind!r} is unknown; known: {', '.join(KINDS)}" for kind in unknown]
        problems += _told(lambda: load_traffic(subject(evaluator.traffic, "suites")))
    if "fitness" in groups:
        problems += _told(lambda: fitness_spec(groups["fitness"]))
    if "canary" in groups:
        problems += _told(lambda: canary_plan(groups["canary"]))
    if groups.get("optimise") is not None and population is not None and evaluator is not None:
        suites = list(_suite_ids(evaluator.suites))
        problems += search_mistakes(groups["optimise"], list(population.founders), suites)
    if "base" in groups:
        problems += _told(lambda: base_spec(groups["base"]))
    if groups.get("claims") and population is not None and breeders is not None:
        problems += _claims(groups["claims"], population, breeders)
    if "signer" in groups and groups["signer"].key is not None:
        problems += _told(lambda: LocalSigner.from_file(Path(groups["signer"].key).expanduser()))
    return tuple(dict.fromkeys(problems))


def _claims(
    claims: Mapping[str, ClaimSettings], population: PopulationSettings, breeders: Mapping[str, BreederSettings]
) -> list[str]:
    """Claims about somebody who is not in the run, or on suites that are not there."""
    known = {*population.founders, *(child.name for child in _children(population, breeders, 0, []))}
    problems = []
    for name, claim in claims.items():
        for key in ("adapters", "controls"):
            problems += [
                f"claims.{name}.{key}: nobody is called {one!r}{nearest(one, known)}"
                for one in getattr(claim, key)
                if one not in known
            ]
        suites = {getattr(claim, key) for key in CLAIM_SUITES}
        problems += _told(*(functools.partial(named_suite, suite) for suite in sorted(suites)))
    return problems


def _suite_ids(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        with contextlib.suppress(EcologyError, OSError):  # told already
            yield named_suite(name).id


def _told(*checks: Callable[[], object]) -> list[str]:
    problems = []
    for check in checks:
        try:
            check()
        except EcologyError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(str(from_system(error) or error))
    return problems


def make_plan(settings: Settings, config: Mapping[str, Json]) -> RunPlan:
    """The plan of one run.

    Args:
        settings: Checked configuration.
        config: The plain data it came from, recorded as it is.

    Raises:
        ConfigError: All mistakes of the configuration at once.
        PolicyError: The policy is the only mistake.
    """
    policy = load_gate_policy(settings.gate)  # alone, so that what is wrong with a policy keeps its own kind of error
    if problems := mistakes(config):
        raise ConfigError("\n  ".join(problems), where="configuration", todo="correct these keys")
    founders = tuple(_founder(name, founder) for name, founder in settings.population.founders.items())
    children = _children(settings.population, settings.breeder, settings.seed, [])
    refuse_blind(policy, budget_of(settings))
    asked = [*load_suites(settings).values(), *(named_suite(name) for name in claim_suites(settings))]
    suites = {suite.id: suite.digest for suite in asked}
    traffic = load_traffic(subject(settings.evaluator.traffic, "suites")).digest
    content = {
        "config": config,
        "founders": founders,
        "children": children,
        "policy": policy.digest,
        "suites": suites,
        "traffic": traffic,
    }
    return RunPlan(
        name=settings.name,
        seed=settings.seed,
        config=config,
        founders=founders,
        children=children,
        budget=budget_of(settings),
        policy=policy,
        suites=suites,
        traffic=traffic,
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
        hidden_of=dict(evaluator.hidden_of),
    )


def _founder(name: str, settings: FounderSettings) -> FounderPlan:
    where = f"population.founders.{name}"
    kinds: dict[str, type[Any]] = {kind: learner.options for kind, learner in LEARNERS.items()}
    kinds["import"] = ImportOptions
    kind = choose(kinds, settings.kind, where)
    checked = read_options(kind, settings.options, f"{where}.options")
    plain = canonical.plain(checked)
    if settings.kind in LEARNERS:
        corpus, _ = load_corpus(subject(str(plain["corpus"]), "corpora"))
        plain = {**plain, "corpus_digest": corpus.digest}
    breeds = settings.breeds and settings.kind in LEARNERS
    if settings.base:
        base_preset(settings.base)
    return FounderPlan(name, settings.kind, plain, tuple(sorted(settings.capabilities)), breeds, settings.base)


def _children(
    population: PopulationSettings, breeders: Mapping[str, BreederSettings], seed: int, problems: list[str]
) -> tuple[ChildPlan, ...]:
    """Every child in order; what is wrong with one is added to the problems, and it is left out."""
    breeding = {name: bool(f.base) for name, f in population.founders.items() if f.breeds and f.kind != "import"}
    planned: dict[str, ChildPlan] = {}
    wanted: set[str] = set()
    for name, breeder in breeders.items():
        for number, variant in enumerate(breeder.variants, start=1):
            child = f"{name}-{number}" if len(breeder.variants) > 1 else name
            wanted.add(child)
            if child in population.founders:
                problems.append(f"breeder.{name}: a founder has this name already")
            try:
                planned[child] = _child(child, name, breeder, variant, breeding, seed)
            except EcologyError as error:
                problems.append(str(error))
    return _in_order(planned, set(population.founders), wanted, problems)


def _child(
    child: str,
    name: str,
    breeder: BreederSettings,
    variant: Mapping[str, Any],
    breeding: Mapping[str, bool],
    seed: int,
) -> ChildPlan:
    """One child; ``breeding`` says of each founder that breeds whether it is of another base."""
    school = SCHOOLS.get(breeder.kind)
    operator = breeder_of(breeder.kind)
    merged = {**breeder.options, **variant}
    meets = school is not None and not school.same_base
    parents = breeder.parents or tuple(one for one, foreign in breeding.items() if meets or not foreign)
    if foreign := [one for one in parents if breeding.get(one) and not meets]:
        raise ConfigError(
            f"{foreign[0]} is of another base, and weights of different bases do not add",
            where=f"breeder.{name}.parents",
            todo="let it teach: kind: distill",
        )
    low, high = operator.parents_min, operator.parents_max
    if len(parents) < low or (high is not None and len(parents) > high):
        bound = f"at least {low}" if high is None else f"{low}" if low == high else f"{low} to {high}"
        raise ConfigError(
            f"{breeder.kind} takes {bound} parents, here are {len(parents)}",
            where=f"breeder.{name}.parents",
            todo="name them in parents: [...]",
        )
    if school is not None:
        checked = planned_options(breeder.kind, merged, f"breeder.{name}")
    else:
        checked = canonical.plain(read_options(operator.options, merged, f"breeder.{name}"))
    # One seed a child, so that adding a child does not change its neighbours.
    own_seed = int(canonical.digest({"seed": seed, "child": child})[7:20], 16)
    return ChildPlan(child, breeder.kind, checked, tuple(parents), own_seed)


def _in_order(
    planned: Mapping[str, ChildPlan], founders: set[str], wanted: set[str], problems: list[str]
) -> tuple[ChildPlan, ...]:
    """Children after their parents, otherwise in the order declared."""
    for child in planned.values():
        for parent in child.parents:
            if parent not in founders and parent not in wanted:
                near: Sequence[str] = difflib.get_close_matches(parent, [*founders, *wanted], n=1)
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
