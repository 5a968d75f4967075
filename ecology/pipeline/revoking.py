"""``ecology registry revoke``, ``revocations``, ``approve``, ``stop`` and ``resume``: what people decide by hand.

A revocation is a fact like any other; quarantine of the descendants follows from it and from the lineage, also for
those that are bred later or become known later. An alias that names a quarantined adapter is moved back at once: to the
last one before it that may serve, or to the bare base.
"""

from __future__ import annotations

from pathlib import Path

from ecology.contracts.identity import Digest
from ecology.contracts.ports import Signer
from ecology.contracts.promotion import Revocation
from ecology.errors import ConfigError
from ecology.kernel import canonical
from ecology.pipeline.aliases import leave_quarantined
from ecology.pipeline.boundaries import KIND
from ecology.pipeline.house import House
from ecology.signer.approval import approval_statement
from ecology.signer.keys import read_trusted
from ecology.signer.revocations import revocation_statement, revocations_from_statement
from ecology.signer.verify import verify_envelope
from ecology.store.files import write_atomic


def revoke(house: House, text: str, reason: str) -> str:
    """Quarantines an adapter and all its descendants, and moves aliases off them.

    Args:
        house: The installation.
        text: An alias, a name, a digest or its beginning; a whole digest may be of an adapter that is not known here.
        reason: Why; shown wherever one of them comes up.

    Raises:
        ConfigError: There is no reason, or nothing or more than one thing is meant.
    """
    if not reason.strip():
        raise ConfigError("a revocation needs a reason", where="--reason")
    digest = text if canonical.is_digest(text) else house.registry.resolve(text)
    before = set(house.registry.revoked())
    if digest not in house.registry.revocations():
        house.record("revoked", {"digest": digest, "reason": reason})
    return "\n".join([f"revoked {digest}: {reason}", *_consequences(house, before | {digest})])


def export_list(house: House, out: Path) -> str:
    """Writes the revocations of this home as a signed list.

    Raises:
        ConfigError: Nothing is revoked, or the file cannot be written.
    """
    revoked = [Revocation(Digest(d), *said) for d, said in house.registry.revocations().items()]
    line = house.signer.sign(revocation_statement(revoked, house.clock.now()))
    write_atomic(out, (line + "\n").encode())
    return f"{len(revoked)} revocations, signed by {house.signer.keyid}"


def import_list(house: House, path: Path, key: Path) -> str:
    """Takes in the revocations of another home.

    Raises:
        MalformedArtifact: It is not a list, or not signed by this key; nothing is taken in.
        ConfigError: A file cannot be read.
    """
    try:
        line = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    signed = verify_envelope(line, [read_trusted(key)])
    before, new = set(house.registry.revoked()), 0
    for one in revocations_from_statement(signed.statement):
        if one.subject not in house.registry.revocations():
            house.record("revoked", {"digest": one.subject, "reason": f"{one.reason} (says {signed.signer})"})
            new += 1
    return "\n".join([f"{new} revocations taken in from {signed.signer}", *_consequences(house, before)])


def approve(house: House, text: str, reason: str, signer: Signer, role: str = "", *, reject: bool = False) -> str:
    """Signs that a person looked at an adapter and lets it breed on, or does not; the envelope goes into the log.

    Raises:
        ConfigError: There is no reason, or nothing or more than one thing is meant.
    """
    digest = Digest(house.registry.resolve(text))
    statement = approval_statement(
        digest,
        KIND,
        approved_at=house.clock.now(),
        reason=reason,
        role=role,
        decision="reject" if reject else "approve",
    )
    house.record("breeding_approved", {"digest": digest, "envelope": signer.sign(statement)})
    return f"{'rejected' if reject else 'approved'} {digest} for breeding, by {signer.keyid}"


def stop(house: House, reason: str) -> str:
    """Stops every run of this home at its next step, and lets none start.

    Raises:
        ConfigError: There is no reason.
    """
    if not reason.strip():
        raise ConfigError("stopping needs a reason", where="--reason")
    write_atomic(house.stop_file, (reason.strip() + "\n").encode())  # first the switch: the log may be out of reach
    house.record("stopped", {"reason": reason})
    return f"stopped: {reason}"


def resume(house: House, reason: str) -> str:
    """Lets runs start again.

    Raises:
        ConfigError: There is no reason, or nothing was stopped.
    """
    if not reason.strip():
        raise ConfigError("resuming needs a reason", where="--reason")
    if not house.stop_file.exists():
        raise ConfigError("this home was not stopped", where=str(house.stop_file))
    house.record("resumed", {"reason": reason})
    house.stop_file.unlink()
    return f"resumed: {reason}"


def _consequences(house: House, before: set[str]) -> list[str]:
    """Moves aliases off whatever is quarantined now, and says who is."""
    banned = house.registry.revoked()
    lines = [f"quarantined {digest}: {why}" for digest, why in sorted(banned.items()) if digest not in before]
    return [*lines, *leave_quarantined(house)]
