"""What evaluation costs: ours against lm-evaluation-harness on one base, in one run.

    python benchmarks/evaluation.py [--json] [--items 32] [--adapters 8] [--plots docs/figures]

Both get the same requests on the same weights in fp32. The peer is lm-eval's ``hf`` model with ``peft=``, given one
adapter, since one is what it takes, and as many threads as are faster on a small sample. Times are without start-up
unless a row says so. Adapters are random factors of rank 8 in five modules of every layer, so nothing is shared between
them below a first adapted layer; what that sharing adds is a row of its own.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecology.backend.bases import BaseModel
from ecology.evaluator.lmeval_run import EngineLM
from ecology.evaluator.suites import items, load_suite
from ecology.pipeline.bench import fetch_base
from ecology.pipeline.house import open_house
from ecology.pipeline.places import shared
from ecology.report.draw import Scale, picture, tag
from ecology.runtime.engine import TransformersEngine
from ecology.runtime.kernels import lay_out
from ecology.store.adapters import write_adapter
from ecology.telemetry.memory import peak_memory_bytes
from ecology.telemetry.progress import SilentProgress

MODULES = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
CLOCK: list[Callable[[], float]] = [time.perf_counter]
"""What times are taken with: the wall's clock, or the process's own."""
SHOTS = 5
PREFIX = 384
"""Tokens that the worked examples have at least."""
NEW_TOKENS = 16
SYSTEM = (
    "You answer questions for the visitors of a small museum of everyday things. Be brief and friendly. Say what is "
    "known and nothing that is not. The museum has three floors: kitchens and food on the first, work and tools on the "
    "second, games and music on the third. It is open from ten to six, on Thursdays to nine, and closed on Mondays. "
    "Entry costs eight coins, four for children; members pay nothing. Dogs may wait in the yard, there is water. "
    "The shop sells copies of the older posters. If somebody asks for the way, name the floor and then the room. "
    "If somebody is rude, stay kind. If a question has nothing to do with the museum, answer it in one sentence and "
    "go back to the subject. Never promise a refund. Never name a member of staff. Write plain sentences, no lists."
)


def main() -> None:
    """Runs the rows that were asked for and prints them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--plots", type=Path, help="where to write the cost curves; left out, they are not measured")
    parser.add_argument(
        "--cpu", action="store_true", help="one thread each, CPU seconds: for a machine that others use"
    )
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--probe", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.cpu:
        CLOCK[0], asked.threads = time.process_time, 1
    base = fetch_base("smollm2-135m", open_house(quiet=True))
    with tempfile.TemporaryDirectory() as scratch:
        folders = [adapter(base, Path(scratch) / f"a{n}", seed=n) for n in range(max(asked.adapters, asked.probe or 0))]
        if asked.probe:
            print(probe(base, folders[: asked.probe], asked.threads))
            return
        rows = compare(base, folders[: asked.adapters], asked.items, asked.threads)
        rows += [] if asked.skip_memory else [memory(asked.threads)]
        if asked.plots:
            plots(base, Path(scratch), asked.threads, asked.plots)
    machine = {"cores": os.cpu_count(), "torch": torch.__version__, "load": os.getloadavg()[0]}
    machine["clock"] = "CPU seconds, one thread" if asked.cpu else "wall"
    if asked.json:
        print(json.dumps({"rows": rows, "machine": machine}, indent=1))
        return
    for row in rows:
        print(f"{row['what']:<66} {row['ours']:>9.4g} {row['peer']:>9.4g} {row['ratio']:>7.2f}x  {row['unit']}")


def adapter(base: BaseModel, folder: Path, seed: int, first_layer: int = 0, rank: int = 8) -> Path:
    """A folder with random factors in the base's layers from ``first_layer`` on."""
    random = np.random.Generator(np.random.PCG64(seed))
    factors = {}
    for name, shape in base.tensor_schema.items():
        module = name.removesuffix(".weight")
        parts = module.split(".")
        if module.endswith(MODULES) and int(parts[2]) >= first_layer:
            rows, columns = shape
            factors[module] = (
                random.standard_normal((rows, rank)).astype(np.float32) * 0.02,
                random.standard_normal((rank, columns)).astype(np.float32) * 0.02,
            )
    write_adapter(folder, factors, base.name, base.identity.base_weights)
    return folder


def requests(engine: TransformersEngine, count: int, shots: int) -> list[tuple[str, str]]:
    """(context, answer) of ``count`` questions with all their answers, behind worked examples in each context."""
    suite = load_suite(shared("suites") / "general")
    some = items(suite, "public", None, count + 16)
    solved = [f"Question: {i.prompt}\nAnswer: {i.choices[int(i.answer)]}\n\n" for i in some]
    prefix = ""
    for example in itertools.islice(itertools.cycle(solved[:16]), 0, 64):
        if shots and len(engine.encode_raw(prefix)) >= PREFIX and prefix.count("Question:") >= shots:
            break
        prefix += example if shots else ""
    # the answers are made longer than a token, as those of most stock tasks are
    return [
        (f"{prefix}Question: {i.prompt}\nAnswer:", f" The answer is {choice}")
        for i in some[16:]
        for choice in i.choices
    ]


class Ask:
    """What both sides take for a request of lm-eval."""

    def __init__(self, *args: Any) -> None:
        """Keeps the arguments."""
        self.args = args


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    start = CLOCK[0]()
    found = work()
    return CLOCK[0]() - start, found


Work = Callable[[Any], Any]


def compare(base: BaseModel, folders: Sequence[Path], count: int, threads: int) -> list[dict[str, Any]]:
    """The rows against lm-eval."""
    start_ours, engine = timed(lambda: TransformersEngine(base, threads=threads))
    few, zero = requests(engine, count, SHOTS), requests(engine, count, 0)
    some = items(load_suite(shared("suites") / "general"), "public", None, count)
    turn = "<|im_start|>{}\n{}<|im_end|>\n"
    chats = [turn.format("system", SYSTEM) + turn.format("user", i.prompt) + "<|im_start|>assistant\n" for i in some]
    settings = {"until": [], "max_gen_toks": NEW_TOKENS, "do_sample": False}
    works: dict[str, Work] = {
        "few": lambda model: model.loglikelihood([Ask(*pair) for pair in few], disable_tqdm=True),
        "zero": lambda model: model.loglikelihood([Ask(*pair) for pair in zero], disable_tqdm=True),
        "chat": lambda model: model.generate_until([Ask(text, dict(settings)) for text in chats], disable_tqdm=True),
    }
    ours = {name: _each(engine, folders, work) for name, work in works.items()}
    read = len(engine.encode_raw(few[0][0][: few[0][0].rindex("Question:")]))
    rate, product = speed(engine, zero), machine_rate(threads)
    del engine
    gc.collect()
    start_peer, (peer, peer_threads) = timed(lambda: _peer(base, folders[0], few[:8], threads))
    theirs = {name: timed(functools.partial(work, peer)) for name, work in works.items()}
    apart = {
        name: max(abs(a[0] - b[0]) for a, b in zip(ours[name][1], theirs[name][1], strict=True))
        for name in ("few", "zero")
    }
    same = sum(a == b for a, b in zip(ours["chat"][1], theirs["chat"][1], strict=True)) / count

    def row(what: str, mine: float, its: float, **more: Any) -> dict[str, Any]:
        name = f"lm-eval hf peft=, threads {peer_threads}"
        named = {"peer_name": name, "ratio": its / mine, "unit": "s per adapter", "samples": count}
        return {"what": what, "ours": mine, "peer": its, **named, **more}

    first = f"{SHOTS} or more examples, {read} shared tokens, multiple choice"
    started = ours["few"][0] + start_ours / len(folders), theirs["few"][0] + start_peer
    return [
        row(first, ours["few"][0], theirs["few"][0], largest_difference_nats=apart["few"]),
        row("the same with start-up", *started),
        row("no examples, multiple choice", ours["zero"][0], theirs["zero"][0], largest_difference_nats=apart["zero"]),
        row(f"{NEW_TOKENS} tokens behind a shared system prompt", ours["chat"][0], theirs["chat"][0], same_text=same),
        {
            "what": "floating-point rate of scoring, and that of a large product",
            "ours": rate / 1e9,
            "peer": product / 1e9,
            "peer_name": f"1024 x 576 x 1536 products, one a core, {threads} cores",
            "ratio": rate / product,
            "unit": "GFLOP/s",
            "samples": 1,
        },
    ]


def _each(engine: TransformersEngine, folders: Sequence[Path], work: Work) -> tuple[float, Any]:
    """Mean seconds an adapter, and what the first adapter answered, which is the one that the peer has too."""
    lm = EngineLM(engine, SilentProgress())
    start = CLOCK[0]()
    found = [_attached(engine, folder, functools.partial(work, lm)) for folder in folders]
    return (CLOCK[0]() - start) / len(folders), found[0]


def _attached(engine: TransformersEngine, folder: Path, work: Callable[[], Any]) -> Any:
    with engine.attach(folder):
        return work()


def _peer(base: BaseModel, folder: Path, sample: Sequence[tuple[str, str]], threads: int) -> tuple[Any, int]:
    """lm-eval's model with one adapter, and the number of threads that is faster."""
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(base.folder), peft=str(folder), dtype="float32", batch_size=8, device="cpu")
    times = {}
    for some in sorted({1, threads}):
        torch.set_num_threads(some)
        times[some] = timed(lambda: model.loglikelihood([Ask(*pair) for pair in sample], disable_tqdm=True))[0]
    best = min(times, key=lambda some: times[some])
    torch.set_num_threads(best)
    return model, best


def speed(engine: TransformersEngine, pairs: Sequence[tuple[str, str]]) -> float:
    """FLOP/s of scoring, counting 2 a weight and token that was needed, padding and attention left out."""
    weights = sum(p.numel() for n, p in engine.model.named_parameters() if "embed" not in n)
    head = engine.model.get_output_embeddings().weight.numel()
    contexts = {context for context, _ in pairs}
    answers = sum(len(engine.encode_raw(answer)) for _, answer in pairs)
    tokens = sum(len(engine.encode_raw(context)) for context in contexts) + answers
    lm = EngineLM(engine, SilentProgress())
    seconds, _ = timed(lambda: lm.loglikelihood([Ask(*pair) for pair in pairs], disable_tqdm=True))
    return 2.0 * (weights * tokens + head * (answers + len(contexts))) / seconds


def machine_rate(threads: int, seconds: float = 1.0) -> float:
    """FLOP/s of a large product with laid-out weights on every core at once."""
    torch.set_num_threads(1)
    x, weight = torch.randn(1024, 576), lay_out(torch.randn(1536, 576))
    done = [0.0] * threads

    def burn(place: int) -> None:
        start, count = CLOCK[0](), 0
        with torch.inference_mode():
            while CLOCK[0]() - start < seconds:
                torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
                count += 1
        done[place] = count * 2.0 * 1024 * 576 * 1536 / (CLOCK[0]() - start)

    workers = [threading.Thread(target=burn, args=(place,)) for place in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done)


def probe(base: BaseModel, folders: Sequence[Path], threads: int) -> int:
    """Peak bytes of a process that asks eight questions of each adapter."""
    engine = TransformersEngine(base, threads=threads)
    lm = EngineLM(engine, SilentProgress())
    pairs = requests(engine, 8, 0)
    for folder in folders:
        _attached(engine, folder, lambda: lm.loglikelihood([Ask(*pair) for pair in pairs], disable_tqdm=True))
    return peak_memory_bytes()


def memory(threads: int) -> dict[str, Any]:
    """Peak memory with sixteen adapters over that with one, each in a process of its own."""
    peaks = {}
    for count in (1, 16):
        command = [sys.executable, __file__, "--probe", str(count), "--threads", str(threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[count] = int(done.stdout.split()[-1])
    return {
        "what": "peak memory, 16 adapters (ours) and 1 adapter (peer column)",
        "ours": peaks[16] / 1e6,
        "peer": peaks[1] / 1e6,
        "peer_name": "ours with one adapter",
        "ratio": peaks[16] / peaks[1],
        "unit": "MB (here less is better)",
        "samples": 1,
    }


def plots(base: BaseModel, scratch: Path, threads: int, folder: Path) -> None:
    """Seconds against candidates, items, and length of the shared prefix; the points go beside the picture as JSON."""
    upper = [adapter(base, scratch / f"u{n}", seed=100 + n, first_layer=20) for n in range(8)]
    whole = [adapter(base, scratch / "whole", seed=99)]
    engine = TransformersEngine(base, threads=threads)
    lm = EngineLM(engine, SilentProgress())

    def cost(folders: Sequence[Path], some: Sequence[tuple[str, str]]) -> float:
        start = CLOCK[0]()
        for one in folders:
            _attached(engine, one, lambda: lm.loglikelihood([Ask(*pair) for pair in some], disable_tqdm=True))
        return CLOCK[0]() - start

    pairs = requests(engine, 8, 0)
    text = engine.encode_raw(requests(engine, 1, SHOTS)[0][0])
    behind = {n: [(engine.decode(text[:n]) + context, answer) for context, answer in pairs] for n in (0, 128, 256, 384)}
    curves = {
        "items": {n: cost(whole, requests(engine, n, 0)) for n in (4, 8, 16, 32)},
        "tokens of shared prefix": {n: cost(whole, some) for n, some in behind.items()},
        "candidates, the last 10 of 30 layers adapted": {},
    }
    total = 0.0
    for place, one in enumerate(upper, 1):  # one after the other, as a run does: the second finds what the first read
        total += cost([one], pairs)
        curves["candidates, the last 10 of 30 layers adapted"][place] = total
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation-cost.json").write_text(json.dumps(curves, indent=1) + "\n")
    (folder / "evaluation-cost.svg").write_text(drawn(curves) + "\n")


def drawn(curves: Mapping[str, Mapping[int, float]]) -> str:
    """Three small diagrams side by side."""
    parts = []
    for place, (what, points) in enumerate(curves.items()):
        left = 45 + 300 * place
        x = Scale(0, max(points), left, left + 230)
        y = Scale(0, max(points.values()), 150, 20)
        line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points.items())
        parts += [
            tag("path", d=f"M{left} 15V150H{left + 235}", fill="none", stroke="currentColor"),
            tag("polyline", points=line, fill="none", stroke="#2563eb", stroke_width=2.0),
            *(tag("circle", cx=x(a), cy=y(b), r=3.0, fill="#2563eb") for a, b in points.items()),
            *(tag("text", str(a), x=x(a), y=164.0, font_size=10, text_anchor="middle") for a in points),
            tag("text", f"{max(points.values()):.1f} s", x=left - 4.0, y=18.0, font_size=10, text_anchor="end"),
            tag("text", what, x=left + 115.0, y=182.0, font_size=11, text_anchor="middle"),
        ]
    return str(picture(930, 190, "Seconds of evaluation", *parts))


if __name__ == "__main__":
    main()
