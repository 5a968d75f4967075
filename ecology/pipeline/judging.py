"""Who may pass: every member climbs the ladder, cheapest rung first, and stops at its first refusal.

The screen is asked of everyone who is alive; the hidden items only of the few finalists that the screen leaves and
fitness prefers. A candidate that the screen did not refute and that is no finalist lacks evidence, which is
INCONCLUSIVE and admits to nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ecology.contracts.evidence import Against, Evidence, Item, Measurement, Proportion, Samples, Split, Suite, Turn
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Finding, GateVerdict, Policy
from ecology.contracts.promotion import Admitted, Rejected
from ecology.contracts.run import NOT_A_FINALIST, Budget, RaceReport
from ecology.errors import ConfigError
from ecology.evaluator.copying import overlap
from ecology.evaluator.corpora import Row
from ecology.evaluator.noise import noisy
from ecology.evaluator.suites import has_hidden
from ecology.evaluator.suites import items as expand
from ecology.gate import measured, serving
from ecology.gate.ladder import Climb, Rung, climb
from ecology.gate.static import StaticContext, context_for, retained_evidence, static_evidence
from ecology.kernel import canonical
from ecology.kernel.codec import structure
from ecology.kernel.racing import Race
from ecology.pipeline.bench import Bench, tokenizer_files
from ecology.pipeline.corpora import forbidden
from ecology.pipeline.house import House
from ecology.pipeline.members import Member
from ecology.pipeline.race import Lap, Track
from ecology.pipeline.thorough import contaminated, covered_and_calibrated, steady, told_by_lineage
from ecology.promotion.fitness import FitnessSpec, TermSpec, rank
from ecology.telemetry.memory import measure_serving_memory

Scores = Mapping[str, Mapping[str, bool | float]]
Settled = Mapping[str, Sequence[Item]]
"""Suite -> the items that were enough."""

ROBUST_SUITE = "orders"
"""The suite whose items are asked again with noise."""
PROBES = ("What is the capital of France?", "Name three colours.", "Write one sentence about the sea.")
"""Liveness looks at the logits of these."""
CELL_MINIMUM = 5
"""A cell of the coverage matrix with fewer items counts as not measured."""


@dataclasses.dataclass(frozen=True)
class Comparator:
    """What candidates are compared with."""

    name: str
    digest: Digest
    folder: Path | None
    """None for the bare base."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Everything that measuring needs, for one run."""

    policy: Policy
    budget: Budget
    corpora: Mapping[Digest, tuple[Row, ...]]
    """Rows of the corpora at hand, by digest."""
    bench: Bench
    suites: Mapping[str, Suite]
    incumbent: Comparator
    decided_at: str
    standing: tuple[Finding, ...] = ()
    """What the policy's own standing contributes to every verdict."""
    claimed: Mapping[Digest, Evidence] = dataclasses.field(default_factory=dict)
    """What claims of learning say of the adapters that they are about."""
    draw: str = "hidden"
    """Which secret draw plays the hidden items; any other than ``hidden`` leaves out what the first draw asks."""

    @property
    def house(self) -> House:
        """Of the bench."""
        return self.bench.house

    @property
    def base(self) -> Comparator:
        """The bare base."""
        return Comparator("base", self.bench.identity.base_weights, None)

    @functools.cached_property
    def track(self) -> Track | None:
        """Where candidates race; None where they do not."""
        if not self.budget.race_alpha:
            return None
        return Track(Race(self.budget.race_alpha, self.budget.race_look), self.policy, self.house.clock)

    def dropped(self, member: Member) -> tuple[Finding, ...]:
        """Why a member was dropped from the race."""
        return self.track.findings(member.digest) if self.track else ()

    def races(self) -> tuple[RaceReport, ...]:
        """What racing saved so far."""
        return self.track.reports() if self.track else ()

    @functools.cached_property
    def context(self) -> StaticContext:
        """What the static gate knows."""
        every = [
            item
            for suite in self.suites.values()
            for split in ("public", "hidden")
            for item in self.items(suite, split)
        ]
        shares = {digest: overlap(rows, every).exact for digest, rows in self.corpora.items()}
        return context_for(
            self.policy,
            self.bench.identity,
            self.bench.base.tensor_schema,
            weight_norms=self.bench.base.weight_norms,
            spectral_norms=self.bench.base.spectral_norms,
            development=self.house.development_keys,
            corpora=shares,
            revoked=self.house.registry.revoked(),
            base_names=self.bench.base.names,
            base_files=tokenizer_files(self.bench.base.folder),
            forbidden=forbidden,
        )

    def items(self, suite: Suite, split: str) -> tuple[Item, ...]:
        """A suite's items of one split; hidden and fresh ones follow from this home's secret seed."""
        if suite.kind == "lm_eval" or (split != "public" and not has_hidden(suite)):
            return ()  # lm-eval counts its own documents; what others published is public
        if (suite.id, split) not in self._drawn:
            self._drawn[suite.id, split] = self._draw(suite, split)
        return self._drawn[suite.id, split]

    @functools.cached_property
    def _drawn(self) -> dict[tuple[str, str], tuple[Item, ...]]:
        return {}

    def _draw(self, suite: Suite, split: str) -> tuple[Item, ...]:
        if split == "public":
            return expand(suite, "public", None, self.budget.public_items)
        if split == "fresh":
            return self._unseen(suite, "fresh", self.budget.fresh_items)
        if self.draw != "hidden":
            return self._unseen(suite, self.draw, self.budget.hidden_items)
        return self._secret(suite, "hidden", self.budget.hidden_items)

    def _secret(self, suite: Suite, draw: str, count: int) -> tuple[Item, ...]:
        return expand(suite, "hidden", self.house.split_seed(suite.digest, draw), count)

    def _unseen(self, suite: Suite, draw: str, count: int) -> tuple[Item, ...]:
        """The first items of a secret draw that are neither public nor in the hidden draw that everybody meets."""
        known = (*self.items(suite, "public"), *self._secret(suite, "hidden", self.budget.hidden_items))
        seen, wanted = {item.id for item in known}, count
        while True:  # ends: the grammar gives enough that nobody has seen, or says that it cannot
            fresh = tuple(item for item in self._secret(suite, draw, wanted) if item.id not in seen)
            if len(fresh) >= count:
                return fresh[:count]
            wanted += count - len(fresh)

    def _with(self, split: str) -> list[Suite]:
        """Suites that have this split: what others published is public."""
        return [suite for suite in self.suites.values() if split == "public" or has_hidden(suite)]

    def ask(self, who: Digest, folder: Path | None, suite: Suite, split: Split) -> Scores:
        """Scores of one subject on one split of one suite."""
        return self.bench.evaluator.ask(who, folder, suite, split, self.items(suite, split))

    def asked(self, who: Digest, folder: Path | None, split: Split, only: Settled | None = None) -> Evidence:
        """Evidence of one subject on one split of every suite; of fewer items where a race was settled early."""
        found: list[Measurement] = []
        for suite in self._with(split):
            items = (only or {}).get(suite.id, self.items(suite, split))
            found += self._measured(who, folder, suite, split, items)
        return tuple(found)

    def _measured(
        self, who: Digest, folder: Path | None, suite: Suite, split: Split, items: Sequence[Item]
    ) -> Evidence:
        scores = self.bench.evaluator.ask(who, folder, suite, split, items)
        source = canonical.digest([suite.digest, [item.id for item in items]])
        return measured.proportions(who, suite.id, split, scores, source, _families(items))

    def measure(self, member: Member, suite: Suite, split: Split, items: Sequence[Item]) -> Evidence:
        """Evidence of a member on some items of a suite, compared with the incumbent where any rule asks for that."""
        found = self._measured(member.digest, member.folder, suite, split, items)
        paired = any(r.against == "incumbent" and r.metric.startswith(f"{suite.id}.") for r in self.policy.rules)
        return (*found, *(self._compared(member, suite, split, items) if paired else ()))

    def _compared(self, member: Member, suite: Suite, split: Split, items: Sequence[Item]) -> Evidence:
        """Against the incumbent, item by item."""
        ask, rival = self.bench.evaluator.ask, self.incumbent
        ours = ask(member.digest, member.folder, suite, split, items)
        theirs = ask(rival.digest, rival.folder, suite, split, items)
        return measured.compared(
            member.digest,
            suite.id,
            split,
            ours,
            theirs,
            "incumbent",
            rival.digest,
            floor=self._floor(items),
            families=_families(items),
        )

    def _floor(self, items: Sequence[Item]) -> float:
        """What guessing reaches, on average over the items; 0 where nothing can be guessed or nobody asks."""
        chances = [1 / len(item.choices) for item in items if item.choices]
        return math.fsum(chances) / len(chances) if chances and self.budget.require_signal else 0.0

    def _raced(self, member: Member, split: Split) -> Lap:
        """The race of one member over one split; an empty lap where nobody races."""
        if self.track is None:
            return Lap((), None, {})

        def measure(suite: Suite, items: Sequence[Item]) -> Evidence:
            return self.measure(member, suite, split, items)

        field = [(suite, self.items(suite, split)) for suite in self._with(split)]
        return self.track.run(member.digest, field, split, self.house.split_seed(self.policy.digest, "race"), measure)

    def static(self, member: Member) -> Evidence:
        """Rung 1: no model."""
        evidence = static_evidence(member.submission, self.context)
        claimed = self.claimed.get(member.digest, ())
        return (*evidence, *retained_evidence(member.submission, self.context), *claimed)

    def liveness(self, member: Member) -> Evidence:
        """Rung 2: does it apply, exactly, and leave the base alone?"""
        engine = self.bench.engine
        note = canonical.digest(["liveness", member.digest, engine.identity, engine.fingerprint, PROBES])
        kept = self.house.recall("liveness", note)
        if kept is None:
            self.house.remember("liveness", note, engine.liveness(member.folder, PROBES))
            kept = self.house.recall("liveness", note) or b"[]"
        return measured.liveness(member.digest, json.loads(kept))

    def screen(self, member: Member) -> Evidence:
        """Rung 3: the public items, as many of them as it takes."""
        lap = self._raced(member, "public")
        return lap.evidence if lap.finding else self.asked(member.digest, member.folder, "public", lap.asked)

    def hidden(self, member: Member) -> Evidence:
        """Rung 4: the hidden items, also paired with the incumbent's answers, noise and coverage."""
        self._open(member)
        lap = self._raced(member, "hidden")
        if lap.finding:
            return lap.evidence
        found = list(self.asked(member.digest, member.folder, "hidden", lap.asked))
        for suite in self._with("hidden"):
            found += self._compared(member, suite, "hidden", lap.asked.get(suite.id, self.items(suite, "hidden")))
        return (*found, *self._finalist(member), *self._robust(member), self._coverage(member))

    def _finalist(self, member: Member) -> Evidence:
        """What the lineage tells of every finalist; and with the full preset what asking again tells."""

        def ask(suite: Suite, split: Split, items: Sequence[Item]) -> Scores:
            return self.bench.evaluator.ask(member.digest, member.folder, suite, split, items)

        suites = [(suite, self.items(suite, "public"), self.items(suite, "hidden")) for suite in self._with("hidden")]
        lineage = {corpus.digest for corpus in member.signed.genome.lineage.corpora} if member.signed else set()
        rows = {digest: rows for digest, rows in self.corpora.items() if digest in lineage}
        found = list(told_by_lineage(member.digest, suites, rows))
        if kinds := self.budget.perturbations:
            noise = functools.partial(self.house.split_seed, split="noise")
            found += steady(member.digest, suites, kinds, noise, ask)
        if self.budget.thorough:
            twin = functools.partial(self.house.split_seed, split="twin")
            found += contaminated(member.digest, suites, twin, ask)
            found += covered_and_calibrated(member.digest, suites, ask)
        return tuple(found)

    def _open(self, member: Member) -> None:
        """Notes that a candidate is shown the hidden items, within the budget of such looks.

        Raises:
            ConfigError: So many adapters were asked them that their scores have been selected on.
        """
        facts = [event.body for event in self.house.log.events() if event.kind == "opened"]
        for suite in self._with("hidden"):
            opened = {
                str(body.get("subject"))
                for body in facts
                if (body.get("suite"), body.get("seed")) == (suite.digest, self.house.seed_commitment)
            }
            if member.digest not in opened and len(opened - {self.base.digest}) >= self.budget.hidden_queries:
                raise ConfigError(
                    f"the hidden items of {suite.id} were opened by {len(opened)} adapters, the budget of queries is "
                    f"{self.budget.hidden_queries}",
                    where="evaluator.hidden_queries",
                    todo="renew the secret seed: what so many were judged on has chosen among them",
                )
        self._opened(member.digest)

    def _opened(self, subject: Digest) -> None:
        """Every opening is a fact, that for the comparison table as well."""
        for suite in self._with("hidden"):
            body = {"suite": suite.digest, "split": "hidden", "seed": self.house.seed_commitment, "subject": subject}
            self.house.record("opened", body)

    def resources(self, member: Member) -> Evidence:
        """Rung 5: latency in turn with base and incumbent, memory in a fresh process, size."""
        prompts = [item.prompt for suite in self._with("hidden")[:1] for item in self.items(suite, "public")]
        prompts = prompts or list(PROBES)  # a policy may ask for no suite
        count = self.budget.latency_pairs
        prompts = [prompts[i % len(prompts)] for i in range(count)]
        tokens = self.budget.latency_tokens
        rivals = [self.base]  # at genesis the incumbent is the base; an adapter that serves is timed in turn with both
        if self.incumbent.folder is not None and self.incumbent.digest != member.digest:
            rivals.append(self.incumbent)
        who = [member.digest, *(rival.digest for rival in rivals)]
        note = canonical.digest(["turns", who, self.bench.engine.fingerprint, prompts, tokens])
        kept = self.house.recall("resources", note)
        if kept is None:
            label = f"resources of {member.name}"
            with self.house.progress.track(label, count + 1, "requests, then memory") as step:
                folders = [member.folder, *(rival.folder for rival in rivals)]
                turns = self.bench.engine.time_turns(folders, prompts, tokens, step)
                peak = measure_serving_memory(self.bench.base.folder, member.folder, prompts[:4])
                step.advance()
            self.house.remember("resources", note, {"turns": turns, "peak_bytes": peak})
            kept = self.house.recall("resources", note) or b"{}"
        said = json.loads(kept)
        timed = structure(tuple[tuple[Turn, ...], ...], said["turns"], "resources")
        pairs = [(ours.total_s, base.total_s) for ours, base, *_ in timed]
        apart: list[Measurement] = []
        for place, rival in enumerate(rivals, 1):
            against: Against = "base" if place == 1 else "incumbent"
            apart += serving.turns(member.digest, rival.digest, against, [(one[0], one[place]) for one in timed])
        size = Samples((float(member.submission.artifact.size_bytes),), "bytes")
        return (
            *measured.resources(member.digest, self.base.digest, pairs, said["peak_bytes"]),
            *serving.absolute(member.digest, [one[0] for one in timed]),
            *apart,
            Measurement("resource.size_bytes", member.digest, size, source="size/v1"),
        )

    def references(self, judged: Sequence[Judged]) -> tuple[Evidence, Mapping[Digest, Evidence]]:
        """The base's hidden scores, and those of the finalists' parents: for the comparison table, seen by no rule."""
        self._opened(self.base.digest)
        base = self.asked(self.base.digest, self.base.folder, "hidden")
        finalists = [one for one in judged if any(m.split == "hidden" for m in one.evidence)]
        parents = {p for one in finalists if one.member.signed for p in one.member.signed.genome.lineage.parents}
        done = {one.digest for one in finalists}
        wanted = [one for one in judged if one.digest in parents - done and self._fits(one.member)]
        for one in wanted:
            self._opened(one.digest)
        return base, {one.digest: self.asked(one.digest, one.member.folder, "hidden") for one in wanted}

    def _fits(self, member: Member) -> bool:
        """Whether it can be asked here at all: a teacher of another family cannot."""
        return member.signed is None or member.signed.genome.identity == self.bench.identity

    def _robust(self, member: Member) -> Evidence:
        suite = self.suites.get(ROBUST_SUITE)
        if suite is None:
            return ()
        seed = self.house.split_seed(suite.digest, "noise")
        asked = tuple(noisy(item, seed) for item in self.items(suite, "hidden")[: self.budget.public_items])
        scores = self.bench.evaluator.ask(member.digest, member.folder, suite, "hidden", asked)
        exact = scores["exact"]
        source = canonical.digest([item.id for item in asked])
        statistic = Proportion(sum(bool(v) for v in exact.values()), len(exact))
        return (Measurement("robust.exact", member.digest, statistic, "hidden", source=source),)

    def _coverage(self, member: Member) -> Measurement:
        cells: dict[tuple[str, str], int] = {}
        for suite in self._with("hidden"):
            for item in self.items(suite, "hidden"):
                cells[suite.capability, item.category] = cells.get((suite.capability, item.category), 0) + 1
        measured = sum(count >= CELL_MINIMUM for count in cells.values())
        return Measurement("coverage.cells", member.digest, Proportion(measured, len(cells)), source="coverage/v1")


def _families(items: Sequence[Item]) -> Mapping[str, str]:
    return {item.id: item.family for item in items}


@dataclasses.dataclass(frozen=True)
class Judged:
    """One member with its verdict."""

    member: Member
    climb: Climb

    @property
    def verdict(self) -> GateVerdict:
        """The worst of all findings so far."""
        return self.climb.verdict

    @property
    def evidence(self) -> Evidence:
        """Everything measured before the verdict."""
        return self.climb.evidence

    @property
    def rung(self) -> str:
        """Where it was stopped: a rung that refused, ``not a finalist``, or empty for the admitted."""
        return self.climb.rung or ("" if self.verdict.outcome.admits else NOT_A_FINALIST)

    @property
    def digest(self) -> Digest:
        """Of the artifact."""
        return self.member.digest

    @property
    def admitted(self) -> bool:
        """Whether it passed the whole ladder, as something of ours that may be promoted."""
        return self.verdict.outcome.admits and self.member.signed is not None

    @property
    def value(self) -> Admitted | Rejected:
        """The stage's own type, for those who take only what may go on."""
        if self.admitted and self.member.signed is not None:
            return Admitted(self.member.signed, self.member.submission, self.verdict, self.evidence)
        return Rejected(self.member.submission, self.verdict, self.evidence, self.rung)


RUNGS = ("static", "liveness", "screen", "hidden", "resources")
"""The whole ladder, cheapest first."""


def comparator(bench: Bench, digest: str | None) -> Comparator:
    """An incumbent by its digest; the bare base at genesis, when an alias names nobody.

    Raises:
        IntegrityError: The store does not hold it.
    """
    if digest in (None, bench.identity.base_weights):
        return Comparator("base", bench.identity.base_weights, None)
    return Comparator("champion", Digest(digest), bench.house.store.folder(Digest(digest)))


def judge_all(judge: Judge, members: Sequence[Member], fitness: FitnessSpec) -> tuple[Judged, ...]:
    """Verdicts on all members, in their order.

    Raises:
        IntegrityError: The resident base is no longer the base.
    """
    first: dict[str, Judged] = {}
    with judge.house.progress.track("gates: static, liveness, screen", len(members), "candidate") as step:
        for member in members:
            first[member.name] = climb_all(judge, member, ("static", "liveness", "screen"))
            step.advance(1, f"{member.name}: {first[member.name].climb.rung or 'goes on'}")
    open_ones = [one for one in first.values() if not one.climb.rung]
    finalists = [one.member.name for one in _preferred(judge, open_ones, fitness)[: judge.budget.finalists]]
    judged = []
    with judge.house.progress.track("gates: hidden items, resources", len(finalists), "finalist") as step:
        for one in first.values():
            if one.member.name in finalists:
                judged.append(climb_all(judge, one.member, ("hidden", "resources"), one.climb))
                step.advance(1, f"{one.member.name}: {judged[-1].rung or 'passed'}")
            else:
                judged.append(one)
    return tuple(judged)


def climb_all(judge: Judge, member: Member, names: Sequence[str], earlier: Climb | None = None) -> Judged:
    """One member climbs the named rungs, on from an earlier climb if there was one.

    Raises:
        IntegrityError: The resident base is no longer the base.
    """
    measure: Mapping[str, Callable[[Member], Evidence]] = {
        "static": judge.static,
        "liveness": judge.liveness,
        "screen": judge.screen,
        "hidden": judge.hidden,
        "resources": judge.resources,
    }
    dropped = functools.partial(judge.dropped, member)
    rungs = [Rung(name, functools.partial(measure[name], member), dropped) for name in names]
    climbed = climb(member.submission, judge.policy, rungs, judge.decided_at, earlier=earlier, standing=judge.standing)
    if "liveness" in climbed.climbed:
        judge.bench.engine.prove_base()  # a trace in the base would be everyone's, so it ends the run
    return Judged(member, climbed)


def _preferred(judge: Judge, open_ones: Sequence[Judged], fitness: FitnessSpec) -> list[Judged]:
    """Those likeliest to pass the hidden rules first, by what the screen saw; equals by fitness on the public items.

    Likeliest: the smallest distance of an observed rate from its threshold, in standard errors at the threshold.
    """
    public = {one.digest: one.evidence for one in open_ones}
    places = {f.subject: place for place, f in enumerate(rank(public, screening(fitness)))}

    def key(one: Judged) -> tuple[float, int]:
        return -round(_slack(judge.policy, one.evidence), 6), places[one.digest]

    return sorted(open_ones, key=key)


def _slack(policy: Policy, evidence: Evidence) -> float:
    distances = [math.inf]
    for rule in policy.rules:
        for m in evidence:
            same = (m.metric, m.split, rule.split) == (rule.metric, "public", "public")
            if same and isinstance(m.statistic, Proportion) and m.statistic.n and 0 < rule.threshold < 1:
                error = math.sqrt(rule.threshold * (1 - rule.threshold) / m.statistic.n)
                sign = -1.0 if rule.comparator == "<=" else 1.0
                distances.append(sign * (m.statistic.k / m.statistic.n - rule.threshold) / error)
    return min(distances)


def screening(fitness: FitnessSpec) -> FitnessSpec:
    """The fitness as far as public items can tell: hidden terms read the public split, the others weigh nothing."""
    terms = {
        name: dataclasses.replace(
            term, split="public", weight=term.weight if "." in term.metric and screened(term) else 0.0
        )
        for name, term in fitness.terms.items()
    }
    return dataclasses.replace(fitness, terms=terms)


def screened(term: TermSpec) -> bool:
    """Whether the screen measures what a term reads."""
    return term.split == "hidden" and not term.metric.startswith("robust.")
