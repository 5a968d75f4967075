"""Checkpoints of everything that learns: what a killed run goes on from.

The state is safetensors, the note beside it canonical JSON: it names the recipe (base, rows, options, seed,
environment), the state's file and digest, what each step told, and has a digest of its own. The state is written first,
then the note that names it, so a note always has its state; ``kill -9`` loses the steps since the last note. Nothing
here is a pickle, and what does not have its digest or is of another recipe is not used: training from the start gives
the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ecology.contracts.identity import Digest, Json
from ecology.kernel.canonical import canonical, digest, digest_bytes
from ecology.store.files import write_atomic

CHECKPOINT_FORMAT = 3
"""Part of every recipe: a checkpoint that was written otherwise is of another one."""
CHECKPOINT_FILE = "checkpoint.json"


class Checkpoints:
    """Those of one recipe, in one folder; only the last is kept."""

    def __init__(self, work: Path, recipe: Json) -> None:
        """Makes the folder.

        Args:
            work: Whose folder, this recipe's alone.
            recipe: Everything that the state depends on.
        """
        self._work = work
        self.recipe: Digest = digest({"format": CHECKPOINT_FORMAT, "recipe": recipe})
        work.mkdir(parents=True, exist_ok=True)

    def save(self, state: bytes, history: Sequence[Json]) -> None:
        """Keeps where a run is.

        Args:
            state: What is trained and its moments, as safetensors.
            history: What each step told, from the first.
        """
        file = f"step-{len(history):06d}.safetensors"
        write_atomic(self._work / file, state)
        note = {"recipe": self.recipe, "file": file, "digest": digest_bytes(state), "history": list(history)}
        write_atomic(self._work / CHECKPOINT_FILE, canonical({**note, "whole": digest(note)}))
        for old in self._work.glob("step-*.safetensors"):
            if old.name != file:
                old.unlink()

    def last(self) -> tuple[bytes, list[Json]] | None:
        """State and history of a sound checkpoint of this very recipe; None where there is none."""
        try:
            note = json.loads((self._work / CHECKPOINT_FILE).read_bytes())
            if note["recipe"] != self.recipe or note.pop("whole") != digest(note):
                return None
            state = (self._work / Path(note["file"]).name).read_bytes()
            return (state, list(note["history"])) if digest_bytes(state) == note["digest"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def clear(self) -> None:
        """Leaves nothing behind of ours; the folder goes if nothing else is in it."""
        for file in [*self._work.glob("step-*.safetensors"), self._work / CHECKPOINT_FILE]:
            file.unlink(missing_ok=True)
        if not any(self._work.iterdir()):
            self._work.rmdir()
