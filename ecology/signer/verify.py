"""The only way from a line of ``claims.jsonl`` to something that may be believed.

Nothing of a line is believed before its signature holds, and a signature holds only under a key that the caller
brought: from a policy or from the command line, never from the folder that is judged.

The steps, in order:

1. The line is short enough, is I-JSON, is a DSSE envelope around in-toto. Nothing inside the payload is looked at.
2. A trusted key signed exactly these payload bytes. The envelope's ``keyid`` only decides which refusal is shown. A
   line that is a Sigstore bundle is verified by identity instead, offline, under the root that the policy pins
   (``sigstore``); only then is that library imported.
3. The payload is I-JSON and an in-toto v1 statement.
4. It is about the artifact that was asked about, or it is *replayed from* another one.
5. A predicate of one of our types has our shape. Predicates of other types are kept as they are: true, and unread.

Whatever goes wrong, foreseen or not, is a refusal of that one line with a reason; the other lines are read on. Looking
at a signature takes a tenth of a millisecond, so how many are looked at is bounded for all lines together
(``_Effort``): an honest line costs one, all that a file may have a quarter of a second.

What the caller still owes: whether what was said is enough (a policy's question), and whether the key is still in use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

from ecology.contracts.artifact import MAX_CLAIMS
from ecology.contracts.genome import Genome
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import TrustedIdentity, TrustedKey
from ecology.errors import MalformedArtifact
from ecology.kernel.canonical import digest_bytes
from ecology.signer import dsse, intoto, strict
from ecology.signer.bundle import is_bundle
from ecology.signer.keys import PublicKey, key_id, load_public, signed_by
from ecology.signer.refusal import ClaimRefused
from ecology.signer.roots import Root
from ecology.signer.statements import BREED, PROVENANCE, SUMMARY, VERDICT, genome_from_statement, verdict_from_statement

MAX_BUNDLE_CHARACTERS = 4 * 1024 * 1024
MOST_LOOKS, MOST_WHYS = 2048, 256
"""Looks at signatures of all lines: at those named after a trusted key, and at others, to tell why one is refused."""
_BYTES_A_LOOK = 64 * 1024
"""Hashing so much takes as long as the curve's arithmetic."""
_LOOKS_A_BUNDLE = 16
"""A certificate's path, a log's proof and some signatures."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """A statement and who signed it."""

    statement: Mapping[str, Json]
    keyid: str
    """Of the trusted key that verified, not what the envelope says."""
    signer: str
    """Name of that key in the policy or on the command line."""


@dataclasses.dataclass(frozen=True, slots=True)
class VerifiedClaim:
    """A statement about the artifact that was asked about, and who signed it."""

    statement: Mapping[str, Json]
    predicate_type: str
    keyid: str
    signer: str
    development: bool
    """Whether only a development key vouches for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Claims:
    """What may be believed of a ``claims.jsonl``, and why the rest may not."""

    verified: tuple[VerifiedClaim, ...]
    """In the order of the lines."""
    refused: tuple[str, ...]
    """``line N: reason: sentence``, in the order of the lines; reasons are those of ``refusal.Reason``."""


def verify_envelope(line: str, keys: Sequence[TrustedKey], identities: Sequence[TrustedIdentity] = ()) -> Verified:
    """Steps 1 to 3: the statement on a line, if one of ``keys`` or ``identities`` signed it.

    Args:
        line: One DSSE envelope or one Sigstore bundle.
        keys: Trust anchors; none of them is taken from the envelope.
        identities: Trust anchors for bundles.

    Raises:
        ClaimRefused: A ``MalformedArtifact`` with a reason.
        PolicyError: A key is not a public key that can be used.
    """
    anchors = _loaded(keys)
    with nothing_but_refusals():
        return _signed(line, anchors, identities, _Effort())[0]


def verify_claims(
    claims: Sequence[str],
    subject: Digest,
    trusted: Sequence[TrustedKey],
    development: Sequence[TrustedKey],
    identities: Sequence[TrustedIdentity] = (),
) -> Claims:
    """Steps 1 to 5 for every line.

    Args:
        claims: Lines of ``claims.jsonl``; empty ones are skipped.
        subject: Digest of the artifact, computed by the caller from its bytes.
        trusted: Keys that the policy names.
        development: Keys that count only as development keys; empty where the policy does not allow them. A key that
            stands in both counts as trusted.
        identities: Signers without a key that the policy names, with their roots.

    Raises:
        PolicyError: A key is not a public key that can be used. Nothing in the claims raises.
    """
    named = _loaded(trusted)
    anchors = [*named, *_loaded(development)]
    verified: list[VerifiedClaim] = []
    refused: list[str] = []
    if len(claims) > MAX_CLAIMS:
        refused.append(f"line {MAX_CLAIMS + 1}: size: {len(claims)} lines, and at most {MAX_CLAIMS} are read")
    effort = _Effort()
    for number, line in enumerate(claims[:MAX_CLAIMS], start=1):
        if not line.strip():
            continue
        try:
            with nothing_but_refusals():
                found, which = _about(line, subject, anchors, identities, effort)
        except ClaimRefused as refusal:
            refused.append(f"line {number}: {refusal.reason}: {refusal}")
        else:
            verified.append(
                VerifiedClaim(
                    statement=found.statement,
                    predicate_type=str(found.statement["predicateType"]),
                    keyid=found.keyid,
                    signer=found.signer,
                    development=len(named) <= which < len(anchors),
                )
            )
    return Claims(tuple(verified), tuple(refused))


def genome_of(claims: Claims) -> Genome | None:
    """The genome that the verified claims agree on; None where there is none.

    A named key's word goes before a development key's.

    Raises:
        ClaimRefused: ``predicate``: two keys of one standing vouch for different genomes of the same bytes.
    """
    for development in (False, True):
        found = [
            genome_from_statement(claim.statement)
            for claim in claims.verified
            if claim.development is development and is_genome(claim.statement)
        ]
        if any(genome != found[0] for genome in found):
            raise ClaimRefused("predicate", "two signed genomes of these bytes contradict each other")
        if found:
            return found[0]
    return None


def is_genome(statement: Mapping[str, Json]) -> bool:
    """Whether a statement says to be a genome of ours; provenance of other build types is not."""
    predicate = statement.get("predicate")
    definition = predicate.get("buildDefinition") if isinstance(predicate, Mapping) else None
    return (
        statement.get("predicateType") == PROVENANCE
        and isinstance(definition, Mapping)
        and definition.get("buildType") == BREED
    )


def is_verdict(statement: Mapping[str, Json]) -> bool:
    """Whether a statement says to be a verdict of ours; verification summaries of others are not."""
    predicate = statement.get("predicate")
    return statement.get("predicateType") == SUMMARY and isinstance(predicate, Mapping) and VERDICT in predicate


def unverified_statement(line: str) -> Mapping[str, Json]:
    """What a line says, signed or not: to be shown to a person as *unverified*, and for nothing else.

    Raises:
        ClaimRefused: It is not a statement.
    """
    with nothing_but_refusals():
        return _statement(dsse.read(line).payload)


@contextlib.contextmanager
def nothing_but_refusals() -> Iterator[None]:
    """Whatever else goes wrong inside becomes a refusal: what is not understood is not believed."""
    try:
        yield
    except ClaimRefused:
        raise
    except MalformedArtifact as error:
        raise ClaimRefused("unexpected", error.what, where=error.where, todo=error.todo) from error
    except Exception as error:
        raise ClaimRefused("unexpected", f"{type(error).__name__} while reading it") from error


_Anchor = tuple[PublicKey, str, str]
"""Key, key id, name."""


class _Effort:
    """What may still be spent on the lines of one file."""

    def __init__(self) -> None:
        self.looks, self.whys = MOST_LOOKS, MOST_WHYS

    def look(self, cost: int) -> None:
        """Before a signature that is named after a trusted key is looked at.

        Raises:
            ClaimRefused: ``size``.
        """
        self.looks -= cost
        if self.looks < 0:
            raise ClaimRefused("size", "the lines before it have more signatures than are looked at")

    def why(self, cost: int) -> bool:
        """Whether one that nobody has to look at may be looked at."""
        self.whys -= cost
        return self.whys >= 0


def _loaded(keys: Sequence[TrustedKey]) -> list[_Anchor]:
    loaded = [(load_public(key), key.name) for key in keys]
    return [(key, key_id(key), name) for key, name in loaded]


def _about(
    line: str, subject: Digest, anchors: Sequence[_Anchor], identities: Sequence[TrustedIdentity], effort: _Effort
) -> tuple[Verified, int]:
    found, which = _signed(line, anchors, identities, effort)
    about = intoto.subject(found.statement)
    if about != subject:
        raise ClaimRefused("replayed", f"replayed from {about}, whose statement this is")
    if is_genome(found.statement):
        genome_from_statement(found.statement)
    elif is_verdict(found.statement):
        verdict_from_statement(found.statement)
    return found, which


def _keyless(line: str, identities: Sequence[TrustedIdentity], effort: _Effort) -> tuple[Verified, int]:
    """The statement of a Sigstore bundle and the position of the identity that signed it."""
    if len(line) > MAX_BUNDLE_CHARACTERS:
        raise ClaimRefused("size", f"longer than the {MAX_BUNDLE_CHARACTERS} characters that are read")
    if not identities:
        raise ClaimRefused("untrusted", "a keyless signature, and no identity is trusted")
    from ecology.signer.sigstore import Identity, verify_statement  # noqa: PLC0415  (0.9 s: only for keyless claims)

    refusals = []
    for which, one in enumerate(identities):
        effort.look(_LOOKS_A_BUNDLE + len(line) // _BYTES_A_LOOK)
        try:
            if digest_bytes(one.root.encode("utf-8")) != one.root_digest:
                raise ClaimRefused("root", f"the trusted root of {one.name!r} is not the one that is pinned")
            payload = verify_statement(line, _root(one.root), Identity(one.identity, one.issuer))
        except ClaimRefused as refusal:
            refusals.append(refusal)
            continue
        return Verified(_statement(payload), f"{one.issuer}#{one.identity}", one.name), which
    raise next((found for found in refusals if found.reason != "identity"), refusals[0])


@functools.lru_cache(maxsize=16)
def _root(text: str) -> Root:
    from ecology.signer.roots import load_root  # noqa: PLC0415

    return load_root(text)


def _signed(
    line: str, anchors: Sequence[_Anchor], identities: Sequence[TrustedIdentity], effort: _Effort
) -> tuple[Verified, int]:
    """The statement and the position of the anchor that vouches for it; identities are counted behind the keys."""
    if is_bundle(line):
        found, which = _keyless(line, identities, effort)
        return found, len(anchors) + which
    envelope = dsse.read(line)
    signed_bytes = envelope.signed_bytes
    cost = 1 + len(signed_bytes) // _BYTES_A_LOOK
    for which, (key, keyid, name) in enumerate(anchors):
        for signature in envelope.signatures:
            if signature.keyid != keyid:
                continue
            effort.look(cost)
            if signed_by(key, signature.sig, signed_bytes):
                return Verified(_statement(envelope.payload), keyid, name), which
    for key, keyid, name in anchors:  # nobody signed what a signature is named, so it may not say anything else
        for signature in envelope.signatures:
            if signature.keyid != keyid and effort.why(cost) and signed_by(key, signature.sig, signed_bytes):
                raise ClaimRefused("signature", f"signed by key {name!r} and not named after it")
    hints = {signature.keyid for signature in envelope.signatures}
    for _, keyid, name in anchors:
        if keyid in hints:
            raise ClaimRefused("signature", f"names key {name!r}, and that key did not sign these bytes")
    shown = ascii(min(hints))[1:17] or "unnamed"
    raise ClaimRefused("untrusted", f"signed by nobody who is trusted (key {shown})")


def _statement(payload: bytes) -> Mapping[str, Json]:
    value = strict.parse(payload)
    if not isinstance(value, dict) or value.get("_type") != intoto.STATEMENT:
        raise ClaimRefused("statement", f"the signed payload is no {intoto.STATEMENT}")
    if not isinstance(value.get("predicateType"), str) or not isinstance(value.get("predicate"), dict):
        raise ClaimRefused("statement", "no predicate or no predicateType")
    intoto.subjects(value)
    return value
