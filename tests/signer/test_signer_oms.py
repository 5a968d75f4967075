"""OMS: what we sign model-signing verifies, what it signs we verify, and a signer may not choose what is covered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ecology.signer.entry import Key, load_key
from ecology.signer.keys import LocalSigner
from ecology.signer.oms import key_bundle, oms_statement, verify_oms
from ecology.signer.refusal import ClaimRefused
from ecology.signer.roots import load_root
from ecology.signer.sigstore import Identity
from ecology.store.folders import describe
from ecology.testing.sigstore import LoopbackSigstore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "adapter"
    (made / "more").mkdir(parents=True)
    (made / "adapter_config.json").write_text("{}")
    (made / "adapter_model.safetensors").write_bytes(bytes(1000))
    (made / "more" / "a.txt").write_text("a")
    (made / "adapter_model").write_text("sorts before and after")
    return made


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    private.chmod(0o600)
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def sign(folder: Path, signer: LocalSigner) -> str:
    return key_bundle(signer.sign(oms_statement(folder.name, describe(folder).files)), signer.public_key)


def refused(text: str, folder: Path, who: Identity | Key) -> str:
    with pytest.raises(ClaimRefused) as caught:
        verify_oms(text, describe(folder).files, who, None)
    return caught.value.reason


def test_model_signing_verifies_ours(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    import model_signing

    signature = tmp_path / "model.sig"
    signature.write_text(sign(folder, LocalSigner.from_file(keys[0])))
    (folder / "claims.jsonl").write_text("may lie beside\n")
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys[1])
    verifier.verify(folder, signature)
    (folder / "adapter_config.json").write_text("{ }")
    with pytest.raises(ValueError, match="mismatch"):
        verifier.verify(folder, signature)


def model_signing_signs(folder: Path, signature: Path, key: Path, **hashing: Any) -> str:
    import model_signing

    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=key)
    if hashing:
        config = config.set_hashing_config(model_signing.hashing.Config().set_ignored_paths(**hashing))
    config.sign(folder, signature)
    return signature.read_text()


def test_we_verify_model_signings(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    text = model_signing_signs(folder, tmp_path / "theirs.sig", keys[0])
    public = load_key(keys[1].read_bytes())
    assert "all 4 files" in verify_oms(text, describe(folder).files, public, None)
    assert refused(text, folder, ec.generate_private_key(ec.SECP256R1()).public_key()) == "signature"


@pytest.mark.parametrize(
    "attack",
    [
        lambda folder: (folder / "adapter_config.json").write_text("{ }"),
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(bytes(999) + b"\1"),
        lambda folder: (folder / "evil.py").write_text(""),
        lambda folder: (folder / "more" / "a.txt").unlink(),
        lambda folder: (folder / "more" / "a.txt").rename(folder / "more" / "b.txt"),
        lambda folder: ((folder / ".git").mkdir(), (folder / ".git" / "hook").write_text("")),
    ],
)
def test_every_file_must_be_covered(folder: Path, keys: tuple[Path, Path], tmp_path: Path, attack: Any) -> None:
    theirs = model_signing_signs(folder, tmp_path / "theirs.sig", keys[0])
    ours = sign(folder, LocalSigner.from_file(keys[0]))
    attack(folder)
    for text in (ours, theirs):
        assert refused(text, folder, load_key(keys[1].read_bytes())) == "coverage"


def test_the_signer_may_not_leave_out_what_matters(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """The hole that the reference implementation has: valid there, refused here."""
    import model_signing

    text = model_signing_signs(folder, tmp_path / "m.sig", keys[0], paths=[folder / "adapter_config.json"])
    (folder / "adapter_config.json").write_text('{"r": 1000000}')
    model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys[1]).verify(folder, tmp_path / "m.sig")
    assert refused(text, folder, load_key(keys[1].read_bytes())) == "coverage"


def test_other_serialisations_are_refused_by_name(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    import model_signing

    for number, hashing in enumerate(
        (
            model_signing.hashing.Config().use_shard_serialization(),
            model_signing.hashing.Config().use_file_serialization(hashing_algorithm="blake2"),
        )
    ):
        signature = tmp_path / f"{number}.sig"
        config = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys[0])
        config.set_hashing_config(hashing).sign(folder, signature)
        assert refused(signature.read_text(), folder, load_key(keys[1].read_bytes())) == "predicate"


def test_a_manifest_that_contradicts_itself(folder: Path) -> None:
    signer = LocalSigner(Ed25519PrivateKey.generate(), "k", False)
    key = load_key(signer.public_key.public_key.encode())
    files = describe(folder).files
    good = oms_statement("adapter", files)
    assert verify_oms(key_bundle(signer.sign(good), signer.public_key), files, key, None)

    def reason(statement: Any) -> str:
        return refused(key_bundle(signer.sign(statement), signer.public_key), folder, key)

    listed = good["predicate"]["resources"]
    twice = {**good["predicate"], "resources": [*listed, listed[0]]}
    assert reason({**good, "predicate": twice}) == "predicate"
    assert reason({**good, "subject": [{"name": "x", "digest": {"sha256": "0" * 64}}]}) == "statement"
    assert reason({**good, "predicateType": "https://model_signing/Digests/v0.1"}) == "predicate"
    assert reason({**good, "predicate": {"resources": listed}}) == "predicate"
    assert reason({**good, "predicate": {**good["predicate"], "resources": []}}) == "predicate"


def test_keyless_both_ways(folder: Path, tmp_path: Path) -> None:
    import model_signing

    from ecology.signer.keyless import keyless_signer

    with LoopbackSigstore() as instance:
        config = tmp_path / "trust.json"
        config.write_text(json.dumps(instance.trust_config()))
        who = Identity("reviewer@loop-back.test", instance.url)
        root = load_root(json.dumps(instance.trusted_root()))
        ours = tmp_path / "ours.sig"
        ours.write_text(keyless_signer(config, instance.token()).sign(oms_statement("a", describe(folder).files)))
        model_signing.verifying.Config().use_sigstore_verifier(
            identity=who.identity, oidc_issuer=who.issuer, trust_config=config
        ).verify(folder, ours)
        assert verify_oms(ours.read_text(), describe(folder).files, who, root)
        theirs = tmp_path / "theirs.sig"
        model_signing.signing.Config().use_sigstore_signer(identity_token=instance.token(), trust_config=config).sign(
            folder, theirs
        )
        assert verify_oms(theirs.read_text(), describe(folder).files, who, root)
        shutil.rmtree(folder / "more")
        with pytest.raises(ClaimRefused, match="gone"):
            verify_oms(theirs.read_text(), describe(folder).files, who, root)
