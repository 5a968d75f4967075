"""Time and memory of one child of one layer against parents, rank and width, and the plot of it."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from breeding_shapes import Shapes, random_parents, seconds, svd_child

from ecology.lowrank.core import ParentSet


def growth(axes: dict[str, tuple[int, ...]]) -> dict[str, list[tuple[int, float, float, float]]]:
    """Seconds of the first and a further child, and peak bytes, of one layer, against parents, rank and width."""
    found: dict[str, list[tuple[int, float, float, float]]] = {"parents": [], "rank": [], "width": []}
    for axis, value in ((axis, value) for axis, values in axes.items() for value in values):
        n, r, d = (value if axis == name else usual for name, usual in (("parents", 4), ("rank", 16), ("width", 1024)))
        found[axis].append((value, *_grown(n, r, d)))
        print(axis, *(f"{number:.3g}" for number in found[axis][-1]), file=sys.stderr)
    return found


def _grown(parents: int, rank: int, width: int) -> tuple[float, float, float]:
    """Seconds of a first and a further child of one layer, best of 3, and peak MB of a single one."""
    d = width
    shapes: Shapes = {"q": (d, d), "k": (d, d), "v": (d, d), "o": (d, d), "up": (4 * d, d), "down": (d, 4 * d)}
    made = random_parents(shapes, 1, parents, rank)
    weights = [1 / parents] * parents
    kept = ParentSet(made)
    first = min(seconds(lambda: svd_child(ParentSet(made), weights, rank)) for _ in range(3))
    svd_child(kept, weights, rank)
    more = min(seconds(lambda: svd_child(kept, weights, rank)) for _ in range(3))
    tracemalloc.start()
    svd_child(made, weights, rank)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return first, more, peak / 1e6


def plot(found: dict[str, list[tuple[int, float, float, float]]], path: Path) -> None:
    """Three panels, both axes logarithmic: time on the left scale, memory on the right."""
    width, height, panel = 900, 300, 280
    box = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        "<title>Time and memory of one child of one layer against parents, rank and width</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    times = [t for rows in found.values() for row in rows for t in row[1:3]]
    memory = [row[3] for rows in found.values() for row in rows]
    lines = ((1, "#1f5fa8", "first child, ms", times, 1000.0), (2, "#2a8a4a", "further child, ms", times, 1000.0))
    lines += ((3, "#b4571b", "peak memory, MB", memory, 1.0),)  # type: ignore[assignment]
    for number, (axis, rows) in enumerate(found.items()):
        left = 30 + number * (panel + 15)

        def x(value: float, left: int = left, rows: list[Any] = rows) -> float:
            return left + (panel - 40) * np.log(value / rows[0][0]) / np.log(rows[-1][0] / rows[0][0])

        parts.append(f'<text x="{left + 110}" y="{height - 8}" text-anchor="middle">{axis}</text>')
        parts.append(f'<line x1="{left}" x2="{left + panel - 40}" y1="250" y2="250" stroke="#999"/>')
        parts += [f'<text x="{x(row[0]):.1f}" y="266" text-anchor="middle">{row[0]}</text>' for row in rows]
        for column, colour, _, scale, factor in lines:
            low, high = np.log(min(scale)), np.log(max(scale))

            def y(value: float, low: float = low, high: float = high) -> float:
                return 240 - 190 * (np.log(value) - low) / (high - low)

            points = [(x(row[0]), y(row[column]), row[column] * factor) for row in rows]
            drawn = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in points)
            parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
            for px, py, value in points:
                parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>')
                parts.append(
                    f'<text x="{px:.1f}" y="{py - 6:.1f}" text-anchor="middle" fill="{colour}">{value:.3g}</text>'
                )
    for i, (_, colour, label, _, _) in enumerate(lines):
        parts.append(f'<text x="{40 + 180 * i}" y="20" fill="{colour}">{label}</text>')
    parts.append("</svg>\n")
    path.write_text("\n".join(parts), encoding="utf-8")
