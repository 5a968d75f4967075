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
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from breeding_growth import growth, plot
from breeding_peers import PEER_START, bare_model, peft_layer
from breeding_shapes import FULL, QUICK, Shapes, Sizes, random_parents, seconds, svd_child, wall
from threadpoolctl import threadpool_limits

from ecology.backend.bases import known
from ecology.breeder.breed import Parent, breed
from ecology.breeder.linear import LinearOptions
from ecology.breeder.operators import OPERATORS
from ecology.contracts.artifact import WEIGHTS_FILE
from ecology.contracts.identity import CompatibilityIdentity
from ecology.kernel.canonical import digest
from ecology.lowrank.core import ParentSet
from ecology.lowrank.fingerprint import distance
from ecology.lowrank.lowrank import LowRank, total_norm
from ecology.pipeline.bench import preset
from ecology.store.adapters import write_adapter
from ecology.store.header import read_header
from ecology.store.mapped import load_tensor
from ecology.telemetry.environment import environment
from ecology.testing.operators import population, regauged

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
    folders = [scratch / f"p{i}" for i in range(8)]
    for i, folder in enumerate(folders):
        (parent,) = random_parents(sizes.large, sizes.large_layers, 1, 16, seed=i)
        write_adapter(folder, {n: (f.B, f.A) for n, f in parent.modules.items()}, "bench", IDENTITY.base_weights)
        del parent
    for kind in ("float32", "bfloat16"):
        if kind == "bfloat16":
            for folder in folders:
                narrow(folder / WEIGHTS_FILE)
            shutil.rmtree(scratch / "child")
        size = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
        done = subprocess.run(
            [sys.executable, "-c", LARGE, str(scratch), str(Path(__file__).parent)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        took, peak = json.loads(done.stdout)
        what = f"{sizes.large_name}, 8 {kind} parents, rank 16 to 16, from files to a file"
        rows.append(Row(f"one child, {what}, wall, one thread", took, "s"))
        said = f"of {size / 1e9:.2f} GB, which is {peak / 1e9:.2f} GB"
        rows.append(Row(f"its peak memory over the size of the {kind} parents' files", peak / size, said))


def narrow(weights: Path) -> None:
    """Cuts a float32 safetensors file down to bfloat16, the upper halves of its numbers."""
    header = read_header(weights)
    table: dict[str, Any] = {"__metadata__": dict(header.metadata)}
    parts: list[bytes] = []
    end = 0
    for name, info in header.tensors.items():
        bits = np.ascontiguousarray(load_tensor(weights, header, name)).view(np.uint32) >> np.uint32(16)
        parts.append(bits.astype("<u2").tobytes())
        start, end = end, end + len(parts[-1])
        table[name] = {"dtype": "BF16", "shape": info.shape, "data_offsets": [start, end]}
    head = json.dumps(table).encode()
    weights.write_bytes(b"".join([len(head).to_bytes(8, "little"), head, *parts]))


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
