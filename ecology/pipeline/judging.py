"""What each rung of the ladder measures of a member, and of whom it is compared with.

Who climbs which rung is in ``climbing``, which items play which split in ``draws``. What was measured is noted by the
digest of everything it depends on, so a run that goes on asks nothing twice.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ecology.contracts.evidence import Evidence, Item, Measurement, Proportion, Samples, Split, Suite, Turn
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Finding, Policy
from ecology.contracts.run import Budget, RaceReport
from ecology.errors import ConfigError
from ecology.evaluator.copying import overlap
from ecology.evaluator.corpora import Row
from ecology.evaluator.noise import noisy
from ecology.evaluator.suites import has_hidden
from ecology.gate import measured, serving
from ecology.gate.context import StaticContext, context_for
from ecology.gate.static import StaticRung, retained_evidence
from ecology.kernel import canonical
from ecology.kernel.racing import Race
from ecology.pipeline.bench import Bench, tokenizer_files
from ecology.pipeline.corpora import forbidden
from ecology.pipeline.draws import Draws
from ecology.pipeline.house import House
from ecology.pipeline.judged import Comparator, Judged
from ecology.pipeline.members import Member
from ecology.pipeline.race import Lap, Track
from ecology.pipeline.thorough import contaminated, covered_and_calibrated, steady, told_by_lineage
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


@dataclasses.dataclass(frozen=True, slots=True)
class Used:
    """What an adapter and its rivals took."""

    turns: tuple[tuple[Turn, ...], ...]
    """One a prompt: of the adapter, of the base, and of the incumbent where that is an adapter."""
    peak_bytes: int
    """Of a fresh process that serves the adapter."""


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
    unsettled: dict[Digest, tuple[Finding, ...]] = dataclasses.field(default_factory=dict)
    """Of members whose static answers do not follow from their bytes alone."""
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
        """Why a member was dropped from the race, or why what was seen of it statically is not the last word."""
        lost = self.track.findings(member.digest) if self.track else ()
        return (*self.unsettled.get(member.digest, ()), *lost)

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

    @functools.cached_property
    def _draws(self) -> Draws:
        return Draws(self.budget, self.house, self.draw)

    def items(self, suite: Suite, split: str) -> tuple[Item, ...]:
        """A suite's items of one split; hidden and fresh ones follow from this home's secret seed."""
        return self._draws.items(suite, split)

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
        rung = StaticRung(member.submission, self.context)
        evidence = rung.measure()
        self.unsettled[member.digest] = rung.findings()
        claimed = self.claimed.get(member.digest, ())
        return (*evidence, *retained_evidence(member.submission, self.context), *claimed)

    def liveness(self, member: Member) -> Evidence:
        """Rung 2: does it apply, exactly, and leave the base alone?"""
        engine = self.bench.engine
        note = canonical.digest(["liveness", member.digest, engine.identity, engine.fingerprint, PROBES])
        failures = self.house.recall("liveness", note, tuple[str, ...])
        if failures is None:
            failures = engine.liveness(member.folder, PROBES)
            self.house.remember("liveness", note, failures)
        return measured.liveness(member.digest, failures)

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
        rival = self.incumbent
        serves = rival.folder is not None and rival.digest != member.digest

        def note(*others: Comparator) -> Digest:
            who = [member.digest, *(one.digest for one in others)]
            return canonical.digest(["turns", who, self.bench.engine.fingerprint, prompts, tokens])

        # What an adapter costs beside the base is kept for itself: with a new incumbent it must not become another
        # figure, or the ranking of the same candidates would follow the noise of two sessions.
        alone, beside = note(self.base), note(self.base, rival)
        used = self.house.recall("resources", alone, Used)
        three = self.house.recall("resources", beside, Used) if serves else used
        if used is None or three is None:
            label = f"resources of {member.name}"
            with self.house.progress.track(label, count + 1, "requests, then memory") as step:
                folders = [member.folder, self.base.folder, *([rival.folder] if serves else [])]
                turns = self.bench.engine.time_turns(folders, prompts, tokens, step)
                peak = (
                    used.peak_bytes
                    if used
                    else measure_serving_memory(self.bench.base.folder, member.folder, prompts[:4])
                )
                step.advance()
            three = Used(turns, peak)
            if serves:
                self.house.remember("resources", beside, three)
            if used is None:
                used = Used(tuple(one[:2] for one in turns), peak)
                self.house.remember("resources", alone, used)
        pairs = [(ours.total_s, base.total_s) for ours, base, *_ in used.turns]
        apart = list(serving.turns(member.digest, self.base.digest, "base", [(one[0], one[1]) for one in used.turns]))
        if serves:
            against = [(one[0], one[2]) for one in three.turns]
            apart += serving.turns(member.digest, rival.digest, "incumbent", against)
        size = Samples((float(member.submission.artifact.size_bytes),), "bytes")
        return (
            *measured.resources(member.digest, self.base.digest, pairs, used.peak_bytes),
            *serving.absolute(member.digest, [one[0] for one in used.turns]),
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
