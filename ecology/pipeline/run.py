"""The spine: one run, one direction.

    plan -> base -> population -> ladder -> fitness -> archive -> canary -> promotion -> report

Each step takes what the one before returned. Everything that happens is recorded as a fact; everything that is costly
is kept under the digest of what it came from, so that the same run again, or a killed one, repeats nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ecology.contracts.evidence import Evidence
from ecology.contracts.gain import GainClaim
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import Policy
from ecology.contracts.promotion import CanaryPlan, CanaryResult, Fitness, Promotion
from ecology.contracts.run import REPORT_SCHEMA, CandidateReport, Confirmation, RaceReport, RunPlan, RunReport
from ecology.pipeline.archiving import offer
from ecology.pipeline.attempt import Attempt, begin, begun
from ecology.pipeline.bench import Bench, open_bench
from ecology.pipeline.boundaries import admit_run
from ecology.pipeline.claiming import evidence_of, make_claims
from ecology.pipeline.climbing import judge_all
from ecology.pipeline.corpora import corpora_of
from ecology.pipeline.governing import Governed, govern
from ecology.pipeline.house import ATTEMPT, House
from ecology.pipeline.judged import Comparator, Judged, comparator
from ecology.pipeline.judging import Judge
from ecology.pipeline.pinned import planned_suites, planned_traffic, refuse_swapped
from ecology.pipeline.plan import make_plan
from ecology.pipeline.population import populate
from ecology.pipeline.rescoring import confirm, missed
from ecology.pipeline.settings import Settings
from ecology.pipeline.trial import Trial, settle
from ecology.pipeline.verdicts import keep_verdict
from ecology.policy.boundaries import check_plan
from ecology.promotion.canary import canary_plan
from ecology.promotion.fitness import FitnessSpec, fitness_spec, rank
from ecology.promotion.traffic import Traffic
from ecology.telemetry.stages import Stages


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a run leaves."""

    report: RunReport
    restricted: tuple[Mapping[str, Json], ...]
    """Prompts and replies of harmful items, for the separate file."""
    attempt: Attempt
    """To be ended when the report is on disk."""


def run(
    settings: Settings,
    config: Mapping[str, Json],
    house: House,
    publish: Callable[[Ran], object],
    *,
    promotes: bool = True,
) -> Ran:
    """One run from configuration to report value.

    Args:
        settings: Checked configuration.
        config: The plain data it came from.
        house: Ports.
        publish: Given the result while this plan is still locked: who waits for the same plan finds an attempt that
            goes on or one that has ended, and never one that is over and not yet told.
        promotes: False for a job of a sweep, which ends when everybody is judged and ranked: the sweep picks once.

    Raises:
        ConfigError: The plan cannot be made.
        PolicyError: The policy cannot be applied.
        IncompatibleParents: Parents were planned that may not meet.
        IntegrityError: Something held here is damaged.
        BackendError: The engine cannot start.
    """
    plan = make_plan(settings, config)
    inputs = Inputs(
        canary_plan(settings.canary),
        fitness_spec(settings.fitness),
        planned_traffic(settings, plan),
    )
    check_plan(plan, inputs.canary)
    with house.lock(f"run-{plan.digest.removeprefix('sha256:')[:16]}"):
        house.tidy()
        ran = _run(settings, plan, inputs, house, promotes)
        publish(ran)
    return ran


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run reads besides its plan, each once, before anything is spent."""

    canary: CanaryPlan
    fitness: FitnessSpec
    traffic: Traffic


def _run(settings: Settings, plan: RunPlan, inputs: Inputs, house: House, promotes: bool) -> Ran:
    stages = Stages(house.clock, house.journal, house.stop_check)
    with stages("base model"):
        bench = open_bench(settings.base, settings.backend, house)
    if begun(house, plan.digest) is None:  # what was begun was admitted then
        admit_run(plan.policy, house)
    attempt = begin(house, plan.digest, plan.name, settings.alias, bench.identity.base_weights)
    incumbent = comparator(bench, attempt.incumbent, settings.alias)
    governed = govern(settings.gate.policy, attempt.started_at, policy=plan.policy)
    plan = dataclasses.replace(plan, policy=governed.policy)
    house.record("seed_committed", {"commitment": house.seed_commitment})
    with stages("population"):
        members = populate(plan, house, bench)
    judge = judge_of(settings, plan, bench, incumbent, governed)
    claims: tuple[GainClaim, ...] = ()
    if settings.claims:
        with stages("claims"):
            claims = make_claims(settings.claims, members, bench, judge.corpora)
        judge = dataclasses.replace(judge, claimed=evidence_of(claims))
    with stages("gates"):
        judged = judge_all(judge, members, inputs.fitness)
    for one in judged:
        record_verdict(one, plan.policy, house, attempt)
    with stages("fitness"):
        ranked = rank({one.digest: one.evidence for one in judged if one.admitted}, inputs.fitness)
        offer(ranked, inputs.fitness, plan.digest, house)
    trial, confirmation = None, None
    winner = next((f.subject for f in ranked if f.score is not None), None)
    if promotes:
        with stages("canary"):
            confirmation = _confirmation(winner, judged, judge)
            unconfirmed = _unconfirmed(confirmation, judged)
            winner = None if unconfirmed else winner
            if winner is not None and winner != attempt.incumbent:
                folder = next(one.member.folder for one in judged if one.digest == winner)
                trial = Trial(inputs.canary, inputs.traffic, bench, judge.incumbent, plan.digest).of(winner, folder)
            unranked = any(one.admitted for one in judged)
            refuse_swapped(settings, plan)
            why = "every admitted candidate lacks evidence for its fitness" if unranked else "no candidate was admitted"
            promotion = settle(
                house,
                attempt,
                winner,
                trial,
                alias=settings.alias,
                genesis=bench.identity.base_weights,
                why_none=unconfirmed or why,
            )
    else:
        promotion = Promotion("none", settings.alias, attempt.incumbent, attempt.incumbent, PICKED_LATER)
    with stages("reference"):
        base_evidence, references = judge.references(judged)
    report = report_of(
        plan,
        settings,
        bench,
        judged,
        ranked,
        promotion,
        trial,
        references,
        base_evidence,
        stages,
        attempt,
        governed,
        judge.races(),
        confirmation,
        claims,
    )
    return Ran(report, bench.evaluator.restricted(), attempt)


PICKED_LATER = "one job of a sweep: the sweep picks once among all that its jobs admitted"


def judge_of(
    settings: Settings, plan: RunPlan, bench: Bench, incumbent: Comparator, governed: Governed, draw: str = "hidden"
) -> Judge:
    """The judge of one attempt, with all that the plan and the policy's standing say."""
    return Judge(
        policy=plan.policy,
        budget=plan.budget,
        corpora=corpora_of(plan, bench.house),
        bench=bench,
        suites=planned_suites(settings, plan),
        incumbent=incumbent,
        decided_at=bench.house.now(),
        standing=governed.standing,
        draw=draw,
    )


def record_verdict(one: Judged, policy: Policy, house: House, attempt: Attempt) -> None:
    """The verdict as a fact, and signed with its evidence: into the claims of one of ours, beside the store else."""
    findings = [{"rule": f.rule, "outcome": f.outcome.value} for f in one.verdict.findings]
    house.record(
        "judged",
        {
            "digest": one.digest,
            "name": one.member.name,
            "policy": policy.digest,
            "outcome": one.verdict.outcome.value,
            "rung": one.rung,
            "run": attempt.run,
            ATTEMPT: attempt.id,
            "scope": one.verdict.scope,
            "findings": findings,
        },
    )
    ours = one.member.signed is not None
    keep_verdict(house, one.member.submission.artifact, one.verdict, policy, one.evidence, ours=ours)


def _confirmation(winner: Digest | None, judged: Sequence[Judged], judge: Judge) -> Confirmation | None:
    """The winner on fresh items; None where it was not chosen among several, or nobody asks for that."""
    admitted = [one for one in judged if one.admitted]
    if winner is None or len(admitted) < 2 or not judge.budget.fresh_items:
        return None
    return confirm(judge, next(one for one in admitted if one.digest == winner), len(admitted))


def _unconfirmed(found: Confirmation | None, judged: Sequence[Judged]) -> str:
    """Why the best of several is not confirmed; empty where it is, or where nobody was chosen."""
    lacking = missed(found) if found else ()
    if not found or not lacking:
        return ""
    name = next(one.member.name for one in judged if one.digest == found.subject)
    return f"{name}, the best of {found.among}, did not prove {lacking[0].rule} again on fresh items"


def report_of(
    plan: RunPlan,
    settings: Settings,
    bench: Bench,
    judged: Sequence[Judged],
    ranked: Sequence[Fitness],
    promotion: Promotion,
    trial: CanaryResult | None,
    references: Mapping[Digest, Evidence],
    base_evidence: Evidence,
    stages: Stages,
    attempt: Attempt,
    governed: Governed,
    races: tuple[RaceReport, ...] = (),
    confirmation: Confirmation | None = None,
    claims: tuple[GainClaim, ...] = (),
) -> RunReport:
    """Everything as one value."""
    house = bench.house
    places = {f.subject: f for f in ranked}
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
        started_at=attempt.started_at,
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
        revoked=house.quarantine(),
        races=races,
        confirmation=confirmation,
        claims=claims,
        approvals=governed.envelopes,
    )


def exit_code(report: RunReport) -> int:
    """0 when the alias names an adapter that passed, 1 when nothing was let through."""
    return 0 if report.decision.decision in {"promoted", "held"} else 1
