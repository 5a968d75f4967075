"""Cases of sigstore-conformance whose bytes only an instance can make, built on the loop-back one.

Names, and the exit that each must have, are those of the suite; the rest of it is in test_signer_cases.py, on bytes of
public instances. Every case goes through the command line.
"""

from __future__ import annotations

import base64
import copy
import datetime
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sigstore.dsse import Statement

from ecology.cli import main
from ecology.kernel.canonical import canonical, digest_bytes
from ecology.signer import intoto
from ecology.signer.keyless import keyless_signer
from ecology.testing.authorities import TimestampAuthority
from ecology.testing.sigstore import LoopbackSigstore

DATA = b"the adapter"
WHO = "reviewer@loop-back.test"
STAMPS = ("verificationMaterial", "timestampVerificationData")
ENTRIES = ("verificationMaterial", "tlogEntries")


def statement(note: str) -> dict[str, Any]:
    subject = intoto.subject_entry("artifact", digest_bytes(DATA))
    return dict(intoto.statement([subject], "https://example.com/p/v1", {"note": note}))


class Instance:
    """An instance and what was signed there: twice under one certificate, and once under another."""

    def __init__(self, sigstore: LoopbackSigstore, folder: Path) -> None:
        config = folder / "trust.json"
        config.write_text(json.dumps(sigstore.trust_config()))
        self.sigstore, self.root = sigstore, sigstore.trusted_root()
        one, other = (keyless_signer(config, sigstore.token()) for _ in range(2))
        with one.context.signer(one.token) as signer:  # one key and one certificate for all of these
            self.messages = [json.loads(signer.sign_artifact(data).to_json()) for data in (DATA, DATA, b"another")]
            self.statements = [
                json.loads(signer.sign_dsse(Statement(canonical(statement(note)))).to_json())
                for note in ("a", "a", "b")
            ]
        self.message_of_another = json.loads(other.sign_artifact(DATA))
        self.statement_of_another = json.loads(other.sign(statement("a")))


@pytest.fixture(scope="module", params=[1, 2], ids=["rekor1", "rekor2"])
def instance(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    with LoopbackSigstore(rekor_version=request.param) as sigstore:
        yield Instance(sigstore, tmp_path_factory.mktemp("instance"))


@pytest.fixture(scope="module")
def rekor1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    with LoopbackSigstore(rekor_version=1) as sigstore:
        yield Instance(sigstore, tmp_path_factory.mktemp("rekor1"))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def taken(bundle: Any, other: Any, *paths: tuple[Any, ...]) -> Any:
    """A copy of a bundle with parts of another one in the same places."""
    made = copy.deepcopy(bundle)
    for path in paths:
        at(made, path[:-1])[path[-1]] = copy.deepcopy(at(other, path))
    return made


def put(bundle: Any, *path: Any, to: Any) -> Any:
    made = copy.deepcopy(bundle)
    at(made, path[:-1])[path[-1]] = to
    return made


def verified(said: Any, root: Any, issuer: str, place: Path) -> int:
    files = {name: place / name for name in ("bundle.json", "root.json", "artifact")}
    files["bundle.json"].write_text(json.dumps(said))
    files["root.json"].write_text(json.dumps(root))
    files["artifact"].write_bytes(DATA)
    anchor = ["--trusted-root", str(files["root.json"]), "--identity", WHO, "--issuer", issuer]
    return main(["verify", "--bundle", str(files["bundle.json"]), *anchor, str(files["artifact"])])


def told(said: Any, root: Any, issuer: str, place: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed first, with the exit in front of it."""
    code = verified(said, root, issuer, place)
    return f"{code} {capsys.readouterr().out.splitlines()[0]}"


SIGNATURE = ("messageSignature", "signature")
ENVELOPE = ("dsseEnvelope",)
SWAPPED: dict[str, tuple[Callable[[Instance], Any], str]] = {
    "happy-path": (lambda one: one.messages[0], ""),
    "happy-path-intoto-in-dsse-v3": (lambda one: one.statements[0], ""),
    "cve-2022-36056-swapped-tlog-entry_fail": (
        lambda one: taken(one.messages[0], one.messages[1], ENTRIES),
        "log: the log entry holds another signature",
    ),
    "wrong-hashedrekord-artifact_fail": (
        lambda one: taken(one.messages[0], one.messages[2], ENTRIES),
        "log: the log entry is about other bytes",
    ),
    "wrong-hashedrekord-cert-and-sig_fail": (
        lambda one: taken(one.messages[0], one.message_of_another, ENTRIES),
        "log: the log entry holds another signature",
    ),
    "wrong-hashedrekord-entry_fail": (
        lambda one: taken(one.messages[0], one.statements[0], ENTRIES),
        "log: ",
    ),
    "signature-mismatch_fail": (
        lambda one: taken(one.messages[0], one.message_of_another, SIGNATURE, STAMPS),
        "signature: ",
    ),
    "dsse-invalid-sig_fail": (
        lambda one: taken(one.statements[0], one.statement_of_another, ENVELOPE, STAMPS),
        "signature: ",
    ),
    "dsse-mismatch-sig_fail": (
        lambda one: taken(one.statements[0], one.statements[1], ENVELOPE, STAMPS),
        "log: the log entry holds another signature",
    ),
    "dsse-mismatch-envelope_fail": (
        lambda one: taken(one.statements[0], one.statements[2], ENVELOPE, STAMPS),
        "log: the log entry is about ",
    ),
}
"""With Rekor 2 the last are also the cases rekor2-dsse-* as the suite has them now: entries of kind hashedrekord."""


@pytest.mark.parametrize("name", SWAPPED)
def test_parts_of_two_bundles(
    name: str, instance: Instance, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, why = SWAPPED[name]
    found = told(make(instance), instance.root, instance.sigstore.url, tmp_path, capsys)
    assert found.startswith(f"1 refused    {why}" if name.endswith("_fail") else "0 verified"), found


def logged_as_intoto(one: Instance, *, of: int = 0, when: int | None = None) -> Any:
    """A statement whose log entry is of the kind that npm and older attestations have."""
    bundle, source = one.statements[0], one.statements[of]
    der = base64.b64decode(source["verificationMaterial"]["certificate"]["rawBytes"])
    pem = x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
    envelope = source["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    signature = envelope["signatures"][0]["sig"].encode()
    spec = {
        "content": {
            "envelope": {
                "payloadType": envelope["payloadType"],
                "signatures": [
                    {"publicKey": base64.b64encode(pem).decode(), "sig": base64.b64encode(signature).decode()}
                ],
            },
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
        }
    }
    return put(bundle, *ENTRIES, to=[one.sigstore.logged("intoto", "0.0.2", spec, at=when)])


def closed(root: Any, part: str, *, hours: int) -> Any:
    """The trusted root with an authority that is in use from some hours before now until an hour later."""
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours)
    window = {"start": start.isoformat(), "end": (start + datetime.timedelta(hours=1)).isoformat()}
    return put(root, part, 0, "validFor", to=window)


def test_entries_of_kind_intoto(rekor1: Instance, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def outcome(said: Any, root: Any = rekor1.root) -> str:
        return told(said, root, rekor1.sigstore.url, tmp_path, capsys)

    whole = logged_as_intoto(rekor1)
    day = 86400
    later = int(datetime.datetime.now(datetime.UTC).timestamp()) + day
    assert outcome(whole).startswith("0 verified"), "intoto-with-custom-trust-root"
    assert outcome(put(whole, *STAMPS, to={})).startswith("0 verified"), "by the log's time alone"
    cases = {
        "intoto-log-entry-mismatch_fail": (logged_as_intoto(rekor1, of=2), "log: the log entry is about another"),
        "intoto-log-entry-of-another_fail": (logged_as_intoto(rekor1, of=1), "log: the log entry holds another"),
        "intoto-missing-inclusion-proof_fail": (put(whole, *ENTRIES, 0, "inclusionProof", to=None), "log: "),
        "intoto-set-outside-signing-cert-validity_fail": (logged_as_intoto(rekor1, when=later), "certificate: "),
    }  # fmt: skip
    for name, (said, why) in cases.items():
        assert outcome(said).startswith(f"1 refused    {why}"), (name, outcome(said))
    expired = closed(rekor1.root, "certificateAuthorities", hours=5)
    assert outcome(whole, expired).startswith("1 refused    time: "), "intoto-expired-certificate_fail"


def test_a_timestamp_outside_the_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """intoto-tsa-timestamp-outside-cert-validity_fail: the log's own time, which fits, does not make up for it."""
    with LoopbackSigstore(rekor_version=1) as sigstore:
        sigstore.clock_ahead = datetime.timedelta(hours=2)
        late = Instance(sigstore, tmp_path)
        whole = logged_as_intoto(late)
        assert told(whole, late.root, sigstore.url, tmp_path, capsys).startswith("1 refused    certificate: ")
        assert told(put(whole, *STAMPS, to={}), late.root, sigstore.url, tmp_path, capsys).startswith("0 verified")


def test_a_timestamp_outside_its_authority_s_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """rekor2-timestamp-outside-tsa-cert-validity_fail: the clock's own certificate ends before what it says."""
    with LoopbackSigstore(rekor_version=2) as sigstore:
        whole = Instance(sigstore, tmp_path)
        sigstore.clock_ahead = datetime.timedelta(days=20 * 365)
        late = Instance(sigstore, tmp_path)
        assert told(whole.messages[0], whole.root, sigstore.url, tmp_path, capsys).startswith("0 verified")
        found = told(late.messages[0], late.root, sigstore.url, tmp_path, capsys)
        assert found.startswith("1 refused    time: "), found


@pytest.mark.slow  # it waits
def test_a_timestamp_of_an_authority_that_has_expired_since(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """rekor2-timestamp-with-expired-cert-chain: what counts is when it was stamped."""
    with LoopbackSigstore(rekor_version=2) as sigstore:
        sigstore.clock = TimestampAuthority(datetime.timedelta(seconds=8))
        whole = Instance(sigstore, tmp_path)
        ends = sigstore.clock.certificate.not_valid_after_utc
        assert sigstore.clock.root.not_valid_after_utc <= ends
        while datetime.datetime.now(datetime.UTC) <= ends:
            time.sleep(0.2)
        assert told(whole.messages[0], whole.root, sigstore.url, tmp_path, capsys).startswith("0 verified")


def test_certificate_timestamps_with_extensions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """bundle-with-sct-with-extensions: as static certificate logs issue them."""
    with LoopbackSigstore(rekor_version=1) as sigstore:
        sigstore.authority.sct_extensions = b"\x00\x00\x05\x00\x00\x00\x00\x07"
        made = Instance(sigstore, tmp_path)
        leaf = x509.load_der_x509_certificate(
            base64.b64decode(made.messages[0]["verificationMaterial"]["certificate"]["rawBytes"])
        )
        (sct,) = leaf.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps).value
        assert sct.extension_bytes == sigstore.authority.sct_extensions
        assert told(made.messages[0], made.root, sigstore.url, tmp_path, capsys).startswith("0 verified")
