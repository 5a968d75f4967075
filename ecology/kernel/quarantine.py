"""Whom a revocation reaches: the revoked and everything that descends from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def quarantine(reasons: Mapping[str, str], edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Digest to reason, descendants included.

    Args:
        reasons: Of each revocation, in the order they were made; an adapter's own comes before any ancestor's.
        edges: Pairs of parent and child.
    """
    children: dict[str, list[str]] = {}
    for parent, child in edges:
        children.setdefault(parent, []).append(child)
    found = dict(reasons)
    for revoked, reason in reasons.items():
        queue = [revoked]
        while queue:
            for child in children.get(queue.pop(), ()):
                if child not in found:
                    found[child] = f"descends from {revoked}, which is revoked: {reason}"
                    queue.append(child)
    return found
