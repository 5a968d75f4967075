"""Breeding: how exact, how fast, how large. Figures of docs/breeding.md.

    python benchmarks/breeding.py                      all rows but those named with --peft and --large
    python benchmarks/breeding.py --peft               also PEFT's svd on all 24 layers (many minutes) and its cat
    python benchmarks/breeding.py --large              also a 7B-shaped set of 8 parents, 1.3 GB of files in --scratch
    python benchmarks/breeding.py --plot docs/breeding-growth.svg
    python benchmarks/breeding.py --quick --peft --large --plot FILE    every path on small shapes, in a minute
    python benchmarks/breeding.py --json               one object on stdout instead of a table in Markdown

Ours and the peer run in one process on one thread, one after the other, layer by layer, so that whatever else the
machine does meets both. Times of algebra are CPU seconds of that thread, times from files are a wall clock's. Parents
are Gaussian: timings do not depend on the values, errors are the worst of many draws.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from threadpoolctl import threadpool_limits

from ecology.backend.bases import known
from ecology.breeder.breed import Parent, breed
from ecology.breeder.linear import LinearOptions
from ecology.breeder.operators import OPERATORS
from ecology.breeder.svd import SvdOptions
from ecology.contracts.identity import CompatibilityIdentity
from ecology.kernel.canonical import digest
from ecology.lowrank.core import ParentSet
from ecology.lowrank.fingerprint import distance
from ecology.lowrank.lowrank import LowRank, total_norm
from ecology.pipeline.bench import preset
from ecology.store.adapters import write_adapter
from ecology.telemetry.environment import environment
from ecology.testing.operators import population, regauged

Shapes = dict[str, tuple[int, int]]

QWEN_05B: Shapes = {
    "q": (896, 896), "k": (128, 896), "v": (128, 896), "o": (896, 896),
    "gate": (4864, 896), "up": (4864, 896), "down": (896, 4864),
}  # fmt: skip
LLAMA_7B: Shapes = {
    "q": (4096, 4096), "k": (4096, 4096), "v": (4096, 4096), "o": (4096, 4096),
    "gate": (11008, 4096), "up": (11008, 4096), "down": (4096, 11008),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large the shapes are."""

    name: str
    shapes: Shapes
    layers: int
    large_name: str
    large: Shapes
    large_layers: int
    draws: int
    """Sets of parents for the errors."""
    runs: int
    """Of what is timed by the wall's clock."""
    axes: dict[str, tuple[int, ...]]
    """Of the growth plot."""


FULL = Sizes(
    "0.5B shape", QWEN_05B, 24, "7B shape", LLAMA_7B, 32, 20, 5,
    {"parents": (2, 4, 8, 16), "rank": (8, 16, 32, 64), "width": (512, 1024, 2048, 4096)},
)  # fmt: skip
_SMALL: Shapes = {name: (m // 16, n // 16) for name, (m, n) in LLAMA_7B.items()}
QUICK = Sizes(
    "small shape", _SMALL, 2, "small shape", _SMALL, 2, 2, 1,
    {"parents": (2, 3), "rank": (4, 8), "width": (64, 128)},
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]
IDENTITY = CompatibilityIdentity("bench", digest("w"), digest("a"), digest("t"), digest("s"))


@dataclasses.dataclass
class Row:
    """One figure, with the peer's where there is one."""

    what: str
    ours: float
    unit: str
    peer: float | None = None
    peer_name: str = ""
    samples: list[float] = dataclasses.field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Peer over ours."""
        return None if self.peer is None else self.peer / self.ours


def random_parents(shapes: Shapes, layers: int, parents: int, rank: int, seed: int = 0) -> list[LowRank]:
    """Gaussian parents, float32 values in fp64 arrays."""
    generator = np.random.Generator(np.random.PCG64(seed))

    def factor(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, np.float32).astype(np.float64) / 30

    return [
        LowRank.of(
            {f"l.{i}.{k}": (factor(m, rank), factor(rank, n)) for i in range(layers) for k, (m, n) in shapes.items()}
        )
        for _ in range(parents)
    ]


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of one call: on one thread what a wall clock would show on an idle machine."""
    start = time.process_time()
    call()
    return time.process_time() - start


def wall(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def svd_child(parents: Sequence[LowRank], weights: Sequence[float], rank: int = 16) -> LowRank:
    """One child by the svd operator."""
    return OPERATORS["svd"].function(parents, SvdOptions(rank, tuple(weights)), 0)


def errors(rows: list[Row], sizes: Sizes) -> None:
    """Worst relative errors over random sets of parents."""
    linear = OPERATORS["linear"].function
    worst = {"identity": 0.0, "gauge": 0.0, "linearity": 0.0, "dense fp64 oracle, child rounded to float32": 0.0}
    for seed in range(sizes.draws):
        parents = population(3, seed, ranks=(4, 2, 3), same_targets=seed % 2 == 0)
        generator = np.random.Generator(np.random.PCG64(seed))
        v, w = generator.uniform(-2, 2, (2, 3))

        def child(weights: Sequence[float], parents: Sequence[LowRank] = parents) -> LowRank:
            return linear(parents, LinearOptions(tuple(map(float, weights))), 0)

        base = child(v)
        size = total_norm(base)
        alone = linear(parents[:1], LinearOptions((1.0,)), 0)
        other = child(v, [regauged(p, seed + i) for i, p in enumerate(parents)])
        mixed = linear([child(v), child(w)], LinearOptions((2.0, -3.0)), 0)
        found = {
            "identity": distance(alone, parents[0]) / total_norm(parents[0]),
            "gauge": distance(other, base) / size,
            "linearity": distance(child(2 * v - 3 * w), mixed) / total_norm(mixed),
        }
        wrong, whole = 0.0, 0.0
        for name, f in base.modules.items():
            dense = sum(x * p.modules[name].dense() for x, p in zip(v, parents, strict=True) if name in p.modules)
            rounded = f.B.astype(np.float32).astype(np.float64) @ f.A.astype(np.float32).astype(np.float64)
            wrong, whole = wrong + np.sum((rounded - dense) ** 2), whole + np.sum(np.square(dense))
        found["dense fp64 oracle, child rounded to float32"] = float(np.sqrt(wrong / whole))
        worst = {key: max(value, found[key]) for key, value in worst.items()}
    rows += [Row(f"relative error: {key}", value, "of the norm") for key, value in worst.items()]


def speed(rows: list[Row], peft: bool, sizes: Sizes) -> None:
    """The Qwen2.5-0.5B shape: 24 layers of 7 modules, 4 parents of rank 16, a child of rank 16; parents in memory."""
    parents = random_parents(sizes.shapes, sizes.layers, 4, 16)
    generator = np.random.Generator(np.random.PCG64(1))

    def ours() -> tuple[float, list[float]]:
        kept = ParentSet(parents)
        first = seconds(lambda: svd_child(kept, generator.random(4)))
        return first, [seconds(lambda: svd_child(kept, generator.random(4))) for _ in range(5)]

    firsts, nexts, theirs = [], [], []
    for layer in range(sizes.layers):
        if layer % max(1, sizes.layers // 4) == 0:
            first, more = ours()
            firsts.append(first)
            nexts += more
        if peft:
            theirs.append(peft_layer(parents, sizes.shapes, layer))
            print(f"peft svd, layer {layer + 1} of {sizes.layers}: {theirs[-1]:.1f} s", file=sys.stderr)
    peer, name = (sum(theirs), "PEFT svd, add_weighted_adapter") if peft else (None, "")
    shape = f"{sizes.name}, {sizes.layers} layers, 4 parents, rank 16 to 16, one thread"
    rows.append(Row(f"first child, {shape}", float(np.median(firsts)), "s", peer, name, firsts))
    rows.append(Row(f"further child, {shape}", float(np.median(nexts)), "s", peer, name, nexts))


def bare_model(shapes: Shapes, layers: Sequence[int]) -> Any:
    """Linear layers of the right shapes; their weights are never touched, so they cost no memory."""
    import torch

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, (m, n) in shapes.items():
                linear = torch.nn.Linear(1, 1, bias=False)
                linear.in_features, linear.out_features = n, m
                linear.weight = torch.nn.Parameter(torch.empty(m, n), requires_grad=False)
                setattr(self, name, linear)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = torch.nn.ModuleDict({str(i): Layer() for i in layers})

        def prepare_inputs_for_generation(self) -> None:
            """PEFT asks every causal language model for it."""

    return Model()


def peft_model(parents: Sequence[LowRank], shapes: Shapes, layers: Sequence[int], rank: int) -> Any:
    """A real PEFT model with the parents loaded."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = None
    for i, parent in enumerate(parents):
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(shapes), init_lora_weights=False)
        if model is None:
            model = get_peft_model(bare_model(shapes, layers), config, "p0")
        else:
            model.add_adapter(f"p{i}", config)
        for layer in layers:
            for name in shapes:
                module = getattr(model.base_model.model.l[str(layer)], name)
                factors = parent.modules[f"l.{layer}.{name}"]
                module.lora_B[f"p{i}"].weight.data = torch.tensor(factors.B, dtype=torch.float32)
                module.lora_A[f"p{i}"].weight.data = torch.tensor(factors.A, dtype=torch.float32)
    return model


def peft_layer(parents: Sequence[LowRank], shapes: Shapes, layer: int) -> float:
    """Seconds of PEFT's svd merge of one layer."""
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft_model(parents, shapes, [layer], 16)
        names = [f"p{i}" for i in range(len(parents))]
        return seconds(
            lambda: model.add_weighted_adapter(
                names, [0.4, 0.3, 0.2, 0.1], "child", combination_type="svd", svd_rank=16
            )
        )


def files(parents: Sequence[LowRank], scratch: Path) -> list[Parent]:
    """Parents as PEFT folders."""
    made = []
    for i, parent in enumerate(parents):
        folder = scratch / f"p{i}"
        modules = {name: (f.B, f.A) for name, f in parent.modules.items()}
        artifact = write_adapter(folder, modules, "bench", IDENTITY.base_weights)
        made.append(Parent(folder.name, folder, artifact, None, IDENTITY))
    return made


def end_to_end(rows: list[Row], scratch: Path, sizes: Sizes) -> None:
    """From four folders to one: ours with digests, genome and fsync; PEFT's cat with the base in memory already."""
    import torch
    from peft import PeftModel

    torch.set_num_threads(1)
    parents = files(random_parents(sizes.shapes, sizes.layers, 4, 16), scratch)
    weights = [0.4, 0.3, 0.2, 0.1]
    ours, theirs = [], []
    for i in range(sizes.runs):
        out = scratch / f"ours{i}"
        ours.append(wall(lambda out=out: breed("linear", {"weights": weights}, parents, out, 0, {})))

        def peft(out: Path, bare: Any) -> None:
            model = PeftModel.from_pretrained(bare, str(parents[0].folder), adapter_name="p0")
            for parent in parents[1:]:
                model.load_adapter(str(parent.folder), adapter_name=parent.name)
            model.add_weighted_adapter([p.name for p in parents], weights, "child", combination_type="cat")
            model.save_pretrained(str(out), selected_adapters=["child"])

        bare = bare_model(sizes.shapes, range(sizes.layers))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs.append(wall(lambda i=i, bare=bare: peft(scratch / f"peft{i}", bare)))
    name = "PEFT load_adapter, cat, save_pretrained"
    rows.append(
        Row(
            f"end to end from files, {sizes.name}, exact sum of 4 parents, wall, base not counted",
            float(np.median(ours)), "s", float(np.median(theirs)), name, ours,
        )
    )  # fmt: skip


PEER_START = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from peft import PeftModel
a, b, out = sys.argv[1:]

class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(576, 576, bias=False)
        self.v_proj = torch.nn.Linear(576, 192, bias=False)

class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = Attention()

class Base(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Module()
        self.model.layers = torch.nn.ModuleList([Layer() for _ in range(4)])
    def prepare_inputs_for_generation(self):
        pass

model = PeftModel.from_pretrained(Base(), a, adapter_name="a")
model.load_adapter(b, adapter_name="b")
model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "child", combination_type="cat")
model.save_pretrained(out, selected_adapters=["child"])
"""
"""The least that merges two adapters with PEFT: a bare model with the layers that they change, and no weights read."""


def start(rows: list[Row], scratch: Path, peft: bool, sizes: Sizes) -> None:
    """The whole command, a process of its own, on two small adapters of the default base."""
    base = known(preset("smollm2-135m"), scratch / "nowhere")
    if base is None:
        raise RuntimeError("the default base is not described in the package")
    kinds: Shapes = {"q_proj": (576, 576), "v_proj": (192, 576)}
    modules = {f"model.layers.{i}.self_attn.{kind}": shape for i in range(4) for kind, shape in kinds.items()}
    folders = []
    for seed, name in enumerate("ab"):
        generator = np.random.Generator(np.random.PCG64(seed))
        pairs = {n: (generator.normal(size=(m, 8)), generator.normal(size=(8, k))) for n, (m, k) in modules.items()}
        write_adapter(scratch / name, pairs, "smollm2-135m", base.identity.base_weights)
        folders.append(str(scratch / name))
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables |= {"PYTHONPATH": str(ROOT), "ECOLOGY_HOME": str(scratch / "home"), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> tuple[float, float]:
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, env=variables)
        took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    command = ("-m", "ecology", "breed", "linear", *folders, "weights=[0.5,0.5]", "--out")
    ours, theirs = [], []
    for i in range(sizes.runs + 1):  # the first run compiles what is imported
        ours.append(run(*command, str(scratch / f"ours-start{i}")))
        if peft:
            theirs.append(run("-c", PEER_START, *folders, str(scratch / f"peft-start{i}")))
    name = "a minimal PEFT script, cat" if peft else ""
    for what, column in (("wall", 0), ("CPU", 1)):
        mine, peer = ([one[column] for one in times[1:]] for times in (ours, theirs))
        said = f"`ecology breed linear`, the whole command, 2 small adapters, {what}"
        rows.append(Row(said, float(np.median(mine)), "s", float(np.median(peer)) if peer else None, name, mine))


LARGE = """
import json, resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from breeding import IDENTITY, Parent, breed
from ecology.store.adapters import describe
folders = sorted(Path(sys.argv[1]).glob("p*"))
parents = [Parent(f.name, f, describe(f), None, IDENTITY) for f in folders]
start = time.perf_counter()
breed("svd", {"rank": 16}, parents, Path(sys.argv[1]) / "child", 0, {})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([time.perf_counter() - start, peak]))
"""


def large(rows: list[Row], scratch: Path, sizes: Sizes) -> None:
    """The 7B shape: 32 layers of 7 modules, 8 parents of rank 16, from files to a file, in a process of its own."""
    size = 0
    for i in range(8):
        (parent,) = random_parents(sizes.large, sizes.large_layers, 1, 16, seed=i)
        folder = scratch / f"p{i}"
        write_adapter(folder, {n: (f.B, f.A) for n, f in parent.modules.items()}, "bench", IDENTITY.base_weights)
        size += sum(file.stat().st_size for file in folder.iterdir())
        del parent
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(scratch), str(Path(__file__).parent)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    took, peak = json.loads(done.stdout)
    rows.append(Row(f"one child, {sizes.large_name}, 8 parents, rank 16 to 16, from files to a file, wall", took, "s"))
    rows.append(Row("its peak memory over the size of the parents' files", peak / size, f"of {size / 1e9:.2f} GB"))


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


def main() -> None:
    """Runs what was asked for and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peft", action="store_true", help="also PEFT's svd on all 24 layers, and its cat from files")
    parser.add_argument("--large", action="store_true", help="also the 7B shape")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also the growth plot, as SVG")
    parser.add_argument("--quick", action="store_true", help="small shapes: whether everything runs, no figures")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="for files; default: the system's")
    options = parser.parse_args()
    rows: list[Row] = []
    sizes = QUICK if options.quick else FULL
    with threadpool_limits(1), tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        errors(rows, sizes)
        start(rows, Path(scratch), options.peft, sizes)
        speed(rows, options.peft, sizes)
        if options.peft:
            end_to_end(rows, Path(scratch), sizes)
        if options.plot:
            plot(growth(sizes.axes), options.plot)
    if options.large:
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            large(rows, Path(scratch), sizes)
    if options.json:
        said = [{**dataclasses.asdict(row), "ratio": row.ratio} for row in rows]
        print(json.dumps({"rows": said, "machine": dict(environment(1))}))
        return
    print("| what | ours | peer | ratio |\n|---|---|---|---|")
    for row in rows:
        value = f"{row.ours:.0e}" if row.ours < 1e-3 else f"{row.ours:.3g}"
        spread = f" ({min(row.samples):.3g} to {max(row.samples):.3g})" if row.samples else ""
        theirs = f"{row.peer:.4g} {row.unit}, {row.peer_name}" if row.peer else ""
        print(f"| {row.what} | {value} {row.unit}{spread} | {theirs} | {f'{row.ratio:.3g}' if row.ratio else ''} |")
    print(
        f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
