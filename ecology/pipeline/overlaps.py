"""Shares of the corpora at hand that are items of the shipped suites, found when somebody asks and then kept.

Expanding every suite takes longer than everything else that a static gate does. So nothing is computed for an adapter
whose lineage names no corpus, and what was computed is kept in the home under the digest of all files that it depends
on. The note carries an HMAC under the home's secret seed: a changed note is computed anew and not believed.
"""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Iterator, Mapping
from pathlib import Path

from ecology.contracts.evidence import Item
from ecology.contracts.identity import Digest
from ecology.kernel import canonical
from ecology.pipeline.house import House
from ecology.pipeline.places import made_folder, shared

KIND = "overlaps"


@dataclasses.dataclass(frozen=True, slots=True)
class Shares:
    """A note of what was computed."""

    shares: Mapping[Digest, float]
    mac: str
    """HMAC-SHA256 in hex under the home's secret seed."""


class Overlaps(Mapping[Digest, float]):
    """Corpus to share, 0 to 1; computed at the first look.

    Args:
        house: Holds the secret seed of the hidden items, and the notes.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._found: dict[Digest, float] | None = None

    def __getitem__(self, corpus: Digest) -> float:
        return self._shares()[corpus]

    def __iter__(self) -> Iterator[Digest]:
        return iter(self._shares())

    def __len__(self) -> int:
        return len(self._shares())

    def _shares(self) -> dict[Digest, float]:
        if self._found is None:
            key = canonical.digest(
                [
                    files_below(shared("suites")),
                    files_below(shared("corpora")),
                    files_below(made_folder(self._house.home)),
                    self._house.seed_commitment,
                ]
            )
            self._found = self._recalled(key)
            if self._found is None:
                self._found = _computed(self._house)
                self._house.remember(KIND, key, Shares(self._found, self._mac(key, self._found)))
        return self._found

    def _recalled(self, key: Digest) -> dict[Digest, float] | None:
        said = self._house.recall(KIND, key, Shares)
        if said is None:
            return None
        shares = dict(said.shares)
        return shares if hmac.compare_digest(said.mac.encode(), self._mac(key, shares).encode()) else None

    def _mac(self, key: Digest, shares: Mapping[Digest, float]) -> str:
        return hmac.new(self._house.secret_seed, canonical.canonical([KIND, key, shares]), "sha256").hexdigest()


def files_below(folder: Path) -> list[list[str]]:
    """Name and digest of every file below a folder."""
    return [
        [path.relative_to(folder).as_posix(), canonical.digest_bytes(path.read_bytes())]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]


def _computed(house: House) -> dict[Digest, float]:
    from ecology.evaluator.copying import overlap  # noqa: PLC0415
    from ecology.evaluator.library import load_any_suite  # noqa: PLC0415  (only who asks waits for it)
    from ecology.evaluator.suites import items  # noqa: PLC0415
    from ecology.pipeline.corpora import held_corpora  # noqa: PLC0415

    every: list[Item] = []
    for path in sorted(shared("suites").glob("*/suite.yaml")):
        suite = load_any_suite(path)
        if suite.kind == "lm_eval":
            continue
        every += items(suite, "public")
        every += items(suite, "hidden", house.split_seed(suite.digest, "hidden"))
    return {digest: overlap(rows, every).exact for digest, rows in held_corpora(house).items()}
