"""Stored verdicts read back: verified first, then reduced to what a replay needs.

1. A line is a DSSE envelope; what does not say to be a verdict of ours is passed over.
2. A key of this home signed exactly these bytes. Every envelope is verified one by one; nothing is taken on trust
   because its neighbour was right.
3. Only then is the payload parsed, and its verdict becomes one row of plain JSON: outcomes by rule, statistics by
   topic. A statistic is read as a contract value when a rule asks for it (``policy.replay``).

Each line stands for itself, so many files are read by several processes, each with the keys and nothing else of the
home. pydantic-core reads the payload because it is three times as fast as the standard library here; duplicate keys or
numbers out of range cannot be in what this home signed, since its own writer wrote it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import APPROVAL_RULE, RUNG_RULE, Outcome, TrustedKey
from ecology.errors import EcologyError, IntegrityError
from ecology.kernel.verdicts import NOT_ASKED
from ecology.policy.replay import topics_of
from ecology.signer import dsse
from ecology.signer.keys import PublicKey, key_id, load_public, signed_by
from ecology.signer.statements import SUMMARY, VERDICT
from ecology.store import lines

Task = tuple[Digest, Path]
MANY = 1000
"""So many files are worth the start of further processes."""
BATCH = 100
_MARK = b'"predicateType":"' + SUMMARY.encode() + b'"'
"""As canonical JSON writes it: what lacks it is no verdict of ours and is not looked at further."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """What was wrong with a file; an exception does not travel well between processes."""

    what: str
    where: str
    todo: str


def reread(tasks: Sequence[Task], keys: Sequence[TrustedKey]) -> Iterator[tuple[Task, bytes]]:
    """The verdicts of each file, as a JSON array of rows, in the order of the files.

    Args:
        tasks: Adapter and file.
        keys: Whose verdicts count.

    Raises:
        IntegrityError: A claim that one of the keys signed is not what this home writes, or a file is damaged.
    """
    workers = min(_cores(), len(tasks) // MANY + 1)
    if workers == 1:
        anchors = _anchors(keys)
        found: Iterator[bytes | Trouble] = (_one(task, anchors) for task in tasks)
        yield from zip(tasks, map(_unharmed, found), strict=True)
        return
    batches = [tasks[i : i + BATCH] for i in range(0, len(tasks), BATCH)]
    context = multiprocessing.get_context("spawn")  # a fork would take along whatever threads hold at that moment
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        results = pool.map(_batch, batches, itertools.repeat(tuple(keys)))
        yield from zip(tasks, map(_unharmed, itertools.chain.from_iterable(results)), strict=True)


def _unharmed(found: bytes | Trouble) -> bytes:
    if isinstance(found, Trouble):
        raise IntegrityError(found.what, where=found.where, todo=found.todo)
    return found


def _batch(tasks: Sequence[Task], keys: Sequence[TrustedKey]) -> list[bytes | Trouble]:
    anchors = _anchors(keys)
    return [_one(task, anchors) for task in tasks]


def _anchors(keys: Sequence[TrustedKey]) -> Mapping[str, PublicKey]:
    return {key_id(key): key for key in map(load_public, keys)}


def _one(task: Task, anchors: Mapping[str, PublicKey]) -> bytes | Trouble:
    digest, path = task
    rows = []
    try:
        for line in lines.read(path):
            envelope = dsse.read(line)
            if _MARK not in envelope.payload:
                continue
            signed = (s for s in envelope.signatures if s.keyid in anchors)
            if any(signed_by(anchors[s.keyid], s.sig, envelope.signed_bytes) for s in signed):
                row = _row(envelope.payload, digest)
                rows += [] if row is None else [row]
    except EcologyError as error:
        return Trouble(error.what, error.where or str(path), error.todo)
    except (KeyError, TypeError, ValueError, StopIteration, AttributeError) as error:
        what = f"a stored verdict is not as it was written: {type(error).__name__}: {error}"
        return Trouble(what, str(path), "ecology audit verify")
    return to_json(rows)


def _row(payload: bytes, digest: Digest) -> Mapping[str, Json] | None:
    value: Any = from_json(payload, allow_inf_nan=False, cache_strings="keys")
    body = value["predicate"]
    subject = next(entry for entry in value["subject"] if entry["name"] == "artifact")
    if f"sha256:{subject['digest']['sha256']}" != digest or VERDICT not in body:
        return None
    own = body[VERDICT]
    ruled = [f for f in own["findings"] if f["rule"] != APPROVAL_RULE]
    trouble = [f for f in ruled if f["rule"].startswith(RUNG_RULE)]
    asked = [f for f in ruled if own["scope"] == "full" or f in trouble or f["metric"].startswith("static.")]
    rules = {f["rule"]: f for f in ruled if not f["rule"].startswith(RUNG_RULE)}
    return {
        "outcome": max((f["outcome"] for f in asked), key=_RANKS.__getitem__),
        "scope": own["scope"],
        "at": body["timeVerified"],
        "policy": f"sha256:{body['policy']['digest']['sha256']}",
        "outcomes": {rule: f["outcome"] for rule, f in rules.items()},
        "unasked": [rule for rule, f in rules.items() if f["reason"].startswith(NOT_ASKED)],
        "trouble": trouble,
        "topics": topics_of(own["evidence"], digest, _text),
    }


def _text(rows: Sequence[Json]) -> str:
    """As ``policy.replay`` would write it: canonical JSON has its keys in order."""
    return to_json(rows).decode()


_RANKS = {outcome.value: outcome.rank for outcome in Outcome}


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
