"""Table and picture of what ``learning.py --ladder`` found.

Accuracy of a row is the share of test sums whose greedy reply has the right number last in its first line, the mean
over its seeds. Its interval takes test items and seeds as samples: items are drawn with replacement (the same for all
seeds), then seeds, 4,000 times, and the middle 95 % of the means are given.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DRAWS = 4000
KINDS = {
    "TinyLoRA": "#0b6e99",
    "LoRA": "#7a3e9d",
    "other": "#2e7d32",
    "ES": "#d68910",
    "SFT": "#c0392b",
    "shuffled": "#888888",
}


def grouped(runs: Sequence[Mapping[str, Any]], bits: str = "greedy") -> list[dict[str, Any]]:
    """One line a row that has reported seeds, in the order of the ladder, with mean, interval and gain."""
    from ladder import ROWS, SEEDS

    base = next(r for r in runs if r["name"] == "base")
    zero = _array([base], bits)[0]
    found = []
    for name, row in ROWS.items():
        mine = [r for r in runs if r["name"] == name and r.get("seed") in SEEDS and "error" not in r]
        if not mine:
            continue
        table = _array(mine, bits)
        found.append(
            {
                "name": name,
                "how": row.get("how", "grpo"),
                "trained": mine[0]["trained"],
                "bytes": mine[0]["bytes"],
                "rate": mine[0]["rate"],
                "seeds": len(mine),
                "each": [float(line.mean()) for line in table],
                "mean": float(table.mean()),
                "interval": _interval(table),
                "gain": float((table - zero).mean()),
                "gain_interval": _interval(table - zero),
                "length": float(np.mean([r["greedy_length"] for r in mine])),
                "strict": float(_array(mine, "greedy_strict").mean()),
            }
        )
    return found


def _array(runs: Sequence[Mapping[str, Any]], bits: str) -> np.ndarray:
    return np.array([[c == "1" for c in run[bits]] for run in runs], dtype=np.float64)


def _interval(table: np.ndarray) -> tuple[float, float]:
    random = np.random.Generator(np.random.PCG64(0))
    seeds, items = table.shape
    means = [
        table[random.integers(seeds, size=seeds)][:, random.integers(items, size=items)].mean() for _ in range(DRAWS)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def joined(files: Sequence[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The runs of several ladders of one task: the base of the first, and every row from the first that reports it.

    Raises:
        ValueError: They asked other sums, or the base answered them otherwise.
    """
    runs: list[Mapping[str, Any]] = []
    for file in files:
        bases = [run["greedy"] for run in (*runs, *file) if run["name"] == "base"]
        if len(set(bases)) > 1:
            raise ValueError("the base answers differently in these files: their rows cannot stand in one table")
        told = {run["name"] for run in runs if run.get("seed") in _seeds()}  # pilots report nothing
        runs += [run for run in file if run["name"] not in told and (run["name"] != "base" or len(bases) == 1)]
    return runs


def tabled(runs: Sequence[Mapping[str, Any]], against: str = "") -> str:
    """Markdown.

    Args:
        runs: Of a ladder.
        against: A row that the others are compared with, seed by seed and sum by sum, in a further column.
    """
    base = next(r for r in runs if r["name"] == "base")
    items = len(base["greedy"])
    lines = [
        "| trained | numbers | bytes | right, each seed | mean [95 %] | gain over the base [95 %] | number alone | "
        "tokens |" + (f" against {against} [95 %] |" if against else ""),
        "|---|---:|---:|---|---|---|---:|---:|" + ("---|" if against else ""),
        f"| nothing (base) | 0 | 0 | {_array([base], 'greedy').mean():.3f} | of {items} sums | | "
        f"{_array([base], 'greedy_strict').mean():.3f} | {base['greedy_length']:.1f} |" + (" |" if against else ""),
    ]
    rival = _by_seed(runs, against)
    for row in grouped(runs):
        low, high = row["interval"]
        worse, better = row["gain_interval"]
        lines.append(
            f"| {row['name']} | {row['trained']:,} | {row['bytes']:,} | {', '.join(f'{x:.3f}' for x in row['each'])} | "
            f"{row['mean']:.3f} [{low:.2f}, {high:.2f}] | {row['gain']:+.3f} [{worse:+.2f}, {better:+.2f}] | "
            f"{row['strict']:.3f} | {row['length']:.1f} |" + _against(_by_seed(runs, row["name"]), rival)
        )
    return "\n".join(lines)


def _by_seed(runs: Sequence[Mapping[str, Any]], name: str) -> dict[int, str]:
    return {
        r["seed"]: r["greedy"] for r in runs if r["name"] == name and r.get("seed") is not None and "error" not in r
    }


def _against(mine: Mapping[int, str], rival: Mapping[int, str]) -> str:
    if not rival:
        return ""
    seeds = sorted(set(mine) & set(rival) & set(_seeds()))
    if mine == rival or not seeds:
        return " |"
    gained = _array([{"greedy": mine[s]} for s in seeds], "greedy") - _array(
        [{"greedy": rival[s]} for s in seeds], "greedy"
    )
    low, high = _interval(gained)
    return f" {gained.mean():+.3f} [{low:+.2f}, {high:+.2f}] |"


def _seeds() -> Sequence[int]:
    from ladder import SEEDS

    return SEEDS


def drawn(runs: Sequence[Mapping[str, Any]]) -> str:
    """SVG: accuracy against numbers and against bytes."""
    rows = grouped(runs)
    base = _array([next(r for r in runs if r["name"] == "base")], "greedy").mean()
    width, height, gap = 460, 330, 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width + gap} {height + 60}" font-family="Arial" '
        'font-size="11">',
        f"<title>Test sums answered right against what was trained, {len(rows)} ways, 95 % intervals</title>",
        f'<rect width="{2 * width + gap}" height="{height + 60}" fill="white"/>',
    ]
    for place, (key, title) in enumerate((("trained", "numbers trained"), ("bytes", "bytes of them"))):
        parts += _panel(rows, key, title, base, place * (width + gap), width, height, names=place == 0)
    x = 50.0
    for kind, colour in KINDS.items():
        said = {
            "LoRA": "LoRA, LoRA-XS by reward",
            "TinyLoRA": "TinyLoRA by reward",
            "other": "IA3, LN-tuning by reward",
            "ES": "evolution strategy",
            "SFT": "supervised (SFT)",
            "shuffled": "rewards shuffled (control)",
        }[kind]
        parts.append(
            f'<circle cx="{x}" cy="{height + 44}" r="4" fill="{colour}"/>'
            f'<text x="{x + 8}" y="{height + 48}">{said}</text>'
        )
        x += 20 + 6.2 * len(said)
    return "\n".join([*parts, "</svg>", ""])


def _kind(row: Mapping[str, Any]) -> str:
    if row["how"] in ("sft", "shuffled", "es"):
        return {"sft": "SFT", "es": "ES"}.get(row["how"], row["how"])
    return "TinyLoRA" if row["name"].startswith("TinyLoRA") else "LoRA" if "LoRA" in row["name"] else "other"


def _panel(
    rows: Sequence[Mapping[str, Any]],
    key: str,
    title: str,
    base: float,
    left: float,
    width: float,
    height: float,
    *,
    names: bool,
) -> list[str]:
    most = math.log10(max(row[key] for row in rows)) * 1.06
    start, top, bottom = left + 44, 16.0, height - 30.0

    def across(value: float) -> float:
        return start + math.log10(value) / most * (width - 60)

    def up(value: float) -> float:
        return bottom - value * (bottom - top)

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<line x1="{start}" x2="{left + width - 8}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" stroke="#ddd"/>'
            f'<text x="{start - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:.0%}</text>'
        )
    for power in range(int(most) + 1):
        parts.append(f'<text x="{across(10**power):.1f}" y="{bottom + 16}" text-anchor="middle">{10**power:,}</text>')
    parts += [
        f'<line x1="{start}" x2="{left + width - 8}" y1="{up(base):.1f}" y2="{up(base):.1f}" stroke="#333" '
        'stroke-dasharray="4 3"/>',
        f'<text x="{left + width - 8}" y="{up(base) - 4:.1f}" text-anchor="end">base, greedy {base:.0%}</text>',
        f'<text x="{(start + left + width) / 2:.0f}" y="{bottom + 32}" text-anchor="middle">{title}</text>',
    ]
    placed: list[tuple[float, float]] = []
    for row in rows:
        x, colour = across(row[key]) + {"shuffled": 5, "SFT": -5}.get(row["how"], 0), KINDS[_kind(row)]
        low, high = row["interval"]
        parts.append(
            f"<g><title>{html.escape(row['name'])}: {row['mean']:.3f} [{low:.2f}, {high:.2f}]</title>"
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up(low):.1f}" y2="{up(high):.1f}" stroke="{colour}"/>'
            f'<circle cx="{x:.1f}" cy="{up(row["mean"]):.1f}" r="4" fill="{colour}"/></g>'
        )
        if names and row["how"] == "grpo":
            beside, line = min(x + 7, left + width - 44), up(row["mean"]) - 7
            while any(abs(beside - other) < 62 and abs(line - its) < 10 for other, its in placed):
                line += 11  # under the one that stands there
            placed.append((beside, line))
            parts.append(
                f'<text x="{beside:.1f}" y="{line:.1f}" font-size="9" fill="{colour}">{html.escape(row["name"])}</text>'
            )
    return parts
