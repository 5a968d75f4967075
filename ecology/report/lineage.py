"""Who was bred from whom: generations from left to right, outcome by colour, the winner's line drawn out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ecology.report.draw import clip, picture, tag
from ecology.report.story import Row, Story
from ecology.report.words import plural, short

BOX, TALL, GAP, AISLE, EDGE = 176.0, 40.0, 12.0, 96.0, 8.0


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One box."""

    digest: str
    name: str
    under: str
    status: str
    tone: str
    x: float
    y: float


def lineage(story: Story) -> Markup | None:
    """The family of the run; None where nobody has parents."""
    rows = [row for row in story.rows if row.candidate is not None]
    if not any(row.parents for row in rows):
        return None
    nodes = _nodes(rows)
    hot = _ancestry(story)
    width = max(node.x for node in nodes.values()) + BOX + EDGE
    height = max(node.y for node in nodes.values()) + TALL + EDGE
    edges = [
        _edge(nodes[parent], nodes[row.digest], parent in hot and row.digest in hot)
        for row in rows
        for parent in _parents(row)
    ]
    title = f"Lineage of {plural(len(rows), 'candidate')}: parents on the left, children on the right"
    return picture(width, height, title, *edges, *(_box(node) for node in nodes.values()))


def _parents(row: Row) -> Sequence[str]:
    genome = row.candidate.genome if row.candidate else None
    return genome.lineage.parents if genome else ()


def _nodes(rows: Sequence[Row]) -> Mapping[str, Node]:
    """Every candidate, and every parent that is not one, in columns by generation."""
    known = {row.digest for row in rows}
    strangers = sorted({parent for row in rows for parent in _parents(row)} - known)
    columns: dict[int, list[tuple[str, str, str, str, str]]] = {}
    for row in rows:
        columns.setdefault(row.generation, []).append((row.digest, row.name, row.operator, row.status, row.tone))
    first = min(columns)
    for digest in strangers:
        columns.setdefault(first, []).append((digest, short(digest), "from an earlier run", "", "plain"))
    tallest = max(len(column) for column in columns.values())
    nodes = {}
    for place, generation in enumerate(sorted(columns)):
        column = columns[generation]
        top = EDGE + (tallest - len(column)) * (TALL + GAP) / 2
        for i, entry in enumerate(column):
            nodes[entry[0]] = Node(*entry, x=EDGE + place * (BOX + AISLE), y=top + i * (TALL + GAP))
    return nodes


def _ancestry(story: Story) -> set[str]:
    """The winner and everyone it descends from."""
    parents = {row.digest: _parents(row) for row in story.rows}
    found: set[str] = set()
    waiting = [row.digest for row in story.rows if row.tone == "accent"]
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            found.add(digest)
            waiting += parents.get(digest, ())
    return found


def _edge(parent: Node, child: Node, hot: bool) -> Markup:
    x1, y1, x2, y2 = parent.x + BOX, parent.y + TALL / 2, child.x, child.y + TALL / 2
    bend = max(30.0, (x2 - x1) / 2)
    path = f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    return tag("path", d=path, class_="edge hot" if hot else "edge")


def _box(node: Node) -> Markup:
    return tag(
        "g",
        tag("title", f"{node.name}, {node.under}{': ' + node.status if node.status else ''}"),
        tag("rect", x=node.x, y=node.y, width=BOX, height=TALL, rx=5, class_=f"box {node.tone}"),
        tag("rect", x=node.x, y=node.y, width=4, height=TALL, rx=2, class_=f"stripe {node.tone}"),
        tag("text", clip(node.name, 21), x=node.x + 13, y=node.y + 17, class_="name"),
        tag("text", clip(node.under, 14), x=node.x + 13, y=node.y + 32, class_="tick"),
        tag("text", node.status, x=node.x + BOX - 8, y=node.y + 32, text_anchor="end", class_=f"status {node.tone}"),
    )
