"""What makes an unchanged adapter free: what was measured, kept under the digest of everything it depends on.

That is bytes and claims of the adapter, policy, base, suites, corpora, keys and quarantine. The verdict itself is not
kept: it is made anew from the evidence, since waivers expire.
"""

from __future__ import annotations

import dataclasses
import hashlib

import ecology
from ecology.contracts.artifact import Submission
from ecology.contracts.evidence import Evidence
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import Finding, GateVerdict, Outcome
from ecology.gate.ladder import Climb
from ecology.gate.static import SOURCE
from ecology.kernel import canonical
from ecology.kernel.verdicts import asked
from ecology.pipeline.desk import Desk
from ecology.pipeline.house import House
from ecology.pipeline.members import Member
from ecology.pipeline.overlaps import files_below
from ecology.pipeline.places import shared
from ecology.pipeline.revocations import quarantined

NOBODY = Digest("sha256:" + "0" * 64)
"""Subject of the verdict on what is no folder: there are no bytes to name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """What a climb came to, without its verdict."""

    evidence: Evidence
    rung: str
    """On which it ended; empty where it passed all."""
    asked: tuple[str, ...]
    """Ids of the rules that were put to the adapter."""


def cache_key(member: Member, desk: Desk) -> Digest:
    """Digest of everything that what is measured depends on.

    A folder without claims is asked nothing that depends on this home's keys or its secret seed, so its key is the same
    on every machine; with claims, or for the full ladder, it is this home's own.
    """
    want, house = desk.want, desk.house
    mine: Json = []
    if member.submission.claims or member.submission.unread or not want.static:
        revoked = quarantined(house.home / "registry.sqlite3")
        seed = house.seed_commitment if house.has_seed or not want.static else None
        mine = [[key.public_key for key in house.development_keys], seed, dict(revoked)]
    anchor: Json = []
    if not want.static and (house.home / "registry.sqlite3").exists():
        anchor = [want.alias, dict(house.registry.aliases())]
    asked: Json = [want.static, [files_below(shared(folder)) for folder in ("suites", "corpora")]]
    if not want.static:
        asked = [*asked, canonical.digest_bytes(shared("conf", "evaluator", f"{want.evaluator}.yaml").read_bytes())]
    policy, base = desk.governed.policy.digest, desk.model.identity
    claims = _digest_of(member.submission)
    version = [ecology.__version__, SOURCE]  # what another gate measured is measured again
    return canonical.digest([version, member.digest, claims, policy, base, asked, mine, anchor])


def _digest_of(submission: Submission) -> Digest:
    """Of the claims' own bytes: nobody has read them yet, so they are not put into any form."""
    lines = hashlib.sha256()
    for line in (submission.unread, *submission.claims):
        lines.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return Digest(f"sha256:{lines.hexdigest()}")


def recalled(key: Digest, house: House) -> Climb | None:
    """What was measured under this key; None where nothing was, or where it cannot be read any more."""
    found = house.recall("gate", key, Measured)
    if found is None:
        return None
    findings = tuple(_placeholder(name) for name in found.asked)
    blank = GateVerdict(NOBODY, NOBODY, "full", Outcome.INCONCLUSIVE, findings, "")
    return Climb(blank, found.evidence, found.rung, ())


def asked_rules(climbed: Climb) -> tuple[str, ...]:
    """Ids of the rules that were put to the adapter."""
    return tuple(f.rule for f in climbed.verdict.findings if asked(f))


def _placeholder(rule: str) -> Finding:
    """Stands for a rule that was asked; what it found is computed again from the evidence."""
    return Finding(rule, "", "", "none", "info", Outcome.INCONCLUSIVE, "", None, None, None, 0, "asked")
