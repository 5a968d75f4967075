"""Answers that were given before, found by content.

Caches of other harnesses are keyed by the request, or by the model's name, and hand one model's answers to another
(lm-evaluation-harness issue 4063, lighteval issue 1364). Here a key is the digest of everything an answer follows
from: the bytes of base, adapter and tokenizer, the prompt in its frame, how it is decoded, and by which engine. Not in
the key: names, paths, and the suite that asked, since an answer does not depend on why it was asked.

What is kept is the answer (text or log-likelihoods) and not its score, so a better verifier re-scores for nothing.

One SQLite file in write-ahead mode: a batch of answers is one transaction, so a killed process loses at most the batch
it was at, and several processes may read and write.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ecology.contracts.identity import Digest, Json
from ecology.errors import IntegrityError, from_system
from ecology.kernel.canonical import canonical

BUSY_S = 60
"""Seconds to wait for another process's transaction."""
AT_ONCE = 500
"""Keys in one SELECT; SQLite's limit is a thousand and more."""


class ResultCache:
    """Key -> answer, on disk."""

    def __init__(self, folder: Path) -> None:
        """Opens the cache.

        Args:
            folder: Made when missing; readable by its owner alone, because replies to harmful prompts are in it.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = folder / "answers.sqlite"
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer BLOB) WITHOUT ROWID")

    def get(self, keys: Sequence[Digest]) -> Mapping[Digest, Json]:
        """The answers that are known, by key; the others are left out.

        Raises:
            IntegrityError: The file is damaged.
        """
        found: dict[Digest, Json] = {}
        with self._open() as database:
            for start in range(0, len(keys), AT_ONCE):
                some = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = database.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", list(some))
                found.update((Digest(key), self._parse(answer)) for key, answer in rows)
        return found

    def put(self, answers: Mapping[Digest, Json]) -> None:
        """Keeps a batch of answers, all or none; one that is already there stays as it is.

        Raises:
            IntegrityError: The file is damaged.
        """
        rows = [(key, canonical(answer)) for key, answer in answers.items()]
        with self._open() as database:
            database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

    def __len__(self) -> int:
        with self._open() as database:
            return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])

    def _parse(self, answer: bytes) -> Json:
        try:
            return json.loads(answer)
        except ValueError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> IntegrityError:
        return IntegrityError(
            f"the cache of answers is damaged: {error}",
            where=str(self._file),
            todo="delete the file: the answers will be asked for again",
        )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        try:
            with contextlib.closing(sqlite3.connect(self._file, timeout=BUSY_S)) as database, database:
                yield database
        except sqlite3.DatabaseError as error:
            raise from_system(error, str(self._file)) or self._damaged(error) from error
