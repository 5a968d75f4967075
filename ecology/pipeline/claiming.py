"""Claims of a run: the adapters of one recipe, a seed each, put through ``kernel.gain`` before the gates are climbed.

Test items are drawn from secret seeds, one draw a seed of the recipe, and leave out every prompt that stands in a
corpus of the adapters' lineage and every item of another seed: so no run was trained on what it is tested on, and the
runs' tests are independent. What came of it is evidence of each adapter (``claim.missed``), which a policy may demand,
and stands in the report as one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ecology.contracts.artifact import Corpus
from ecology.contracts.evidence import Count, Evidence, Item, Measurement, Suite
from ecology.contracts.gain import CLAIM_METRIC, GainClaim, GainEvidence, SeedEvidence
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError
from ecology.evaluator.copying import words
from ecology.evaluator.corpora import Row
from ecology.evaluator.gain import Questions, Subject, seed_evidence
from ecology.evaluator.prose import PROSE, perplexity
from ecology.evaluator.suites import items as expand
from ecology.kernel import canonical
from ecology.kernel.gain import decide
from ecology.pipeline.bench import Bench
from ecology.pipeline.members import Member
from ecology.pipeline.plan import named_suite
from ecology.pipeline.settings import CLAIM_SUITES, ClaimSettings

MOST_DRAWS = 5
"""Each draw asks the grammar for twice as many items; one that cannot give enough by then is too small."""


def make_claims(
    wanted: Mapping[str, ClaimSettings],
    members: Sequence[Member],
    bench: Bench,
    corpora: Mapping[Digest, Sequence[Row]],
) -> tuple[GainClaim, ...]:
    """Every claim of a run, in the order of the configuration.

    Args:
        wanted: Claim name -> what is claimed of whom.
        members: Everybody in the run.
        bench: Asks.
        corpora: Rows of the corpora at hand.

    Raises:
        ConfigError: A claim names somebody or something unknown, or its suite is too small for disjoint tests.
        IntegrityError: The resident base is no longer the base.
    """
    return tuple(_claim(name, one, members, bench, corpora) for name, one in wanted.items())


def evidence_of(claims: Sequence[GainClaim]) -> Mapping[Digest, Evidence]:
    """What the claims mean for the adapters that they are about: violations, and a caveat where anything is open."""
    found: dict[Digest, tuple[Measurement, ...]] = {}
    for claim in claims:
        missed = tuple(f"{c.id}: {c.reason}" for c in claim.criteria if c.state == "missed")
        caveat = "" if claim.standing == "supported" else claim.line
        for seed in claim.evidence.seeds:
            told = Measurement(
                CLAIM_METRIC, seed.subject, Count(len(missed), missed), source=claim.evidence.source, caveat=caveat
            )
            found[seed.subject] = (*found.get(seed.subject, ()), told)
    return found


def _claim(
    name: str,
    wanted: ClaimSettings,
    members: Sequence[Member],
    bench: Bench,
    corpora: Mapping[Digest, Sequence[Row]],
) -> GainClaim:
    by_name = {member.name: member for member in members}
    where = f"claims.{name}"
    adapters = [_member(one, by_name, f"{where}.adapters") for one in wanted.adapters]
    controls = [_member(one, by_name, f"{where}.controls") for one in wanted.controls]
    planned = wanted.planned
    suites = {key: named_suite(getattr(wanted, key)) for key in CLAIM_SUITES}
    trained, unknown = _trained([*adapters, *controls], corpora)
    taken: set[str] = set()
    tests = {s: _draw(suites["task"], wanted.items, f"claim/{name}/{s}", trained, taken, bench) for s in planned}
    beside = {
        key: _draw(suites[key], count, f"claim/{name}/{key}", trained, set(), bench)
        for key, count in (
            ("neighbour", wanted.neighbour_items),
            ("safety", wanted.safety_items),
            ("elsewhere", wanted.elsewhere_items),
        )
    }
    base = Subject(bench.identity.base_weights, None)
    seeds: list[SeedEvidence] = []
    with bench.house.progress.track(f"claim {name}", len(adapters), "seed") as step:
        for place, adapter in enumerate(adapters):
            questions = Questions(
                task=suites["task"],
                tests=tests[planned[place]],
                better_prompt=wanted.better_prompt,
                neighbour=suites["neighbour"],
                near=beside["neighbour"],
                safety=suites["safety"],
                harmful=beside["safety"],
                elsewhere=suites["elsewhere"],
                others=beside["elsewhere"],
            )
            control = _subject(controls[place]) if place < len(controls) else None
            seeds.append(
                seed_evidence(
                    planned[place],
                    _subject(adapter),
                    control,
                    base,
                    questions,
                    bench.evaluator,
                    lambda who: _perplexity(bench, who),
                )
            )
            step.advance(1, adapter.name)
    drawn = [[item.id for item in tests[s]] for s in planned]
    around = [[item.id for item in part] for part in beside.values()]
    evidence = GainEvidence(
        name=name,
        task=suites["task"].id,
        planned=planned,
        items=wanted.items,
        shared=wanted.items if unknown else 0,
        seeds=tuple(seeds),
        source=canonical.digest([drawn, around, wanted.better_prompt, PROSE]),
    )
    return decide(evidence, wanted.demand)


def _member(name: str, members: Mapping[str, Member], where: str) -> Member:
    if name not in members:
        raise ConfigError(f"nobody in this run is called {name!r}", where=where, todo=f"known: {', '.join(members)}")
    return members[name]


def _subject(member: Member) -> Subject:
    return Subject(member.digest, member.folder)


def _trained(members: Sequence[Member], corpora: Mapping[Digest, Sequence[Row]]) -> tuple[set[str], bool]:
    """Prompts of all corpora of the lineages, and whether one of them is not at hand."""
    lineages: list[Corpus] = []
    unknown = False
    for member in members:
        if member.signed is None:
            unknown = True  # nobody says what it was trained on
        else:
            lineages += member.signed.genome.lineage.corpora
    unknown = unknown or any(corpus.digest not in corpora for corpus in lineages)
    rows = (row for corpus in lineages for row in corpora.get(corpus.digest, ()))
    return {_folded(row.prompt) for row in rows}, unknown


def _draw(suite: Suite, count: int, draw: str, trained: set[str], taken: set[str], bench: Bench) -> tuple[Item, ...]:
    """So many items of a draw of their own that nobody was trained on and no other seed has; they are taken then."""
    seed, wanted = bench.house.split_seed(suite.digest, draw), count
    for _ in range(MOST_DRAWS):
        drawn = expand(suite, "hidden", seed, wanted)
        fresh = [item for item in drawn if _folded(item.prompt) not in trained and item.id not in taken]
        if len(fresh) >= count:
            chosen = tuple(fresh[:count])
            taken.update(item.id for item in chosen)
            return chosen
        wanted *= 2
    raise ConfigError(
        f"{suite.id} has fewer than {count} items that nobody was trained on and no other seed is tested on",
        where=f"claims: {draw}",
        todo="ask fewer items, or a suite with more",
    )


def _folded(prompt: str) -> str:
    return " ".join(words(prompt))


def _perplexity(bench: Bench, who: Subject) -> float:
    engine = bench.engine
    note = canonical.digest(["prose", who.digest, engine.identity, engine.fingerprint, PROSE])
    found = bench.house.recall("prose", note, float)
    if found is None:
        found = perplexity(engine, who.folder)
        bench.house.remember("prose", note, found)
    return found
