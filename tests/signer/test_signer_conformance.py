"""Bundles of the public Sigstore instance, and the ways of sigstore-conformance to spoil one, through the command line.

The roots are those that ``sigstore`` ships; nothing is fetched. What is signed is a source distribution that lies here,
or the digest of one that does not. Names of the cases follow test/assets/bundle-verify of sigstore-conformance: what
ends in ``_fail`` has to exit with 1 and the others with 0.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sigstore

from ecology.cli import main

FOLDER = Path(__file__).parent / "conformance"
STORE = Path(sigstore.__file__).parent / "_store"
PUBLIC = STORE / "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev" / "trusted_root.json"
STAGING = STORE / "https%3A%2F%2Ftuf-repo-cdn.sigstage.dev" / "trusted_root.json"
ACTIONS = "https://token.actions.githubusercontent.com"
CIRCLE = (
    "https://circleci.com/api/v2/projects/fdd9283f-e619-46af-8f9c-851f7d3e8b2b/pipeline-definitions/"
    "8e4f8ab2-8d7c-4827-9f15-de076d6d647f"
)

MODELS = (
    "pypi_attestation_models-0.0.4a2.tar.gz.sigstore",
    str(FOLDER / "pypi_attestation_models-0.0.4a2.tar.gz"),
    "https://github.com/trailofbits/pypi-attestation-models/.github/workflows/release.yml@refs/tags/v0.0.4a2",
    ACTIONS,
    PUBLIC,
)
"""Bundle, artifact, identity, issuer, root."""
GOOD = {
    "github-job": MODELS,
    "github-job-slsa": (
        "pypi_attestations-0.0.19.tar.gz.slsa.attestation",
        "sha256:9bb1add04b1b4e182be6b0b80931593f7a291eb49d69b4fd728a5d4cbcdc4bd3",
        "https://github.com/trailofbits/pypi-attestations/.github/workflows/release.yml@refs/tags/v0.0.19",
        ACTIONS,
        PUBLIC,
    ),
    "gitlab-job": (
        "gitlab_oidc_project-0.0.3.tar.gz.publish.attestation",
        "sha256:c1ca9b0d85df1606451098233018534497bf584362e10e4a8c21dfaea92c02a8",
        "https://gitlab.com/facutuesca/gitlab-oidc-project//.gitlab-ci.yml@refs/heads/main",
        "https://gitlab.com",
        PUBLIC,
    ),
    "circleci-job": (
        "circleci_sign_publish_example-0.0.1.dev137-py3-none-any.whl.publish.attestation",
        "sha256:8cb34da1e27336f11a2c43f3f9c7433bd76f24f470c904724f06ad7f131d9e9f",
        CIRCLE,
        "https://oidc.circleci.com",
        PUBLIC,
    ),
    "person-at-staging": (
        "rfc8785-0.1.2-py3-none-any.whl.sigstore",
        "sha256:c4e92e9ecc828bef2aa7dba1de8ac983511f7532a0df11c770d39099a25cf201",
        "william@yossarian.net",
        "https://github.com/login/oauth",
        STAGING,
    ),
}


def bundle(name: str) -> Any:
    """A bundle as it lies here; a PEP 740 attestation holds the same parts under other names."""
    said = json.loads((FOLDER / name).read_bytes())
    if "mediaType" in said:
        return said
    material, envelope = said["verification_material"], said["envelope"]
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "certificate": {"rawBytes": material["certificate"]},
            "tlogEntries": material["transparency_entries"],
        },
        "dsseEnvelope": {
            "payload": envelope["statement"],
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": envelope["signature"]}],
        },
    }


def verified(said: Any, place: Path, artifact: str, identity: str, issuer: str, root: Path) -> int:
    file = place / "bundle.sigstore.json"
    file.write_text(said if isinstance(said, str) else json.dumps(said), "utf-8")
    anchor = ["--trusted-root", str(root), "--identity", identity, "--issuer", issuer]
    return main(["verify", "--bundle", str(file), *anchor, "--home", str(place / "home"), artifact])


@pytest.mark.parametrize("name", GOOD)
def test_what_real_jobs_signed_holds(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, artifact, identity, issuer, root = GOOD[name]
    assert verified(bundle(file), tmp_path, artifact, identity, issuer, root) == 0, capsys.readouterr().err
    assert "verified" in capsys.readouterr().out
    other = STAGING if root == PUBLIC else PUBLIC
    assert verified(bundle(file), tmp_path, artifact, identity, issuer, other) == 1
    assert verified(bundle(file), tmp_path, artifact, f"{identity}x", issuer, root) == 1
    assert verified(bundle(file), tmp_path, artifact, identity, f"{issuer}/", root) == 1
    assert verified(bundle(file), tmp_path, "sha256:" + "0" * 64, identity, issuer, root) == 1
    assert not (tmp_path / "home" / "keys").exists()


Spoil = Callable[[Any, Any], Any]
"""Given the bundle and another one of the same identity's kind; returns what is verified instead."""


def _set(*path: Any, to: Any) -> Spoil:
    def spoil(said: Any, other: Any) -> Any:
        del other
        node = said
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = to(node[path[-1]]) if callable(to) else to
        return said

    return spoil


def _drop(*path: Any) -> Spoil:
    def spoil(said: Any, other: Any) -> Any:
        del other
        node = said
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]
        return said

    return spoil


def _from_other(*path: Any) -> Spoil:
    def spoil(said: Any, other: Any) -> Any:
        node, theirs = said, other
        for key in path[:-1]:
            node, theirs = node[key], theirs[key]
        node[path[-1]] = theirs[path[-1]]
        return said

    return spoil


def _flip(text: str) -> str:
    """Base64 with one bit of what it says changed."""
    data = bytearray(base64.b64decode(text))
    data[len(data) // 2] ^= 1
    return base64.b64encode(data).decode()


def _body(change: Callable[[Any], None]) -> Spoil:
    def spoil(text: str) -> str:
        said = json.loads(base64.b64decode(text))
        change(said)
        return base64.b64encode(json.dumps(said, separators=(",", ":")).encode()).decode()

    return _set(*ENTRY, "canonicalizedBody", to=spoil)


MATERIAL = ("verificationMaterial",)
ENTRY = (*MATERIAL, "tlogEntries", 0)
PROOF = (*ENTRY, "inclusionProof")
SPOILED: dict[str, Spoil] = {
    "bundle-empty_fail": lambda said, other: "",
    "bundle-not-an-object_fail": lambda said, other: [said],
    "bundle-two-keys_fail": lambda said, other: json.dumps(said)[:-1] + ', "mediaType": "x"}',
    "bundle-unknown-version_fail": _set("mediaType", to="application/vnd.dev.sigstore.bundle.v9+json"),
    "bundle-without-media-type_fail": _drop("mediaType"),
    "certificate-missing_fail": _drop(*MATERIAL, "certificate"),
    "certificate-of-another_fail": _from_other(*MATERIAL, "certificate"),
    "certificate-damaged_fail": _set(*MATERIAL, "certificate", "rawBytes", to=_flip),
    "cve-2022-36056-swapped-tlog-entry_fail": _from_other(*MATERIAL, "tlogEntries"),
    "tlog-entry-missing_fail": _set(*MATERIAL, "tlogEntries", to=[]),
    "tlog-entries-twice_fail": _set(*MATERIAL, "tlogEntries", to=lambda entries: entries * 2),
    "tlog-body-of-another_fail": _from_other(*ENTRY, "canonicalizedBody"),
    "tlog-body-damaged_fail": _set(*ENTRY, "canonicalizedBody", to=_flip),
    "tlog-body-other-payload_fail": _body(lambda body: body["spec"]["payloadHash"].update(value="0" * 64)),
    "tlog-kind-other_fail": _set(*ENTRY, "kindVersion", "kind", to="hashedrekord"),
    "tlog-log-unknown_fail": _set(*ENTRY, "logId", "keyId", to=_flip),
    "integrated-time-in-future_fail": _set(*ENTRY, "integratedTime", to=lambda at: str(int(at) + 10**9)),
    "integrated-time-one-later_fail": _set(*ENTRY, "integratedTime", to=lambda at: str(int(at) + 1)),
    "inclusion-promise-damaged_fail": _set(*ENTRY, "inclusionPromise", "signedEntryTimestamp", to=_flip),
    "inclusion-promise-missing_fail": _drop(*ENTRY, "inclusionPromise"),  # and then nothing says when it was
    "inclusion-proof-missing_fail": _drop(*PROOF),
    "inclusion-proof-damaged_fail": _set(*PROOF, "hashes", 0, to=_flip),
    "inclusion-proof-short_fail": _set(*PROOF, "hashes", to=lambda hashes: hashes[:-1]),
    "inclusion-proof-other-index_fail": _set(*PROOF, "logIndex", to=lambda at: str(int(at) + 1)),
    "inclusion-proof-other-root_fail": _set(*PROOF, "rootHash", to=_flip),
    "checkpoint-missing_fail": _drop(*PROOF, "checkpoint"),
    "checkpoint-of-another_fail": _from_other(*PROOF, "checkpoint"),
    "checkpoint-bad-signature_fail": _set(
        *PROOF, "checkpoint", "envelope", to=lambda note: note[:-10] + ("A" if note[-10] != "A" else "B") + note[-9:]
    ),
    "checkpoint-wrong-size_fail": _set(*PROOF, "treeSize", to=lambda size: str(int(size) + 1)),
    "dsse-mismatch-envelope_fail": _from_other("dsseEnvelope", "payload"),
    "dsse-mismatch-sig_fail": _from_other("dsseEnvelope", "signatures"),
    "dsse-invalid-sig_fail": _set("dsseEnvelope", "signatures", 0, "sig", to=_flip),
    "dsse-no-signatures_fail": _set("dsseEnvelope", "signatures", to=[]),
    "dsse-two-signatures_fail": _set("dsseEnvelope", "signatures", to=lambda found: found * 2),
    "dsse-other-payload-type_fail": _set("dsseEnvelope", "payloadType", to="text/plain"),
    "envelope-and-message_fail": _set(
        "messageSignature", to={"messageDigest": {"algorithm": "SHA2_256", "digest": ""}, "signature": ""}
    ),
    "nothing-signed_fail": _drop("dsseEnvelope"),
    "happy-path": lambda said, other: said,
    "happy-path-keyid": _set("dsseEnvelope", "signatures", 0, "keyid", to=""),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_bundle_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, artifact, identity, issuer, root = MODELS
    said, other = bundle(file), bundle(GOOD["github-job-slsa"][0])
    spoiled = SPOILED[case](copy.deepcopy(said), other)
    code = verified(spoiled, tmp_path, artifact, identity, issuer, root)
    told = capsys.readouterr()
    assert code == int(case.endswith("_fail")), (told.out, told.err)
    assert ("refused" if code else "verified") in told.out + told.err
    assert "unexpected" not in told.out, "every way has a reason of its own"


def test_no_network_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    file, artifact, identity, issuer, root = MODELS
    assert verified(bundle(file), tmp_path, artifact, identity, issuer, root) == 0
