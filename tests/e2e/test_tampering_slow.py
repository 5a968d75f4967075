"""Every stored file with one byte changed, one at a time: it is noticed, or no fact has changed.

What is stored: artifacts and their claims, the log and the registry in one SQLite file, the policy; for reports see
``tests/report``. In small files every byte is changed; in larger ones a seeded sample of them, and the head.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ecology.audit.log import SqlAuditLog
from ecology.contracts.identity import Digest
from ecology.errors import EcologyError
from ecology.pipeline.house import House, open_house
from ecology.policy.layers import policy_digest
from ecology.policy.reader import load_policy
from ecology.registry.registry import SqlRegistry
from ecology.signer.keys import LocalSigner
from ecology.signer.verify import verify_claims
from ecology.store.artifacts import LocalStore
from ecology.testing import gates

pytestmark = pytest.mark.slow
SAMPLE = 200
POLICIES = Path(__file__).parents[2] / "policies"


def flips(path: Path, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """Place and content of the file with one byte changed; all places of a small file, a sample of a large one."""
    data = path.read_bytes()
    rng = random.Random(seed)
    places = (
        range(len(data))
        if len(data) <= 2 * SAMPLE
        else sorted({*range(SAMPLE // 2), *(rng.randrange(len(data)) for _ in range(SAMPLE))})
    )
    for place in places:
        changed = bytearray(data)
        changed[place] ^= rng.randrange(1, 256)
        yield place, bytes(changed)


def unnoticed(path: Path, notices: Callable[[], bool]) -> list[int]:
    """The places at which a changed byte is not noticed."""
    data, mode = path.read_bytes(), path.stat().st_mode
    path.chmod(0o600)
    missed = []
    try:
        for place, changed in flips(path):
            path.write_bytes(changed)
            try:
                seen = notices()
            except (EcologyError, UnicodeDecodeError):
                seen = True
            if not seen:
                missed.append(place)
    finally:
        path.write_bytes(data)
        path.chmod(mode)
    return missed


@pytest.fixture
def stored(tmp_path: Path) -> tuple[LocalStore, Digest, LocalSigner]:
    submission, context = gates.submit(None, tmp_path / "adapter", tmp_path / "home")
    assert context.development
    store = LocalStore(tmp_path / "store")
    artifact = store.put(tmp_path / "adapter")
    store.add_claims(artifact.digest, submission.claims)
    return store, artifact.digest, LocalSigner.open(tmp_path / "home")


def test_every_file_of_a_stored_adapter(stored: tuple[LocalStore, Digest, LocalSigner]) -> None:
    store, digest, _ = stored
    folder = store.folder(digest)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert unnoticed(folder / name, lambda: store.folder(digest) is None) == [], name


def test_its_claims(stored: tuple[LocalStore, Digest, LocalSigner]) -> None:
    """All of it: ``keyid``, which DSSE does not sign, has to be the id of the key that did."""
    store, digest, signer = stored
    (line,) = store.claims(digest)
    good = verify_claims((line,), digest, (), (signer.public_key,)).verified

    def notices() -> bool:
        found = verify_claims(store.claims(digest), digest, (), (signer.public_key,))
        return [one.statement for one in found.verified] != [one.statement for one in good]

    assert unnoticed(store.folder(digest) / "claims.jsonl", notices) == []


def test_a_policy(tmp_path: Path) -> None:
    """A policy is text: what a comment says may change, what it demands may not without another digest."""
    for name in ("release.yaml", "baseline.yaml"):
        if (POLICIES / name).exists():
            shutil.copy(POLICIES / name, tmp_path / name)
    path = tmp_path / "release.yaml"
    good = load_policy(path)
    data = path.read_bytes()
    for place in unnoticed(path, lambda: policy_digest(load_policy(path)) != good.digest):
        line = data[data.rfind(b"\n", 0, place) + 1 :].split(b"\n")[0]
        at = place - data.rfind(b"\n", 0, place) - 1
        assert b"#" in line[: at + 1] or data[place : place + 1] in b" \n\"'" or not line.strip(), (place, line)


def facts(house: House) -> object:
    """Everything that the registry knows, rebuilt from a log that verifies."""
    with SqlAuditLog(house.database, LocalSigner.open(house.home)) as log:
        log.verify()
        registry = SqlRegistry("sqlite://")
        registry.rebuild(log.events())
        return registry.list(), dict(registry.revoked()), tuple(log.events())


def test_the_database(tmp_path: Path) -> None:
    house = open_house(str(tmp_path), quiet=True)
    for i in range(6):
        body = {"digest": f"sha256:{i:064x}", "name": f"n{i}", "operator": "ties", "generation": i, "run": "r"}
        house.record("bred", {**body, "parents": [f"sha256:{i - 1:064x}"] if i else []}, "2026-01-01T00:00:00Z")
    house.record("revoked", {"digest": f"sha256:{2:064x}", "reason": "leaks"}, "2026-01-01T00:00:00Z")
    good = facts(house)
    house.log.close()
    path = house.home / "registry.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    for side in path.parent.glob("registry.sqlite3-*"):
        side.unlink()

    changed: list[int] = []

    def notices() -> bool:
        for side in path.parent.glob("registry.sqlite3-*"):
            side.unlink()
        try:
            same = facts(house) == good
        except EcologyError:
            return True
        changed.extend([] if same else [1])
        return False

    silent = unnoticed(path, notices)
    assert changed == []  # what was not noticed changed no fact
    assert silent  # unused pages exist, so the test would be wrong if there were none
