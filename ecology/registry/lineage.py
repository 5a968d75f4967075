"""Who descends from whom, as a value and as a picture for a terminal.

Ancestries share members (cousins meet), so a lineage is a graph without cycles and not a tree: each member is held
once, and drawn once with its own ancestors; where it comes up again it is only named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One adapter of a lineage."""

    digest: str
    name: str
    """Empty for one that this registry knows only as a parent."""
    operator: str
    generation: int | None
    parents: tuple[str, ...]
    """Digests, in the order the operator took them."""
    quarantined: str
    """Why it must not be used; empty when it may."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lineage:
    """An adapter and all its ancestors."""

    subject: str
    members: Mapping[str, Member]
    """By digest; the subject included."""
    roots: tuple[str, ...]
    """Digests of those without parents, sorted."""

    @property
    def text(self) -> str:
        """The picture, the subject first, without a newline at the end."""
        lines: list[str] = []
        drawn: set[str] = set()
        stack = [(self.subject, "", "", "")]
        while stack:
            digest, lead, corner, below = stack.pop()
            member = self.members[digest]
            again = digest in drawn and bool(member.parents)
            lines.append(lead + corner + _line(member) + (" (drawn above)" if again else ""))
            if again:
                continue
            drawn.add(digest)
            last = len(member.parents) - 1
            branches = [
                (parent, lead + below, "└─ " if i == last else "├─ ", "   " if i == last else "│  ")
                for i, parent in enumerate(member.parents)
            ]
            stack.extend(reversed(branches))
        return "\n".join(lines)


def _line(member: Member) -> str:
    generation = f" g{member.generation}" if member.generation is not None else ""
    made = f" {member.operator}{generation}" if member.operator else " not bred here"
    warning = f" QUARANTINED: {member.quarantined}" if member.quarantined else ""
    return f"{member.name or '?'} {member.digest[:19]}{made}{warning}"
