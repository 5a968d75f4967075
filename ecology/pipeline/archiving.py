"""The home's Pareto archive: one file, under one lock, with what each run brought to it."""

from __future__ import annotations

from collections.abc import Sequence

from ecology.contracts.identity import Digest
from ecology.contracts.promotion import Fitness
from ecology.errors import IntegrityError
from ecology.kernel import canonical
from ecology.pipeline.house import House
from ecology.pipeline.notes import read_kept
from ecology.promotion import archive
from ecology.promotion.fitness import FitnessSpec
from ecology.store.files import write_atomic

FILE = "archive.json"
RESTORE = "restore it from a backup, or remove it: the archive then begins again with the next run"


def offer(ranked: Sequence[Fitness], spec: FitnessSpec, run: Digest, house: House) -> None:
    """Joins what a run ranked to the archive, and records the ranking.

    Raises:
        IntegrityError: The archive is damaged. Nothing else knows what earlier runs found, so nothing is overwritten.
    """
    path = house.home / FILE
    with house.lock("archive"):
        held = read_kept(path, tuple[archive.ArchiveEntry, ...], RESTORE) or ()
        brought = archive.entries(ranked, spec, run)
        names: dict[Digest, set[str]] = {}
        for entry in (*held, *brought):
            if names.setdefault(entry.key, set(entry.objectives)) != set(entry.objectives):
                what = f"this file is damaged: entries under {entry.key} have different objectives"
                raise IntegrityError(what, where=str(path), todo=RESTORE)
        write_atomic(path, canonical.canonical(archive.merge(held, brought)))
    house.record(
        "ranked",
        {
            "run": run,
            "order": [f.subject for f in ranked if f.score is not None],
            "front": [f.subject for f in ranked if f.on_front],
        },
    )
