"""The log: several writers, one order; and every way to change it afterwards is noticed."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from sigstore._internal.rekor.checkpoint import SignedCheckpoint

from ecology.audit import notes
from ecology.audit.log import SqlAuditLog
from ecology.audit.proofs import check_inclusion
from ecology.contracts.policy import TrustedKey
from ecology.contracts.promotion import Event
from ecology.errors import ConfigError, EcologyError, IntegrityError
from ecology.kernel import merkle
from ecology.kernel.canonical import canonical
from ecology.signer.keys import LocalSigner

SIGNER = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), "golden", False)
OTHER = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)), "other", False)


def event(n: int, **more: object) -> Event:
    return Event("bred", f"2026-01-02T03:04:{n % 60:02d}Z", {"n": n, "share": 0.5, **more})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a home" / "ecology.db"


@pytest.fixture
def log(file: Path) -> SqlAuditLog:
    return SqlAuditLog(f"sqlite:///{file}", SIGNER)


@pytest.fixture
def full(log: SqlAuditLog) -> SqlAuditLog:
    """Nine events, a checkpoint given out at five and at seven."""
    log.append_all(map(event, range(5)))
    log.checkpoint()
    log.append_all(map(event, range(5, 7)))
    log.checkpoint()
    log.append_all(map(event, range(7, 9)))
    return log


def test_what_goes_in_comes_out_in_order(log: SqlAuditLog) -> None:
    assert log.events() == ()
    assert [log.append(event(n, big=4e16)) for n in range(3)] == [0, 1, 2]
    assert log.append_all(map(event, range(3, 6))) == range(3, 6)
    assert log.append_all([]) == range(6, 6)
    events = (*(event(n, big=4e16) for n in range(3)), *map(event, range(3, 6)))
    assert log.events() == events
    assert log.events_since(4) == events[4:]
    assert log.events_since(9) == ()
    assert [canonical(e).decode() for e in events] == list(log.export())
    assert log.verify().size == 6


def test_the_checkpoint_is_a_c2sp_note(full: SqlAuditLog) -> None:
    note = full.checkpoint()
    origin = f"tiny-ecology/{SIGNER.keyid[:16]}"
    root = merkle.root([merkle.leaf_hash(line.encode()) for line in full.export()])
    assert note.split("\n")[:4] == [origin, "9", base64.b64encode(root).decode(), ""]
    theirs = SignedCheckpoint.from_text(note)  # another implementation's reader
    assert theirs.checkpoint.log_size == 9
    assert bytes.fromhex(theirs.checkpoint.log_hash) == root
    raw = SIGNER.private_key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(origin.encode() + b"\n\x01" + raw).digest()[:4]
    assert theirs.signed_note.signatures[0].sig_hash == key_id
    signature = base64.b64decode(theirs.signed_note.signatures[0].signature)
    SIGNER.private_key.public_key().verify(signature, theirs.signed_note.note.encode())
    assert note == full.checkpoint()


def test_golden_checkpoint_and_proof(full: SqlAuditLog, golden: Callable[[str, bytes], None]) -> None:
    golden("statements/audit.tlog-proof", full.prove(3).text.encode())


def test_an_empty_log_can_be_witnessed_too(log: SqlAuditLog) -> None:
    empty = log.checkpoint()
    assert notes.read(empty).root == merkle.EMPTY_ROOT
    assert log.verify().size == 0
    assert log.consistency(empty).path == ()
    log.append(event(0))
    assert log.consistency(empty).new.size == 1
    assert log.verify().size == 1


def test_every_leaf_is_provable_offline(full: SqlAuditLog) -> None:
    for index in range(9):
        proof = full.prove(index)
        assert json.loads(proof.entry)["body"]["n"] == index
        assert check_inclusion(proof.text, proof.entry, [SIGNER.public_key]) == index
        with pytest.raises(IntegrityError):
            check_inclusion(proof.text, proof.entry + b" ", [SIGNER.public_key])
        with pytest.raises(IntegrityError):
            check_inclusion(proof.text, proof.entry, [OTHER.public_key])
    for index in (-1, 9):
        with pytest.raises(ConfigError, match="no event"):
            full.prove(index)


def test_an_old_checkpoint_is_a_witness(log: SqlAuditLog) -> None:
    old = []
    for n in range(12):
        log.append(event(n))
        old.append(log.checkpoint())
    for note in old:
        found = log.consistency(note)
        assert merkle.verify_consistency(found.old.size, 12, found.old.root, found.new.root, found.path)
    with pytest.raises(IntegrityError, match="not signed by a known key"):
        log.consistency(old[3], OTHER.public_key)
    with pytest.raises(ConfigError, match="not a checkpoint"):
        log.consistency("hello")


def test_a_forked_log_is_found_out_by_the_old_checkpoint(tmp_path: Path) -> None:
    one, two = (SqlAuditLog(f"sqlite:///{tmp_path}/{name}.db", SIGNER) for name in ("one", "two"))
    one.append_all(map(event, range(6)))
    two.append_all([*map(event, range(5)), event(99), event(7)])
    with pytest.raises(IntegrityError, match="rewritten"):
        two.consistency(one.checkpoint())
    short = SqlAuditLog(f"sqlite:///{tmp_path}/short.db", SIGNER)
    short.append(event(0))
    with pytest.raises(IntegrityError, match="events are gone"):
        short.consistency(one.checkpoint())


APPENDER = """
import sys
from pathlib import Path
from ecology.audit.log import SqlAuditLog
from ecology.contracts.promotion import Event
from ecology.signer.keys import LocalSigner
home, who = Path(sys.argv[1]), sys.argv[2]
log = SqlAuditLog(f"sqlite:///{home}/ecology.db", LocalSigner.open(home))
for n in range(25):
    log.append(Event("bred", "2026-01-02T03:04:05Z", {"who": who, "n": n}))
"""


def test_four_processes_append_without_losing_doubling_or_forking(tmp_path: Path) -> None:
    runs = [subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), str(who)]) for who in range(4)]
    assert [run.wait() for run in runs] == [0, 0, 0, 0]
    log = SqlAuditLog(f"sqlite:///{tmp_path}/ecology.db", LocalSigner.open(tmp_path))
    events = log.events()
    assert len(events) == 100
    for who in range(4):  # each writer's own order is kept
        assert [e.body["n"] for e in events if e.body["who"] == str(who)] == list(range(25))
    assert log.verify(LocalSigner.open(tmp_path).public_key).size == 100


def tamper(file: Path, *statements: str) -> None:
    """What somebody with the file in hand can do: triggers and all."""
    connection = sqlite3.connect(file)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.create_function("leaf", 1, lambda entry: merkle.leaf_hash(bytes(entry)))
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


TAMPERINGS = {
    "a leaf": ["UPDATE audit_leaves SET entry = replace(entry, '2', '3') WHERE position = 2"],
    "a leaf as text": ["UPDATE audit_leaves SET entry = 'x' WHERE position = 2"],
    "a leaf and its hash": [
        "UPDATE audit_leaves SET entry = CAST(replace(entry, '2', '3') AS BLOB) WHERE position = 2",
        "UPDATE audit_leaves SET hash = leaf(entry)",
    ],
    "the newest leaf and its hash": [
        "UPDATE audit_leaves SET entry = CAST(replace(entry, '2', '3') AS BLOB) WHERE position = 8",
        "UPDATE audit_leaves SET hash = leaf(entry)",
    ],
    "a hash": ["UPDATE audit_leaves SET hash = zeroblob(32) WHERE position = 8"],
    "last leaves gone": ["DELETE FROM audit_leaves WHERE position > 5"],
    "newest leaf gone": ["DELETE FROM audit_leaves WHERE position = 8"],
    "first leaf gone": ["DELETE FROM audit_leaves WHERE position = 0"],
    "all leaves gone": ["DELETE FROM audit_leaves"],
    "everything but the witnesses gone": ["DELETE FROM audit_leaves", "DELETE FROM audit_head"],
    "order": [
        "UPDATE audit_leaves SET position = 100 WHERE position = 1",
        "UPDATE audit_leaves SET position = 1 WHERE position = 2",
        "UPDATE audit_leaves SET position = 2 WHERE position = 100",
    ],
    "a leaf added": ["INSERT INTO audit_leaves SELECT 9, entry, hash FROM audit_leaves WHERE position = 8"],
    "the head gone": ["DELETE FROM audit_head"],
    "the head's size": ["UPDATE audit_head SET size = 8"],
    "the head's size as text": ["UPDATE audit_head SET size = 'many'"],
    "the head's peaks": ["UPDATE audit_head SET peaks = zeroblob(64)"],
    "the head's peaks as text": ["UPDATE audit_head SET peaks = 'x'"],
    "the head's note": ["UPDATE audit_head SET note = replace(note, '9', '8')"],
    "back to an older head": [
        "DELETE FROM audit_leaves WHERE position > 4",
        "UPDATE audit_head SET size = 5, note = (SELECT note FROM audit_checkpoints WHERE size = 5)",
    ],
    "a checkpoint that was given out": ["UPDATE audit_checkpoints SET note = replace(note, '5', '6') WHERE size = 5"],
    "a checkpoint that is none": ["UPDATE audit_checkpoints SET note = 'hello' WHERE size = 5"],
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_noticed(name: str, full: SqlAuditLog, file: Path) -> None:
    assert full.verify(SIGNER.public_key).size == 9
    tamper(file, *TAMPERINGS[name])
    with pytest.raises(IntegrityError):
        SqlAuditLog(f"sqlite:///{file}").verify(SIGNER.public_key)
    reopened = SqlAuditLog(f"sqlite:///{file}", SIGNER)
    with pytest.raises(IntegrityError):
        reopened.verify()


@pytest.mark.parametrize(
    "name",
    ["last leaves gone", "the head gone", "the head's size", "the head's peaks", "a leaf added", "all leaves gone"],
)
def test_a_tampered_log_is_not_carried_on(name: str, full: SqlAuditLog, file: Path) -> None:
    tamper(file, *TAMPERINGS[name])
    for use in (lambda: full.append(event(9)), full.checkpoint, lambda: full.prove(0)):
        with pytest.raises(IntegrityError):
            use()


@pytest.mark.parametrize("name", ["a leaf", "a leaf and its hash", "newest leaf gone", "order"])
def test_tampered_events_are_not_handed_out(name: str, full: SqlAuditLog, file: Path) -> None:
    tamper(file, *TAMPERINGS[name])
    with pytest.raises(IntegrityError):
        full.events()
    with pytest.raises(IntegrityError):
        list(full.export())
    with pytest.raises(IntegrityError):
        full.prove(2)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_any_row_is_noticed(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("bits") / "ecology.db"
    with SqlAuditLog(f"sqlite:///{file}", SIGNER) as log:
        log.append_all(map(event, range(4)))
        log.checkpoint()
    table, column, key = data.draw(
        st.sampled_from(
            [
                ("audit_leaves", "entry", "position"),
                ("audit_leaves", "hash", "position"),
                ("audit_head", "peaks", "id"),
                ("audit_head", "note", "id"),
                ("audit_checkpoints", "note", "id"),
            ]
        )
    )
    tamper(file)
    connection = sqlite3.connect(file)
    rows = connection.execute(f"SELECT {key}, CAST({column} AS BLOB), typeof({column}) FROM {table}").fetchall()
    row, value, kind = data.draw(st.sampled_from(rows))
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    bent = bytearray(value)
    bent[bit // 8] ^= 1 << bit % 8
    cast = "TEXT" if kind == "text" else "BLOB"
    connection.execute(f"UPDATE {table} SET {column} = CAST(? AS {cast}) WHERE {key} = ?", (bytes(bent), row))
    connection.commit()
    connection.close()
    with pytest.raises(IntegrityError):
        SqlAuditLog(f"sqlite:///{file}", SIGNER).verify()


def test_accidents_are_stopped_by_the_database(full: SqlAuditLog, file: Path) -> None:
    assert full.verify()
    connection = sqlite3.connect(file)
    for statement in (
        "UPDATE audit_leaves SET entry = 'x'",
        "DELETE FROM audit_leaves",
        "UPDATE audit_checkpoints SET size = 1",
        "DELETE FROM audit_checkpoints",
        "DELETE FROM audit_head",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_triggers_come_back(full: SqlAuditLog, file: Path) -> None:
    assert full.verify()
    tamper(file)
    assert SqlAuditLog(f"sqlite:///{file}", SIGNER).verify().size == 9
    test_accidents_are_stopped_by_the_database(full, file)


def test_a_key_can_be_replaced_and_its_predecessor_is_asked_for(full: SqlAuditLog, file: Path) -> None:
    url = f"sqlite:///{file}"
    with pytest.raises(IntegrityError, match="not signed by a known key"):
        SqlAuditLog(url, OTHER).append(event(9))
    log = SqlAuditLog(url, OTHER, earlier=[SIGNER.public_key])
    assert log.append(event(9)) == 9
    assert log.verify().origin == f"tiny-ecology/{OTHER.keyid[:16]}"
    with pytest.raises(IntegrityError):
        log.verify(OTHER.public_key)
    assert log.verify(OTHER.public_key, SIGNER.public_key).size == 10


def test_without_a_key_a_log_can_only_be_read(full: SqlAuditLog, file: Path) -> None:
    reader = SqlAuditLog(f"sqlite:///{file}")
    assert len(reader.events()) == 9
    with pytest.raises(ConfigError, match="no key"):
        reader.verify()
    with pytest.raises(EcologyError):
        reader.append(event(9))
    assert reader.verify(SIGNER.public_key).size == 9


def test_databases_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "noise.db").write_bytes(b"this is not a database, and it is long enough to be sure of that" * 20)
    with pytest.raises(IntegrityError, match="damaged"):
        SqlAuditLog(f"sqlite:///{tmp_path}/noise.db")
    for url in ("nonsense", "nonsense://x", f"sqlite:///{tmp_path}/noise.db/below.db", f"sqlite:///{tmp_path}"):
        with pytest.raises(ConfigError):
            SqlAuditLog(url)


def test_an_event_without_canonical_json_is_not_logged(log: SqlAuditLog) -> None:
    with pytest.raises(ConfigError):
        log.append(event(0, bad=float("nan")))
    assert log.events() == ()


def test_progress_is_told(full: SqlAuditLog) -> None:
    class Bar:
        done = 0

        def advance(self, amount: int = 1, note: str = "") -> None:
            self.done += amount

    bar = Bar()
    full.verify(progress=bar)
    assert bar.done == 9


NOTE = SqlAuditLog("sqlite://", SIGNER).checkpoint()


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(NOTE)), cut=st.integers(0, 5), put=st.text(max_size=4))
def test_mutated_checkpoints_raise_only_ours(at: int, cut: int, put: str) -> None:
    bent = NOTE[:at] + put + NOTE[at + cut :]
    try:
        found = notes.verify(bent, [SIGNER.public_key])
    except EcologyError:
        return
    assert found == notes.read(NOTE)


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 200), cut=st.integers(0, 5), put=st.text(max_size=4))
def test_mutated_proofs_raise_only_ours(at: int, cut: int, put: str) -> None:
    bent = PROOF.text[:at] + put + PROOF.text[at + cut :]
    try:
        assert check_inclusion(bent, PROOF.entry, [SIGNER.public_key]) == 2
    except EcologyError:
        return


def _proof() -> object:
    log = SqlAuditLog("sqlite://", SIGNER)
    log.append_all(map(event, range(5)))
    return log.prove(2)


PROOF = _proof()


def test_witnesses_may_sign_too_and_a_broken_known_signature_is_refused() -> None:
    assert notes.verify(NOTE + "— witness.example AAAAAAAAAAAA\n", [SIGNER.public_key]).size == 0
    head, line = NOTE.rsplit(" ", 1)
    blob = bytearray(base64.b64decode(line))
    blob[-1] ^= 1
    with pytest.raises(IntegrityError, match="is not what key"):
        notes.verify(f"{head} {base64.b64encode(blob).decode()}\n", [SIGNER.public_key])
    with pytest.raises(ConfigError, match="space or a plus"):
        SqlAuditLog("sqlite://", SIGNER, origin="my log").checkpoint()
    with pytest.raises(EcologyError):
        notes.verify(NOTE, [TrustedKey("broken", "x")])
