"""``ecology gate``: may these adapters go to production?

Static questions need neither weights nor torch; a static verdict carries its scope and admits to nothing. The full
ladder asks the same suites, with the same secret hidden items, as the main job does.

Many adapters in one call, and only those that changed since a revision if that is asked. What was measured is kept
under the digest of everything it depends on (bytes and claims of the adapter, policy, base, suites, corpora, keys,
quarantine), so an unchanged adapter costs the reading of its files; the verdict itself is always made anew, since
waivers expire.

Every verdict is kept with its evidence for ``policy replay`` (``verdicts``), those of unsigned folders too; not one
that was asked as of another instant (``--at``), which is a question and no judgement.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import ecology
from ecology.backend.bases import BaseModel
from ecology.contracts.artifact import Submission
from ecology.contracts.evidence import Evidence
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import RUNG_RULE, Finding, GateVerdict, Outcome, Policy
from ecology.contracts.run import Budget
from ecology.errors import EXIT_OK, EXIT_REFUSED, ConfigError, MalformedArtifact
from ecology.gate.context import context_for
from ecology.gate.ladder import Climb, Rung, climb, rung_of
from ecology.gate.static import static_evidence
from ecology.kernel import canonical
from ecology.kernel.codec import structure
from ecology.kernel.sight import USUAL, sufficient
from ecology.kernel.verdicts import asked, headline, verdict
from ecology.pipeline.bench import known_base, tokenizer_files
from ecology.pipeline.governing import Governed, govern
from ecology.pipeline.house import House
from ecology.pipeline.members import Member, submission_of
from ecology.pipeline.overlaps import Overlaps, files_below
from ecology.pipeline.places import shared
from ecology.pipeline.power import AGAIN, refuse_blind, samples_of
from ecology.pipeline.revocations import quarantined
from ecology.pipeline.verdicts import keep_verdict
from ecology.report.gated import Judged
from ecology.report.sight import rule_sights
from ecology.report.standing import standing_line
from ecology.report.words import visible
from ecology.signer.statements import verdict_statement
from ecology.store.files import write_atomic
from ecology.store.folders import nameless

Form = Literal["text", "json", "junit", "sarif", "github"]
NOBODY = Digest("sha256:" + "0" * 64)
"""Subject of the verdict on what is no folder: there are no bytes to name."""
SMALL_FILES_BYTES = 64 * 1024 * 1024
"""What the other files of a folder may have, that it is read at all."""
SUMMARY = "GITHUB_STEP_SUMMARY"
"""Environment variable with the file that GitHub shows as the summary of a step."""


@dataclasses.dataclass(frozen=True)
class Gated:
    """One adapter and what the gate said."""

    name: str
    folder: Path
    member: Member | None
    """None for a folder that cannot be described."""
    verdict: GateVerdict
    evidence: Evidence
    rung: str
    kept: bool = False
    """Whether nothing had to be measured."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What one call of the gate wants to know."""

    policy: str
    """Path, or name of a shipped policy."""
    base: str
    """Preset of ``conf/base``."""
    static: bool
    """Whether to ask only what needs no model."""
    form: Form
    """What goes to stdout."""
    out: Path | None
    """Folder for verdicts and signed attestations; None writes none."""
    since: str = ""
    """Git revision; adapters that did not change since are left out."""
    at: str = ""
    """Instant as of which waivers and approvals count; now where empty."""
    evaluator: str = "standard"
    """Preset of ``conf/evaluator``: which suites can be asked, and how; the policy says how much of them."""
    fresh: bool = False
    """Whether to measure again what was measured before."""


@dataclasses.dataclass(frozen=True)
class _Desk:
    """What all adapters of one call are judged by."""

    governed: Governed
    want: Asked
    now: str
    house: House
    model: BaseModel


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
    folders = list(dict.fromkeys(path.parent if path.is_file() else path for path in paths))
    if want.since and not _policy_changed(governed.path, want.since):
        folders = [folder for folder in folders if changed_since(folder, want.since)]
    if not want.static and folders:
        refuse_blind(governed.policy, _budget(governed.policy, want), len(folders))
    desk = _Desk(governed, want, now, house, known_base(want.base, house))
    gated = [_one(folder, desk) for folder in folders]
    for one in gated:
        if one.member is not None and not want.at:
            keep_verdict(house, one.member.submission.artifact, one.verdict, governed.policy, one.evidence)
    text = _render(gated, governed, want.form)
    if text:
        print(text)
    if want.out is not None:
        _write(gated, governed, want.out, house)
    return EXIT_OK if all(one.verdict.outcome.admits for one in gated) else EXIT_REFUSED


def _policy_changed(path: Path, revision: str) -> bool:
    """Whether the policy, or one beside it that it may extend, changed too: then every adapter is judged anew."""
    try:
        return changed_since(path.parent, revision)
    except ConfigError:  # the policy is no part of this history, as a shipped one of a wheel is not
        return False


def changed_since(folder: Path, revision: str) -> bool:
    """Whether anything below a folder differs from a Git revision, untracked files included.

    Raises:
        ConfigError: The folder is in no repository, or the revision is not known.
    """
    where = folder if folder.is_dir() else folder.parent
    if revision.startswith("-"):
        raise ConfigError("a revision does not begin with a dash", where=f"--since {revision}")

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(where), *arguments, "--", "."]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    try:
        differs = git("diff", "--quiet", "--no-ext-diff", revision)
        new = git("ls-files", "--others", "--exclude-standard")
    except OSError as error:
        raise ConfigError(f"git cannot be run: {error.strerror}", where="--since", todo="leave --since out") from error
    if differs.returncode not in (0, 1) or new.returncode != 0:
        problem = (differs.stderr or new.stderr).strip().splitlines()
        todo = "name a revision that this clone has (a shallow clone has only the last)"
        raise ConfigError(problem[0] if problem else "git failed", where=f"--since {revision}", todo=todo)
    return differs.returncode == 1 or bool(new.stdout.strip())


def _one(folder: Path, desk: _Desk) -> Gated:
    governed, want, now, house = desk.governed, desk.want, desk.now, desk.house
    try:
        member, whole = _stands(folder, governed.policy)
    except MalformedArtifact as error:  # not even a folder: there is nothing to name by a digest
        return Gated(folder.name, folder, None, _unreadable(error, governed.policy, want, now), (), "static")
    if not whole:
        refused = _static(member, desk)
        return Gated(folder.name, folder, None, refused.verdict, refused.evidence, refused.rung)
    key = _cache_key(member, desk)
    kept = None if want.fresh else _recall(key, house)
    climbed = kept or (_static if want.static else _full)(member, desk)
    if kept is None and not any(f.rule.startswith(RUNG_RULE) for f in climbed.verdict.findings):
        house.remember(
            "gate", key, {"evidence": climbed.evidence, "rung": climbed.rung, "asked": _asked_rules(climbed)}
        )
    judged = verdict(
        governed.policy,
        climbed.evidence,
        member.digest,
        "static" if want.static else "full",
        now,
        rules_asked=_asked_rules(climbed) if not want.static else None,
        extra=[*governed.standing, *(f for f in climbed.verdict.findings if f.rule.startswith(RUNG_RULE))],
    )
    return Gated(folder.name, folder, member, judged, climbed.evidence, climbed.rung, kept is not None)


def _stands(folder: Path, policy: Policy) -> tuple[Member, bool]:
    """A folder before the gate, and whether its bytes have a name; one that has none is refused by the static rules."""
    name = folder.resolve().name
    most = policy.adapter.max_file_bytes + SMALL_FILES_BYTES
    try:
        submission, whole = submission_of(name, folder, most), True
    except MalformedArtifact:
        submission, whole = Submission(name, str(folder), nameless(folder), ()), False
    return Member(name, submission, None, False), whole


def _asked_rules(climbed: Climb) -> list[str]:
    return [f.rule for f in climbed.verdict.findings if asked(f)]


def _cache_key(member: Member, desk: _Desk) -> Digest:
    """Digest of everything that what is measured depends on.

    A folder without claims is asked nothing that depends on this home's keys or its secret seed, so its key is the same
    on every machine; with claims, or for the full ladder, it is this home's own.
    """
    want, house = desk.want, desk.house
    mine: Json = []
    if member.submission.claims or not want.static:
        revoked = quarantined(house.home / "registry.sqlite3")
        seed = house.seed_commitment if house.has_seed or not want.static else None
        mine = [[key.public_key for key in house.development_keys], seed, dict(revoked)]
    anchor: Json = []
    if not want.static and (house.home / "registry.sqlite3").exists():
        anchor = dict(house.registry.aliases())
    asked: Json = [want.static, [files_below(shared(folder)) for folder in ("suites", "corpora")]]
    if not want.static:
        asked = [*asked, canonical.digest_bytes(shared("conf", "evaluator", f"{want.evaluator}.yaml").read_bytes())]
    claims = list(member.submission.claims)
    policy, base = desk.governed.policy.digest, desk.model.identity
    return canonical.digest([ecology.__version__, member.digest, claims, policy, base, asked, mine, anchor])


def _recall(key: Digest, house: House) -> Climb | None:
    """What was measured under this key; None where nothing was, or where it cannot be read any more."""
    found = house.recall("gate", key)
    if found is None:
        return None
    try:
        value = json.loads(found)
        evidence = structure(Evidence, value["evidence"])
        names, rung = list(map(str, value["asked"])), str(value["rung"])
    except (ValueError, KeyError, TypeError, ConfigError):
        return None
    findings = tuple(_placeholder(name) for name in names)
    blank = GateVerdict(NOBODY, NOBODY, "full", Outcome.INCONCLUSIVE, findings, "")
    return Climb(blank, evidence, rung, ())


def _placeholder(rule: str) -> Finding:
    """Stands for a rule that was asked; what it found is computed again from the evidence."""
    return Finding(rule, "", "", "none", "info", Outcome.INCONCLUSIVE, "", None, None, None, 0, "asked")


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
        reason=str(error),
    )
    scope: Literal["static", "full"] = "static" if want.static else "full"
    return verdict(policy, (), NOBODY, scope, now, rules_asked=(), extra=(why,))


def _static(member: Member, desk: _Desk) -> Climb:
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
    rung = Rung("static", lambda: static_evidence(member.submission, context))
    return climb(member.submission, policy, [rung], desk.now, scope="static", standing=desk.governed.standing)


def _forbidden() -> frozenset[tuple[str, ...]]:
    from ecology.pipeline.corpora import forbidden  # noqa: PLC0415  (only where an adapter brings prose)

    return forbidden()


def _full(member: Member, desk: _Desk) -> Climb:
    from ecology.pipeline.bench import open_bench  # noqa: PLC0415  (engines only where they are asked)
    from ecology.pipeline.compose import compose  # noqa: PLC0415
    from ecology.pipeline.corpora import held_corpora  # noqa: PLC0415
    from ecology.pipeline.judging import RUNGS, Judge, climb_all, comparator  # noqa: PLC0415
    from ecology.pipeline.plan import budget_of, load_suites  # noqa: PLC0415

    governed, want, now, house = desk.governed, desk.want, desk.now, desk.house
    policy = governed.policy
    settings, _ = compose([f"base={want.base}", f"evaluator={want.evaluator}"])
    bench = open_bench(settings.base, settings.backend, house)
    judge = Judge(
        policy=policy,
        budget=enough(policy, budget_of(settings)),
        corpora=held_corpora(house),
        bench=bench,
        suites={name: suite for name, suite in load_suites(settings, policy).items() if _asked_about(policy, name)},
        incumbent=comparator(bench, house.registry.alias(settings.alias)),
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
    """As many items and pairs as the policy's rules demand, or need to see what it wants seen, and no more."""
    wanted = {rule.id: rule.min_samples for rule in policy.rules}
    for rule in policy.rules if policy.decidable else ():
        if rule.id in samples_of(policy, budget) and rule.severity == "deny":
            wanted[rule.id] = max(rule.min_samples, sufficient(rule, policy.decidable or USUAL) or 0)

    def most(split: str, prefix: str = "", suffix: str | tuple[str, ...] = "") -> int:
        asked = (r for r in policy.rules if r.split == split and r.metric.startswith(prefix))
        return max((wanted[r.id] for r in asked if r.metric.endswith(suffix)), default=0)

    return dataclasses.replace(
        budget,
        public_items=max(1, most("public"), most("hidden", "robust."), most("hidden", suffix=AGAIN)),
        hidden_items=max(1, most("hidden")),
        latency_pairs=max(1, most("none", "resource.latency")),
    )


def _render(gated: Sequence[Gated], governed: Governed, form: Form) -> str:
    policy = governed.policy
    judged = [Judged(one.name, _shown_path(one.folder), one.verdict) for one in gated]
    if form == "json":
        return json.dumps([_plain(one, policy) for one in gated], indent=2)
    if form == "junit":
        from ecology.report.junit import junit  # noqa: PLC0415

        return junit([(one.name, one.verdict) for one in gated], policy.id, policy).decode()
    if form == "sarif":
        from ecology.report.sarif import sarif  # noqa: PLC0415

        return sarif(judged, policy).decode().rstrip()
    standing = standing_line(policy, governed.approvals)
    seen = rule_sights(policy, [one.verdict for one in gated])
    if form == "github":
        from ecology.report.github import step_summary, workflow_commands  # noqa: PLC0415

        if target := os.environ.get(SUMMARY):
            with Path(target).open("a", encoding="utf-8") as file:  # GitHub says to append
                file.write(step_summary(judged, policy, standing, seen))
        return workflow_commands(judged)
    if not gated:
        return "nothing changed: there is no adapter to judge"
    told = ["what the rules could see:\n  " + "\n  ".join(seen)] if seen else []
    last = f"policy {policy.id} {policy.digest}\n  {standing}"
    return "\n\n".join([*(_text(one, policy) for one in gated), *told, last])


def _plain(one: Gated, policy: Policy) -> Json:
    return {
        "name": one.name,
        "path": _shown_path(one.folder),
        "kept": one.kept,
        "verdict": canonical.plain(one.verdict),
        "evidence": canonical.plain(one.evidence),
        "sees": list(rule_sights(policy, [one.verdict])),
    }


def _shown_path(folder: Path) -> str:
    """Relative to the working directory where it lies below, in POSIX form."""
    try:
        return folder.resolve().relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        return folder.as_posix()


FILES: Mapping[str, Form] = {"gate.json": "json", "junit.xml": "junit", "sarif.json": "sarif"}
"""What ``--out`` writes besides the verdicts one by one."""
MARKS = {
    Outcome.PASS: "pass",
    Outcome.WAIVED: "waived",
    Outcome.WARN: "WARN",
    Outcome.INCONCLUSIVE: "INCONCLUSIVE",
    Outcome.DENY: "DENY",
}


def _text(gated: Gated, policy: Policy) -> str:
    judged = gated.verdict
    word = "passed" if judged.outcome.admits else "REFUSED"
    scope = " (static scope: admits to nothing)" if judged.scope == "static" else ""
    kept = " (unchanged: nothing was measured again)" if gated.kept else ""
    lines = [f"{visible(gated.name)}: {word} under {policy.id} v{policy.version}{scope}{kept}"]
    lines += [f"  {judged.subject}"] if gated.member else []
    for finding in judged.findings:
        if not asked(finding):
            continue
        lines.append(f"  {MARKS[finding.outcome]:<13} {finding.rule:<10} {finding.title}: {finding.reason}")
        lines += [f"                {detail}" for detail in finding.details]
        if finding.controls and not finding.outcome.admits:
            lines.append(f"                see {', '.join(finding.controls)}")
    left_out = [finding.rule for finding in judged.findings if not asked(finding)]
    if left_out:
        lines.append(f"  not asked: {', '.join(left_out)}")
    top = headline(judged)
    if top is not None and not judged.outcome.admits:
        lines.append(f"  because: {top.rule} {top.title}")
    return "\n".join(lines)


def _write(gated: Sequence[Gated], governed: Governed, out: Path, house: House) -> None:
    """Everything that a build keeps: all verdicts in the formats of machines, and one signed SLSA VSA an adapter.

    Nothing vouches for a folder that could not be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, form in FILES.items():
        write_atomic(out / name, f"{_render(gated, governed, form)}\n".encode())
    for one in gated:
        if one.member is None:
            continue
        name = one.verdict.subject.removeprefix("sha256:")[:16]
        write_atomic(out / f"{name}.verdict.json", canonical.canonical(one.verdict))
        artifact = one.member.submission.artifact
        statement = verdict_statement(artifact, one.verdict, governed.policy, one.evidence)
        write_atomic(out / f"{name}.intoto.jsonl", (house.signer.sign(statement) + "\n").encode())
