"""What was read back of each file of verdicts, kept for the next replay: one line a file, ``mac label rows``.

A line is written when a verdict is kept (``note``), so a home knows its verdicts before anybody asks for a replay.
Every line is authenticated by itself under a secret of this home and names its file's size, time and number: a line
that is torn, of another home or of a file that has changed since is passed over, and its file is read and verified
again. So the index can be lost and cannot lie; whoever can forge it holds this home's secret, and then its signing
key too.
"""

from __future__ import annotations

import contextlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ecology.contracts.identity import Digest
from ecology.contracts.policy import TrustedKey
from ecology.pipeline.house import House
from ecology.pipeline.rereading import reread
from ecology.signer.keys import LocalSigner
from ecology.store import lines
from ecology.store.files import write_atomic

INDEX = "replay.jsonl"
_FORMAT = "replay/v3"


def own_keys(house: House) -> tuple[TrustedKey, ...]:
    """Keys whose verdicts are this home's."""
    keys = (LocalSigner.open(house.home).public_key, house.signer.public_key)
    return tuple({key.public_key: key for key in keys}.values())


def label_of(digest: Digest, path: Path, stamp: str) -> bytes:
    """What names a file as it is now: adapter, folder, and what changes when the file does."""
    return f"{digest} {path.parent.name} {stamp}".encode()


def note(house: House, digest: Digest, path: Path) -> None:
    """Reads one file of verdicts back and notes what is in it; a note that cannot be written is done without.

    Args:
        house: Whose verdicts.
        digest: Of the adapter that the file is about.
        path: The file.

    Raises:
        IntegrityError: The file is damaged.
    """
    stamp, keys = lines.stamp(path), own_keys(house)
    ((_, rows),) = reread([(digest, path)], keys)
    line = _line(_secret(house, keys), label_of(digest, path, stamp), rows)
    with contextlib.suppress(OSError):
        index = _file(house)
        index.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(index, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, line)  # one call, so that two processes do not mix their lines
        finally:
            os.close(descriptor)


def noted(house: House) -> tuple[Mapping[bytes, bytes], bool]:
    """Label to the rows of a file, for every line that this home wrote; and whether there is no other line."""
    try:
        data = _file(house).read_bytes()
    except OSError:
        return {}, True
    secret = _secret(house, own_keys(house))
    found, every = {}, data.splitlines()
    for line in every:
        mac, _, body = line.partition(b"\t")
        if hmac.compare_digest(mac, _mac(secret, body)):
            label, _, rows = body.partition(b"\t")
            found[label] = rows
    return found, len(every) == len(found)


def rewrite(house: House, rows: Iterable[tuple[bytes, bytes]]) -> None:
    """Puts these labels and rows in the place of all others."""
    secret = _secret(house, own_keys(house))
    path = _file(house)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, b"".join(_line(secret, label, found) for label, found in rows))


def _file(house: House) -> Path:
    return house.home / "notes" / INDEX


def _secret(house: House, keys: Iterable[TrustedKey]) -> bytes:
    """A key that only this home has, another one for other signing keys."""
    owner = " ".join(sorted(key.public_key for key in keys))
    return hmac.new(house.secret_seed, f"{_FORMAT}\0{owner}".encode(), "sha256").digest()


def _line(secret: bytes, label: bytes, rows: bytes) -> bytes:
    body = label + b"\t" + rows
    return _mac(secret, body) + b"\t" + body + b"\n"


def _mac(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, body, "sha256").hex().encode("ascii")
