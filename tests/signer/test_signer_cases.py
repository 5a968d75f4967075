"""Cases of sigstore-conformance on real bytes, each through the command line with the exit that its name says.

The folders under conformance/ hold bundles of public instances; what is not copied as it is stands here as an edit of
one, made the way the case's README tells. What only an instance of one's own can make is in test_signer_rebuilt.py.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import datetime
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sigstore
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ecology.cli import main
from ecology.signer.entry import certified_key, load_key
from ecology.signer.refusal import ClaimRefused

FOLDER = Path(__file__).parent / "conformance"
STORE = Path(sigstore.__file__).parent / "_store"
PUBLIC = json.loads((STORE / "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev" / "trusted_root.json").read_bytes())
STAGING = json.loads((STORE / "https%3A%2F%2Ftuf-repo-cdn.sigstage.dev" / "trusted_root.json").read_bytes())
BEACON = (
    "--identity",
    "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/"
    "extremely-dangerous-oidc-beacon.yml@refs/heads/main",
    "--issuer",
    "https://token.actions.githubusercontent.com",
)
GITHUB_LOGIN = "https://github.com/login/oauth"
A_TXT = FOLDER / "a.txt"
OLD = "application/vnd.dev.sigstore.bundle+json;version="


@dataclasses.dataclass(frozen=True)
class Case:
    """What is verified, with what, and what has to come of it."""

    said: Any
    """The bundle: JSON, or text as it is."""
    root: Any
    artifact: Path | str
    anchor: tuple[str, ...]
    reason: str = ""
    """First word of the refusal; empty where the bundle holds."""

    def but(self, *path: Any, to: Any, reason: str = "") -> Case:
        """With one thing of the bundle changed."""
        return dataclasses.replace(self, said=edited(self.said, *path, to=to), reason=reason)

    def under(self, *path: Any, to: Any, reason: str = "") -> Case:
        """With one thing of the trusted root changed."""
        return dataclasses.replace(self, root=edited(self.root, *path, to=to), reason=reason)


def edited(value: Any, *path: Any, to: Any) -> Any:
    """A copy with the thing at a path replaced, computed anew or, by None, taken away."""
    made = copy.deepcopy(value)
    node = made
    for key in path[:-1]:
        node = node[key]
    last = path[-1]
    if to is None:
        del node[last]
    else:
        node[last] = to(node[last]) if callable(to) else copy.deepcopy(to)
    return made


def folder(name: str, root: Any, reason: str = "", anchor: tuple[str, ...] = BEACON) -> Case:
    """A case as it lies here."""
    at = FOLDER / name
    if (at / "trusted_root.json").exists():
        root = json.loads((at / "trusted_root.json").read_bytes())
    if (at / "key.pub").exists():
        anchor = ("--key", str(at / "key.pub"))
    artifact = at / "artifact" if (at / "artifact").exists() else A_TXT
    return Case(json.loads((at / "bundle.sigstore.json").read_bytes()), root, artifact, anchor, reason)


MATERIAL = ("verificationMaterial",)
ENTRY = (*MATERIAL, "tlogEntries", 0)
PROOF = (*ENTRY, "inclusionProof")
NOTE = (*PROOF, "checkpoint", "envelope")
STAMPS = (*MATERIAL, "timestampVerificationData", "rfc3161Timestamps")

MESSAGE = folder("new_bundle", PUBLIC, anchor=("--identity", "aryadeeptade@gmail.com", "--issuer", GITHUB_LOGIN))
"""A signature over a file at the public instance: Rekor 1 with a promise, and a timestamp."""
TWO_STAMPS = folder("rekor2-multiple-timestamps-one-outside-cert-validity_fail", STAGING, "certificate")
REKOR2 = TWO_STAMPS.but(*STAMPS, to=lambda found: found[:1])
"""The same with its first timestamp alone, which is the bundle of rekor2-happy-path."""
PERSON = folder("staging-rekor-v2", STAGING, anchor=("--identity", "jku@goto.fi", "--issuer", GITHUB_LOGIN))
ENVELOPE = folder("dsse-with-hashedrekord-happy-path", PUBLIC)
MANAGED = folder("managed-key-and-trusted-root", None)
LOGGED_KEY = folder("intoto-canonical-log-entry", None)


def _flip(text: str) -> str:
    data = bytearray(base64.b64decode(text))
    data[len(data) // 2] ^= 1
    return base64.b64encode(data).decode()


def _chain(version: str, *others: bytes) -> Case:
    """The message in a bundle of an older version, with more certificates."""
    leaf = MESSAGE.said["verificationMaterial"]["certificate"]
    old = MESSAGE.but("mediaType", to=OLD + version)
    if version == "0.3":
        return old
    chain = [leaf, *({"rawBytes": base64.b64encode(der).decode()} for der in others)]
    old = old.but(*MATERIAL, "certificate", to=None)
    return old.but(*MATERIAL, "x509CertificateChain", to={"certificates": chain})


def _authority() -> list[bytes]:
    chain = PUBLIC["certificateAuthorities"][1]["certChain"]["certificates"]
    return [base64.b64decode(one["rawBytes"]) for one in chain]


def _decoy() -> bytes:
    """A self-signed certificate under the very name of the public instance's intermediate."""
    name = x509.load_der_x509_certificate(_authority()[0]).subject
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    ca = x509.BasicConstraints(ca=True, path_length=0)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, start, start.replace(year=2035))
    builder = builder.add_extension(ca, critical=True).add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _two_intermediates() -> Case:
    chain = {"certificates": [{"rawBytes": base64.b64encode(_decoy()).decode()}]}
    decoy = {**PUBLIC["certificateAuthorities"][1], "certChain": chain, "validFor": {"start": "2020-01-01T00:00:00Z"}}
    return MESSAGE.under("certificateAuthorities", to=lambda found: [decoy, *found])


def _foreign_ct_key() -> Case:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return MESSAGE.under("ctlogs", 1, "publicKey", "rawBytes", to=base64.b64encode(der).decode(), reason="certificate")


def _cosigned(*lines: str, before: bool = False) -> Case:
    """The checkpoint with signatures of others, which are no concern of ours."""

    def add(note: str) -> str:
        text, signatures = note.split("\n\n", 1)
        more = "".join(f"— {line}\n" for line in lines)
        return f"{text}\n\n{more}{signatures}" if before else f"{text}\n\n{signatures}{more}"

    return REKOR2.but(*NOTE, to=add)


def _by(name: str, hint: bytes = b"wit1") -> str:
    return f"{name} {base64.b64encode(hint + bytes(64)).decode()}"


def _line(number: int, text: str | None) -> Case:
    """The checkpoint with one of its lines changed or taken away."""

    def change(note: str) -> str:
        lines = note.split("\n")
        lines[number : number + 1] = [] if text is None else [text]
        return "\n".join(lines)

    return REKOR2.but(*NOTE, to=change, reason="log")


def _body(change: Callable[[Any], None]) -> Callable[[str], str]:
    def spoil(text: str) -> str:
        said = json.loads(base64.b64decode(text))
        change(said)
        return base64.b64encode(json.dumps(said, separators=(",", ":"), sort_keys=True).encode()).decode()

    return spoil


def _other_public_key(body: Any) -> None:
    body["spec"]["signature"]["publicKey"]["content"] = "QUFBQQ=="


def _clock(**window: str) -> Callable[[Any], Any]:
    return lambda found: [{**found[0], "validFor": window}, *found[1:]]


def _borrowed(chain: Any) -> Callable[[Any], Any]:
    """An authority out of use, and another one that was in use."""
    other = {**PUBLIC["timestampAuthorities"][0], "certChain": chain}
    during = {"start": "2025-06-01T00:00:00Z", "end": "2025-07-01T00:00:00Z"}
    before = _clock(start="2025-04-09T00:00:00Z", end="2025-06-01T00:00:00Z")
    return lambda found: [*before(found), {**other, "validFor": during}]


PROMISE_ALONE = _chain("0.1").but(*PROOF, to=None)
AT = 1787504520
"""When the log of MESSAGE signed."""
STAMPED = "2025-06-12T12:02:20Z"
"""When REKOR2 was stamped."""


def _until(seconds: int, reason: str = "") -> Case:
    end = datetime.datetime.fromtimestamp(AT + seconds, tz=datetime.UTC).isoformat()
    window = {"start": "2021-01-12T11:53:27Z", "end": end}
    return MESSAGE.under("tlogs", 0, "publicKey", "validFor", to=window, reason=reason)


CASES: dict[str, Callable[[], Case]] = {
    # bytes as they are
    "happy-path-v0.3-new-mediaType": lambda: MESSAGE,
    "rekor2-happy-path": lambda: REKOR2,
    "rekor2-timestamp-with-embedded-cert": lambda: PERSON,
    "rekor2-timestamp-without-embedded-cert": lambda: folder("rekor2-dsse-happy-path", STAGING),
    "rekor2-dsse-happy-path": lambda: folder("rekor2-dsse-happy-path", STAGING),
    # the suite's own timestamp is half an hour late here, and its README says that it is not
    "rekor2-dsse-invalid-sig_fail": lambda: folder("rekor2-dsse-invalid-sig_fail", STAGING, "certificate"),
    "rekor2-dsse-mismatch-envelope_fail": lambda: folder("rekor2-dsse-mismatch-envelope_fail", STAGING, "log"),
    "rekor2-dsse-mismatch-sig_fail": lambda: folder("rekor2-dsse-mismatch-sig_fail", STAGING, "log"),
    "rekor2-multiple-timestamps-one-outside-cert-validity_fail": lambda: TWO_STAMPS,
    "rekor2-timestamp-with-incorrect-time_fail": lambda: TWO_STAMPS.but(
        *STAMPS, to=lambda found: found[1:], reason="certificate"
    ),
    "dsse-with-hashedrekord-happy-path": lambda: ENVELOPE,
    "dsse-with-hashedrekord-invalid-sig_fail": lambda: folder(
        "dsse-with-hashedrekord-invalid-sig_fail", PUBLIC, "signature"
    ),
    "dsse-with-hashedrekord-mismatch-envelope_fail": lambda: folder(
        "dsse-with-hashedrekord-mismatch-envelope_fail", PUBLIC, "log"
    ),
    "dsse-with-hashedrekord-mismatch-sig_fail": lambda: folder(
        "dsse-with-hashedrekord-mismatch-sig_fail", PUBLIC, "log"
    ),
    "dsse-statement-missing-type_fail": lambda: folder("dsse-statement-missing-type_fail", None, "statement"),
    "dsse-statement-unknown-type_fail": lambda: folder("dsse-statement-unknown-type_fail", None, "statement"),
    "intoto-canonical-log-entry": lambda: LOGGED_KEY,
    "managed-key-and-trusted-root": lambda: MANAGED,
    "managed-key-happy-path": lambda: dataclasses.replace(MANAGED, root=PUBLIC),
    "managed-key-wrong-key_fail": lambda: dataclasses.replace(MANAGED, anchor=LOGGED_KEY.anchor, reason="signature"),
    "managed-key-no-key_fail": lambda: dataclasses.replace(MANAGED, anchor=BEACON, reason="identity"),
    "managed-key-and-client-identity_fail": lambda: dataclasses.replace(
        MANAGED, anchor=(*MANAGED.anchor, *BEACON), reason="identity"
    ),
    # versions of the bundle
    "happy-path-v0.1": lambda: _chain("0.1"),
    "happy-path-v0.1-without-checkpoint": lambda: _chain("0.1").but(*PROOF, "checkpoint", to=None),
    "happy-path-v0.1-promise-alone": lambda: PROMISE_ALONE,
    "happy-path-v0.2": lambda: _chain("0.2"),
    "happy-path-v0.3": lambda: _chain("0.3"),
    "v0.1-promise-of-another-time_fail": lambda: PROMISE_ALONE.but(
        *ENTRY, "integratedTime", to=str(AT + 1), reason="log"
    ),
    "v0.1-promise-damaged_fail": lambda: PROMISE_ALONE.but(
        *ENTRY, "inclusionPromise", "signedEntryTimestamp", to=_flip, reason="log"
    ),
    "v0.1-neither-promise-nor-proof_fail": lambda: PROMISE_ALONE.but(
        *ENTRY, "inclusionPromise", to=None, reason="log"
    ),
    "v0.2-promise-alone_fail": lambda: _chain("0.2").but(*PROOF, to=None, reason="log"),
    "v0.3-with-chain_fail": lambda: _chain("0.2").but("mediaType", to=OLD + "0.3", reason="bundle"),
    "invalid-inclusion-proof_fail": lambda: _chain("0.2").but(*PROOF, "checkpoint", to=None, reason="log"),
    "bundle-unknown-version_fail": lambda: MESSAGE.but("mediaType", to=OLD + "99.9", reason="bundle"),
    "bundle-malformed-json_fail": lambda: dataclasses.replace(
        MESSAGE, said=json.dumps(MESSAGE.said)[:-1], reason="json"
    ),
    "bundle-of-old-cosign_fail": lambda: dataclasses.replace(
        MESSAGE, said={"base64Signature": "", "cert": "", "rekorBundle": {}}, reason="bundle"
    ),
    "bundle-empty-certificate-chain_fail": lambda: _chain("0.1").but(
        *MATERIAL, "x509CertificateChain", "certificates", to=[], reason="bundle"
    ),
    "bundle-with-root-cert_fail": lambda: dataclasses.replace(_chain("0.2", _decoy()), reason="certificate"),
    "bundle-with-the-instance's-own-root-cert": lambda: _chain("0.2", *_authority()),
    "bundle-from-wrong-instance_fail": lambda: dataclasses.replace(REKOR2, root=PUBLIC, reason="time"),
    "bundle-invalid-base64-signature_fail": lambda: MESSAGE.but(
        "messageSignature", "signature", to="invalid!base64", reason="bundle"
    ),
    "bundle-negative-log-index_fail": lambda: PROMISE_ALONE.but(*ENTRY, "logIndex", to="-1", reason="bundle"),
    # the file and its signature
    "message-digest-mismatch_fail": lambda: MESSAGE.but(
        "messageSignature", "messageDigest", "digest", to=_flip, reason="artifact"
    ),
    "signature-mismatch_fail": lambda: MESSAGE.but(
        "messageSignature", "signature", to=REKOR2.said["messageSignature"]["signature"], reason="signature"
    ),
    "wrong-material_fail": lambda: dataclasses.replace(MESSAGE, artifact=A_TXT, reason="artifact"),
    # the log
    "incorrect-public-key_fail": lambda: MESSAGE.but(
        *ENTRY, "canonicalizedBody", to=_body(_other_public_key), reason="log"
    ),
    "inclusion-proof-corrupted-hash_fail": lambda: MESSAGE.but(*PROOF, "hashes", 3, to=_flip, reason="log"),
    "set-invalid-signature_fail": lambda: MESSAGE.but(
        *ENTRY, "inclusionPromise", "signedEntryTimestamp", to=_flip, reason="log"
    ),
    "integrated-time-in-future_fail": lambda: MESSAGE.but(
        *ENTRY, "integratedTime", to=str(AT + 10**9), reason="certificate"
    ),
    "checkpoint-bad-keyhint_fail": lambda: MESSAGE.but(
        *NOTE, to=lambda note: note.replace(".dev wNI9", ".dev xNI9"), reason="log"
    ),
    "checkpoint-wrong-roothash_fail": lambda: MESSAGE.but(
        *NOTE, to=ENVELOPE.said["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["checkpoint"]["envelope"],
        reason="log",
    ),
    "invalid-checkpoint-signature_fail": lambda: MESSAGE.but(
        *NOTE, to=lambda note: note.replace("ajBEAiBhr6", "ajBEAiBhr7"), reason="log"
    ),
    "rekor2-no-inclusion-proof_fail": lambda: REKOR2.but(*PROOF, to=None, reason="log"),
    "rekor2-checkpoint-missing-origin_fail": lambda: _line(0, None),
    "rekor2-checkpoint-missing-size_fail": lambda: _line(1, None),
    "rekor2-checkpoint-missing-root-hash_fail": lambda: _line(2, None),
    "rekor2-checkpoint-missing-log-signature_fail": lambda: _line(4, None),
    "rekor2-checkpoint-no-matching-signature_fail": lambda: _line(4, f"— {_by('elsewhere.example')}"),
    "rekor2-checkpoint-cosigned": lambda: _cosigned(_by("witness.example")),
    "rekor2-checkpoint-multiple-cosigs": lambda: _cosigned(_by("witness.example"), _by("other.example", b"wit2")),
    "rekor2-checkpoint-origin-not-first": lambda: _cosigned(_by("witness.example"), before=True),
    "rekor2-checkpoint-two-sigs-from-origin": lambda: _cosigned(_by("log2025-alpha1.rekor.sigstage.dev")),
    "rekor2-checkpoint-two-sigs-cosigned": lambda: _cosigned(
        _by("log2025-alpha1.rekor.sigstage.dev"), _by("witness.example")
    ),
    # the clock
    "rekor2-no-timestamp_fail": lambda: REKOR2.but(*STAMPS, to=[], reason="bundle"),
    "rekor2-timestamp-payload-mismatch_fail": lambda: REKOR2.but(
        *STAMPS, to=PERSON.said["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"], reason="time"
    ),
    "rekor2-timestamp-outside-trust-root-tsa-validity_fail": lambda: REKOR2.under(
        "timestampAuthorities", to=_clock(start="2025-04-09T00:00:00Z", end="2025-06-01T00:00:00Z"), reason="time"
    ),
    "rekor2-timestamp-untrusted-tsa-with-embedded-cert_fail": lambda: REKOR2.under(
        "timestampAuthorities", to=PUBLIC["timestampAuthorities"], reason="time"
    ),
    "rekor2-timestamp-untrusted-tsa-without-embedded-cert_fail": lambda: folder(
        "rekor2-dsse-happy-path", STAGING
    ).under("timestampAuthorities", to=PUBLIC["timestampAuthorities"], reason="time"),
    "rekor2-timestamp-wrong-tsa-validity-borrow_fail": lambda: REKOR2.under(
        "timestampAuthorities", to=_borrowed({"certificates": []}), reason="root"
    ),
    "rekor2-timestamp-wrong-tsa-validity-borrow-of-a-real-one_fail": lambda: REKOR2.under(
        "timestampAuthorities", to=_borrowed(PUBLIC["timestampAuthorities"][0]["certChain"]), reason="time"
    ),
    "trust-root-tsa-validity-end-inclusive": lambda: REKOR2.under(
        "timestampAuthorities", to=_clock(start="2025-04-09T00:00:00Z", end=STAMPED)
    ),
    "trust-root-tsa-validity-end-a-second-before_fail": lambda: REKOR2.under(
        "timestampAuthorities", to=_clock(start="2025-04-09T00:00:00Z", end="2025-06-12T12:02:19Z"), reason="time"
    ),
    # the rest of the trusted root
    "trust-root-tlog-validity-end-inclusive": lambda: _until(0),
    "trust-root-tlog-validity-end-a-second-before_fail": lambda: _until(-1, "time"),
    "trust-root-tlog-missing-validity-start_fail": lambda: MESSAGE.under(
        "tlogs", 0, "publicKey", "validFor", to={"end": "2050-01-01T00:00:00Z"}, reason="root"
    ),
    "sct-duplicate-intermediate-name": _two_intermediates,
    "invalid-ct-key_fail": _foreign_ct_key,
}  # fmt: skip


def verified(case: Case, place: Path) -> int:
    """The exit of the command."""
    file, root = place / "bundle.sigstore.json", place / "trusted_root.json"
    file.write_text(case.said if isinstance(case.said, str) else json.dumps(case.said), "utf-8")
    root.write_text(json.dumps(case.root), "utf-8")
    anchor = ["--trusted-root", str(root), *case.anchor, "--home", str(place / "home")]
    return main(["verify", "--bundle", str(file), *anchor, str(case.artifact)])


@pytest.mark.parametrize("name", CASES)
def test_a_case_of_the_suite(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]()
    assert bool(case.reason) is name.endswith("_fail")
    code = verified(case, tmp_path)
    told = capsys.readouterr().out
    assert code == int(name.endswith("_fail")), told
    assert told.startswith(f"refused    {case.reason}: " if case.reason else "verified"), told
    if not case.reason:
        digest = f"sha256:{hashlib.sha256(Path(case.artifact).read_bytes()).hexdigest()}"
        assert verified(dataclasses.replace(case, artifact=digest), tmp_path) == 0, "by digest alone"


@pytest.mark.parametrize("name", ["new_bundle", "staging-rekor-v2", "dsse-with-hashedrekord-happy-path"])
def test_sigstore_python_reads_the_same_bytes(name: str) -> None:
    """That nothing was lost in copying: the other implementation finds the same parts, and verifies what it can."""
    from sigstore.hashes import Hashed
    from sigstore.models import Bundle, TrustedRoot
    from sigstore.verify import Verifier, policy
    from sigstore_models.common.v1 import HashAlgorithm
    from sigstore_models.trustroot import v1

    case = {"new_bundle": MESSAGE, "staging-rekor-v2": PERSON}.get(name, ENVELOPE)
    bundle = Bundle.from_json((FOLDER / name / "bundle.sigstore.json").read_text())
    who = policy.Identity(identity=case.anchor[1], issuer=case.anchor[3])
    verifier = Verifier(trusted_root=TrustedRoot(v1.TrustedRoot.from_json(json.dumps(case.root))))
    if name == "dsse-with-hashedrekord-happy-path":
        with pytest.raises(Exception, match=r"Unsupported DSSE log entry type: hashedrekord/0\.0\.1"):
            verifier.verify_dsse(bundle, who)  # it gets as far as the last step, which this project adds
        return
    digest = hashlib.sha256(Path(case.artifact).read_bytes()).digest()
    verifier.verify_artifact(Hashed(algorithm=HashAlgorithm.SHA2_256, digest=digest), bundle, who)


def test_keys_for_pss_alone_are_not_used_for_another_scheme() -> None:
    for read in (load_key, lambda pem: certified_key(x509.load_pem_x509_certificate(pem))):
        kind = "key" if read is load_key else "certificate"
        with pytest.raises(ClaimRefused, match="of a kind that is not verified"):
            read((FOLDER / f"rsa-pss.{kind}.pem").read_bytes())


def test_the_page_lists_what_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "verify.md").read_text("utf-8")
    listed = [line for line in page.splitlines() if line.startswith(("| the suite's own", "| edits of bundles"))]
    assert set("".join(listed).split("`")[1::2]) == set(CASES)
