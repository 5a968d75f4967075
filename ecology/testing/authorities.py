"""The two authorities of the loop-back Sigstore: one issues certificates with SCTs, one stamps the time.

Both are real in what they sign and nothing else: keys are made on start and die with the process.

Sources: Fulcio's certificate specification (OIDs 1.3.6.1.4.1.57264.1.*), RFC 6962 section 3 (precertificate SCT),
RFC 3161 and RFC 5816 (timestamp token with ESSCertIDv2).
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
import struct
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUED_FOR = datetime.timedelta(minutes=10)
YEARS = datetime.timedelta(days=3650)
_ARC = "1.3.6.1.4.1.57264.1."
_SCT_LIST = "1.3.6.1.4.1.11129.2.4.2"
_GITHUB_TEXT = {"event_name": 2, "sha": 3, "workflow": 4, "repository": 5, "ref": 6}
_GITHUB_UTF8 = {
    "job_workflow_ref": 9,
    "job_workflow_sha": 10,
    "runner_environment": 11,
    "repository": 12,
    "sha": 13,
    "ref": 14,
    "repository_id": 15,
    "repository_owner": 16,
    "event_name": 20,
}
_URIS = {"job_workflow_ref", "repository", "repository_owner"}


def der(key: Any) -> bytes:
    """DER SubjectPublicKeyInfo of a public key."""
    found: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


def now() -> datetime.datetime:
    """The instant, in whole seconds, as certificates have them."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


class CertificateAuthority:
    """Root, intermediate and a certificate log, as Fulcio has them."""

    def __init__(self) -> None:
        """Makes the keys and the two certificates."""
        self._root_key, self._key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
        self.root = certificate("loop-back-root", self._root_key, self._root_key)
        self.intermediate = certificate(
            "loop-back-intermediate",
            self._key,
            self._root_key,
            issuer=self.root,
            path_length=0,
            usage=ExtendedKeyUsageOID.CODE_SIGNING,
        )
        self.ct_key = ec.generate_private_key(ec.SECP256R1())
        self.sct_extensions = b""

    def issue(self, claims: Mapping[str, Any], csr: x509.CertificateSigningRequest) -> list[str]:
        """Leaf, intermediate and root in PEM for one who showed these claims and holds the request's key.

        Args:
            claims: Of a token whose signature was verified.
            csr: Certificate request.

        Raises:
            ValueError: The request is not signed by its own key.
        """
        if not csr.is_signature_valid:
            raise ValueError("the certificate request is not signed by its key")
        start = now()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.intermediate.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + ISSUED_FOR)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([_name(claims)]), critical=True)
        )
        for oid, value in _fulcio_extensions(claims):
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
        precertificate = builder.sign(self._key, hashes.SHA384()).tbs_certificate_bytes
        sct = x509.UnrecognizedExtension(x509.ObjectIdentifier(_SCT_LIST), self._sct_list(precertificate))
        leaf = builder.add_extension(sct, critical=False).sign(self._key, hashes.SHA384())
        chain = (leaf, self.intermediate, self.root)
        return [one.public_bytes(serialization.Encoding.PEM).decode("ascii") for one in chain]

    def _sct_list(self, precertificate: bytes) -> bytes:
        """RFC 6962: version, log id, milliseconds, extensions, signature; each list with its length before it."""
        stamp = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
        issuer = hashlib.sha256(der(self._key.public_key())).digest()
        entry = struct.pack(">BBQH32s", 0, 0, stamp, 1, issuer) + len(precertificate).to_bytes(3, "big")
        extensions = _with_length(self.sct_extensions)
        signature = self.ct_key.sign(entry + precertificate + extensions, ec.ECDSA(hashes.SHA256()))
        log_id = hashlib.sha256(der(self.ct_key.public_key())).digest()
        sct = struct.pack(">B32sQ", 0, log_id, stamp) + extensions + b"\x04\x03" + _with_length(signature)
        return _asn1(0x04, _with_length(_with_length(sct)))


class TimestampAuthority:
    """Signs what time it is, together with a digest (RFC 3161).

    Args:
        valid_for: After which its two certificates have expired.
    """

    def __init__(self, valid_for: datetime.timedelta = YEARS) -> None:
        """Makes the key and the two certificates."""
        root_key, self._key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.root = certificate("loop-back-tsa-root", root_key, root_key, valid_for=valid_for)
        self.certificate = certificate(
            "loop-back-tsa",
            self._key,
            root_key,
            issuer=self.root,
            leaf=True,
            usage=ExtendedKeyUsageOID.TIME_STAMPING,
            valid_for=valid_for,
        )

    def stamp(self, request: bytes, *, later: datetime.timedelta = datetime.timedelta()) -> bytes:
        """The reply to a timestamp request, both in DER.

        Args:
            request: TimeStampReq.
            later: How far its clock is ahead: for tests of what happens then.
        """
        from asn1crypto import algos, cms, core, tsp  # noqa: PLC0415  (a dev dependency)
        from asn1crypto import x509 as asn1_x509  # noqa: PLC0415

        del algos, core
        query, moment = tsp.TimeStampReq.load(request), now() + later
        info = {
            "version": "v1",
            "policy": "1.3.6.1.4.1.57264.2",
            "message_imprint": query["message_imprint"],
            "serial_number": secrets.randbits(63),
            "gen_time": moment,
            "accuracy": {"seconds": 1},
            "ordering": False,
        }
        if query["nonce"].native is not None:
            info["nonce"] = query["nonce"].native
        content = tsp.TSTInfo(info)
        encoded = content.dump()
        mine = asn1_x509.Certificate.load(self.certificate.public_bytes(serialization.Encoding.DER))
        digest = hashlib.sha256(mine.dump()).digest()
        ess = {"certs": [{"hash_algorithm": {"algorithm": "sha256"}, "cert_hash": digest}]}
        attributes = cms.CMSAttributes(
            [
                cms.CMSAttribute({"type": "content_type", "values": ["tst_info"]}),
                cms.CMSAttribute({"type": "signing_time", "values": [cms.Time({"utc_time": moment})]}),
                cms.CMSAttribute({"type": "message_digest", "values": [hashlib.sha256(encoded).digest()]}),
                cms.CMSAttribute({"type": "signing_certificate_v2", "values": [tsp.SigningCertificateV2(ess)]}),
            ]
        )
        by = {"issuer": mine.issuer, "serial_number": mine.serial_number}
        signer = {
            "version": "v1",
            "sid": cms.SignerIdentifier({"issuer_and_serial_number": by}),
            "digest_algorithm": {"algorithm": "sha256"},
            "signed_attrs": attributes,
            "signature_algorithm": {"algorithm": "sha256_ecdsa"},
            "signature": self._key.sign(attributes.dump(), ec.ECDSA(hashes.SHA256())),
        }
        signed = cms.SignedData(
            {
                "version": "v3",
                "digest_algorithms": [{"algorithm": "sha256"}],
                "encap_content_info": {"content_type": "tst_info", "content": content},
                "signer_infos": [cms.SignerInfo(signer)],
            }
        )
        if query["cert_req"].native:
            signed["certificates"] = [mine]
        token = cms.ContentInfo({"content_type": "signed_data", "content": signed})
        reply: bytes = tsp.TimeStampResp({"status": {"status": "granted"}, "time_stamp_token": token}).dump()
        return reply


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Certificate | None = None,
    leaf: bool = False,
    path_length: int = 1,
    usage: x509.ObjectIdentifier | None = None,
    valid_for: datetime.timedelta = YEARS,
) -> x509.Certificate:
    """A certificate, self-signed without an issuer."""
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "loop-back.test")
    subject = x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - datetime.timedelta(days=1))
        .not_valid_after(now() + valid_for)
        .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None if leaf else path_length), critical=True)
        .add_extension(_usage(digital_signature=leaf, signs_certificates=not leaf), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(by, critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=leaf)
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(*, digital_signature: bool, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(claims: Mapping[str, Any]) -> x509.GeneralName:
    if "job_workflow_ref" in claims:
        return x509.UniformResourceIdentifier("https://github.com/" + str(claims["job_workflow_ref"]))
    name = str(claims.get("email") or claims["sub"])
    return x509.RFC822Name(name) if "@" in name else x509.UniformResourceIdentifier(name)


def _fulcio_extensions(claims: Mapping[str, Any]) -> list[tuple[x509.ObjectIdentifier, bytes]]:
    issuer = str(claims["iss"]).encode()
    found = [(1, issuer), (8, _asn1(0x0C, issuer))]
    found += [(oid, str(claims[name]).encode()) for name, oid in _GITHUB_TEXT.items() if name in claims]
    for name, oid in _GITHUB_UTF8.items():
        if name in claims:
            prefix = "https://github.com/" if name in _URIS else ""
            found.append((oid, _asn1(0x0C, (prefix + str(claims[name])).encode())))
    return [(x509.ObjectIdentifier(f"{_ARC}{oid}"), value) for oid, value in found]


def _asn1(tag: int, value: bytes) -> bytes:
    """Tag, length and value in DER."""
    size = len(value)
    if size < 128:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + value


def _with_length(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def decode_csr(text: str) -> x509.CertificateSigningRequest:
    """The request in base64 of PEM, as sigstore clients send it."""
    return x509.load_pem_x509_csr(base64.b64decode(text))
