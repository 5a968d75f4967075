"""The registry's tables, and how they are opened.

They stand in the audit log's database and share nothing with it but the URL, so that either can be moved. Every row
names the position of the fact that it comes from: the order of the facts is the order of the rows. There are no foreign
keys: a fact may speak of an adapter that was bred somewhere else.
"""

from __future__ import annotations

import sqlalchemy as sa

from ecology.sql import RESTORE
from ecology.sql.database import Tables

METADATA = sa.MetaData()


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=key, nullable=False)


def _count(name: str, *, key: bool = False) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, primary_key=key, nullable=False, autoincrement=False)


FACTS = sa.Table("registry_facts", METADATA, _text("digest", key=True), _count("position"))
ARTIFACTS = sa.Table(
    "registry_artifacts",
    METADATA,
    _text("digest", key=True),
    _text("name"),
    _text("operator"),  # empty: it was judged or signed here, and not bred here
    sa.Column("generation", sa.Integer),
    _text("run"),
    _text("at"),
    _count("position"),
)
PARENTS = sa.Table(
    "registry_parents",
    METADATA,
    _text("child", key=True),
    _text("parent", key=True),
    _count("ordinal"),
    sa.Index("registry_parents_by_parent", "parent"),
)
SIGNATURES = sa.Table(
    "registry_signatures",
    METADATA,
    _text("digest", key=True),
    _text("keyid", key=True),
    sa.Column("development", sa.Boolean, nullable=False),
    _count("position"),
)
VERDICTS = sa.Table(
    "registry_verdicts",
    METADATA,
    _count("position", key=True),
    _text("digest"),
    _text("policy"),
    _text("outcome"),
    _text("scope"),
    _text("rung"),
    _text("run"),
    _text("findings"),  # canonical JSON
    _text("at"),
    sa.Index("registry_verdicts_by_digest", "digest"),
)
MOVES = sa.Table(
    "registry_aliases",
    METADATA,
    _count("position", key=True),
    _text("alias"),
    _text("kind"),  # promoted, held, rolled_back
    _text("subject"),
    _text("previous"),
    _text("reason"),
    _text("at"),
    sa.Index("registry_aliases_by_alias", "alias"),
)
REVOCATIONS = sa.Table(
    "registry_revocations", METADATA, _text("digest", key=True), _text("reason"), _text("at"), _count("position")
)
CURSOR = sa.Table(  # how much of the log ``follow`` has read; not a fact, so not part of the view
    "registry_cursor",
    METADATA,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 0"), primary_key=True, autoincrement=False),
    _count("next"),
)
VIEW = tuple(table for table in METADATA.sorted_tables if table is not CURSOR)
TABLES = Tables(metadata=METADATA, lock=FACTS, damaged="the registry", todo=RESTORE)
