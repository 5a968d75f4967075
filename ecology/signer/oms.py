"""OpenSSF Model Signing (OMS) 1.0: a signature over a whole folder that other tools can check, and one of theirs by us.

    Sigstore bundle 0.3  >  DSSE  >  in-toto Statement v1  >  https://model_signing/signature/v1.0
    subject    one: the folder's name, and SHA-256 over the files' digests, one after the other, sorted by path
    predicate  resources [{name, algorithm, digest}], serialization {method, hash_type, allow_symlinks, ignore_paths}

The format lets the *signer* say which paths a verifier ignores, and the reference implementation obeys: a signature
that ignores ``adapter_config.json`` stays valid whatever stands there later. So here coverage is the verifier's demand:
every file of the folder has to be among the resources with its digest, and every resource has to be in the folder; left
out may be only what cannot be inside, the signature itself and ``claims.jsonl``. What the signer wrote into
``ignore_paths`` decides nothing.

Read is the method ``files`` with SHA-256, which is the reference's default and ours; shards and other hashes are
refused by name. Source: https://github.com/ossf/model-signing-spec, v1.0; model-signing 1.1.1, ``_signing/signing.py``.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from ecology.contracts.artifact import CLAIMS_FILE, FileRecord
from ecology.contracts.identity import Json
from ecology.contracts.policy import TrustedKey
from ecology.signer import bundle as bundles
from ecology.signer import dsse, intoto, strict
from ecology.signer.bundle import Message
from ecology.signer.entry import Key, Signed
from ecology.signer.intoto import Statement
from ecology.signer.refusal import ClaimRefused
from ecology.signer.roots import Root
from ecology.signer.sigstore import Identity, verify_signature

PREDICATE = "https://model_signing/signature/v1.0"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def oms_statement(name: str, files: Sequence[FileRecord], outside: Sequence[str] = (CLAIMS_FILE,)) -> Statement:
    """The statement over a folder.

    Args:
        name: Of the folder, for people.
        files: All of them.
        outside: Names of what may lie in the folder and cannot be covered: the signature itself, claims.
    """
    ordered = sorted(files, key=lambda file: file.path)
    resources = [
        {"name": file.path, "algorithm": "sha256", "digest": file.digest.removeprefix("sha256:")} for file in ordered
    ]
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": sorted(outside),
    }
    subject = intoto.subject_entry(name, f"sha256:{_over(resources)}")
    return intoto.statement([subject], PREDICATE, {"resources": resources, "serialization": serialization})


def key_bundle(envelope: str, key: TrustedKey) -> str:
    """A DSSE envelope signed by a bare key as a Sigstore bundle, in the form that model-signing reads.

    Args:
        envelope: As ``Signer.sign`` made it.
        key: Its public half; the hint is the SHA-256 of the PEM, as model-signing computes it.
    """
    read = dsse.read(envelope)
    body = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(key.public_key.encode("ascii")).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(read.payload).decode("ascii"),
            "payloadType": read.payload_type,
            "signatures": [{"sig": base64.b64encode(one.sig).decode("ascii"), "keyid": ""} for one in read.signatures],
        },
    }
    return json.dumps(body, separators=(",", ":"), sort_keys=True)


def verify_oms(
    text: str,
    files: Sequence[FileRecord],
    who: Identity | Key,
    root: Root | None,
    outside: Sequence[str] = (CLAIMS_FILE,),
) -> str:
    """That ``who`` signed exactly these files.

    Args:
        text: The bundle.
        files: Of the folder, with digests computed by the caller.
        who: Identity or key.
        root: Pinned; may be None where a bare key signed without a log.
        outside: Names that the resources may lack.

    Returns:
        What holds, in one sentence for people.

    Raises:
        ClaimRefused: With a reason; ``coverage`` names the files.
    """
    from ecology.signer.verify import nothing_but_refusals  # noqa: PLC0415

    with nothing_but_refusals():
        parts = bundles.read(text)
        if isinstance(parts.content, Message):
            raise ClaimRefused("bundle", "a signature over bytes, where one over a folder is asked for")
        verify_signature(parts, Signed(parts.content.signed_bytes), root, who)
        resources = _resources(strict.parse(parts.content.payload, bundles.MAX_BUNDLE_BYTES))
        here = {file.path: file.digest.removeprefix("sha256:") for file in files if file.path not in outside}
        signed = {name: digest for name, digest in resources.items() if name not in outside}
        if wrong := sorted(name for name in {*here, *signed} if here.get(name) != signed.get(name)):
            raise ClaimRefused("coverage", "; ".join(_wrong(name, here, signed) for name in wrong[:5]))
        return f"a signature over all {len(here)} files of this folder"


def _resources(value: Json) -> Mapping[str, str]:
    """Name -> SHA-256 in hex of what was signed."""
    if not isinstance(value, dict) or value.get("_type") != intoto.STATEMENT:
        raise ClaimRefused("statement", f"the signed payload is no {intoto.STATEMENT}")
    predicate = intoto.predicate(value, PREDICATE)
    how = intoto.object_at(predicate, "serialization", "predicate")
    if how.get("method") != "files" or how.get("hash_type") != "sha256":
        found = f"{how.get('method')!r:.20}, {how.get('hash_type')!r:.20}"
        raise ClaimRefused("predicate", f"serialised as {found}; files with sha256 are read", where="serialization")
    listed = predicate.get("resources")
    if not isinstance(listed, list) or not listed:
        raise ClaimRefused("predicate", "no list of resources", where="resources")
    found_: dict[str, str] = {}
    for i, one in enumerate(listed):
        where = f"resources[{i}]"
        if not isinstance(one, dict) or not all(isinstance(one.get(k), str) for k in ("name", "algorithm", "digest")):
            raise ClaimRefused("predicate", "not a name, an algorithm and a digest", where=where)
        if one["algorithm"] != "sha256" or one["name"] in found_:
            raise ClaimRefused("predicate", "another hash than sha256, or a name twice", where=where)
        found_[one["name"]] = one["digest"]
    (subject,) = intoto.subjects(value).values()
    if subject != f"sha256:{_over(listed)}":
        raise ClaimRefused("statement", "the subject's digest is not that over the resources", where="subject")
    return found_


def _over(resources: Iterable[Mapping[str, Json]]) -> str:
    """SHA-256 over the raw digests in the order given, as hex."""
    try:
        return hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()
    except ValueError:
        raise ClaimRefused("predicate", "a digest is not hex", where="resources") from None


def _wrong(name: str, here: Mapping[str, str], signed: Mapping[str, str]) -> str:
    if name not in signed:
        return f"{ascii(name)[:80]} is in the folder and was not signed"
    return (
        f"{ascii(name)[:80]} is not as it was signed" if name in here else f"{ascii(name)[:80]} was signed and is gone"
    )
