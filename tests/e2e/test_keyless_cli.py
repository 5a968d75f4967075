"""As a CI job would: its own identity signs, a policy that trusts that identity admits, offline; nobody else's does."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ecology.backend.bases import ensure
from ecology.cli import main
from ecology.kernel.canonical import digest_bytes
from ecology.pipeline.bench import preset
from ecology.pipeline.places import shared
from ecology.telemetry.progress import SilentProgress
from ecology.testing.sigstore import GITHUB, LoopbackSigstore
from ecology.testing.toys import toy_adapter

WORKFLOW = f"https://github.com/{GITHUB['job_workflow_ref']}"


class Job:
    """A home, an instance, a bred adapter and a policy that trusts the job's identity."""

    def __init__(self, instance: LoopbackSigstore, folder: Path) -> None:
        self.instance, self.folder = instance, folder
        self.home = folder / "home"
        base = ensure(preset("toy"), self.home, SilentProgress())
        for seed in (0, 1):
            toy_adapter(base, folder / f"parent{seed}", seed=seed)
        self.adapter = folder / "child"
        parents = [str(folder / f"parent{seed}") for seed in (0, 1)]
        assert (
            self.run("breed", "linear", *parents, "weights=[0.5,0.5]", "--base", "toy", "--out", str(self.adapter)) == 0
        )
        self.config, self.root = folder / "trust.json", folder / "root.json"
        self.config.write_text(json.dumps(instance.trust_config()))
        self.root.write_text(json.dumps(instance.trusted_root()))
        self.policy = folder / "ci.yaml"
        self.trust(WORKFLOW)

    def trust(self, identity: str, **new: Any) -> None:
        policy = yaml.safe_load(shared("policies", "toy.yaml").read_text())
        who = {"name": "release job", "identity": identity, "issuer": self.instance.url, "trusted_root": "root.json"}
        one = {**who, "root_digest": digest_bytes(self.root.read_bytes()), **new}
        policy["signatures"] = {"allow_development": False, "identities": [one]}
        self.policy.write_text(yaml.safe_dump(policy))

    def run(self, *arguments: str) -> int:
        return main(["--home", str(self.home), "--quiet", *arguments])

    def gate(self) -> int:
        return self.run("gate", str(self.adapter), "--policy", str(self.policy), "--base", "toy", "--static")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    with LoopbackSigstore() as instance:
        yield Job(instance, tmp_path_factory.mktemp("job"))


def ambient(job: Job, monkeypatch: pytest.MonkeyPatch, claims: dict[str, str] | None = None) -> None:
    for name, value in job.instance.ambient(claims).items():
        monkeypatch.setenv(name, value)


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("verification went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_sign_in_ci_gate_anywhere(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.gate() == 1, "signed by a development key alone"
    attacker = {**GITHUB, "job_workflow_ref": "mallory/adapters/.github/workflows/release.yml@refs/heads/main"}
    with monkeypatch.context() as patch:
        ambient(job, patch, attacker)
        assert job.run("sign", str(job.adapter), "--keyless", "--trust-config", str(job.config)) == 0
    assert job.gate() == 1
    assert "identity" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        ambient(job, patch)
        assert job.run("sign", str(job.adapter), "--keyless", "--trust-config", str(job.config)) == 0
    assert WORKFLOW.removeprefix("https://github.com/") in capsys.readouterr().out
    no_network(monkeypatch)
    assert job.gate() == 0
    words = ("verify", str(job.adapter), "--issuer", job.instance.url, "--trusted-root", str(job.root), "--identity")
    assert job.run(*words, WORKFLOW) == 0
    assert job.run(*words, "mallory@example.com") == 1
    assert job.run("verify", str(job.adapter), "--policy", str(job.policy)) == 0
    assert "by release job (trusted)" in capsys.readouterr().out


def test_a_root_that_is_not_the_pinned_one_stops_everything(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    kept = job.root.read_bytes()
    try:
        job.root.write_bytes(kept.replace(b"loop-back", b"loop-bacl"))
        assert job.gate() == 2
        assert "pins" in capsys.readouterr().err
        job.trust(WORKFLOW, trusted_root="../root.json")
        assert job.gate() == 2
    finally:
        job.root.write_bytes(kept)
        job.trust(WORKFLOW)


def test_any_bundle_over_any_file(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ecology.signer.keyless import keyless_signer

    artifact, bundle = tmp_path / "a.txt", tmp_path / "a.sigstore.json"
    artifact.write_text("hello")
    bundle.write_text(keyless_signer(job.config, job.instance.token()).sign_artifact(b"hello"))
    words = ("verify", "--bundle", str(bundle), "--trusted-root", str(job.root), "--issuer", job.instance.url)
    me = ("--identity", "reviewer@loop-back.test")
    assert job.run(*words, *me, str(artifact)) == 0
    assert job.run(*words, *me, digest_bytes(b"hello")) == 0
    assert "verified" in capsys.readouterr().out
    assert job.run(*words, *me, digest_bytes(b"hellx")) == 1
    assert job.run(*words, "--identity", "x", str(artifact)) == 1
    assert job.run(*words, *me, str(tmp_path / "missing")) == 2
    assert job.run("verify", "--bundle", str(bundle), *me, str(artifact)) == 2, "an identity without an issuer"
    artifact.write_text("hello!")
    assert job.run(*words, *me, str(artifact)) == 1
    bundle.write_text("{}")
    assert job.run(*words, *me, str(artifact)) == 1
    assert "bundle" in capsys.readouterr().out


def test_a_folder_signature_by_key_and_by_identity(job: Job, tmp_path: Path) -> None:
    import subprocess

    copy = shutil.copytree(job.adapter, tmp_path / "copy")
    key, public, out = tmp_path / "key.pem", tmp_path / "key.pub", tmp_path / "model.sig"
    for command in (
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)],
        ["openssl", "pkey", "-in", str(key), "-pubout", "-out", str(public)],
    ):
        subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o600)
    assert job.run("sign", str(copy), "--key", str(key), "--oms", str(out)) == 0
    assert job.run("verify", str(copy), "--key", str(public)) == 0
    assert job.run("verify", str(copy), "--oms", str(out), "--key", str(public)) == 0
    remote = ("sign", str(copy), "--key", f"file2:{key}", "--oms", str(out))
    assert job.run(*remote) == 2, "the public half is needed"
    assert job.run(*remote, "--public-key", str(public)) == 0
    assert job.run("verify", str(copy), "--oms", str(out), "--key", str(public)) == 0
    (copy / "README.md").write_text("added")
    assert job.run("verify", str(copy), "--oms", str(out), "--key", str(public)) == 1


def test_a_person_signs_through_a_browser(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole flow over HTTP: redirects, PKCE, callback; the browser is one without a window."""
    visited = []

    def browser(address: str, *_: object, **__: object) -> bool:
        def visit() -> None:
            with urllib.request.urlopen(address) as answer:
                visited.append((answer.status, answer.url))

        threading.Thread(target=visit, daemon=True).start()
        return True

    for name in ("GITHUB_ACTIONS", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("webbrowser.open", browser)
    copy = job.folder / "by-hand"
    shutil.copytree(job.adapter, copy, ignore=shutil.ignore_patterns("claims.jsonl"))
    bundle = job.folder / "by-hand.sig"
    signed = job.run("sign", str(copy), "--keyless", "--trust-config", str(job.config), "--oms", str(bundle))
    assert signed == 0, capsys.readouterr().err
    ((status, address),) = visited
    assert status == 200
    assert "/auth/callback?code=" in address
    anchor = ["--trusted-root", str(job.root), "--issuer", job.instance.url]
    no_network(monkeypatch)
    assert job.run("verify", str(copy), "--oms", str(bundle), "--identity", "reviewer@loop-back.test", *anchor) == 0
    assert job.run("verify", str(copy), "--oms", str(bundle), "--identity", "mallory@loop-back.test", *anchor) == 1
