"""``ecology policy``: a policy with what stands beside it, and all that can be said of it without judging anybody.

``release_test.yaml`` beside ``release.yaml`` holds its unit tests; what else stands there is read by ``governing``.

Nothing here is imported that lint, test, diff and explain do not need: they answer in half a second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecology.contracts.identity import Digest
from ecology.contracts.policy import GateVerdict, Outcome, Policy, Waiver
from ecology.errors import ConfigError, PolicyError
from ecology.kernel import canonical
from ecology.pipeline.governing import Governed, beside, envelopes_of, govern, policy_file
from ecology.policy.diff import Difference, diff, summary
from ecology.policy.explain import Step, explain_policy, explain_verdict
from ecology.policy.lint import Remark, lint
from ecology.policy.reader import load_policy
from ecology.policy.replay import Replay, Stored, replay, verdict_under
from ecology.policy.testing import CaseResult, coverage, run_tests
from ecology.policy.waivers import Standing, read_waiver, status
from ecology.signer.approval import Decision, approval_statement
from ecology.signer.keys import LocalSigner
from ecology.signer.waivers import waiver_statement
from ecology.store.files import write_atomic
from ecology.store.folders import describe

if TYPE_CHECKING:
    from ecology.pipeline.house import House
    from ecology.pipeline.past import Past


@dataclasses.dataclass(frozen=True)
class Linted:
    """What is unwise about a policy, and how its waivers stand."""

    remarks: tuple[Remark, ...]
    waivers: tuple[Standing, ...]
    refused: tuple[str, ...]

    @property
    def errors(self) -> bool:
        """Whether a rule is useless."""
        return any(remark.level == "error" for remark in self.remarks)


def lint_file(name: str, now: str, opened: Callable[[], House] | None = None) -> Linted:
    """Everything unwise in one policy.

    Args:
        name: Path, or name of a shipped policy.
        now: Instant as of which waivers stand.
        opened: Gives the home whose verdicts say which waivers were used; asked only where there are waivers.

    Raises:
        PolicyError: It cannot be read; all mistakes are listed.
        IntegrityError: The store is damaged.
    """
    governed = govern(name, now)
    used: Collection[tuple[str, Digest]] = ()
    if governed.policy.waivers and opened is not None:
        from ecology.pipeline.past import past_of  # noqa: PLC0415

        used = used_waivers(past_of(opened()))
    cases = cases_file(governed.path)
    tested = coverage(run_tests(cases, governed.policy)) if cases.exists() else {}
    remarks = sorted(lint(governed.policy, tested=tested), key=lambda remark: remark.level)
    return Linted(tuple(remarks), status(governed.policy, used, now), governed.refused)


def test_file(name: str) -> tuple[tuple[CaseResult, ...], Policy]:
    """The cases of ``NAME_test.yaml`` and what came of them.

    Raises:
        ConfigError: There is no test file beside the policy.
        PolicyError: A file cannot be read; all mistakes are listed.
    """
    path = policy_file(name)
    cases = cases_file(path)
    if not cases.exists():
        raise ConfigError("there are no tests beside this policy", where=str(path), todo=f"write {cases.name}")
    policy = load_policy(path)
    return run_tests(cases, policy), policy


def coverage_lines(results: Sequence[CaseResult], policy: Policy) -> tuple[str, ...]:
    """How many rules have a case, how many of those a passing and a complaining one, and which lack what."""
    found = coverage(tuple(results))
    rules = [rule.id for rule in policy.rules]
    total = len(rules)

    def having(wanted: Collection[Outcome]) -> int:
        return sum(any(outcome in wanted for outcome in found.get(rule, ())) for rule in rules)

    content, complains = (Outcome.PASS,), tuple(o for o in Outcome if o is not Outcome.PASS)
    lines = [
        f"coverage: {having(tuple(Outcome))} of {total} rules have a case, {having(content)} one that passes, "
        f"{having(complains)} one that does not"
    ]
    for outcome in (Outcome.PASS, Outcome.WARN, Outcome.INCONCLUSIVE, Outcome.DENY):
        lines.append(f"  {outcome.value:<13} expected of {having((outcome,))} rules")
    return tuple(lines)


def diff_files(old: str, new: str) -> tuple[Difference, ...]:
    """What changed from one policy to another.

    Raises:
        PolicyError: One cannot be read.
    """
    return diff(load_policy(policy_file(old)), load_policy(policy_file(new)))


def explain_file(name: str, rules: Sequence[str] = ()) -> tuple[str, ...]:
    """A policy in plain words, one paragraph a rule.

    Raises:
        PolicyError: It cannot be read, or has no rule of that id.
    """
    policy = load_policy(policy_file(name))
    known = [rule.id for rule in policy.rules]
    if unknown := [rule for rule in rules if rule not in known]:
        raise PolicyError(f"there is no rule {unknown[0]!r}; known: {', '.join(known)}", where=f"policy {policy.id}")
    wanted = [rule for rule in policy.rules if not rules or rule.id in rules]
    return explain_policy(dataclasses.replace(policy, rules=tuple(wanted)))


def explain_adapter(name: str, adapter: str, at: str, house: House) -> tuple[Stored, GateVerdict, tuple[Step, ...]]:
    """What each rule of a policy sees in what is stored of an adapter, and what would have to be true for it to pass.

    Args:
        name: Path, or name of a shipped policy.
        adapter: A folder, a digest, the beginning of one, a name or an alias.
        at: Instant as of which waivers and approvals count.
        house: Where verdicts are stored.

    Raises:
        ConfigError: Nothing is stored of the adapter, or more than one is meant.
    """
    from ecology.pipeline.past import past_of  # noqa: PLC0415

    past = past_of(house).verdicts
    digest = _meant(adapter, past, house)
    stored = [one for one in past if one.subject == digest]
    if not stored:
        raise ConfigError("no signed verdict is stored of it", where=digest, todo="ecology gate judges it")
    governed = govern(name, at)
    latest = max(stored, key=lambda one: (one.scope == "full", one.decided_at))  # one that was asked everything, if any
    judged = verdict_under(governed.policy, latest, at)
    return latest, judged, explain_verdict(governed.policy, judged)


def _meant(adapter: str, past: Sequence[Stored], house: House) -> str:
    """The digest that a person means; the gate keeps verdicts on adapters that the registry never heard of."""
    if Path(adapter).is_dir():
        return describe(Path(adapter)).digest
    start = adapter if adapter.startswith("sha256:") else f"sha256:{adapter}"
    found = {one.subject for one in past if len(start) >= 11 and one.subject.startswith(start)}
    return found.pop() if len(found) == 1 else house.registry.resolve(adapter)


def replay_file(name: str, at: str, house: House) -> tuple[Replay, Past]:
    """The policy on the stored evidence of everything ever judged here.

    Args:
        name: Path, or name of a shipped policy.
        at: Instant as of which waivers are in effect; each verdict's own where empty.
        house: Where verdicts are stored.

    Raises:
        PolicyError: It cannot be read, or has no deny rule.
        IntegrityError: The store is damaged.
    """
    governed = govern(name, at or house.clock.now())
    from ecology.pipeline.past import past_of  # noqa: PLC0415

    past = past_of(house)
    return replay(governed.policy, past.verdicts, at), past


def approve_file(
    name: str, key: Path, *, reason: str, decision: Decision, before: str, house: House, out: Path | None
) -> tuple[Governed, Sequence[Difference], Replay, str]:
    """Signs an approval of the compiled policy, over its digest, the diff and the replay that the approver saw.

    Args:
        name: Path, or name of a shipped policy.
        key: PEM private key of the approver.
        reason: Why.
        decision: Whether to approve or to reject.
        before: The policy that it replaces, for the diff; empty where there is none.
        house: Where past verdicts are.
        out: File that the approval is appended to; beside the policy where None.

    Returns:
        The policy as it stands now, the diff, the replay, and the approver's name.

    Raises:
        ConfigError: The key or the file cannot be used.
        PolicyError: A policy cannot be read, or the key is not one of its approvers.
    """
    now = house.clock.now()
    path = policy_file(name)
    policy = load_policy(path)
    signer = LocalSigner.from_file(key)
    terms = policy.approvals
    entitled = {k.public_key.strip(): k.name for k in terms.approvers} if terms else {}
    who = entitled.get(signer.public_key.public_key.strip())
    if who is None:
        names = ", ".join(entitled.values()) or "nobody"
        raise PolicyError(f"this key may not approve it; entitled: {names}", where=f"policy {policy.id}: approvals")
    differences = diff_files(before, name) if before else ()
    effect, _ = replay_file(name, "", house)
    context = {
        "diff": canonical.digest([str(d) for d in differences]),
        "replay": canonical.digest([effect.judged, effect.moved, [str(f) for f in effect.flips]]),
    }
    if before:
        context["replaces"] = load_policy(policy_file(before)).digest
    statement = approval_statement(
        policy.digest, "policy", approved_at=now, reason=reason, decision=decision, context=context
    )
    _append(out or beside(path, "approvals"), signer.sign(statement))
    house.record("approved", {"policy": policy.digest, "approver": who, "decision": decision, "context": context}, now)
    return govern(name, now), differences, effect, who


def waive_file(draft: Path, name: str, key: Path, house: House, out: Path | None) -> tuple[Waiver, Path]:
    """Checks a waiver against its policy, signs it and puts it into effect.

    Args:
        draft: ``waiver.yaml``.
        name: Path, or name of a shipped policy.
        key: PEM private key of the approver.
        house: Whose clock says when it was issued.
        out: File that it is appended to; beside the policy where None.

    Raises:
        ConfigError: A file cannot be read or written.
        PolicyError: The waiver is malformed, the policy does not allow it, or the key is not its approver's.
    """
    path = policy_file(name)
    policy = load_policy(path)
    waiver = read_waiver(draft, policy, house.clock.now())
    signer = LocalSigner.from_file(key)
    approvers = policy.waiver_rules.approvers if policy.waiver_rules else ()
    entitled = {k.public_key.strip(): k.name for k in approvers}
    who = entitled.get(signer.public_key.public_key.strip())
    if who != waiver.approver:
        what = (
            f"the waiver is in the name of {waiver.approver!r}, this key is {who!r}"
            if who
            else "this key may not waive"
        )
        raise PolicyError(
            what,
            where=f"policy {policy.id}: waiver_rules.approvers",
            todo=f"entitled: {', '.join(entitled.values()) or 'nobody'}",
        )
    target = out or beside(path, "waivers")
    _append(target, signer.sign(waiver_statement(waiver)))
    body: Mapping[str, object] = {
        "policy": policy.digest,
        "rule": waiver.rule,
        "digest": waiver.subject,
        "approver": who,
        "ticket": waiver.ticket,
        "expires": waiver.expires,
    }
    house.record("waived", body)
    return waiver, target


def used_waivers(past: Past) -> frozenset[tuple[str, Digest]]:
    """Rule and subject of what was ever waived, from the stored verdicts."""
    return frozenset((rule, one.subject) for one in past.verdicts for rule in one.waived)


def cases_file(path: Path) -> Path:
    """``release_test.yaml`` of ``release.yaml``."""
    return path.with_name(f"{path.stem}_test.yaml")


def _append(path: Path, envelope: str) -> None:
    try:
        write_atomic(path, "".join(f"{line}\n" for line in (*envelopes_of(path), envelope)).encode())
    except OSError as error:
        todo = "name another file with --out, and lay it beside the policy"
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path), todo=todo) from error


__all__ = ["summary"]
