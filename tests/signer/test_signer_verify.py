"""Envelopes, keys and the way back: what is believed, what is refused and in which words."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import securesystemslib.dsse
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import SSlibKey

from ecology.contracts.artifact import MAX_CLAIMS
from ecology.contracts.evidence import Measurement, Paired, Proportion, Samples
from ecology.contracts.identity import Digest
from ecology.contracts.policy import TrustedKey
from ecology.errors import ConfigError, EcologyError, IntegrityError, MalformedArtifact, PolicyError
from ecology.kernel.canonical import canonical
from ecology.signer import bundle, dsse, intoto, strict, verify
from ecology.signer.keys import LocalSigner, key_id, load_public, read_trusted, signed_by
from ecology.signer.refusal import ClaimRefused
from ecology.signer.verify import genome_of, unverified_statement, verify_claims, verify_envelope

GOLDEN = Path(__file__).parent.parent / "golden" / "statements"
FIXED = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), "golden", False)
OTHER = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)), "other", False)
GENOME, VERDICT = ((GOLDEN / f"{name}.dsse.jsonl").read_text().strip() for name in ("genome", "verdict"))
SUBJECT = Digest("sha256:" + json.loads((GOLDEN / "genome.json").read_text())["subject"][0]["digest"]["sha256"])
ELSEWHERE = Digest("sha256:" + hashlib.sha256(b"elsewhere").hexdigest())


def statement(subject: str = SUBJECT, kind: str = "https://example.com/note/v1", predicate: Any = None) -> Any:
    entry = {"name": "artifact", "digest": {"sha256": subject.removeprefix("sha256:")}}
    return {"_type": intoto.STATEMENT, "subject": [entry], "predicateType": kind, "predicate": predicate or {}}


def reasons(line: str, *keys: TrustedKey) -> str:
    claims = verify_claims([line], SUBJECT, keys or (FIXED.public_key,), ())
    assert not claims.verified
    assert claims.refused[0].startswith("line 1: ")
    return claims.refused[0].split(": ")[1]


def sealed(payload: bytes, payload_type: str = dsse.PAYLOAD_TYPE, signer: LocalSigner = FIXED) -> str:
    signature = dsse.Signature(signer.keyid, signer.sign_bytes(dsse.pae(payload_type, payload)))
    return dsse.write(dsse.Envelope(payload, payload_type, (signature,)))


def test_past_releases_still_verify() -> None:
    claims = verify_claims([GENOME, VERDICT], SUBJECT, [FIXED.public_key], [])
    assert claims.refused == ()
    assert [c.signer for c in claims.verified] == ["golden", "golden"]
    assert not any(c.development for c in claims.verified)
    genome = genome_of(claims)
    assert genome is not None
    assert genome.lineage.operator == "linear"


def test_pae_is_that_of_the_specification() -> None:
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_another_implementation_reads_ours_and_we_read_its() -> None:
    key = SSlibKey.from_crypto(load_public(FIXED.public_key), keyid=FIXED.keyid)
    theirs = securesystemslib.dsse.Envelope.from_dict(json.loads(GENOME))
    assert FIXED.keyid in theirs.verify([key], 1)
    assert theirs.pae() == dsse.read(GENOME).signed_bytes
    again = json.dumps(theirs.to_dict(), indent=1).replace("\n", " ")
    assert verify_envelope(again, [FIXED.public_key]).keyid == FIXED.keyid


def test_the_same_statement_gives_the_same_line() -> None:
    line = FIXED.sign(statement())
    assert line == FIXED.sign(json.loads(canonical(statement())))
    assert line == canonical(json.loads(line)).decode()
    assert "\n" not in line


def test_standing_of_the_key_is_told() -> None:
    claims = verify_claims(
        [FIXED.sign(statement()), "", OTHER.sign(statement())], SUBJECT, [FIXED.public_key], [OTHER.public_key]
    )
    assert [(c.signer, c.development) for c in claims.verified] == [("golden", False), ("other", True)]
    both = verify_claims([OTHER.sign(statement())], SUBJECT, [OTHER.public_key], [OTHER.public_key])
    assert not both.verified[0].development


def test_refusals_have_their_reasons() -> None:
    envelope = json.loads(GENOME)
    payload = base64.b64decode(envelope["payload"])
    bent = {**envelope, "payload": base64.b64encode(payload.replace(b"linear", b"Linear")).decode()}
    assert reasons(json.dumps(bent)) == "signature"
    assert reasons(GENOME, OTHER.public_key) == "untrusted"
    assert reasons(FIXED.sign(statement(ELSEWHERE))) == "replayed"
    assert reasons("{") == "json"
    assert reasons('{"payload": "", "payload": ""}') == "json"
    assert reasons("[" * 100_000) == "json"
    assert reasons('{"a": ' * 100 + "1" + "}" * 100) == "json"
    assert reasons('{"a": "' + "x" * dsse.MAX_LINE_BYTES + '"}') == "size"
    assert reasons('{"a": "' + "é" * (dsse.MAX_LINE_BYTES // 2) + '"}') == "size"
    assert reasons("\ud800") == "json"
    assert reasons("[]") == "envelope"
    assert reasons(json.dumps({**envelope, "payload": "?"})) == "envelope"
    assert reasons(json.dumps({**envelope, "payload": 1})) == "envelope"
    assert reasons(json.dumps({**envelope, "signatures": []})) == "envelope"
    assert reasons(json.dumps({**envelope, "signatures": [3]})) == "envelope"
    assert reasons(json.dumps({**envelope, "signatures": envelope["signatures"] * 17})) == "envelope"
    assert reasons(sealed(payload, "application/json")) == "payload-type"
    assert reasons(json.dumps({**envelope, "payloadType": None})) == "envelope"
    assert reasons(sealed(b"not json")) == "json"
    assert reasons(sealed(b'{"_type": "x", "_type": "y"}')) == "json"
    assert reasons(sealed(canonical({"_type": "https://in-toto.io/Statement/v0.1"}))) == "statement"
    assert reasons(sealed(canonical({**statement(), "subject": []}))) == "statement"
    assert reasons(sealed(canonical({**statement(), "subject": statement()["subject"] * 2}))) == "statement"
    assert reasons(sealed(canonical({**statement(), "predicate": []}))) == "statement"
    assert (
        reasons(
            FIXED.sign(
                statement(
                    kind="https://slsa.dev/verification_summary/v1",
                    predicate={"https://tiny-ecology.dev/verdict/v1": {}},
                )
            )
        )
        == "predicate"
    )


def test_a_key_inside_the_claim_is_not_believed() -> None:
    line = json.loads(OTHER.sign(statement()))
    line["signatures"][0]["keyid"] = FIXED.keyid
    assert reasons(json.dumps(line)) == "signature"
    for place in (line, line["signatures"][0]):
        place["publicKey"] = OTHER.public_key.public_key
        assert reasons(json.dumps(line)) == "envelope"
        del place["publicKey"]
    assert reasons(OTHER.sign({**statement(), "publicKey": OTHER.public_key.public_key})) == "untrusted"


def test_a_key_id_that_nobody_signed_may_say_nothing_else() -> None:
    line = json.loads(FIXED.sign(statement()))
    for other in (OTHER.keyid, "", FIXED.keyid[:-1], FIXED.keyid.upper()):
        changed = json.dumps({**line, "signatures": [{**line["signatures"][0], "keyid": other}]})
        assert reasons(changed) == "signature"
    assert reasons(json.dumps({**line, "signatures": [{"sig": line["signatures"][0]["sig"]}]})) == "signature"


def test_a_signature_of_somebody_else_may_stand_beside_it() -> None:
    line = json.loads(FIXED.sign(statement()))
    line["signatures"].insert(0, {"keyid": FIXED.keyid, "sig": "AAAA"})
    line["payload"] = line["payload"].replace("+", "-").replace("/", "_")
    assert verify_envelope(json.dumps(line), [FIXED.public_key]).signer == "golden"


def test_without_trust_anchors_nothing_is_believed() -> None:
    assert verify_claims([GENOME], SUBJECT, [], []).verified == ()
    with pytest.raises(ClaimRefused):
        verify_envelope(GENOME, [])
    assert unverified_statement(GENOME)["predicateType"] == "https://slsa.dev/provenance/v1"


def test_a_broken_anchor_is_the_policys_fault() -> None:
    with pytest.raises(PolicyError):
        verify_claims([GENOME], SUBJECT, [TrustedKey("broken", "no PEM")], [])
    ec = generate_private_key(SECP256K1()).public_key()
    pem = ec.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(PolicyError, match="another kind"):
        verify_envelope(GENOME, [TrustedKey("curve", pem)])


def test_one_bad_line_does_not_hide_the_others() -> None:
    claims = verify_claims(["garbage", GENOME, OTHER.sign(statement())], SUBJECT, [FIXED.public_key], [])
    assert len(claims.verified) == 1
    assert [r.split(": ")[:2] for r in claims.refused] == [["line 1", "json"], ["line 3", "untrusted"]]


def test_too_many_lines_are_told() -> None:
    claims = verify_claims([""] * 2000 + [GENOME], SUBJECT, [FIXED.public_key], [])
    assert claims.verified == ()
    assert "size" in claims.refused[0]


def test_as_many_lines_as_are_read_are_all_believed() -> None:
    """Countersigned, of a hundred kilobytes here and there: nothing that bounds a hostile file is in their way."""
    lines = [
        GENOME,
        *(FIXED.sign(statement(predicate={"n": i, "x": "x" * (i % 64) * 500})) for i in range(MAX_CLAIMS - 1)),
    ]
    claims = verify_claims(lines, SUBJECT, [OTHER.public_key, FIXED.public_key], [])
    assert (len(claims.verified), claims.refused) == (MAX_CLAIMS, ())


def test_how_many_signatures_are_looked_at_is_bounded_for_a_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def counted(key: Any, sig: bytes, data: bytes) -> bool:
        looks.append(len(data))
        return signed_by(key, sig, data)

    monkeypatch.setattr(verify, "signed_by", counted)
    line = json.loads(GENOME)
    for keyid, reason in ((FIXED.keyid, "size"), ("somebody", "untrusted")):
        looks.clear()
        bad = json.dumps({**line, "signatures": [{"keyid": keyid, "sig": "AAAA"}] * 16})
        claims = verify_claims([GENOME, *[bad] * (MAX_CLAIMS - 1)], SUBJECT, [FIXED.public_key], [])
        assert len(claims.verified) == 1
        assert claims.refused[-1].split(": ")[1] == reason
        assert len(looks) <= 1 + verify.MOST_LOOKS
    long = json.dumps({**line, "payload": "A" * 3_000_000, "signatures": [{"keyid": FIXED.keyid, "sig": "AAAA"}] * 16})
    looks.clear()
    assert not verify_claims([long] * 8, SUBJECT, [FIXED.public_key], []).verified
    assert sum(looks) <= verify.MOST_LOOKS * 64 * 1024


@pytest.mark.parametrize(
    "text",
    [
        '{"payload":[' + "{}," * 100_000 + "{}]}",
        '{"payload":[' + "[]," * 100_000 + "[]]}",
        "{" + ",".join(f'"{i:x}":1' for i in range(50_000)) + "}",
        '["' + '","'.join("ab" for _ in range(100_000)) + '"]',
        '{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","x":[' + "{}," * 100_000 + "{}]}",
    ],
    ids=["objects", "lists", "keys", "strings", "bundle"],
)
def test_dense_text_is_refused_before_it_is_parsed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("parsed"))
    for read in (bundle.read, dsse.read, lambda text: strict.parse(text.encode(), max_parts=1000)):
        with pytest.raises(ClaimRefused) as refused:
            read(text)
        assert refused.value.reason == "json"


def test_the_densest_statement_that_we_write_is_read() -> None:
    families = Paired(999, 1, 0, families=((1, 1, 0), (1, 0, 0)) * 500)
    dense = [Measurement("a.b", SUBJECT, s) for s in (families, Proportion(1, 999, families=((1, 1), (1, 0)) * 500))]
    dense.append(Measurement("a.b", SUBJECT, Samples((0.0, 1.0) * 500, "s", families=(1, 2) * 500)))
    text = canonical(dense)
    assert json.loads(text) == strict.parse(text)


def test_foreign_provenance_is_true_and_no_genome() -> None:
    foreign = statement(
        kind="https://slsa.dev/provenance/v1", predicate={"buildDefinition": {"buildType": "https://ci"}}
    )
    claims = verify_claims([FIXED.sign(foreign)], SUBJECT, [FIXED.public_key], [])
    assert len(claims.verified) == 1
    assert genome_of(claims) is None


def test_two_genomes_of_one_standing_may_not_differ() -> None:
    other = unverified_statement(GENOME)
    other["predicate"]["buildDefinition"]["externalParameters"]["seed"] = 8
    lines = [GENOME, OTHER.sign(other)]
    with pytest.raises(MalformedArtifact, match="contradict"):
        genome_of(verify_claims(lines, SUBJECT, [FIXED.public_key, OTHER.public_key], []))
    genome = genome_of(verify_claims(lines[::-1], SUBJECT, [FIXED.public_key], [OTHER.public_key]))
    assert genome is not None
    assert genome.lineage.seed == 7


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), line=st.sampled_from([GENOME, VERDICT]))
def test_mutated_envelopes_are_refused_or_verify_and_nothing_else(seed: int, line: str) -> None:
    rng = random.Random(seed)
    text = list(line)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text))
        match rng.randrange(4):
            case 0:
                text[at] = chr(rng.choice([0, 34, 44, 92, 123, 125, 0xD800, 0x10FFFF, rng.randrange(32, 127)]))
            case 1:
                del text[at : at + rng.randint(1, 200)]
            case 2:
                text[at:at] = rng.choice(['"', "{", "[", "\\u", '"a":', "1e999", "NaN,", "9" * 5000])
            case _:
                text = text[:at]
        text = text or ["x"]
    claims = verify_claims(["".join(text)], SUBJECT, [FIXED.public_key], [])
    for claim in claims.verified:
        assert claim.statement == unverified_statement(line)


FIELDS = ("_type", "subject", "predicateType", "predicate", "name", "digest", "sha256")
nonsense = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(intoto.STATEMENT),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(nonsense)
def test_signed_nonsense_is_refused(value: Any) -> None:
    line = sealed(json.dumps(value).encode())
    assert not verify_claims([line], SUBJECT, [FIXED.public_key], []).verified
    envelope = json.dumps({"payloadType": dsse.PAYLOAD_TYPE, "payload": value, "signatures": value})
    with pytest.raises(ClaimRefused):
        verify_envelope(envelope, [FIXED.public_key])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_strict_json_raises_only_refusals(data: bytes) -> None:
    try:
        value = strict.parse(data)
    except ClaimRefused:
        return
    assert json.loads(canonical(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        "NaN",
        "-Infinity",
        "1e999",
        "9007199254740993",
        "1" + "0" * 400,
        '"\\ud800"',
        '{"\\udfff":1}',
        "",
    ],
)
def test_what_readers_disagree_about_is_refused(text: str) -> None:
    with pytest.raises(ClaimRefused):
        strict.parse(text.encode())
    assert strict.parse(b"[39817744153051140,1e16]") == [3.981774415305114e16, 1e16]
    assert strict.parse(b'{"a":[1,"\\ud83d\\ude00",null]}') == {"a": [1, "😀", None]}


def test_depth_is_counted_from_the_outside() -> None:
    assert strict.parse(b"[[[]]]", max_depth=3) == [[[]]]
    with pytest.raises(ClaimRefused):
        strict.parse(b"[[[[]]]]", max_depth=3)


def test_first_use_makes_one_key_for_everybody(tmp_path: Path) -> None:
    signer = LocalSigner.open(tmp_path / "a home")
    pem = tmp_path / "a home" / "keys" / "development.pem"
    assert signer.development
    assert pem.stat().st_mode & 0o777 == 0o600
    assert pem.parent.stat().st_mode & 0o777 == 0o700
    assert LocalSigner.open(tmp_path / "a home").keyid == signer.keyid
    assert sorted(p.name for p in pem.parent.iterdir()) == ["development.pem", "development.pub.pem"]
    assert read_trusted(pem.with_name("development.pub.pem")) == signer.public_key
    assert key_id(load_public(signer.public_key)) == signer.keyid
    named = LocalSigner.from_file(pem)
    assert not named.development
    assert "PRIVATE" not in repr(signer)


def test_two_first_uses_at_once_make_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ecology.signer.keys import LocalSigner; "
        "print(LocalSigner.open(Path(sys.argv[1])).keyid)"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(4)]
    assert len({run.communicate()[0] for run in runs}) == 1
    assert len(list((tmp_path / "keys").iterdir())) == 2


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    LocalSigner.open(tmp_path)
    pem = tmp_path / "keys" / "development.pem"
    pem.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        LocalSigner.open(tmp_path)
    with pytest.raises(ConfigError, match="chmod 600"):
        LocalSigner.from_file(pem)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_key_of_the_home_that_was_cut_short_is_damage(share: float, tmp_path: Path) -> None:
    pem = tmp_path / "keys" / "development.pem"
    LocalSigner.open(tmp_path)
    whole = pem.read_bytes()
    pem.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(IntegrityError, match=r"development\.pem: the key of this home is damaged: .* from a backup"):
        LocalSigner.open(tmp_path)
    with pytest.raises(ConfigError, match="not a private key"):  # a file that somebody names is no part of the home
        LocalSigner.from_file(pem)


def test_key_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"

    def refused(data: bytes) -> str:
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(ConfigError) as caught:
            LocalSigner.from_file(path)
        return str(caught.value)

    private = generate_private_key(SECP256K1())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    assert "not a private key" in refused(b"hello")
    assert "another kind" in refused(private.private_bytes(encoding, form, serialization.NoEncryption()))
    assert "encrypted" in refused(
        private.private_bytes(encoding, form, serialization.BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(ConfigError, match="private key, and a public one"):
        read_trusted(path)
    with pytest.raises(ConfigError):
        read_trusted(tmp_path / "missing.pem")
    with pytest.raises(ConfigError):
        LocalSigner.from_file(tmp_path / "missing.pem")
    path.write_text("x")
    with pytest.raises(EcologyError):
        read_trusted(path)
    (tmp_path / "keys").write_text("a file where a folder is wanted")
    with pytest.raises(ConfigError):
        LocalSigner.open(tmp_path)


def test_a_statement_too_long_to_be_read_back_is_not_signed() -> None:
    with pytest.raises(ConfigError, match="read back"):
        FIXED.sign(statement(predicate={"long": "x" * (3 * 1024 * 1024 + 1024)}))


def test_the_static_path_stays_cheap() -> None:
    code = (
        "import sys; import ecology.signer.verify, ecology.signer.keys; "
        "heavy = {'sqlalchemy', 'sigstore', 'torch', 'transformers', 'numpy', 'pydantic', 'securesystemslib'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
