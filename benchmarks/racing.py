"""What racing saves on planted populations, and which errors it buys.

    python benchmarks/racing.py [--json] [--populations 1000] [--plot docs/racing.svg]

Each population has 20 candidates that answer 2,000 items beside an incumbent and differ from it on one item in ten.
Half are as good as it (won and lost 5 % each), half are worse by 10 points (lost 10 %). The demand is "not worse by 5
points", proven with 95 % confidence. Three designs decide on the same simulated answers:

- fixed: all 2,000 items, Tango's score bounds (what a rule without ``anytime`` does);
- sized: as many items as a power calculation asks for, same bounds: 95 % power on either side;
- race: a look every 16 items, bounds by betting (``kernel.sequential``), stop when either side is proven.

A fourth row lets racing drop and never settle: what a policy of fixed-n rules gets. A last one puts every candidate
exactly on the margin, where a false drop is likeliest.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np

from ecology.contracts.policy import Rule
from ecology.kernel.planning import power
from ecology.kernel.sequential import SHARES
from ecology.kernel.statistics import tango_score

ITEMS, MARGIN, ALPHA, CANDIDATES, LOOK, SEED = 2000, 0.05, 0.05, 20, 16, 20261122
GOOD, BAD, EDGE = (0.05, 0.05), (0.0, 0.10), (0.025, 0.075)
"""Shares of items that only the candidate, and only the incumbent, answers right."""
RULE = Rule("QUAL", "not worse by 5 points", "s.correct", ">=", -MARGIN, "hidden", "incumbent", confidence=1 - ALPHA)


def looks_of(rng: np.random.Generator, kind: tuple[float, float], n: int) -> np.ndarray:
    """Won and lost so far at every look: n candidates x looks x 2."""
    draws = rng.random((n, ITEMS), dtype=np.float32)
    won, lost = draws < kind[0], draws > 1 - kind[1]
    places = [*range(LOOK, ITEMS, LOOK), ITEMS]
    return np.stack([won.cumsum(1)[:, np.array(places) - 1], lost.cumsum(1)[:, np.array(places) - 1]], axis=2)


def log_e(counts: np.ndarray, sizes: np.ndarray, mean: float) -> np.ndarray:
    """``kernel.sequential.log_e`` for many candidates at once; a test holds the two together."""
    won, lost = counts[..., 0], counts[..., 1]
    share = np.array(SHARES)
    gains = [np.log1p(share * (value / mean - 1)) for value in (1.0, 0.5, 0.0)]
    wealth = sum(amount[..., None] * gain for amount, gain in zip((won, sizes - won - lost, lost), gains, strict=True))
    top = wealth.max(-1)
    return top + np.log(np.exp(wealth - top[..., None]).mean(-1))


def race(counts: np.ndarray, settle: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Outcome (1 passes, -1 dropped, 0 undecided) and items answered, of every candidate."""
    sizes = np.array([*range(LOOK, ITEMS, LOOK), ITEMS])
    bar = -np.log(ALPHA)
    dropped = log_e(counts[..., ::-1], sizes, (1 + MARGIN) / 2) >= bar
    settled = log_e(counts, sizes, (1 - MARGIN) / 2) >= bar if settle else np.zeros_like(dropped)
    done = dropped | settled
    first = np.where(done.any(1), done.argmax(1), len(sizes) - 1)
    rows = np.arange(len(counts))
    return np.where(dropped[rows, first], -1, np.where(settled[rows, first], 1, 0)), sizes[first]


def fixed(counts: np.ndarray, n: int) -> np.ndarray:
    """Outcome of the rule on the first n items; n is rounded up to a look."""
    place = min(-(-n // LOOK), counts.shape[1]) - 1
    size, z = min((place + 1) * LOOK, ITEMS), NormalDist().inv_cdf(1 - ALPHA)
    scores = np.array([tango_score(int(w), int(lost), size, -MARGIN) for w, lost in counts[:, place]])
    return np.where(scores >= z, 1, np.where(scores <= -z, -1, 0))


def sized() -> int:
    """The fewest items (a multiple of a look) with 95 % power to pass the good and to refute the bad."""
    n = LOOK
    while power(RULE, n, 0.0, 0.1) < 0.95 or power(RULE, n, -0.1, 0.1, "deny") < 0.95:
        n += LOOK
    return n


def simulate(populations: int) -> dict[str, object]:
    """Everything that the table and the plot show."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    proper = sized()
    tally: dict[str, list[np.ndarray]] = {}

    def add(name: str, values: np.ndarray) -> None:
        tally.setdefault(name, []).append(values)

    batch = 50
    for start in range(0, populations, batch):
        n = min(batch, populations - start) * CANDIDATES // 2
        for kind, label in ((GOOD, "good"), (BAD, "bad"), (EDGE, "edge")):
            counts = looks_of(rng, kind, n)
            outcome, items = race(counts)
            drop, drop_items = race(counts, settle=False)
            for name, values in (
                ("race", outcome), ("items", items), ("fixed", fixed(counts, ITEMS)), ("sized", fixed(counts, proper)),
                ("drop", drop), ("drop_items", drop_items),
            ):  # fmt: skip
                add(f"{label}.{name}", values)
        if sys.stderr.isatty():
            print(f"\r{start + batch} of {populations} populations", end="", file=sys.stderr)
    return {"proper": proper, **{name: np.concatenate(values) for name, values in tally.items()}}


def rows_of(found: dict[str, object], populations: int) -> list[dict[str, object]]:
    """Rows in the common format of the benchmarks."""
    both = {key: np.concatenate([found[f"good.{key}"], found[f"bad.{key}"]]) for key in
            ("items", "drop_items", "race", "fixed", "sized")}  # fmt: skip
    n = f"{populations} populations of {CANDIDATES}"

    def row(what: str, ours: float, peer: float, peer_name: str, unit: str) -> dict[str, object]:
        return {"what": what, "ours": round(ours, 5), "peer": round(peer, 5), "peer_name": peer_name,
                "ratio": round(ours / peer, 4) if peer else None, "unit": unit, "samples": n}  # fmt: skip

    items = float(both["items"].mean())
    proper = float(found["proper"])
    same = (float((both[key] == both["fixed"]).mean()) for key in ("race", "sized"))

    def share(name: str, outcome: int, equal: bool = True) -> float:
        return float(((np.asarray(found[name]) == outcome) == equal).mean())

    fixed_n, sized_n = "fixed 2,000", "properly sized"
    return [
        row("items per candidate, race", items, ITEMS, fixed_n, "items"),
        row("items per candidate, race", items, proper, sized_n, "items"),
        row("items per candidate, race that only drops", float(both["drop_items"].mean()), ITEMS, fixed_n, "items"),
        row("same decision as fixed 2,000", next(same), next(same), sized_n, "share"),
        row("good ones dropped", share("good.race", -1), share("good.fixed", -1), fixed_n, "share"),
        row("good ones not passed", share("good.race", 1, False), share("good.sized", 1, False), sized_n, "share"),
        row("bad ones passed", share("bad.race", 1), share("bad.fixed", 1), fixed_n, "share"),
        row("bad ones not dropped", share("bad.race", -1, False), share("bad.sized", -1, False), sized_n, "share"),
        row("on the margin: dropped", share("edge.race", -1), ALPHA, "alpha", "share"),
        row("on the margin: passed", share("edge.race", 1), ALPHA, "alpha", "share"),
    ]


def plot(found: dict[str, object], path: Path) -> None:
    """How many are still asked after n items, good and bad, as SVG."""
    width, height, left, bottom = 640, 300, 50, 40
    sizes = np.arange(0, 1001, 10)

    def x(n: float) -> float:
        return left + n / 1000 * (width - left - 20)

    def y(share: float) -> float:
        return height - bottom - share * (height - bottom - 20)

    lines = []
    for label, colour, text in (("good", "#1b7a3d", "as good as the incumbent"), ("bad", "#b3261e", "10 points worse")):
        asked = np.asarray(found[f"{label}.items"])
        shares = [float((asked > n).mean()) for n in sizes]
        points = " ".join(f"{x(n):.1f},{y(s):.1f}" for n, s in zip(sizes, shares, strict=True))
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>')
        place = 35 + 18 * len(lines)
        lines.append(f'<text x="{width - 230}" y="{place}" fill="{colour}">{text}</text>')
    proper = float(found["proper"])
    lines.append(f'<line x1="{x(proper):.1f}" x2="{x(proper):.1f}" y1="{y(0):.1f}" y2="{y(1):.1f}" stroke="#777" '
                 f'stroke-dasharray="4 4"/><text x="{x(proper) + 4:.1f}" y="{y(0.02):.1f}" fill="#555">properly sized: '
                 f"{proper:.0f}</text>")  # fmt: skip
    ticks = "".join(
        f'<text x="{x(n):.1f}" y="{height - 22}" text-anchor="middle">{n}</text>' for n in range(0, 1001, 200)
    ) + "".join(f'<text x="{left - 8}" y="{y(s) + 4:.1f}" text-anchor="end">{s:.0%}</text>' for s in (0, 0.5, 1.0))
    axes = (
        f'<line x1="{left}" x2="{width - 20}" y1="{y(0)}" y2="{y(0)}" stroke="#333"/>'
        f'<line x1="{left}" x2="{left}" y1="{y(0)}" y2="{y(1)}" stroke="#333"/>'
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{height}" fill="#fff"/>{axes}{ticks}{"".join(lines)}'
        f'<text x="{width / 2}" y="{height - 5}" text-anchor="middle">items answered</text>'
        f'<text x="{left}" y="14">candidates still asked</text></svg>\n',
        "utf-8",
    )


def main() -> None:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description="items saved by racing on planted populations, and errors bought")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--populations", type=int, default=1000)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    found = simulate(options.populations)
    rows = rows_of(found, options.populations)
    if options.plot:
        plot(found, options.plot)
    machine = {"python": platform.python_version(), "processor": platform.machine()}
    if options.json:
        print(json.dumps({"rows": rows, "machine": machine}, indent=2))
        return
    print(f"{'what':<44}{'race':>10}{'other':>10}{'ratio':>8}  against")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
        print(f"{row['what']:<44}{row['ours']:>10.4g}{row['peer']:>10.4g}{ratio:>8}  {row['peer_name']}")


if __name__ == "__main__":
    main()
