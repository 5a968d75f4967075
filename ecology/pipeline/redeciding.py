"""A report's decision, made again from what the report itself holds.

A verifier that checks every verdict and every step of the canary, and then believes who was promoted, can be told of
another winner. So the candidates are ranked again from their evidence, the winner is the first of them, he was asked
again on fresh items where that was owed, and ``promotion.promote`` decides what follows. A report may have decided less
than that (somebody was quarantined meanwhile, the alias was moved, the sweep picks later), never more.
"""

from __future__ import annotations

from ecology.contracts.identity import Digest
from ecology.contracts.run import CandidateReport, RunReport
from ecology.errors import EcologyError
from ecology.promotion.canary import canary_plan, recheck
from ecology.promotion.fitness import fitness_spec, rank
from ecology.promotion.promote import decide_promotion


def decision_problems(report: RunReport) -> tuple[str, ...]:
    """Where canary or decision do not follow from what was measured, under the recorded configuration."""
    found: list[str] = []
    for what, check in (("canary", _canary), ("decision", _decision)):
        try:
            found += [f"{what}: {problem}" for problem in check(report)]
        except Exception as error:  # whatever a report holds, it is a problem of the report and not of the verifier
            found.append(f"{what}: it cannot be checked again: {type(error).__name__}: {error}")
    return tuple(found)


def _canary(report: RunReport) -> tuple[str, ...]:
    if report.canary is None:
        return ()
    return recheck(canary_plan(report.config["canary"], "config.canary"), report.canary)


def _decision(report: RunReport) -> list[str]:
    made = report.decision
    admitted = {one.digest: one for one in report.candidates if _admitted(one)}
    ranked = rank({digest: one.evidence for digest, one in admitted.items()}, fitness_spec(report.config["fitness"]))
    problems = []
    for place in ranked:
        told = admitted[place.subject].fitness
        if told is None or told.score != place.score:
            name, said = admitted[place.subject].name, None if told is None else told.score
            problems.append(f"the evidence of {name} gives the fitness {place.score}, not {said}")
    problems += [
        f"{one.name} has a fitness and was not admitted"
        for one in report.candidates
        if one.fitness is not None and one.digest not in admitted
    ]
    if made.decision == "none":
        return problems
    winner = next((place.subject for place in ranked if place.score is not None), None)
    if winner is None:
        return [*problems, f"{made.decision}, where nobody is ranked"]
    try:
        again = decide_promotion(winner, made.previous, report.canary, alias=made.alias)
    except EcologyError as error:
        return [*problems, error.what]
    if (made.decision, made.subject) != (again.decision, again.subject):
        problems.append(f"{made.decision} {made.subject}, where {again.decision} {again.subject} follows")
    return [*problems, *_owed(report, winner, len(admitted))]


def _owed(report: RunReport, winner: Digest, among: int) -> list[str]:
    """What is wrong with the confirmation on fresh items."""
    found = report.confirmation
    if found is None:
        owed = among > 1 and int(report.config["evaluator"].get("fresh_items", 0)) > 0  # 0 where it says nothing
        return [f"the best of {among} was not asked again on fresh items, as configured"] if owed else []
    if found.subject != winner:
        return [f"{found.subject} was asked again on fresh items, and {winner} ranks first"]
    return [f"{one.rule} did not admit on fresh items" for one in found.findings if not one.outcome.admits]


def _admitted(one: CandidateReport) -> bool:
    return not one.rung and one.genome is not None and one.verdict.outcome.admits
