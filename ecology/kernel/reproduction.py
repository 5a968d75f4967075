"""The boundaries of reproduction: what a policy's section of that name allows, decided from facts alone.

Breeding is cheap, so what keeps a population from growing out of anybody's sight is a limit and not a cost. Each limit
is one sentence here and one objection when it is crossed; all of them are found at once. Quarantine is not a limit of a
policy and is always asked: a parent that is revoked, or descends from one that is, never breeds.

A generation counts as *looked at* when people approved the adapter (k of n, ``ecology registry approve``); founders
are looked at by whoever wrote them into the plan. ``depth`` is how many generations lie between an adapter and the
nearest one that was looked at, on the longest way.

Law: tightening a limit, adding a quarantine or taking an approval away never removes an objection.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ecology.contracts.policy import ReproductionLimits


@dataclasses.dataclass(frozen=True, slots=True)
class Kin:
    """What is known of an adapter that may become a parent."""

    digest: str
    name: str
    generation: int
    parents: tuple[str, ...]
    children: int
    """Distinct children that it has already."""
    admitted: bool
    """Whether its last full verdict admits it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Population:
    """The facts of a home that the limits are about."""

    kin: Mapping[str, Kin]
    """Every adapter that was bred here, by digest."""
    approved: frozenset[str]
    """Digests that enough people approved."""
    quarantined: Mapping[str, str]
    """Digest -> reason."""
    runs_today: int
    """Started on this day, UTC, the present one not counted."""
    visitors: Mapping[str, Kin] = dataclasses.field(default_factory=dict)
    """Parents that were bred elsewhere, by what is signed of them; they count in no size."""

    def of(self, digest: str) -> Kin | None:
        """What is known of an adapter; the facts of this home go before what is signed."""
        return self.kin.get(digest) or self.visitors.get(digest)

    @property
    def size(self) -> int:
        """Adapters that were bred here and are not quarantined."""
        return sum(1 for digest in self.kin if digest not in self.quarantined)

    def depth(self, digest: str) -> int:
        """Generations since somebody looked; 0 for a founder, an approved one or one that was not bred here."""
        depths: dict[str, int] = {}
        stack = [digest]
        while stack:
            one = self.of(stack[-1])
            if one is None or one.generation == 0 or one.digest in self.approved:
                depths[stack.pop()] = 0
                continue
            missing = [p for p in one.parents if p not in depths and p not in stack]
            if missing:
                stack += missing
            else:
                depths[stack.pop()] = 1 + max((depths.get(p, 0) for p in one.parents), default=0)
        return depths[digest]


def run_objections(limits: ReproductionLimits | None, population: Population) -> tuple[str, ...]:
    """Why no run may start now; empty when one may."""
    if limits is None:
        return ()
    if population.runs_today >= limits.max_runs_per_day:
        allowed = f"{limits.max_runs_per_day} are allowed"
        return (f"{population.runs_today} runs were started today, and {allowed}",)
    return ()


def child_objections(
    limits: ReproductionLimits | None, population: Population, operator: str, parents: Sequence[str]
) -> tuple[str, ...]:
    """Why these parents may not have another child by this operator; empty when they may.

    Args:
        limits: Of the policy; None asks for quarantine alone.
        population: The home.
        operator: Name in the table of operators.
        parents: Digests; a parent may stand twice and counts once.
    """
    found = [f"{_name(population, p)} is quarantined: {why}" for p, why in _banned(population, parents)]
    if limits is None:
        return tuple(found)
    if limits.operators and operator not in limits.operators:
        found.append(f"operator {operator} is not allowed; these are: {', '.join(limits.operators)}")
    if len(parents) > limits.max_parents:
        found.append(f"{len(parents)} parents, and {limits.max_parents} are allowed")
    generation = 1 + max((one.generation for p in parents if (one := population.of(p)) is not None), default=0)
    if generation > limits.max_generation:
        found.append(f"it would be of generation {generation}, and {limits.max_generation} is the last one")
    if population.size >= limits.max_population:
        found.append(f"the population has {population.size}, and {limits.max_population} are allowed")
    depth = 1 + max((population.depth(p) for p in parents), default=0)
    if depth > limits.max_unapproved_generations:
        most = limits.max_unapproved_generations
        found.append(f"it would be {depth} generations from anything that people approved, and {most} are allowed")
    for parent in dict.fromkeys(parents):
        one = population.of(parent)
        if one is not None and one.children >= limits.max_children:
            found.append(f"{one.name} has {one.children} children, and {limits.max_children} are allowed")
        looked_at = parent in population.approved or (one is not None and (one.admitted or one.generation == 0))
        if limits.approved_parents_only and not looked_at:
            found.append(f"{_name(population, parent)} was neither admitted nor approved, and a parent must be")
    return tuple(found)


def _banned(population: Population, parents: Sequence[str]) -> list[tuple[str, str]]:
    return [(p, population.quarantined[p]) for p in dict.fromkeys(parents) if p in population.quarantined]


def _name(population: Population, digest: str) -> str:
    one = population.kin.get(digest)
    return one.name if one is not None and one.name else digest[:19]
