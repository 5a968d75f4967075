# ruff: noqa: E501
"""Sigstore for real, on 127.0.0.1: what is signed there verifies offline, and nothing else does."""

from __future__ import annotations

import base64
import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecology.contracts.identity import Digest
from ecology.contracts.policy import TrustedIdentity
from ecology.errors import BackendError, ConfigError
from ecology.kernel import merkle
from ecology.kernel.canonical import canonical, digest_bytes
from ecology.signer import dsse, intoto
from ecology.signer.keyless import KeylessSigner, keyless_signer
from ecology.signer.refusal import ClaimRefused
from ecology.signer.roots import Root, load_root
from ecology.signer.sigstore import Artifact, Identity, verify_bundle
from ecology.signer.verify import verify_claims, verify_envelope
from ecology.testing.sigstore import GITHUB, LoopbackSigstore

DATA = b"the adapter"
ARTIFACT = Artifact.of(DATA)
DIGEST = digest_bytes(DATA)
WORKFLOW = f"https://github.com/{GITHUB['job_workflow_ref']}"
STATEMENT = intoto.statement([intoto.subject_entry("artifact", DIGEST)], "https://example.com/p/v1", {"a": 1})


class Flow:
    """One instance, its root and what was signed there."""

    def __init__(self, instance: LoopbackSigstore, folder: Path) -> None:
        config = folder / "trust.json"
        config.write_text(json.dumps(instance.trust_config()))
        self.instance, self.config = instance, config
        self.signer: KeylessSigner = keyless_signer(config, instance.token())
        self.message, self.statement = self.signer.sign_artifact(DATA), self.signer.sign(STATEMENT)
        self.root_text = json.dumps(instance.trusted_root())
        self.root: Root = load_root(self.root_text)
        self.who = Identity("reviewer@loop-back.test", instance.url)


@pytest.fixture(scope="module", params=[(1, True), (1, False), (2, True)], ids=["rekor1+tsa", "rekor1", "rekor2+tsa"])
def flow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    version, timestamps = request.param
    with LoopbackSigstore(rekor_version=version, timestamps=timestamps) as instance:
        yield Flow(instance, tmp_path_factory.mktemp("flow"))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    with LoopbackSigstore() as instance:
        yield Flow(instance, tmp_path_factory.mktemp("one"))


def refused(text: str, root: Root | None, who: Any, artifact: Artifact = ARTIFACT) -> str:
    with pytest.raises(ClaimRefused) as caught:
        verify_bundle(text, root, who, artifact)
    return caught.value.reason


def changed(text: str, *path: Any, to: Any) -> str:
    value = json.loads(text)
    place = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to(place[path[-1]]) if callable(to) else to
    return json.dumps(value)


def test_what_is_signed_verifies_offline(flow: Flow) -> None:
    assert "signature over" in verify_bundle(flow.message, flow.root, flow.who, ARTIFACT)
    assert "statement about" in verify_bundle(flow.statement, flow.root, flow.who, ARTIFACT)
    assert verify_bundle(flow.message, flow.root, flow.who, Artifact(ARTIFACT.sha256, None)), "by digest alone"


def test_nobody_else_signed_it_and_nothing_else(flow: Flow) -> None:
    other = Artifact.of(b"another adapter")
    for text in (flow.message, flow.statement):
        assert refused(text, flow.root, Identity("other@loop-back.test", flow.instance.url)) == "identity"
        assert refused(text, flow.root, Identity(flow.who.identity, "https://accounts.example")) == "identity"
        assert refused(text, flow.root, flow.who, other) == "artifact"
        assert refused(text, None, flow.who) == "root"
        assert refused(text, flow.root, ec.generate_private_key(ec.SECP256R1()).public_key()) == "identity"


def test_another_instance_is_not_trusted(flow: Flow) -> None:
    with LoopbackSigstore() as stranger:
        root = load_root(json.dumps(stranger.trusted_root()))
        assert refused(flow.message, root, flow.who) in {"certificate", "time", "log"}


ENTRY = ("verificationMaterial", "tlogEntries", 0)


@pytest.mark.parametrize(
    ("path", "to", "reasons"),
    [
        ((*ENTRY, "inclusionProof"), None, {"log"}),
        ((*ENTRY, "inclusionProof", "checkpoint"), None, {"log"}),
        ((*ENTRY, "inclusionProof", "checkpoint", "envelope"), lambda t: t.replace("\n1\n", "\n2\n").replace("\n2\n", "\n3\n"), {"log"}),
        ((*ENTRY, "inclusionProof", "rootHash"), base64.b64encode(bytes(32)).decode(), {"log"}),
        ((*ENTRY, "inclusionProof", "treeSize"), "7", {"log"}),
        ((*ENTRY, "logId", "keyId"), base64.b64encode(bytes(32)).decode(), {"log"}),
        ((*ENTRY, "kindVersion", "kind"), "intoto", {"log", "time"}),
        (("verificationMaterial", "tlogEntries"), [], {"log"}),
        (("verificationMaterial", "tlogEntries"), lambda e: [*e, *e], {"log"}),
        (("mediaType",), "application/vnd.dev.sigstore.bundle+json;version=9", {"bundle"}),
        (("messageSignature",), None, {"bundle"}),
        (("messageSignature", "signature"), base64.b64encode(b"x" * 70).decode(), {"signature", "time"}),
        (("messageSignature", "messageDigest", "digest"), base64.b64encode(bytes(32)).decode(), {"artifact"}),
        (("messageSignature", "messageDigest", "algorithm"), "MD5", {"bundle"}),
        (("verificationMaterial", "certificate", "rawBytes"), "AAAA", {"unexpected", "bundle"}),
    ],
)  # fmt: skip
def test_every_part_matters(flow: Flow, path: tuple[Any, ...], to: Any, reasons: set[str]) -> None:
    assert refused(changed(flow.message, *path, to=to), flow.root, flow.who) in reasons


def test_a_swapped_log_entry_is_noticed(flow: Flow) -> None:
    """CVE-2022-36056: a valid proof of somebody else's entry."""
    second = json.loads(flow.signer.sign_artifact(b"something else"))["verificationMaterial"]["tlogEntries"]
    assert (
        refused(changed(flow.message, "verificationMaterial", "tlogEntries", to=second), flow.root, flow.who) == "log"
    )
    envelope = json.loads(flow.signer.sign({**STATEMENT, "predicate": {"a": 2}}))["verificationMaterial"]["tlogEntries"]
    assert (
        refused(changed(flow.statement, "verificationMaterial", "tlogEntries", to=envelope), flow.root, flow.who)
        == "log"
    )


def test_a_changed_statement_is_noticed(flow: Flow) -> None:
    payload = base64.b64encode(canonical({**STATEMENT, "predicate": {"a": 2}})).decode()
    assert refused(changed(flow.statement, "dsseEnvelope", "payload", to=payload), flow.root, flow.who) in {
        "signature",
        "log",
        "time",
    }
    assert (
        refused(changed(flow.statement, "dsseEnvelope", "payloadType", to="text/plain"), flow.root, flow.who)
        == "payload-type"
    )
    assert (
        refused(changed(flow.statement, "dsseEnvelope", "signatures", to=lambda s: s * 2), flow.root, flow.who)
        == "bundle"
    )


def test_statements_of_unknown_types_are_refused(one: Flow) -> None:
    for wrong in ({}, {"_type": "https://in-toto.io/Statement/v9"}):
        statement = {key: value for key, value in STATEMENT.items() if key != "_type"} | wrong
        envelope = json.loads(one.statement)["dsseEnvelope"]
        key = ec.generate_private_key(ec.SECP256R1())
        text = with_key(key, canonical(statement), None)
        assert refused(text, None, key.public_key()) == "statement"
        assert envelope["payloadType"] == dsse.PAYLOAD_TYPE


def test_a_time_is_needed_and_must_fit(tmp_path: Path) -> None:
    with LoopbackSigstore(rekor_version=2, timestamps=True) as instance:
        flow = Flow(instance, tmp_path)
        bare = changed(flow.message, "verificationMaterial", "timestampVerificationData", to={"rfc3161Timestamps": []})
        assert refused(bare, flow.root, flow.who) in {"bundle", "time"}
        instance.clock_ahead = datetime.timedelta(hours=2)
        late = flow.signer.sign_artifact(DATA)
        assert refused(late, flow.root, flow.who) in {"certificate", "time"}
        both = json.loads(flow.message)
        stamps = "timestampVerificationData"
        both["verificationMaterial"][stamps]["rfc3161Timestamps"] += json.loads(late)["verificationMaterial"][stamps][
            "rfc3161Timestamps"
        ]
        assert verify_bundle(json.dumps(both), flow.root, flow.who, ARTIFACT), (
            "a stamp over another signature is no stamp"
        )


@pytest.mark.parametrize("part", ["tlogs", "certificateAuthorities", "ctlogs", "timestampAuthorities"])
def test_windows_of_the_root(flow: Flow, part: str) -> None:
    def window(**new: str) -> Root:
        value = json.loads(flow.root_text)
        for entry in value[part]:
            entry.get("publicKey", entry)["validFor"] = new
        return load_root(json.dumps(value))

    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=30)
    closed = window(start="2020-01-01T00:00:00Z", end=past.isoformat())
    needed = {"tlogs": flow.instance.rekor_version == 1, "timestampAuthorities": flow.instance.rekor_version == 2}
    if needed.get(part, True):
        assert refused(flow.message, closed, flow.who) == "time"
    else:
        assert verify_bundle(flow.message, closed, flow.who, ARTIFACT)
    with pytest.raises(ClaimRefused, match="no start"):
        window()


def test_the_end_of_a_window_belongs_to_it(one: Flow) -> None:
    at = int(json.loads(one.message)["verificationMaterial"]["tlogEntries"][0]["integratedTime"])
    for part in ("tlogs", "timestampAuthorities"):
        for offset, good in ((0, True), (-1, False)):
            value = json.loads(one.root_text)
            end = datetime.datetime.fromtimestamp(at + offset, tz=datetime.UTC).isoformat()
            for entry in value[part]:
                entry.get("publicKey", entry)["validFor"] = {"start": "2020-01-01T00:00:00Z", "end": end}
            root = load_root(json.dumps(value))
            if good:
                assert verify_bundle(one.message, root, one.who, ARTIFACT)
            elif part == "tlogs":
                assert refused(one.message, root, one.who) == "time"


def test_malformed_roots(one: Flow) -> None:
    value = json.loads(one.root_text)
    for bad in ("", "[]", "{}", json.dumps({**value, "mediaType": "x"}), json.dumps({**value, "tlogs": 3}),
                json.dumps({**value, "timestampAuthorities": [{"certChain": {"certificates": []}, "validFor": {"start": "2020-01-01T00:00:00Z"}}]})):  # fmt: skip
        with pytest.raises(ClaimRefused) as caught:
            verify_bundle(one.message, load_root(bad), one.who, ARTIFACT)
        assert caught.value.reason in {"root", "unexpected", "time"}


def with_key(key: Any, payload: bytes | None, log: ec.EllipticCurvePrivateKey | None, kind: str = "intoto") -> str:
    """A bundle signed by a bare key, with or without one entry of a one-leaf log."""

    def sign(data: bytes) -> bytes:
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(data)
        if isinstance(key, rsa.RSAPrivateKey):
            from cryptography.hazmat.primitives.asymmetric import padding

            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return bytes(key.sign(data, ec.ECDSA(hashes.SHA256())))

    value: dict[str, Any] = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "x"}},
    }
    signature = sign(DATA if payload is None else dsse.pae(dsse.PAYLOAD_TYPE, payload))
    b64 = lambda data: base64.b64encode(data).decode()  # noqa: E731
    if payload is None:
        value["messageSignature"] = {
            "messageDigest": {"algorithm": "SHA2_256", "digest": b64(ARTIFACT.sha256)},
            "signature": b64(signature),
        }
    else:
        value["dsseEnvelope"] = {
            "payload": b64(payload),
            "payloadType": dsse.PAYLOAD_TYPE,
            "signatures": [{"sig": b64(signature), "keyid": ""}],
        }
    if log is not None and payload is not None:
        import hashlib

        pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        hashed = {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}
        if kind == "intoto":
            inner = {
                "content": {
                    "envelope": {
                        "payloadType": dsse.PAYLOAD_TYPE,
                        "signatures": [{"publicKey": b64(pem), "sig": b64(b64(signature).encode())}],
                    },
                    "payloadHash": hashed,
                }
            }
            version = "0.0.2"
        else:
            over = hashlib.sha256(dsse.pae(dsse.PAYLOAD_TYPE, payload)).hexdigest()
            inner = {
                "data": {"hash": {"algorithm": "sha256", "value": over}},
                "signature": {"content": b64(signature), "publicKey": {"content": b64(pem)}},
            }
            version = "0.0.1"
        body = canonical({"apiVersion": version, "kind": kind, "spec": inner})
        root = merkle.root([merkle.leaf_hash(body)])
        note = f"log.test\n1\n{b64(root)}\n"
        log_id = hashlib.sha256(
            log.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        ).digest()
        blob = log_id[:4] + log.sign(note.encode(), ec.ECDSA(hashes.SHA256()))
        value["verificationMaterial"]["tlogEntries"] = [{
            "logIndex": "0", "logId": {"keyId": b64(log_id)}, "kindVersion": {"kind": kind, "version": version}, "integratedTime": "0",
            "inclusionProof": {"logIndex": "0", "rootHash": b64(root), "treeSize": "1", "hashes": [], "checkpoint": {"envelope": f"{note}\n— log.test {b64(blob)}\n"}},
            "canonicalizedBody": b64(body)}]  # fmt: skip
    return json.dumps(value)


def log_root(log: ec.EllipticCurvePrivateKey) -> Root:
    import hashlib

    der = log.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return load_root(json.dumps({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [{"baseUrl": "https://log.test", "hashAlgorithm": "SHA2_256",
                   "publicKey": {"rawBytes": base64.b64encode(der).decode(), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": {"start": "2020-01-01T00:00:00Z"}},
                   "logId": {"keyId": base64.b64encode(hashlib.sha256(der).digest()).decode()}}],
        "certificateAuthorities": [], "ctlogs": [], "timestampAuthorities": []}))  # fmt: skip


@pytest.mark.parametrize("make", [lambda: ec.generate_private_key(ec.SECP256R1()), lambda: ec.generate_private_key(ec.SECP384R1()),
                                  ed25519.Ed25519PrivateKey.generate, lambda: rsa.generate_private_key(65537, 2048)])  # fmt: skip
def test_bare_keys(make: Any) -> None:
    key, other = make(), make()
    for payload in (None, canonical(STATEMENT)):
        text = with_key(key, payload, None)
        assert verify_bundle(text, None, key.public_key(), ARTIFACT)
        assert refused(text, None, other.public_key()) == "signature"
        assert refused(text, None, key.public_key(), Artifact.of(b"x")) == "artifact"
        assert refused(text, None, Identity("a", "b")) == "root"


@pytest.mark.parametrize("kind", ["intoto", "hashedrekord"])
def test_bare_keys_with_a_log(kind: str) -> None:
    key, log = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    text = with_key(key, canonical(STATEMENT), log, kind)
    root = log_root(log)
    assert verify_bundle(text, root, key.public_key(), ARTIFACT)
    assert refused(text, None, key.public_key()) == "root"
    assert refused(text, log_root(ec.generate_private_key(ec.SECP256R1())), key.public_key()) == "log"
    assert refused(text, root, Identity("a", "b")) == "identity"
    other = with_key(key, canonical({**STATEMENT, "predicate": {}}), log, kind)
    swapped = changed(
        text, "verificationMaterial", "tlogEntries", to=json.loads(other)["verificationMaterial"]["tlogEntries"]
    )
    assert refused(swapped, root, key.public_key()) == "log"


def test_the_ambient_identity_of_a_ci_job(one: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in one.instance.ambient().items():
        monkeypatch.setenv(name, value)
    signer = keyless_signer(one.config, None)
    assert not signer.development
    assert signer.keyid.startswith(one.instance.url)
    assert verify_bundle(signer.sign_artifact(DATA), one.root, Identity(WORKFLOW, one.instance.url), ARTIFACT)
    elsewhere = {**GITHUB, "job_workflow_ref": GITHUB["job_workflow_ref"].replace("main", "attack")}
    for name, value in one.instance.ambient(elsewhere).items():
        monkeypatch.setenv(name, value)
    forged = keyless_signer(one.config, None).sign_artifact(DATA)
    assert refused(forged, one.root, Identity(WORKFLOW, one.instance.url)) == "identity"


def test_a_forged_token_gets_no_certificate(one: Flow) -> None:
    with LoopbackSigstore() as stranger:
        token = stranger.token()
    with pytest.raises(BackendError, match="did not sign"):
        keyless_signer(one.config, token).sign_artifact(DATA)


def test_instances_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        keyless_signer(tmp_path / "missing.json", "x")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError):
        keyless_signer(tmp_path / "bad.json", "x")


def trusted(one: Flow, **new: str) -> TrustedIdentity:
    text = new.pop("root", one.root_text)
    values = {"name": "ci", "identity": one.who.identity, "issuer": one.who.issuer, "trusted_root": "root.json"}
    return TrustedIdentity(**{**values, **new}, root_digest=digest_bytes(one.root_text.encode()), root=text)


def test_claims_by_identity(one: Flow) -> None:
    subject = Digest(DIGEST)
    claims = verify_claims([one.statement], subject, (), (), [trusted(one)])
    assert [claim.signer for claim in claims.verified] == ["ci"]
    assert not claims.verified[0].development
    assert verify_envelope(one.statement, (), [trusted(one)]).keyid == f"{one.who.issuer}#{one.who.identity}"
    for identities, reason in (
        ([], "untrusted"),
        ([trusted(one, identity="x")], "identity"),
        ([trusted(one, root=one.root_text + " ")], "root"),
        ([trusted(one, root="")], "root"),
    ):
        found = verify_claims([one.statement], subject, (), (), identities)
        assert not found.verified
        assert reason in found.refused[0]
    assert "replayed" in verify_claims([one.statement], Digest("sha256:" + "0" * 64), (), (), [trusted(one)]).refused[0]
    assert "bundle" in verify_claims([one.message], subject, (), (), [trusted(one)]).refused[0]


def test_sigstore_is_imported_only_for_a_keyless_claim_that_could_be_trusted(one: Flow, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text(one.statement)
    program = (
        "import sys; from ecology.signer.verify import verify_claims; from pathlib import Path;"
        "verify_claims([Path(sys.argv[1]).read_text(), '{}'], 'sha256:' + '0'*64, (), ()); print('sigstore' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "bundle")], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "False"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_edit_of_a_bundle_is_refused_or_changes_nothing_that_is_signed(one: Flow, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([one.message, one.statement]))
    at = data.draw(st.integers(0, len(text) - 1))
    edited = text[:at] + data.draw(st.sampled_from('"{}[]:,0A=\\n ')) + text[at + 1 :]
    try:
        verify_bundle(edited, one.root, one.who, ARTIFACT)
    except ClaimRefused:
        return
    strip = lambda value: {k: value[k] for k in ("dsseEnvelope", "messageSignature") if k in value}  # noqa: E731
    assert strip(json.loads(edited)) == strip(json.loads(text))


def test_the_public_roots_that_the_client_ships_are_read() -> None:
    import sigstore

    roots = sorted((Path(sigstore.__file__).parent / "_store").rglob("trusted_root.json"))
    assert len(roots) == 2
    for path in roots:
        root = load_root(path.read_text())
        assert root.logs
        assert root.authorities
