"""``ecology gate``: may this adapter go to production?

Static questions need neither weights nor torch; a static verdict carries its scope and admits to nothing. The full
ladder asks the same suites, with the same secret hidden items, as the main job does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ecology.contracts.artifact import Submission
from ecology.contracts.evidence import Evidence
from ecology.contracts.identity import Digest
from ecology.contracts.policy import GateVerdict, Outcome, Policy
from ecology.contracts.run import Budget
from ecology.errors import EXIT_OK, EXIT_REFUSED, MalformedArtifact
from ecology.gate.ladder import Rung, climb
from ecology.gate.static import TOKENIZER_FILES, context_for, static_evidence
from ecology.kernel import canonical
from ecology.kernel.verdicts import asked, headline
from ecology.pipeline.bench import known_base
from ecology.pipeline.house import House
from ecology.pipeline.members import Member, submission_of
from ecology.pipeline.overlaps import Overlaps
from ecology.pipeline.places import subject
from ecology.pipeline.revocations import quarantined
from ecology.policy.reader import load_policy
from ecology.signer.statements import verdict_statement
from ecology.store.files import write_atomic
from ecology.store.folders import nameless

Form = Literal["text", "json", "junit"]
SMALL_FILES_BYTES = 64 * 1024 * 1024
"""What the other files of a folder may have, that it is read at all."""


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
    gated: list[Gated] = []
    missing = False
    for folder in folders:
        try:
            member, whole = _stands(folder, rules)
        except MalformedArtifact as error:  # not even a folder: there is nothing to name by a digest
            print(f"ecology: {error}", file=sys.stderr)
            missing = True
            continue
        gated.append(_static(member, rules, base, house) if static or not whole else _full(member, rules, base, house))
    print(_render(gated, rules, form))
    if out is not None:
        _write(gated, rules, out, house)
    return EXIT_OK if not missing and all(one.verdict.outcome.admits for one in gated) else EXIT_REFUSED


def _stands(folder: Path, policy: Policy) -> tuple[Member, bool]:
    """A folder before the gate, and whether its bytes have a name; one that has none is refused by the static rules."""
    name = folder.resolve().name
    most = policy.adapter.max_file_bytes + SMALL_FILES_BYTES
    try:
        submission, whole = submission_of(name, folder, most), True
    except MalformedArtifact:
        submission, whole = Submission(name, str(folder), nameless(folder), ()), False
    return Member(name, submission, None, False), whole


def _static(member: Member, policy: Policy, base: str, house: House) -> Gated:
    model = known_base(base, house)
    context = context_for(
        policy,
        model.identity,
        model.tensor_schema,
        weight_norms=model.weight_norms,
        development=house.development_keys,
        corpora=Overlaps(house),
        revoked=quarantined(house.home / "registry.sqlite3"),
        base_names=model.names,
        base_files=tokenizer_files(model.folder, member.folder),
    )
    rung = Rung("static", lambda: static_evidence(member.submission, context))
    climbed = climb(member.submission, policy, [rung], house.clock.now(), scope="static")
    return Gated(member, climbed.verdict, climbed.evidence, climbed.rung)


def tokenizer_files(base: Path, adapter: Path) -> dict[str, Digest]:
    """Digests of the base's own tokenizer files, those alone that the adapter's folder has too."""
    return {
        name: canonical.digest_bytes((base / name).read_bytes())
        for name in sorted(TOKENIZER_FILES)
        if os.path.lexists(adapter / name) and (base / name).is_file()
    }


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
        decided_at=house.clock.now(),
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
        if finding.controls and not finding.outcome.admits:
            lines.append(f"                see {', '.join(finding.controls)}")
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
