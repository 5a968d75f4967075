"""Where verdicts are kept, so that ``policy replay`` and ``policy explain`` find what every one of them rests on.

    store/artifacts/<hex>/claims.jsonl    what a run said of an adapter that it bred or trained, among its other claims
    verdicts/<hex>.jsonl                  what a run said of any other folder, and what ``ecology gate`` said of any

A stranger's folder is judged and not taken in: this home keeps what it saw of it and what it said, under its own
signature, and none of its bytes. Such a verdict is shown as *not held here*: it says what these bytes were, and
whoever doubts it has to bring them again. The signature is this home's on its own verdict; whether anybody signed the
adapter is in the evidence.

One verdict is kept once, however often it is given: policy, evidence and findings decide, not the instant.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ecology.contracts.artifact import Artifact
from ecology.contracts.evidence import Evidence
from ecology.contracts.identity import Digest
from ecology.contracts.policy import GateVerdict, Policy
from ecology.kernel import canonical
from ecology.pipeline.house import House
from ecology.signer.statements import verdict_statement
from ecology.store import lines

FOLDER = "verdicts"


@dataclasses.dataclass(frozen=True, slots=True)
class Drawer:
    """One file with signed envelopes about one adapter."""

    digest: Digest
    path: Path
    held: bool
    """Whether the adapter itself is in the store."""


def keep_verdict(
    house: House, artifact: Artifact, verdict: GateVerdict, policy: Policy, evidence: Evidence, *, ours: bool = False
) -> None:
    """Signs a verdict with its evidence and keeps it; one that is kept already changes nothing.

    Args:
        house: Keys and store.
        artifact: What was judged.
        verdict: The judgement.
        policy: What it was judged by.
        evidence: What was seen.
        ours: Whether the verdict joins the claims of an adapter in the store.

    Raises:
        ConfigError: The evidence is longer than is ever read back.
        IntegrityError: The store does not hold the adapter, or what is kept is damaged.
    """
    findings = [(f.rule, f.outcome.value) for f in verdict.findings]
    known = canonical.digest([artifact.digest, policy.digest, evidence, findings, verdict.scope, house.signer.keyid])
    if ours:
        path = house.store.claims_file(artifact.digest)
    else:
        path = house.home / FOLDER / f"{artifact.digest.removeprefix('sha256:')}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
    if house.recall("verdict", known, bool) is None or not path.exists():
        lines.append(path, [house.signer.sign(verdict_statement(artifact, verdict, policy, evidence))])
        house.remember("verdict", known, True)
        if verdict.scope == "full":  # a static gate is to start on little, and one file more is read by a replay
            from ecology.pipeline.replay_index import note  # noqa: PLC0415

            note(house, artifact.digest, path)


def drawers(house: House) -> tuple[Drawer, ...]:
    """Every file that may hold a verdict, by adapter."""
    held = frozenset(house.store.digests())
    found = [Drawer(digest, house.store.claims_file(digest), True) for digest in held]
    names = sorted(path.name for path in (house.home / FOLDER).glob("*.jsonl"))
    for name in names:
        digest = f"sha256:{name.removesuffix('.jsonl')}"
        if canonical.is_digest(digest):
            found.append(Drawer(Digest(digest), house.home / FOLDER / name, digest in held))
    return tuple(sorted(found, key=lambda one: (one.digest, one.path)))
