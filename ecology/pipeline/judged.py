"""A member with its verdict, and whom members are compared with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ecology.contracts.evidence import Evidence
from ecology.contracts.identity import Digest
from ecology.contracts.policy import GateVerdict
from ecology.contracts.promotion import Admitted, Rejected
from ecology.contracts.run import NOT_A_FINALIST
from ecology.errors import ConfigError
from ecology.gate.ladder import Climb
from ecology.pipeline.aliases import base_of
from ecology.pipeline.bench import Bench
from ecology.pipeline.members import Member


@dataclasses.dataclass(frozen=True)
class Comparator:
    """What candidates are compared with."""

    name: str
    digest: Digest
    folder: Path | None
    """None for the bare base."""


def comparator(bench: Bench, digest: str, alias: str) -> Comparator:
    """An incumbent by its digest; the bare base at genesis, when an alias names nobody.

    Args:
        bench: The base that is served.
        digest: Of the adapter, or of the base's weights.
        alias: That names it.

    Raises:
        ConfigError: It was made for another base: nobody can be compared with it here.
        IntegrityError: The store does not hold it.
    """
    base = bench.identity.base_weights
    if digest == base:
        return Comparator("base", base, None)
    folder = bench.house.store.folder(Digest(digest))
    if (other := base_of(bench.house, digest)) != base:
        raise ConfigError(
            f"it names an adapter of the base {other}, and this base is {base}",
            where=f"alias {alias}",
            todo="give this base an alias of its own: alias=NAME",
        )
    return Comparator("champion", Digest(digest), folder)


@dataclasses.dataclass(frozen=True)
class Judged:
    """One member with its verdict."""

    member: Member
    climb: Climb

    @property
    def verdict(self) -> GateVerdict:
        """The worst of all findings so far."""
        return self.climb.verdict

    @property
    def evidence(self) -> Evidence:
        """Everything measured before the verdict."""
        return self.climb.evidence

    @property
    def rung(self) -> str:
        """Where it was stopped: a rung that refused, ``not a finalist``, or empty for the admitted."""
        return self.climb.rung or ("" if self.verdict.outcome.admits else NOT_A_FINALIST)

    @property
    def digest(self) -> Digest:
        """Of the artifact."""
        return self.member.digest

    @property
    def admitted(self) -> bool:
        """Whether it passed the whole ladder, as something of ours that may be promoted."""
        return self.verdict.outcome.admits and self.member.signed is not None

    @property
    def value(self) -> Admitted | Rejected:
        """The stage's own type, for those who take only what may go on."""
        if self.admitted and self.member.signed is not None:
            return Admitted(self.member.signed, self.member.submission, self.verdict, self.evidence)
        return Rejected(self.member.submission, self.verdict, self.evidence, self.rung)
