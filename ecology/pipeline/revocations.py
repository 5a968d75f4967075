"""Which digests are quarantined here, read without SQLAlchemy.

The static gate has a second for everything, and importing SQLAlchemy takes half of it. The registry of a home is
a SQLite file by default, so its two tables that matter are read with the standard library, read-only, by the same rule
as ``registry.view.quarantined``; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ecology.errors import IntegrityError, from_system
from ecology.kernel.quarantine import quarantine
from ecology.sql import RESTORE

BUSY_TIMEOUT_S = 10


def quarantined(database: Path) -> Mapping[str, str]:
    """Digest to reason, descendants included; nothing where there is no registry yet.

    Args:
        database: The registry's SQLite file.

    Raises:
        IntegrityError: It is there and is damaged: nobody can say then what is revoked.
        ConfigError: The system does not let it be read.
    """
    if not database.exists():
        return {}
    import sqlite3  # noqa: PLC0415  (1 MB that a home without a registry has no use for)

    try:
        address = f"file:{quote(str(database))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "registry_revocations" not in tables:
                return {}
            reasons = dict(connection.execute("SELECT digest, reason FROM registry_revocations ORDER BY position"))
            edges = list(connection.execute("SELECT parent, child FROM registry_parents ORDER BY child"))
    except sqlite3.Error as error:
        damaged = IntegrityError(f"the registry cannot be read: {error}", where=str(database), todo=RESTORE)
        raise from_system(error, str(database)) or damaged from error
    return quarantine(reasons, edges)
