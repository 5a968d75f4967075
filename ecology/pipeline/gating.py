"""``ecology gate``: may this adapter go to production?

Static questions need neither weights nor torch; a static verdict carries its scope and admits to nothing. The full
ladder asks the same suites, with the same secret hidden items, as the main job does.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ecology.contracts.evidence import Evidence, Item
from ecology.contracts.identity import Digest
from ecology.contracts.policy import GateVerdict, Outcome, Policy
from ecology.contracts.run import Budget
from ecology.errors import EXIT_OK, EXIT_REFUSED, MalformedArtifact
from ecology.gate.ladder import Rung, climb
from ecology.gate.static import context_for, static_evidence
from ecology.kernel import canonical
from ecology.kernel.verdicts import asked, headline
from ecology.pipeline.bench import known_base
from ecology.pipeline.house import House
from ecology.pipeline.members import Member, submission_of
from ecology.pipeline.places import subject
from ecology.policy.reader import load_policy
from ecology.signer.statements import verdict_statement
from ecology.store.files import write_atomic

Form = Literal["text", "json", "junit"]


@dataclasses.dataclass(frozen=True)
class Gated:
    """One adapter and what the gate said."""

    member: Member
    verdict: GateVerdict
    evidence: Evidence
    rung: str


def gate(
    folders: Sequence[Path], *, policy: str, base: str, static: bool, form: Form, out: Path | None, house: House
) -> int:
    """Judges folders and prints the verdicts.

    Args:
        folders: Adapter folders.
        policy: Path, or name of a shipped policy.
        base: Preset of ``conf/base``.
        static: Whether to ask only what needs no model.
        form: What goes to stdout.
        out: Folder for verdicts and signed attestations; None writes none.
        house: Keys, caches and facts.

    Returns:
        0 if every adapter passed, else 1.

    Raises:
        PolicyError: The policy cannot be applied.
        ConfigError: No such policy or base.
        BackendError: The engine cannot start.
    """
    rules = load_policy(subject(policy, "policies", ".yaml"))
    gated = []
    for folder in folders:
        try:
            member = Member(folder.name, submission_of(folder.name, folder), None, False)
        except MalformedArtifact as error:  # not even a folder: there is nothing to name by a digest
            print(f"ecology: {error}", file=sys.stderr)
            return EXIT_REFUSED
        gated.append(_static(member, rules, base, house) if static else _full(member, rules, base, house))
    print(_render(gated, rules, form))
    if out is not None:
        _write(gated, rules, out, house)
    return EXIT_OK if all(one.verdict.outcome.admits for one in gated) else EXIT_REFUSED


def _static(member: Member, policy: Policy, base: str, house: House) -> Gated:
    model = known_base(base, house)
    context = context_for(
        policy,
        model.identity,
        model.tensor_schema,
        weight_norms=model.weight_norms,
        development=house.development_keys,
        corpora=_overlaps(member, house),
        revoked=house.registry.revoked() if (house.home / "registry.sqlite3").exists() else {},
    )
    rung = Rung("static", lambda: static_evidence(member.submission, context))
    climbed = climb(member.submission, policy, [rung], house.now(), scope="static")
    return Gated(member, climbed.verdict, climbed.evidence, climbed.rung)


def _overlaps(member: Member, house: House) -> dict[Digest, float]:
    """Shares of the shipped corpora that are items of the shipped suites; not asked for a folder without claims."""
    if not member.submission.claims:
        return {}
    from ecology.evaluator.library import load_any_suite  # noqa: PLC0415
    from ecology.evaluator.suites import items, overlap  # noqa: PLC0415
    from ecology.pipeline.corpora import shipped_corpora  # noqa: PLC0415
    from ecology.pipeline.places import shared  # noqa: PLC0415

    every: list[Item] = []
    for path in sorted(shared("suites").glob("*/suite.yaml")):
        suite = load_any_suite(path)
        if suite.kind == "lm_eval":
            continue
        every += items(suite, "public")
        every += items(suite, "hidden", house.split_seed(suite.digest, "hidden"))
    return {digest: overlap(rows, every).exact for digest, rows in shipped_corpora().items()}


def _full(member: Member, policy: Policy, base: str, house: House) -> Gated:
    from ecology.pipeline.bench import open_bench  # noqa: PLC0415  (engines only where they are asked)
    from ecology.pipeline.compose import compose  # noqa: PLC0415
    from ecology.pipeline.corpora import shipped_corpora  # noqa: PLC0415
    from ecology.pipeline.judging import RUNGS, Judge, climb_all, incumbent_of  # noqa: PLC0415
    from ecology.pipeline.plan import budget_of, load_suites  # noqa: PLC0415

    settings, _ = compose([f"base={base}"])
    bench = open_bench(settings.base, settings.backend, house)
    anchor, incumbent = incumbent_of(house, bench, settings.alias)
    judge = Judge(
        policy=policy,
        budget=_enough(policy, budget_of(settings)),
        corpora=shipped_corpora(),
        house=house,
        bench=bench,
        suites={name: suite for name, suite in load_suites(settings).items() if _asked_about(policy, name)},
        base=anchor,
        incumbent=incumbent,
        decided_at=house.now(),
    )
    judged = climb_all(judge, member, RUNGS)
    return Gated(member, judged.verdict, judged.evidence, judged.rung)


def _asked_about(policy: Policy, suite: str) -> bool:
    return any(rule.metric.startswith(f"{suite}.") for rule in policy.rules)


def _enough(policy: Policy, budget: Budget) -> Budget:
    """As many items and pairs as the policy's rules demand, and no more."""

    def most(split: str, prefix: str = "") -> int:
        wanted = [r.min_samples for r in policy.rules if r.split == split and r.metric.startswith(prefix)]
        return max(wanted, default=0)

    return dataclasses.replace(
        budget,
        public_items=max(1, most("public")),
        hidden_items=max(1, most("hidden")),
        latency_pairs=max(1, most("none", "resource.latency")),
    )


def _render(gated: Sequence[Gated], policy: Policy, form: Form) -> str:
    if form == "json":
        return json.dumps(
            [
                {"name": g.member.name, "verdict": canonical.plain(g.verdict), "evidence": canonical.plain(g.evidence)}
                for g in gated
            ],
            indent=2,
        )
    if form == "junit":
        from ecology.report.junit import junit  # noqa: PLC0415

        return junit([(g.member.name, g.verdict) for g in gated], policy.id).decode()
    return "\n\n".join(_text(g, policy) for g in gated)


MARKS = {
    Outcome.PASS: "pass",
    Outcome.WAIVED: "waived",
    Outcome.WARN: "WARN",
    Outcome.INCONCLUSIVE: "INCONCLUSIVE",
    Outcome.DENY: "DENY",
}


def _text(gated: Gated, policy: Policy) -> str:
    verdict = gated.verdict
    word = "passed" if verdict.outcome.admits else "REFUSED"
    scope = " (static scope: admits to nothing)" if verdict.scope == "static" else ""
    lines = [f"{gated.member.name}: {word} under {policy.id} v{policy.version}{scope}", f"  {verdict.subject}"]
    for finding in verdict.findings:
        if not asked(finding):
            continue
        lines.append(f"  {MARKS[finding.outcome]:<13} {finding.rule:<10} {finding.title}: {finding.reason}")
        lines += [f"                {detail}" for detail in finding.details]
    left_out = [finding.rule for finding in verdict.findings if not asked(finding)]
    if left_out:
        lines.append(f"  not asked: {', '.join(left_out)}")
    top = headline(verdict)
    if top is not None and not verdict.outcome.admits:
        lines.append(f"  because: {top.rule} {top.title}")
    return "\n".join(lines)


def _write(gated: Sequence[Gated], policy: Policy, out: Path, house: House) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for one in gated:
        name = one.verdict.subject.removeprefix("sha256:")[:16]
        write_atomic(out / f"{name}.verdict.json", canonical.canonical(one.verdict))
        statement = verdict_statement(one.member.submission.artifact, one.verdict, policy, one.evidence)
        write_atomic(out / f"{name}.intoto.jsonl", (house.signer.sign(statement) + "\n").encode())
