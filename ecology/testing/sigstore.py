"""A whole Sigstore on 127.0.0.1: identity provider, certificate authority, logs of both versions, clock.

For tests of what must work without a network and as in CI: unmodified ``sigstore`` clients talk to it, an ambient
GitHub credential included. It starts in milliseconds, every key is new, and it forgets everything. Needs ``asn1crypto``
(in the ``dev`` extra).

    with LoopbackSigstore() as instance:
        config = instance.trust_config()            # for `ecology sign --keyless --trust-config`
        root = instance.trusted_root()              # for `ecology verify --trusted-root`
        os.environ |= instance.ambient({"repository": "acme/adapters", ...})

Sources: Sigstore's public API definitions (Fulcio v2 signingCert, Rekor v1 and v2 log/entries, TSA v1), RFC 6962.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlencode, urlparse

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from ecology.kernel import merkle
from ecology.kernel.canonical import canonical
from ecology.testing.authorities import CertificateAuthority, TimestampAuthority, decode_csr, der, now

AUDIENCE = "sigstore"
GITHUB = {
    "repository": "acme/adapters",
    "repository_owner": "acme",
    "job_workflow_ref": "acme/adapters/.github/workflows/release.yml@refs/heads/main",
    "ref": "refs/heads/main",
    "sha": "0" * 40,
    "workflow": "release",
    "event_name": "push",
    "runner_environment": "github-hosted",
}
"""Claims of a job on a CI that is called GitHub."""


class Log:
    """A Merkle tree with a key."""

    def __init__(self, origin: str, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
        """An empty log."""
        self._origin, self._key = origin, key
        self._leaves: list[bytes] = []
        self._lock = threading.Lock()
        self.id = hashlib.sha256(der(key.public_key())).digest()
        self.public = der(key.public_key())

    def add(self, body: bytes) -> tuple[int, Mapping[str, Any]]:
        """Index of the new leaf, and its proof of inclusion."""
        with self._lock:
            self._leaves.append(merkle.leaf_hash(body))
            index, size = len(self._leaves) - 1, len(self._leaves)
            root, path = merkle.root(self._leaves), merkle.inclusion_proof(self._leaves, index)
        text = f"{self._origin}\n{size}\n{_b64(root)}\n"
        blob = _b64(self.id[:4] + self.sign(text.encode()))
        note = f"{text}\n— {self._origin.split(' ')[0]} {blob}\n"
        return index, {"size": size, "root": root, "path": path, "checkpoint": note}

    def sign(self, data: bytes) -> bytes:
        """A signature of the log."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))


class Redirect(str):
    """An address to go on to."""


class LoopbackSigstore:
    """One instance, on a port of its own.

    Args:
        rekor_version: Which log clients are told to use, 1 or 2.
        timestamps: Whether clients are told of the timestamp authority.
    """

    def __init__(self, *, rekor_version: int = 1, timestamps: bool = True) -> None:
        """Makes the keys and starts to listen."""
        self.rekor_version, self.timestamps = rekor_version, timestamps
        self.clock_ahead = datetime.timedelta()
        self._oidc = ec.generate_private_key(ec.SECP256R1())
        self._codes: dict[str, tuple[str, str]] = {}
        self._bearer, self._claims = secrets.token_hex(16), dict(GITHUB)
        self.authority, self.clock = CertificateAuthority(), TimestampAuthority()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        host = urlparse(self.url).netloc
        self.logs = {
            1: Log(f"{host} - 1", ec.generate_private_key(ec.SECP256R1())),
            2: Log(f"{host}/2", ed25519.Ed25519PrivateKey.generate()),
        }
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> LoopbackSigstore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()

    def token(self, subject: str = "reviewer@loop-back.test", *, audience: str = AUDIENCE, **claims: Any) -> str:
        """An identity token of five minutes."""
        at = int(time.time())
        body = {"iss": self.url, "sub": subject, "aud": audience, "iat": at, "nbf": at - 1, "exp": at + 300, **claims}
        return jwt.encode(body, self._oidc, algorithm="ES256")

    def ambient(self, claims: Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment variables by which a client believes to run in a GitHub workflow with these claims."""
        self._claims = dict(claims or GITHUB)
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self._bearer,
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/ambient?version=1",
        }

    def trusted_root(self) -> dict[str, Any]:
        """``trusted_root.json`` of this instance."""
        window = {"start": _rfc3339(now() - datetime.timedelta(hours=1))}
        ct_key = der(self.authority.ct_key.public_key())
        chain = [self.authority.intermediate, self.authority.root]
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [
                _log(self.url, self.logs[1].public, "PKIX_ECDSA_P256_SHA_256", window),
                _log(self.url, self.logs[2].public, "PKIX_ED25519", window),
            ],
            "certificateAuthorities": [_authority(self.url, chain, window)],
            "ctlogs": [_log(f"{self.url}/ct", ct_key, "PKIX_ECDSA_P256_SHA_256", window)],
            "timestampAuthorities": [
                _authority(f"{self.url}/api/v1/timestamp", [self.clock.certificate, self.clock.root], window)
            ],
        }

    def trust_config(self) -> dict[str, Any]:
        """What a client needs to sign and to verify here (``ClientTrustConfig``)."""

        def service(url: str, version: int = 1) -> dict[str, Any]:
            start = _rfc3339(now() - datetime.timedelta(hours=1))
            return {"url": url, "majorApiVersion": version, "validFor": {"start": start}, "operator": "loop-back.test"}

        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self.trusted_root(),
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [service(self.url)],
                "oidcUrls": [service(self.url)],
                "rekorTlogUrls": [service(self.url, self.rekor_version)],
                "tsaUrls": [service(f"{self.url}/api/v1/timestamp")] if self.timestamps else [],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaConfig": {"selector": "ANY"},
            },
        }

    def logged(self, kind: str, kind_version: str, spec: Any, *, at: int | None = None) -> dict[str, Any]:
        """A log entry of a bundle, with proof and promise, of any kind: more than clients of today ask for.

        Args:
            kind: Such as ``intoto``.
            kind_version: Such as ``0.0.2``.
            spec: What the entry holds.
            at: Unix seconds that the log signs as its time; now by default.
        """
        body, log = canonical({"apiVersion": kind_version, "kind": kind, "spec": spec}), self.logs[1]
        index, proof = log.add(body)
        when = int(time.time()) if at is None else at
        promised = {"body": _b64(body), "integratedTime": when, "logID": log.id.hex(), "logIndex": index}
        return {
            **_entry(log, index, proof, kind, kind_version, body),
            "integratedTime": str(when),
            "inclusionPromise": {"signedEntryTimestamp": _b64(log.sign(canonical(promised)))},
        }

    def get(self, path: str, query: Mapping[str, list[str]], authorization: str) -> Any:
        """What a GET is answered with; None: there is nothing."""
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/auth",
                "token_endpoint": f"{self.url}/token",
            }
        if path == "/auth":
            return self._authorise({name: values[0] for name, values in query.items()})
        if path == "/ambient" and secrets.compare_digest(authorization.lower(), f"bearer {self._bearer}"):
            return {
                "value": self.token(self._claims["job_workflow_ref"], audience=query["audience"][0], **self._claims)
            }
        return None

    def post(self, path: str, body: bytes, authorization: str) -> Any:
        """What a POST is answered with: JSON, or DER from the clock; None: there is nothing.

        Raises:
            Exception: What was asked for is not given, such as a certificate for a forged token.
        """
        if path == "/api/v1/timestamp":
            return self.clock.stamp(body, later=self.clock_ahead)
        if path == "/token":
            return self._exchange({name: values[0] for name, values in parse_qs(body.decode()).items()})
        request = json.loads(body)
        if path == "/api/v2/signingCert":
            claims = jwt.decode(
                authorization.split(" ")[1],
                self._oidc.public_key(),
                algorithms=["ES256"],
                audience=AUDIENCE,
                issuer=self.url,
            )
            chain = self.authority.issue(claims, decode_csr(request["certificateSigningRequest"]))
            return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}
        if path == "/api/v1/log/entries":
            return self._rekor1(request)
        if path == "/api/v2/log/entries":
            return self._rekor2(request)
        return None

    def _authorise(self, asked: Mapping[str, str]) -> Redirect:
        """Everybody is the reviewer here, so nobody is asked to log in; PKCE (RFC 7636) holds all the same."""
        if (asked["response_type"], asked["code_challenge_method"]) != ("code", "S256"):
            raise ValueError("only the code flow with S256")
        code = secrets.token_hex(16)
        self._codes[code] = (asked["code_challenge"], asked["redirect_uri"])
        return Redirect(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

    def _exchange(self, asked: Mapping[str, str]) -> dict[str, str]:
        challenge, redirect = self._codes.pop(asked["code"])
        proof = base64.urlsafe_b64encode(hashlib.sha256(asked["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if not secrets.compare_digest(challenge, proof) or asked["redirect_uri"] != redirect:
            raise ValueError("another client asked for this code")
        return {"access_token": self.token(), "token_type": "Bearer"}

    def _rekor1(self, request: Any) -> Any:
        """Version 1: answers with a signed time (SET) besides the proof."""
        if request["kind"] == "dsse":
            content = request["spec"]["proposedContent"]
            envelope = json.loads(content["envelope"])
            digest = hashlib.sha256(base64.b64decode(envelope["payload"])).hexdigest()
            whole = hashlib.sha256(content["envelope"].encode()).hexdigest()
            request["spec"] = {
                "envelopeHash": {"algorithm": "sha256", "value": whole},
                "payloadHash": {"algorithm": "sha256", "value": digest},
                "signatures": [
                    {"signature": one["sig"], "verifier": content["verifiers"][0]} for one in envelope["signatures"]
                ],
            }
        body, log = canonical(request), self.logs[1]
        index, proof = log.add(body)
        promised = {
            "body": _b64(body),
            "integratedTime": int(time.time()),
            "logID": log.id.hex(),
            "logIndex": index,
        }
        inclusion = {
            "checkpoint": proof["checkpoint"],
            "hashes": [found.hex() for found in proof["path"]],
            "logIndex": index,
            "rootHash": proof["root"].hex(),
            "treeSize": proof["size"],
        }
        signed = {"signedEntryTimestamp": _b64(log.sign(canonical(promised))), "inclusionProof": inclusion}
        return {secrets.token_hex(32): {**promised, "verification": signed}}

    def _rekor2(self, request: Any) -> Any:
        """Version 2: has no clock, and answers with a proof."""
        asked = request["hashedRekordRequestV002"]
        spec = {"data": {"algorithm": "SHA2_256", "digest": asked["digest"]}, "signature": asked["signature"]}
        body = canonical({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": spec}})
        log = self.logs[2]
        index, proof = log.add(body)
        return _entry(log, index, proof, "hashedrekord", "0.0.2", body)


def _handler(instance: LoopbackSigstore) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing: stderr is the tests'."""

        def do_GET(self) -> None:
            parts = urlparse(self.path)
            self._answer(lambda: instance.get(parts.path, parse_qs(parts.query), self._authorization()), 200)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(lambda: instance.post(urlparse(self.path).path, body, self._authorization()), 201)

        def _authorization(self) -> str:
            return self.headers.get("Authorization", "")

        def _answer(self, make: Any, good: int) -> None:
            try:
                found = make()
                code = good if found is not None else 404
            except Exception as error:  # a refusal of ours is an answer, as of any server
                code, found = 400, {"code": 400, "message": repr(error)}
            if isinstance(found, Redirect):
                self.send_response(302)
                self.send_header("Location", found)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            der_reply = isinstance(found, bytes)
            data = found if der_reply else json.dumps(found or {}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/timestamp-reply" if der_reply else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def _entry(log: Log, index: int, proof: Mapping[str, Any], kind: str, kind_version: str, body: bytes) -> dict[str, Any]:
    return {
        "logIndex": str(index),
        "logId": {"keyId": _b64(log.id)},
        "kindVersion": {"kind": kind, "version": kind_version},
        "inclusionProof": {
            "logIndex": str(index),
            "rootHash": _b64(proof["root"]),
            "treeSize": str(proof["size"]),
            "hashes": [_b64(found) for found in proof["path"]],
            "checkpoint": {"envelope": proof["checkpoint"]},
        },
        "canonicalizedBody": _b64(body),
    }


def _log(url: str, key: bytes, details: str, window: Mapping[str, str]) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": _b64(key), "keyDetails": details, "validFor": dict(window)},
        "logId": {"keyId": _b64(hashlib.sha256(key).digest())},
    }


def _authority(url: str, chain: list[x509.Certificate], window: Mapping[str, str]) -> dict[str, Any]:
    encoded = [{"rawBytes": _b64(one.public_bytes(serialization.Encoding.DER))} for one in chain]
    return {
        "subject": {"organization": "loop-back.test", "commonName": "loop-back"},
        "uri": url,
        "certChain": {"certificates": encoded},
        "validFor": dict(window),
    }


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _rfc3339(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
