"""The frame of a statement: in-toto Attestation v1, written and read field by field.

Everything that reads takes parsed JSON whose signature has been verified already, and still believes nothing about its
shape: a trusted signer may use another version of us, or another tool.

Source: in-toto Attestation v1, statement.md, digest_set.md, resource_descriptor.md, parsing rules ("ignore unrecognised
fields"): frames ignore them, our own predicates do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from ecology.contracts.artifact import Artifact
from ecology.contracts.identity import Digest, Json
from ecology.errors import ConfigError
from ecology.kernel.canonical import is_digest
from ecology.kernel.codec import structure
from ecology.signer.refusal import ClaimRefused

STATEMENT = "https://in-toto.io/Statement/v1"
SUBJECT = "artifact"
"""Name of the subject that stands for a whole folder."""

Statement = dict[str, Json]
Object = Mapping[str, Json]


def statement(subjects_: Sequence[Statement], predicate_type: str, predicate: Statement) -> Statement:
    """The frame around a predicate."""
    return {"_type": STATEMENT, "subject": list(subjects_), "predicateType": predicate_type, "predicate": predicate}


def subject_entry(name: str, digest: str) -> Statement:
    """One subject.

    Raises:
        ConfigError: The digest is not one.
    """
    return {"name": name, "digest": digest_set(digest)}


def artifact_subjects(artifact: Artifact) -> list[Statement]:
    """The folder as a whole and each of its files.

    A verdict must be possible on any folder, so a file that is called ``artifact`` is listed as ``./artifact``.
    """
    files = (
        subject_entry(f"./{SUBJECT}" if file.path == SUBJECT else file.path, file.digest) for file in artifact.files
    )
    return [subject_entry(SUBJECT, artifact.digest), *files]


def digest_set(digest: str) -> Statement:
    """``{"sha256": hex}``.

    Raises:
        ConfigError: ``digest`` is not one.
    """
    if not is_digest(digest):
        raise ConfigError(f"not a digest: {digest!r:.80}", todo="a digest is written sha256:<64 hex digits>")
    return {"sha256": digest.removeprefix("sha256:")}


def subjects(statement_: Object) -> Mapping[str, Digest]:
    """Name -> digest of everything that the statement is about.

    Raises:
        ClaimRefused: ``statement``: no subject, one without SHA-256, or two of one name.
    """
    entries = statement_.get("subject")
    if not isinstance(entries, list) or not entries:
        raise ClaimRefused("statement", "no subject", where="subject")
    found: dict[str, Digest] = {}
    for i, entry in enumerate(entries):
        where = f"subject[{i}]"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise ClaimRefused("statement", "a subject without a name", where=where)
        if entry["name"] in found:
            raise ClaimRefused("statement", f"two subjects named {entry['name']!r:.80}", where=where)
        found[entry["name"]] = sha256(entry, where, "statement")
    return found


def subject(statement_: Object) -> Digest:
    """Digest of the artifact that the statement is about.

    Raises:
        ClaimRefused: ``statement``: it is not about an artifact.
    """
    found = subjects(statement_)
    if SUBJECT not in found:
        raise ClaimRefused("statement", f"no subject named {SUBJECT!r}", where="subject")
    return found[SUBJECT]


def predicate(statement_: Object, wanted: str) -> Object:
    """The predicate, if it is of the type that is wanted.

    Raises:
        ClaimRefused: ``predicate``.
    """
    if statement_.get("predicateType") != wanted:
        raise ClaimRefused("predicate", f"not a {wanted}", where="predicateType")
    return object_at(statement_, "predicate")


def object_at(value: Object, key: str, where: str = "") -> Object:
    """The JSON object at a key.

    Raises:
        ClaimRefused: ``predicate``: there is none.
    """
    found = value.get(key)
    if not isinstance(found, Mapping):
        raise ClaimRefused("predicate", "expected an object", where=f"{where}.{key}" if where else key)
    return found


def only(value: Object, keys: Iterable[str], where: str, may: Iterable[str] = ()) -> Object:
    """The object itself, if it has exactly these keys, and of others at most those that it may have.

    Raises:
        ClaimRefused: ``predicate``.
    """
    wanted = set(keys)
    if wrong := sorted(wanted ^ (set(value) - set(may))):
        state = "is missing" if wrong[0] in wanted else "is not known"
        raise ClaimRefused("predicate", f"{wrong[0]!r:.80} {state}", where=where)
    return value


def sha256(entry: Object, where: str, reason: Literal["statement", "predicate"] = "predicate") -> Digest:
    """The SHA-256 of a subject or a resource.

    Raises:
        ClaimRefused: ``reason``: there is none.
    """
    digests = entry.get("digest")
    found = f"sha256:{digests.get('sha256')}" if isinstance(digests, Mapping) else ""
    if not is_digest(found):
        raise ClaimRefused(reason, "no SHA-256 digest", where=f"{where}.digest")
    return Digest(found)


def structured(kind: Any, data: Json) -> Any:
    """Plain data as a contract value.

    Raises:
        ClaimRefused: ``predicate``: wrong shape; the message names the path.
    """
    try:
        return structure(cast("type[object]", kind), data)
    except ConfigError as error:
        raise ClaimRefused("predicate", error.what, where=error.where) from None
