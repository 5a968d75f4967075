"""``ecology sign`` and ``verify``: whatever is said on the command line counts, or is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ecology.cli import main
from ecology.pipeline.house import open_house
from ecology.store.adapters import describe, write_adapter


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapter, signed by this home's key, with a bundle over its folder, and files that are no bundles."""
    monkeypatch.chdir(tmp_path)
    write_adapter(tmp_path / "a", {"m": (np.ones((3, 1)), np.ones((1, 4)))}, "b", "sha256:" + "0" * 64)
    assert run("sign", "a", "--oms", "good.json") == 0
    (tmp_path / "garbage").write_text("garbage")
    return tmp_path


def run(*arguments: str) -> int:
    try:
        return main([*arguments, "--home", "home", "--quiet"])
    except SystemExit as left:  # argparse
        return int(left.code or 0)


KEY = ("--key", "home/keys/development.pub.pem")
BY = ("--identity", "me", "--issuer", "https://i", "--trusted-root", "garbage")


def test_what_was_signed_verifies(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "a", *KEY) == 0
    assert run("verify", "a", "--oms", "good.json", *KEY) == 0
    assert "verified" in capsys.readouterr().out
    assert run("verify", "a", "--bundle", "garbage", *KEY) == 1
    assert run("verify", "a", "--bundle", "missing", *KEY) == 2


@pytest.mark.parametrize(
    "given",
    [
        ("--bundle", "garbage", "--oms", "good.json", *KEY),
        ("--bundle", "missing", "--oms", "good.json", *KEY),
        ("--oms", "good.json", "--policy", "release"),
        ("--bundle", "garbage", "--policy", "release"),
        ("--policy", "release", *KEY),
        ("--policy", "release", "--identity", ""),
        ("--policy", "release", "--issuer", "https://i"),
        ("--policy", "release", "--trusted-root", "missing"),
        (*KEY, "--identity", "me"),
        (*KEY, "--issuer", "https://i"),
        (*KEY, "--trusted-root", "missing"),
        (*KEY, *BY),
        ("--issuer", "https://i"),
        ("--trusted-root", "missing"),
        ("--identity", "me", "--issuer", "https://i"),
        ("--identity", "me", "--trusted-root", "garbage"),
        ("--oms", "good.json", "--trusted-root", "garbage"),
        ("--oms", "good.json", "--identity", "me"),
    ],
    ids=" ".join,
)
def test_no_option_of_verify_is_passed_over(
    given: tuple[str, ...], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", "a", *given) == 2
    assert "verified" not in capsys.readouterr().out


def test_a_key_and_an_identity_refuse_a_bundle(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the conformance suite has it: a refusal, not a usage error."""
    assert run("verify", "a", "--oms", "good.json", *KEY, *BY) == 1
    assert "refused    identity" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given",
    [
        ("--public-key", "missing"),
        ("--key", "home/keys/development.pem", "--public-key", "home/keys/development.pub.pem"),
        ("--trust-config", "missing"),
        ("--identity-token", "t"),
        ("--key", "home/keys/development.pem", "--trust-config", "missing"),
        ("--key", "home/keys/development.pem", "--identity-token", "t"),
        ("--key", "home/keys/development.pem", "--keyless"),
        ("--keyless", "--public-key", "missing"),
        ("--oms", "a/adapter_model.safetensors"),
        ("--oms", "a/claims.jsonl"),
    ],
    ids=" ".join,
)
def test_no_option_of_sign_is_passed_over(given: tuple[str, ...], place: Path) -> None:
    before, claims = describe(place / "a"), (place / "a" / "claims.jsonl").read_bytes()
    assert run("sign", "a", *given) == 2
    assert describe(place / "a") == before
    assert (place / "a" / "claims.jsonl").read_bytes() == claims


def test_an_approval_passes_no_key_over(place: Path) -> None:
    given = ("--public-key", "missing")
    assert run("registry", "approve", describe(place / "a").digest, "--reason", "r", *given) == 2


def test_a_list_that_is_exported_takes_no_key(place: Path) -> None:
    assert run("registry", "revocations", "--export", "list.jsonl", *KEY) == 2
    assert not (place / "list.jsonl").exists()


def test_the_same_key_says_the_same_once(place: Path) -> None:
    claims = place / "a" / "claims.jsonl"
    once = claims.read_bytes()
    assert run("sign", "a") == 0
    assert claims.read_bytes() == once


def test_another_key_and_other_bytes_are_another_claim(place: Path) -> None:
    claims = place / "a" / "claims.jsonl"
    other = open_house(str(place / "other"), quiet=True).signer
    other_key = place / "other" / "keys" / "development.pem"
    assert run("sign", "a", "--key", str(other_key)) == 0
    assert run("sign", "a", "--key", str(other_key)) == 0
    assert [json.loads(line)["signatures"][0]["keyid"] for line in claims.read_text().splitlines()][1:] == [other.keyid]
    (place / "a" / "notes.txt").write_text("other bytes")
    assert run("sign", "a", "--key", str(other_key)) == 0
    assert len(claims.read_text().splitlines()) == 3
