"""``ecology registry`` and ``ecology audit``: what is known, and whether it can be relied on."""

from __future__ import annotations

from pathlib import Path

from ecology.contracts.identity import Digest, Json
from ecology.errors import ConfigError
from ecology.kernel import canonical
from ecology.pipeline.descent import Descent, verify_descent
from ecology.pipeline.house import CLOCK_SET_BACK, House
from ecology.pipeline.places import subject
from ecology.policy.reader import load_policy
from ecology.report.json_report import read_report


def listing(house: House) -> str:
    """One line an adapter: digest, name, operator, generation, last verdict, aliases."""
    rows = [("digest", "name", "operator", "gen", "last verdict", "aliases")]
    for known in house.registry.list():
        last = known.verdicts[-1] if known.verdicts else None
        verdict = f"{last.outcome} ({last.rung or 'all rungs'})" if last else "not judged"
        if known.quarantined:
            verdict = f"quarantined: {known.quarantined}"
        generation = "" if known.generation is None else str(known.generation)
        short = known.digest.removeprefix("sha256:")[:16]
        rows.append((short, known.name, known.operator or "outside", generation, verdict, ", ".join(known.aliases)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def show(house: House, text: str) -> Json:
    """Everything known of one adapter, as plain data; of one that was judged and never stored no claims are held.

    Raises:
        ConfigError: Nothing or more than one thing is meant.
    """
    digest = Digest(house.registry.resolve(text))
    plain: Json = canonical.plain(house.registry.show(digest))
    claims: Json = len(house.store.claims(digest)) if digest in house.store.digests() else "none held"
    return {**plain, "claims": claims, "history": canonical.plain(_moves(house, digest))}


def lineage(house: House, text: str, policy: str) -> Descent:
    """The family tree, the adapter first, each member verified under a policy's trust anchors.

    Raises:
        ConfigError: Nothing or more than one thing is meant, or there is no such policy.
    """
    signatures = load_policy(subject(policy, "policies", ".yaml")).signatures
    return verify_descent(house, house.registry.resolve(text), signatures)


def rebuild(house: House) -> str:
    """The registry anew from the log.

    Raises:
        IntegrityError: The log was tampered with.
    """
    return f"{house.registry.rebuild(house.log.events())} facts taken in"


def audit_verify(house: House) -> str:
    """Log and registry against everything that was ever signed.

    Raises:
        IntegrityError: Something is not as it was.
    """
    seen = house.log.verify()
    house.registry.verify(house.log)
    return f"the log is whole: {seen.size} events, origin {seen.origin}\nthe registry says what the log says"


def audit_prove(house: House, index: int) -> str:
    """An event and the proof that it is in the log.

    Raises:
        ConfigError: There is no such event.
    """
    proof = house.log.prove(index)
    return f"{proof.entry.decode()}\n\n{proof.text}"


def audit_consistency(house: House, old: Path) -> str:
    """That the log still begins with what an old checkpoint saw.

    Args:
        house: The installation.
        old: A file with a checkpoint, or a ``report.json`` that holds one.

    Raises:
        ConfigError: It holds no checkpoint.
        IntegrityError: The log was rewritten or cut since.
    """
    try:
        text = old.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read: {error}", where=str(old), todo="--from takes a checkpoint or a report.json"
        ) from error
    checkpoint = read_report(old).checkpoint if text.lstrip().startswith("{") else text
    try:
        found = house.log.consistency(checkpoint)
    except ConfigError as error:
        raise ConfigError(error.what, where=error.where or str(old), todo=error.todo) from error
    return f"the log of {found.new.size} events begins with the {found.old.size} of this checkpoint, unchanged"


def _moves(house: House, digest: str) -> list[Json]:
    return [
        canonical.plain(move)
        for alias in sorted(house.registry.aliases())
        for move in house.registry.history(alias)
        if digest in (move.subject, move.previous)
    ]


def accept_clock(house: House) -> str:
    """Says in the log that the clock was set back and that the earlier time is the right one."""
    now = house.clock.now()
    house.record(CLOCK_SET_BACK, {"to": now}, now)
    return f"the log goes on from {now}"
