"""The local store passes the published cases, and holds when processes race and die."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ecology.contracts.identity import Digest
from ecology.errors import ConfigError, IntegrityError, MalformedArtifact
from ecology.store import artifacts
from ecology.store.artifacts import LocalStore
from ecology.testing.stores import CASES


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(bytes(1000))
    return folder


@pytest.mark.parametrize("case", CASES)
def test_conforms(case: str, tmp_path: Path) -> None:
    CASES[case](lambda: LocalStore(tmp_path / "a store"), tmp_path / "scratch")


def test_layout_is_as_documented(adapter: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = store.put(adapter).digest
    assert store.folder(digest) == tmp_path / "store" / "artifacts" / digest.removeprefix("sha256:")
    assert [path.name for path in (tmp_path / "store" / "artifacts").iterdir()] == [digest.removeprefix("sha256:")]
    assert store.digests() == (digest,)
    assert LocalStore(tmp_path / "empty").digests() == ()
    assert (store.folder(digest) / "adapter_config.json").stat().st_mode & 0o222 == 0


RACER = """
import sys
from pathlib import Path
from ecology.store.artifacts import LocalStore
store, folder, who = LocalStore(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
sys.stdin.readline()
for i in range(30):
    digest = store.put(folder).digest
    store.add_claims(digest, [f"{who}-{i}", f"shared-{i}", "x" * 5000 + who])
print(digest)
"""


def test_two_processes_may_put_and_claim_at_once(adapter: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(root), str(adapter), who],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in ("a", "b")
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    digests = {racer.communicate()[0].strip() for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0]
    (digest,) = digests
    store = LocalStore(root)
    store.folder(Digest(digest))
    claims = store.claims(Digest(digest))
    assert len(claims) == len(set(claims)) == 30 * 3 + 2
    assert [claim for claim in claims if claim.startswith("a-")] == [f"a-{i}" for i in range(30)]
    assert [path.name for path in (root / "artifacts").iterdir()] == [digest.removeprefix("sha256:")]


KILLED = """
import os, signal, sys
from pathlib import Path
from ecology.store import artifacts
artifacts._copy = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
artifacts.LocalStore(Path(sys.argv[1])).put(Path(sys.argv[2]))
"""


def test_what_a_killed_put_left_is_removed_by_the_next(adapter: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), str(adapter)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = (root / "artifacts").iterdir()
    assert left.name.startswith(".incoming-")
    assert LocalStore(root).digests() == ()
    digest = LocalStore(root).put(adapter).digest
    assert [path.name for path in (root / "artifacts").iterdir()] == [digest.removeprefix("sha256:")]


def test_folder_that_changes_while_it_is_copied(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = artifacts._copy

    def copy_and_change(source: Path, target: Path, file: artifacts.FileRecord) -> None:
        (adapter / "adapter_model.safetensors").write_bytes(b"other")
        real(source, target, file)

    monkeypatch.setattr(artifacts, "_copy", copy_and_change)
    store = LocalStore(tmp_path / "store")
    with pytest.raises(MalformedArtifact, match="changed while it was copied"):
        store.put(adapter)
    assert list((tmp_path / "store" / "artifacts").iterdir()) == []


def test_torn_claim_is_left_out_and_then_cut_off(adapter: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = store.put(adapter).digest
    store.add_claims(digest, ["one \u2028 line"])
    path = store.folder(digest) / "claims.jsonl"
    path.write_bytes(path.read_bytes() + b'{"torn')
    assert store.claims(digest) == ("one \u2028 line",)
    store.add_claims(digest, ["two"])
    assert path.read_text() == "one \u2028 line\ntwo\n"


@pytest.mark.parametrize("envelope", ["", "  ", "a\nb", "a\r"])
def test_envelope_must_be_one_line(envelope: str, adapter: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = store.put(adapter).digest
    with pytest.raises(ConfigError, match="not one line"):
        store.add_claims(digest, ["good", envelope])
    assert store.claims(digest) == ()


def test_claims_that_are_not_text(adapter: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = store.put(adapter).digest
    (store.folder(digest) / "claims.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(IntegrityError, match="not UTF-8"):
        store.claims(digest)


def test_link_inside_the_store_is_damage(adapter: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = store.put(adapter).digest
    (store.folder(digest) / "more").symlink_to("/etc/passwd")
    with pytest.raises(IntegrityError, match="damaged"):
        store.folder(digest)


def test_claims_of_a_store_are_json_lines(adapter: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = store.put(adapter).digest
    store.add_claims(digest, [json.dumps({"payload": "x"})])
    assert [json.loads(line) for line in store.claims(digest)] == [{"payload": "x"}]
