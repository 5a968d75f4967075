"""``ecology gate``: may these adapters go to production?

Static questions need neither weights nor torch; a static verdict carries its scope and admits to nothing. The full
ladder asks the same suites, with the same secret hidden items, as the main job does.

Many adapters in one call, and only those that changed since a revision if that is asked (``changes``). What was
measured is kept (``unchanged``), so an unchanged adapter costs the reading of its files. What is said of the verdicts,
and in which format, is in ``announce``.

Every verdict is kept with its evidence for ``policy replay`` (``verdicts``), those of unsigned folders too; not one
that was asked as of another instant (``--at``), which is a question and no judgement.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ecology.contracts.artifact import Submission
from ecology.contracts.policy import RUNG_RULE, Finding, GateVerdict, Outcome, Policy
from ecology.contracts.run import Budget
from ecology.errors import EXIT_OK, EXIT_REFUSED, ConfigError, MalformedArtifact
from ecology.gate import weighing
from ecology.gate.context import context_for
from ecology.gate.ladder import Climb, Rung, climb, rung_of
from ecology.gate.static import StaticRung
from ecology.kernel.sight import USUAL, sufficient
from ecology.kernel.verdicts import verdict
from ecology.pipeline.announce import announced, write_out
from ecology.pipeline.bench import known_base, tokenizer_files
from ecology.pipeline.changes import changed_since, policy_changed
from ecology.pipeline.desk import Asked, Desk, Gated
from ecology.pipeline.governing import govern
from ecology.pipeline.house import House
from ecology.pipeline.members import Member, submission_of
from ecology.pipeline.overlaps import Overlaps
from ecology.pipeline.power import AGAIN, refuse_blind, samples_of
from ecology.pipeline.revocations import quarantined
from ecology.pipeline.unchanged import NOBODY, Measured, asked_rules, cache_key, recalled
from ecology.pipeline.verdicts import keep_verdict
from ecology.report.words import visible
from ecology.store.folders import nameless

SMALL_FILES_BYTES = 64 * 1024 * 1024
"""What the other files of a folder may have, that it is read at all."""


def gate(paths: Sequence[Path], want: Asked, house: House) -> int:
    """Judges adapters and prints the verdicts.

    Args:
        paths: Adapter folders, or files inside such.
        want: What is asked.
        house: Keys, caches and facts.

    Returns:
        0 if every adapter passed, else 1.

    Raises:
        PolicyError: The policy cannot be applied.
        ConfigError: No such policy, base or revision.
        BackendError: The engine cannot start.
    """
    now = want.at or house.clock.now()
    governed = govern(want.policy, now)
    for why in governed.refused:
        print(f"ecology: {why}: without effect", file=sys.stderr)
    folders = list(dict.fromkeys(path.parent if os.path.isfile(path) else path for path in paths))
    if want.since and not policy_changed(governed.path, want.since):
        folders = [folder for folder in folders if changed_since(folder, want.since)]
    if not want.static and folders:
        refuse_blind(governed.policy, _budget(governed.policy, want), len(folders))
    desk = Desk(governed, want, now, house, known_base(want.base, house))
    gated = [_one(folder, desk) for folder in folders]
    for one in gated:
        if one.member is not None and not want.at and not _unsettled(one.verdict):
            keep_verdict(house, one.member.submission.artifact, one.verdict, governed.policy, one.evidence)
            if one.verdict.scope == "full":
                _told(one.member, one.verdict, one.rung, now, house)
    text = announced(gated, governed, want.form)
    if text:
        print(text)
    if want.out is not None:
        write_out(gated, governed, want.out, house)
    return EXIT_OK if all(one.verdict.outcome.admits for one in gated) else EXIT_REFUSED


def _unsettled(judged: GateVerdict) -> bool:
    """Whether what was seen says more about this machine, or about who writes to the folder, than about its bytes."""
    return any(f.rule == f"{RUNG_RULE}static" and f.outcome is Outcome.INCONCLUSIVE for f in judged.findings)


def _one(folder: Path, desk: Desk) -> Gated:
    governed, want, now, house = desk.governed, desk.want, desk.now, desk.house
    try:
        member, whole = _stands(folder, governed.policy)
    except MalformedArtifact as error:  # not even a folder: there is nothing to name by a digest
        return Gated(folder.name, folder, None, _unreadable(error, governed.policy, want, now), (), "static")
    if not whole:
        refused = _static(member, desk)
        return Gated(folder.name, folder, None, refused.verdict, refused.evidence, refused.rung)
    key = cache_key(member, desk)
    kept = None if want.fresh else recalled(key, house)
    if kept is None:
        weighing.start()  # it imports NumPy while we read policies, notes and claims
    climbed = kept or (_static if want.static else _full)(member, desk)
    if kept is None and not any(f.rule.startswith(RUNG_RULE) for f in climbed.verdict.findings):
        house.remember("gate", key, Measured(climbed.evidence, climbed.rung, asked_rules(climbed)))
    judged = verdict(
        governed.policy,
        climbed.evidence,
        member.digest,
        "static" if want.static else "full",
        now,
        rules_asked=asked_rules(climbed) if not want.static else None,
        extra=[*governed.standing, *(f for f in climbed.verdict.findings if f.rule.startswith(RUNG_RULE))],
    )
    return Gated(folder.name, folder, member, judged, climbed.evidence, climbed.rung, kept is not None)


def _told(member: Member, judged: GateVerdict, rung: str, now: str, house: House) -> None:
    """The verdict as a fact, so that who promotes by hand knows it; the same verdict again is no news."""
    last = None
    with contextlib.suppress(ConfigError):  # nobody has heard of it
        last = next(reversed(house.registry.show(member.digest).verdicts), None)
    findings = [{"rule": f.rule, "outcome": f.outcome.value} for f in judged.findings]
    if last and (last.policy, last.outcome, [*last.findings]) == (judged.policy, judged.outcome.value, findings):
        return
    house.record(
        "judged",
        {
            "digest": member.digest,
            "name": member.name,
            "policy": judged.policy,
            "outcome": judged.outcome.value,
            "rung": rung,
            "run": "",
            "scope": judged.scope,
            "findings": findings,
            "decided_at": now,
        },
    )


def _stands(folder: Path, policy: Policy) -> tuple[Member, bool]:
    """A folder before the gate, and whether its bytes have a name; one that has none is refused by the static rules."""
    name = Path(os.path.realpath(folder)).name  # pathlib's own raises for links that lead in a circle
    most = policy.adapter.max_file_bytes + SMALL_FILES_BYTES
    try:
        submission, whole = submission_of(name, folder, most), True
    except MalformedArtifact:
        submission, whole = Submission(name, str(folder), nameless(folder), ()), False
    return Member(name, submission, None, False), whole


def _unreadable(error: MalformedArtifact, policy: Policy, want: Asked, now: str) -> GateVerdict:
    why = Finding(
        rule="FOLDER",
        title="The folder can be described",
        metric="folder",
        split="none",
        severity="deny",
        outcome=Outcome.DENY,
        demand="readable",
        observed=None,
        lower=None,
        upper=None,
        n=0,
        reason=visible(str(error)),
    )
    scope: Literal["static", "full"] = "static" if want.static else "full"
    return verdict(policy, (), NOBODY, scope, now, rules_asked=(), extra=(why,))


def _static(member: Member, desk: Desk) -> Climb:
    policy, house, model = desk.governed.policy, desk.house, desk.model
    context = context_for(
        policy,
        model.identity,
        model.tensor_schema,
        weight_norms=model.weight_norms,
        spectral_norms=model.spectral_norms,
        development=house.development_keys,
        corpora=Overlaps(house),
        revoked=quarantined(house.home / "registry.sqlite3"),
        base_names=model.names,
        base_files=tokenizer_files(model.folder, member.folder),
        forbidden=_forbidden,
    )
    static = StaticRung(member.submission, context)
    rung = Rung("static", static.measure, static.findings)
    return climb(member.submission, policy, [rung], desk.now, scope="static", standing=desk.governed.standing)


def _forbidden() -> frozenset[tuple[str, ...]]:
    from ecology.pipeline.corpora import forbidden  # noqa: PLC0415  (only where an adapter brings prose)

    return forbidden()


def _full(member: Member, desk: Desk) -> Climb:
    from ecology.pipeline.aliases import base_of  # noqa: PLC0415
    from ecology.pipeline.bench import open_bench  # noqa: PLC0415  (engines only where they are asked)
    from ecology.pipeline.climbing import RUNGS, climb_all  # noqa: PLC0415
    from ecology.pipeline.compose import compose  # noqa: PLC0415
    from ecology.pipeline.corpora import held_corpora  # noqa: PLC0415
    from ecology.pipeline.judged import comparator  # noqa: PLC0415
    from ecology.pipeline.judging import Judge  # noqa: PLC0415
    from ecology.pipeline.plan import budget_of, load_suites  # noqa: PLC0415

    governed, want, now, house = desk.governed, desk.want, desk.now, desk.house
    policy = governed.policy
    settings, _ = compose([f"base={want.base}", f"evaluator={want.evaluator}"])
    bench = open_bench(settings.base, settings.backend, house)
    base = bench.identity.base_weights
    champion = house.registry.alias(want.alias) or base  # of another base it is nobody's incumbent here
    judge = Judge(
        policy=policy,
        budget=enough(policy, budget_of(settings)),
        corpora=held_corpora(house),
        bench=bench,
        suites={name: suite for name, suite in load_suites(settings, policy).items() if _asked_about(policy, name)},
        incumbent=comparator(bench, champion if base_of(house, champion) == base else base, want.alias),
        decided_at=now,
        standing=governed.standing,
    )
    asked = {rung_of(rule) for rule in policy.rules}  # a rung that answers no rule would cost time and change nothing
    return climb_all(judge, member, tuple(rung for rung in RUNGS if rung in asked)).climb


def _asked_about(policy: Policy, suite: str) -> bool:
    return any(rule.metric.startswith(f"{suite}.") for rule in policy.rules)


def _budget(policy: Policy, want: Asked) -> Budget:
    from ecology.pipeline.compose import compose  # noqa: PLC0415  (Hydra only where it composes)
    from ecology.pipeline.plan import budget_of  # noqa: PLC0415

    settings, _ = compose([f"base={want.base}", f"evaluator={want.evaluator}"])
    return enough(policy, budget_of(settings))


def enough(policy: Policy, budget: Budget) -> Budget:
    """As many items and pairs as the policy's rules demand, or need to see what it wants seen.

    No more of anything but the suites of which the configuration wants more by name.
    """
    wanted = {rule.id: rule.min_samples for rule in policy.rules}
    for rule in policy.rules if policy.decidable else ():
        if rule.id in samples_of(policy, budget) and rule.severity == "deny":
            wanted[rule.id] = max(rule.min_samples, sufficient(rule, policy.decidable or USUAL) or 0)

    def most(split: str, prefix: str = "", suffix: str | tuple[str, ...] = "") -> int:
        asked = (r for r in policy.rules if r.split == split and r.metric.startswith(prefix))
        return max((wanted[r.id] for r in asked if r.metric.endswith(suffix)), default=0)

    hidden = max(1, most("hidden"))
    return dataclasses.replace(
        budget,
        public_items=max(1, most("public"), most("hidden", "robust."), most("hidden", suffix=AGAIN)),
        hidden_items=hidden,
        hidden_of={suite: max(hidden, count) for suite, count in budget.hidden_of.items()},
        latency_pairs=max(1, most("none", "resource.latency")),
    )
