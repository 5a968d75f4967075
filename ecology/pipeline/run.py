"""The spine: one run, one direction.

    plan -> base -> population -> ladder -> fitness -> archive -> canary -> promotion -> report

Each step takes what the one before returned. Everything that happens is recorded as a fact; everything that is costly
is kept under the digest of what it came from, so that the same run again, or a killed one, repeats nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ecology.contracts.evidence import Evidence
from ecology.contracts.identity import Digest, Json
from ecology.contracts.promotion import CanaryPlan, CanaryResult, Fitness, Promotion, Revocation
from ecology.contracts.run import REPORT_SCHEMA, CandidateReport, RaceReport, RunPlan, RunReport, StageTime
from ecology.kernel import canonical
from ecology.kernel.codec import structure
from ecology.pipeline.bench import Bench, open_bench
from ecology.pipeline.boundaries import admit_run
from ecology.pipeline.corpora import corpora_of
from ecology.pipeline.house import House
from ecology.pipeline.judging import Judge, Judged, incumbent_of, judge_all
from ecology.pipeline.places import subject
from ecology.pipeline.plan import load_suites, make_plan
from ecology.pipeline.policies import govern
from ecology.pipeline.population import populate
from ecology.pipeline.rescoring import confirm
from ecology.pipeline.settings import Settings
from ecology.pipeline.traffic import server
from ecology.policy.boundaries import check_plan
from ecology.promotion import archive
from ecology.promotion.canary import canary_plan
from ecology.promotion.canary import run as run_canary
from ecology.promotion.fitness import FitnessSpec, fitness_spec, rank
from ecology.promotion.promote import decide_promotion, promotion_events
from ecology.promotion.traffic import load_traffic
from ecology.store.files import write_atomic
from ecology.telemetry.memory import peak_memory_bytes


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a run leaves."""

    report: RunReport
    restricted: tuple[Mapping[str, Json], ...]
    """Prompts and replies of harmful items, for the separate file."""


class Stages:
    """Seconds and peak memory of each stage, by the injected clock."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.times: list[StageTime] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measures the block, unless the home was stopped."""
        self._house.stop_check()
        start = self._house.clock.monotonic()
        yield
        self._house.stop_check()
        seconds = round(self._house.clock.monotonic() - start, 3)
        self.times.append(StageTime(name, seconds, peak_memory_bytes()))


def run(settings: Settings, config: Mapping[str, Json], house: House) -> Ran:
    """One run from configuration to report value.

    Raises:
        ConfigError: The plan cannot be made.
        PolicyError: The policy cannot be applied.
        IncompatibleParents: Parents were planned that may not meet.
        IntegrityError: Something held here is damaged.
        BackendError: The engine cannot start.
    """
    plan = make_plan(settings, config)
    canary = canary_plan(settings.canary)
    check_plan(plan, canary)
    fitness = fitness_spec(settings.fitness)
    with house.lock(f"run-{plan.digest.removeprefix('sha256:')[:16]}"):
        return _run(settings, plan, canary, fitness, house)


def _run(settings: Settings, plan: RunPlan, canary: CanaryPlan, fitness: FitnessSpec, house: House) -> Ran:
    started = house.clock.now()
    governed = govern(settings.gate.policy, started, policy=plan.policy)
    plan = dataclasses.replace(plan, policy=governed.policy)
    stages = Stages(house)
    with stages("base model"):
        bench = open_bench(settings.base, settings.backend, house)
    admit_run(plan.policy, house)
    house.record("run_started", {"run": plan.digest, "name": plan.name}, started)
    house.record("seed_committed", {"commitment": house.seed_commitment})
    with stages("population"):
        members = populate(plan, house, bench)
    judge = dataclasses.replace(_judge(settings, plan, house, bench, started), standing=governed.standing)
    with stages("gates"):
        judged = judge_all(judge, members, fitness)
    for one in judged:
        _record_verdict(one, plan, house)
    with stages("fitness"):
        ranked = rank({one.digest: one.evidence for one in judged if one.admitted}, fitness)
        _archive(ranked, fitness, plan, house)
    with stages("canary"):
        promotion, trial = _try_and_promote(settings, plan, canary, ranked, judged, judge)
    with stages("reference"):
        base_evidence, references = judge.references(judged)
    report = _report(
        plan,
        settings,
        house,
        bench,
        judged,
        ranked,
        promotion,
        trial,
        references,
        base_evidence,
        stages,
        started,
        judge.races(),
    )
    report = dataclasses.replace(report, approvals=governed.envelopes)
    return Ran(report, bench.evaluator.restricted())


def _judge(settings: Settings, plan: RunPlan, house: House, bench: Bench, decided_at: str) -> Judge:
    base, incumbent = incumbent_of(house, bench, settings.alias)
    return Judge(
        policy=plan.policy,
        budget=plan.budget,
        corpora=corpora_of(plan),
        house=house,
        bench=bench,
        suites=load_suites(settings),
        base=base,
        incumbent=incumbent,
        decided_at=decided_at,
    )


def _record_verdict(one: Judged, plan: RunPlan, house: House) -> None:
    from ecology.signer.statements import verdict_statement  # noqa: PLC0415

    findings = [{"rule": f.rule, "outcome": f.outcome.value} for f in one.verdict.findings]
    house.record(
        "judged",
        {
            "digest": one.digest,
            "policy": plan.policy.digest,
            "outcome": one.verdict.outcome.value,
            "rung": one.rung,
            "run": plan.digest,
            "scope": one.verdict.scope,
            "findings": findings,
        },
    )
    if one.member.signed is None:
        return
    known = canonical.digest([one.digest, plan.policy.digest, one.evidence, findings, house.signer.keyid])
    if house.recall("verdict", known) is None:
        statement = verdict_statement(one.member.submission.artifact, one.verdict, plan.policy, one.evidence)
        house.store.add_claims(one.digest, [house.signer.sign(statement)])
        house.remember("verdict", known, True)


def _archive(ranked: Sequence[Fitness], spec: FitnessSpec, plan: RunPlan, house: House) -> None:
    path = house.home / "archive.json"
    with house.lock("archive"):
        held: tuple[archive.ArchiveEntry, ...] = ()
        if path.exists():
            held = structure(tuple[archive.ArchiveEntry, ...], json.loads(path.read_bytes()), str(path))
        merged = archive.merge(held, archive.entries(ranked, spec, plan.digest))
        write_atomic(path, canonical.canonical(merged))
    house.record(
        "ranked",
        {
            "run": plan.digest,
            "order": [f.subject for f in ranked if f.score is not None],
            "front": [f.subject for f in ranked if f.on_front],
        },
    )


def _try_and_promote(
    settings: Settings,
    run_plan: RunPlan,
    plan: CanaryPlan,
    ranked: Sequence[Fitness],
    judged: Sequence[Judged],
    judge: Judge,
) -> tuple[Promotion, CanaryResult | None]:
    house, incumbent = judge.house, judge.incumbent
    winner = next((f.subject for f in ranked if f.score is not None), None)
    trial = None
    unconfirmed = _unconfirmed(winner, judged, judge)
    if unconfirmed:
        winner = None
    if winner is not None and winner != incumbent.digest:
        folder = next(one.member.folder for one in judged if one.digest == winner)
        traffic = load_traffic(subject(settings.evaluator.traffic, "suites"))
        serve = server(judge.bench, {"candidate": folder, "incumbent": incumbent.folder})
        total = sum(step.min_requests for step in plan.steps)
        with house.progress.track("canary: replaying requests", total, "request") as step:
            trial = run_canary(
                plan,
                traffic.requests,
                serve,
                candidate=winner,
                incumbent=incumbent.digest,
                salt=run_plan.digest,
                progress=step,
            )
    unranked = any(one.admitted for one in judged)
    why = "every admitted candidate lacks evidence for its fitness" if unranked else "no candidate was admitted"
    why = unconfirmed or why
    promotion = decide_promotion(winner, incumbent.digest, trial, alias=settings.alias, why_none=why)
    for event in promotion_events(promotion, trial, house.clock.now()):
        house.record(event.kind, {**event.body, "run": run_plan.digest}, event.at)
    return promotion, trial


def _unconfirmed(winner: Digest | None, judged: Sequence[Judged], judge: Judge) -> str:
    """Why the best of several is not confirmed on fresh items; empty where it is, or where nobody was chosen."""
    admitted = [one for one in judged if one.admitted]
    if winner is None or len(admitted) < 2 or not judge.budget.fresh_items:
        return ""
    best = next(one for one in admitted if one.digest == winner)
    _, missed = confirm(judge, best)
    if not missed:
        return ""
    return f"{best.member.name}, the best of {len(admitted)}, did not prove {missed[0].rule} again on fresh items"


def _report(
    plan: RunPlan,
    settings: Settings,
    house: House,
    bench: Bench,
    judged: Sequence[Judged],
    ranked: Sequence[Fitness],
    promotion: Promotion,
    trial: CanaryResult | None,
    references: Mapping[Digest, Evidence],
    base_evidence: Evidence,
    stages: Stages,
    started: str,
    races: tuple[RaceReport, ...],
) -> RunReport:
    places = {f.subject: f for f in ranked}
    instants = house.registry.revocations()
    candidates = tuple(
        CandidateReport(
            name=one.member.name,
            digest=one.digest,
            genome=one.member.signed.genome if one.member.signed else None,
            verdict=one.verdict,
            evidence=one.evidence,
            rung=one.rung,
            fitness=places.get(one.digest),
            reference=references.get(one.digest, ()),
        )
        for one in judged
    )
    return RunReport(
        schema=REPORT_SCHEMA,
        run=plan.digest,
        name=plan.name,
        started_at=started,
        finished_at=house.clock.now(),
        decision=promotion,
        identity=bench.identity,
        base=str(settings.base.get("name", "")),
        base_evidence=base_evidence,
        policy=plan.policy,
        development_key=house.signer.development,
        signer=house.signer.keyid,
        candidates=candidates,
        canary=trial,
        stages=tuple(stages.times),
        environment=bench.environment,
        suites=plan.suites,
        seed_commitment=house.seed_commitment,
        config=plan.config,
        checkpoint=house.log.checkpoint(),
        revoked=tuple(
            Revocation(Digest(found), why, instants.get(found, ("", ""))[1])
            for found, why in house.registry.revoked().items()
        ),
        races=races,
    )


def exit_code(report: RunReport) -> int:
    """0 when the alias names an adapter that passed, 1 when nothing was let through."""
    return 0 if report.decision.decision in {"promoted", "held"} else 1
