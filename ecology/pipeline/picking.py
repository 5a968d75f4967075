"""The one pick of a sweep: best of all that any job admitted, asked again on fresh items, tried on traffic once.

The best of many looks better than it is: it was chosen for its score, chance included. So its score is taken again on
items that nobody in the sweep has seen, drawn from the same grammars with another secret seed, and the policy's rules
are applied to those. If it does not pass there nobody is promoted; to go on to the second best would be to choose
again.

Adapters are compared only where the comparison means the same: one base, policy, fitness, canary, alias and set of
questions. A sweep over one of those compares its jobs on the page and picks nobody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ecology.contracts.artifact import SignedArtifact, Submission
from ecology.contracts.identity import Digest, Json
from ecology.contracts.promotion import Fitness, Promotion
from ecology.contracts.run import CandidateReport, RunReport
from ecology.errors import ConfigError
from ecology.kernel import canonical
from ecology.pipeline import compose
from ecology.pipeline.attempt import begin
from ecology.pipeline.bench import open_bench
from ecology.pipeline.climbing import RUNGS, climb_all
from ecology.pipeline.governing import govern
from ecology.pipeline.house import House
from ecology.pipeline.judged import comparator
from ecology.pipeline.members import Member
from ecology.pipeline.pinned import planned_traffic, refuse_swapped
from ecology.pipeline.plan import make_plan
from ecology.pipeline.run import Ran, judge_of, record_verdict, report_of
from ecology.pipeline.trial import Trial, settle
from ecology.promotion.canary import canary_plan
from ecology.promotion.fitness import fitness_spec, rank
from ecology.store.adapters import describe
from ecology.telemetry.stages import Stages

COMMON = ("base", "evaluator", "fitness", "canary", "alias", "signer")
"""Groups of the configuration that must be the same for adapters to be compared; policy and suites besides."""


@dataclasses.dataclass(frozen=True)
class Picked:
    """The pick with what it rests on."""

    decision: Promotion
    compared: int
    winner: str = ""
    job: int | None = None
    score: float | None = None
    fresh_score: float | None = None
    ran: Ran | None = None
    """The winner's own report; None where nobody was picked."""
    report: str = ""
    """Digest of that report as it was written."""


def pick(
    reports: Mapping[int, RunReport],
    configs: Mapping[int, Mapping[str, Json]],
    sweep: Digest,
    house: House,
    publish: Callable[[Ran], str],
) -> Picked:
    """Chooses, asks again, tries and promotes.

    Args:
        reports: Of the jobs that have one, by job number; at least one.
        configs: The configuration of each job as it was composed; a report's is sorted, and founders have an order.
        sweep: Names the sweep.
        house: Ports.
        publish: As of ``run``; returns the digest of the report.

    Raises:
        ConfigError: A policy, suite or corpus is not what the jobs used, or has not enough fresh items.
        BackendError: The engine cannot start.
        IntegrityError: Something held here is damaged.
    """
    first = next(iter(reports.values()))
    alias, incumbent = str(first.config["alias"]), first.decision.subject
    differing = _differing(list(reports.values()))
    if differing:
        why = f"the jobs differ in {', '.join(differing)}: there is no common ground to pick on"
        return Picked(Promotion("none", alias, incumbent, incumbent, why), 0)
    spec = fitness_spec(first.config["fitness"])
    admitted: dict[Digest, tuple[int, CandidateReport]] = {}
    for number, report in reports.items():
        for candidate in report.candidates:
            if not candidate.rung and candidate.genome is not None:
                admitted.setdefault(candidate.digest, (number, candidate))
    ranked = [f for f in rank({d: c.evidence for d, (_, c) in admitted.items()}, spec) if f.score is not None]
    if not ranked:
        return Picked(Promotion("none", alias, incumbent, incumbent, "no job admitted a candidate"), 0)
    best = ranked[0]
    number, candidate = admitted[best.subject]
    with house.lock(f"run-{sweep.removeprefix('sha256:')[:16]}"):
        ran, fresh = _again(reports[number], configs[number], candidate, sweep, len(ranked), house)
        told = publish(ran)
    score = fresh.score if fresh is not None else None
    return Picked(ran.report.decision, len(ranked), candidate.name, number, best.score, score, ran, told)


def _differing(reports: Sequence[RunReport]) -> list[str]:
    """Names of what differs between jobs and must not."""
    found = [key for key in COMMON if len({canonical.digest(report.config.get(key)) for report in reports}) > 1]
    found += ["policy"] if len({report.policy.digest for report in reports}) > 1 else []
    return found + (["suites"] if len({canonical.digest(report.suites) for report in reports}) > 1 else [])


def _again(
    report: RunReport,
    config: Mapping[str, Json],
    candidate: CandidateReport,
    sweep: Digest,
    compared: int,
    house: House,
) -> tuple[Ran, Fitness | None]:
    settings = compose.check(config)
    plan = make_plan(settings, config)
    if plan.digest != report.run:
        raise ConfigError(
            "policy, suites or corpora changed since the jobs ran", where=f"run {report.run}", todo="sweep again"
        )
    stages = Stages(house.clock, house.journal, house.stop_check)
    with stages("base model"):
        bench = open_bench(settings.base, settings.backend, house)
    attempt = begin(house, sweep, f"pick of {plan.name}", settings.alias, bench.identity.base_weights)
    governed = govern(settings.gate.policy, attempt.started_at, policy=plan.policy)
    plan = dataclasses.replace(plan, policy=governed.policy)
    incumbent = comparator(bench, attempt.incumbent, settings.alias)
    judge = judge_of(settings, plan, bench, incumbent, governed, f"fresh for {sweep}")
    spec = fitness_spec(settings.fitness)
    with stages("fresh items"):
        judged = climb_all(judge, _member(candidate, house), RUNGS)
        record_verdict(judged, plan.policy, house, attempt)
        ranked = rank({judged.digest: judged.evidence}, spec) if judged.admitted else ()
    trial = None
    winner = next((f.subject for f in ranked if f.score is not None), None)
    with stages("canary"):
        if winner is not None and winner != attempt.incumbent:
            traffic = planned_traffic(settings, plan)
            trial = Trial(canary_plan(settings.canary), traffic, bench, judge.incumbent, sweep).of(
                winner, judged.member.folder
            )
        refuse_swapped(settings, plan)
        why = f"{candidate.name}, the best of {compared}, does not pass on fresh items: stopped at {judged.rung}"
        genesis = bench.identity.base_weights
        promotion = settle(house, attempt, winner, trial, alias=settings.alias, genesis=genesis, why_none=why)
    with stages("reference"):
        base_evidence, references = judge.references([judged])
    own = dataclasses.replace(plan, name=f"{plan.name}: pick {candidate.name}", digest=sweep)
    made = report_of(
        own,
        settings,
        bench,
        [judged],
        ranked,
        promotion,
        trial,
        references,
        base_evidence,
        stages,
        attempt,
        governed,
        judge.races(),
    )
    return Ran(made, bench.evaluator.restricted(), attempt), next(iter(ranked), None)


def _member(candidate: CandidateReport, house: House) -> Member:
    folder = house.store.folder(candidate.digest)
    artifact, claims = describe(folder), house.store.claims(candidate.digest)
    signed = SignedArtifact(artifact, candidate.genome, claims) if candidate.genome is not None else None
    return Member(candidate.name, Submission(candidate.name, str(folder), artifact, claims), signed, True)
