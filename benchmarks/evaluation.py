"""What evaluation costs: ours against lm-evaluation-harness on one base, in one run.

    python benchmarks/evaluation.py --items 32 --adapters 8 --plots docs     everything; some minutes on an idle machine
    python benchmarks/evaluation.py --cpu --items 4 --adapters 2 --only zero a few rows on a machine that others use

Both get the same requests on the same weights in fp32, in one process, one after the other, row by row. The peer is
lm-eval's ``hf`` model with ``peft=``, given one adapter, since one is what it takes, and as many threads and as large
batches as are fastest on a small sample. Times are without start-up unless a row says so. Adapters are random factors
of rank 8 in five modules of every layer, so nothing is shared between them below a first adapted layer; what that
sharing adds is a plot of its own.

Each row is written down when it is done, so a run that was interrupted goes on where it was; a finished run forgets its
notes, and the next one measures again. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
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
from ecology.kernel.canonical import digest
from ecology.pipeline.bench import fetch_base
from ecology.pipeline.house import open_house
from ecology.pipeline.places import shared
from ecology.report.draw import Scale, picture, tag
from ecology.runtime.engine import POLICY, TransformersEngine
from ecology.runtime.kernels import bfloat16_helps, lay_out
from ecology.runtime.packing import Question, fill_rows
from ecology.runtime.prefix import common
from ecology.store.adapters import read_adapter, write_adapter
from ecology.store.files import write_atomic
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
    parser.add_argument("--only", nargs="+", choices=[*ROWS], help="these rows alone")
    parser.add_argument("--fresh", action="store_true", help="forget what an interrupted run has measured")
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
        bench = Bench(base, Path(scratch), folders, asked.items, asked.threads, asked.plots)
        names = [name for name in asked.only or ROWS if name != "plots" or asked.plots]
        said = [base.identity.base_weights, POLICY, torch.__version__, asked.items, asked.adapters, asked.threads]
        rows = measured(bench, names, Notes(digest([*said, asked.cpu]), asked.fresh))
    machine = {"cores": os.cpu_count(), "torch": torch.__version__, "load": os.getloadavg()[0]}
    machine["clock"] = "CPU seconds, one thread" if asked.cpu else "wall"
    if asked.json:
        print(json.dumps({"rows": rows, "machine": machine}, indent=1))
        return
    for row in rows:
        print(
            f"{row['what']:<66} {row['ours']:>9.4g} {row['peer']:>9.4g} {row['ratio']:>7.2f}x  {row['unit']}"
            f"  {row.get('remark', '')}"
        )


class Notes:
    """Rows that are done, in a file beside the other temporary ones, for a run that is started again."""

    def __init__(self, key: str, fresh: bool) -> None:
        """Finds what an earlier run of the same settings has left."""
        self._file = Path(tempfile.gettempdir()) / f"ecology-benchmark-{key.removeprefix('sha256:')[:12]}.json"
        if fresh:
            self._file.unlink(missing_ok=True)
        self.rows: dict[str, list[Row]] = json.loads(self._file.read_text()) if self._file.exists() else {}

    def keep(self, name: str, rows: list[Row]) -> None:
        """Writes a row down at once."""
        self.rows[name] = rows
        write_atomic(self._file, json.dumps(self.rows).encode())

    def forget(self) -> None:
        """Everything is done."""
        self._file.unlink(missing_ok=True)


def measured(bench: Bench, names: Sequence[str], notes: Notes) -> list[Row]:
    """The rows, from the notes where an interrupted run has measured them."""
    start = time.monotonic()
    for place, name in enumerate(names, 1):
        known = name in notes.rows
        print(
            f"[{time.monotonic() - start:6.0f} s] {place} of {len(names)}: {name}{', kept' if known else ''}",
            file=sys.stderr,
            flush=True,
        )
        if not known:
            notes.keep(name, ROWS[name](bench))
    notes.forget()
    return [row for name in names for row in notes.rows[name]]


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


def unlike(count: int) -> list[tuple[str, str]]:
    """(context, answer) of questions whose answers of some tokens begin with nothing in common."""
    some = items(load_suite(shared("suites") / "intents"), "public", None, count)
    return [(f"Question: {i.prompt}\nAnswer:", f" {choice}") for i in some for choice in i.choices]


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
Row = dict[str, Any]


@dataclasses.dataclass
class Bench:
    """Both sides, each started when it is first needed."""

    base: BaseModel
    scratch: Path
    folders: Sequence[Path]
    count: int
    threads: int
    plots: Path | None
    start_ours: float = 0.0
    start_peer: float = 0.0
    peer_name: str = ""

    @functools.cached_property
    def engine(self) -> TransformersEngine:
        """Ours."""
        self.start_ours, engine = timed(lambda: TransformersEngine(self.base, threads=self.threads))
        return engine

    @functools.cached_property
    def peer(self) -> tuple[Any, int]:
        """lm-eval's model with one adapter, and its threads."""
        self.start_peer, model = timed(lambda: _peer(self.base, self.folders[0]))
        sample = [Ask(*pair) for pair in requests(self.engine, 8, 0)]
        times = {}
        for threads, batch in itertools.product(sorted({1, self.threads}), (8, 32)):
            torch.set_num_threads(threads)
            model.batch_size_per_gpu = batch
            times[threads, batch] = timed(functools.partial(model.loglikelihood, sample, disable_tqdm=True))[0]
        threads, model.batch_size_per_gpu = min(times, key=lambda one: times[one])
        self.peer_name = f"lm-eval hf peft=, {threads} threads, batches of {model.batch_size_per_gpu}"
        return model, threads

    def ours(self, work: Work) -> tuple[list[float], Any]:
        """Seconds of each adapter, put on and taken off; and what the first answered, which the peer has too."""
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        lm, seconds, answers = EngineLM(self.engine, SilentProgress()), [], []
        for folder in self.folders:
            taken, found = timed(lambda: _attached(self.engine, folder, functools.partial(work, lm)))  # noqa: B023
            seconds.append(taken)
            answers.append(found)
        return seconds, answers[0]

    def theirs(self, work: Work) -> tuple[float, Any]:
        """Seconds of the one adapter that the peer has, and its answers."""
        model, threads = self.peer
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
        return timed(functools.partial(work, model))

    def compare(self, what: str, work: Work, repeats: int = 1) -> tuple[Row, Any, Any]:
        """One row: our mean and the peer's median of some repeats, ours before and after each of them.

        Returns:
            The row, and the answers of both.
        """
        _ = self.engine, self.peer  # started before anything is timed
        mine: list[float] = []
        its: list[float] = []
        for _ in range(repeats):
            seconds, ours = self.ours(work)
            mine += seconds
            taken, theirs = self.theirs(work)
            its.append(taken)
        mean, median = float(np.mean(mine)), float(np.median(its))
        row: Row = {
            "what": what,
            "ours": mean,
            "peer": median,
            "ratio": median / mean,
            "unit": "s per adapter",
            "peer_name": self.peer_name,
            "samples": self.count,
            "ours_range": [min(mine), max(mine)],
            "peer_range": [min(its), max(its)],
        }
        return row, ours, theirs


def likelihoods(pairs: Sequence[tuple[str, str]]) -> Work:
    """What both sides are given to score."""
    return lambda model: model.loglikelihood([Ask(*pair) for pair in pairs], disable_tqdm=True)


def apart(ours: Any, theirs: Any) -> float:
    """Largest difference of log-likelihoods, nats."""
    return max(abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True))


def few(bench: Bench) -> list[Row]:
    """Worked examples before each question; with and without start-up."""
    pairs = requests(bench.engine, bench.count, SHOTS)
    read = len(bench.engine.encode_raw(pairs[0][0][: pairs[0][0].rindex("Question:")]))
    what = f"{SHOTS} or more examples, {read} shared tokens, multiple choice"
    row, ours, theirs = bench.compare(what, likelihoods(pairs))
    row["largest_difference_nats"] = apart(ours, theirs)
    row["remark"] = f"apart by {row['largest_difference_nats']:.1e} nats"
    both = row["ours"] + bench.start_ours / len(bench.folders), row["peer"] + bench.start_peer
    started = {**row, "what": "the same with start-up", "ours": both[0], "peer": both[1], "ratio": both[1] / both[0]}
    return [row, started]


def zero(bench: Bench) -> list[Row]:
    """No worked examples: answers that begin alike, and answers that have nothing in common."""
    rows = []
    for what, pairs in (
        ("no examples, answers of 4 or more tokens", requests(bench.engine, bench.count, 0)),
        ("no examples, answers that begin differently", unlike(bench.count)),
    ):
        tokens = len(bench.engine.encode_raw("".join(answer for _, answer in pairs))) / len(pairs)
        row, ours, theirs = bench.compare(what, likelihoods(pairs), repeats=3)
        row["largest_difference_nats"] = apart(ours, theirs)
        row["remark"] = f"apart by {row['largest_difference_nats']:.1e} nats, {tokens:.1f} tokens an answer"
        rows.append(row)
    return rows


def chat(bench: Bench) -> list[Row]:
    """Replies behind one system prompt."""
    some = items(load_suite(shared("suites") / "general"), "public", None, bench.count)
    turn = "<|im_start|>{}\n{}<|im_end|>\n"
    chats = [turn.format("system", SYSTEM) + turn.format("user", i.prompt) + "<|im_start|>assistant\n" for i in some]
    settings = {"until": [], "max_gen_toks": NEW_TOKENS, "do_sample": False}
    row, ours, theirs = bench.compare(
        f"{NEW_TOKENS} tokens behind a shared system prompt",
        lambda model: model.generate_until([Ask(text, dict(settings)) for text in chats], disable_tqdm=True),
    )
    row["same_text"] = sum(a == b for a, b in zip(ours, theirs, strict=True)) / bench.count
    row["remark"] = f"{row['same_text']:.0%} of the texts are the same"
    return [row]


def rates(bench: Bench) -> list[Row]:
    """Floating-point rate of scoring over that of a large product."""
    product = machine_rate(bench.threads)
    rate = speed(bench.engine, requests(bench.engine, max(bench.count, 32), 0))
    return [
        {
            "what": "floating-point rate of scoring, and that of a large product",
            "ours": rate / 1e9,
            "peer": product / 1e9,
            "peer_name": f"1024 x 576 x 1536 products, one a core, {bench.threads} cores",
            "ratio": rate / product,
            "unit": "GFLOP/s",
            "samples": 1,
        }
    ]


def dtypes(bench: Bench) -> list[Row]:
    """bfloat16 against float32: products by number of rows, then whole questions, and what becomes of the answers."""
    rows = [_product_rates(count) for count in (1, 4, 16, 64, 512)]
    if not bfloat16_helps():
        return rows
    pairs = requests(bench.engine, bench.count, 0)
    prompts = list(dict.fromkeys(context for context, _ in pairs))
    works: dict[str, Work] = {
        "likelihoods": likelihoods(pairs),
        "replies": lambda lm: lm.generate_until([Ask(p, {"max_gen_toks": NEW_TOKENS}) for p in prompts]),
    }
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    half = TransformersEngine(bench.base, threads=bench.threads, dtype="bfloat16")
    for name, work in works.items():
        found = {}
        for dtype, engine in (("float32", bench.engine), ("bfloat16", half)):
            with engine.attach(bench.folders[0]):
                lm = EngineLM(engine, SilentProgress())
                work(lm)
                found[dtype] = timed(functools.partial(work, lm))
        (full, wanted), (short, answers) = found["float32"], found["bfloat16"]
        row = _half(f"{name} with an adapter", full, short, "s")
        if name == "replies":
            row["same_text"] = sum(a == b for a, b in zip(wanted, answers, strict=True)) / len(prompts)
            row["remark"] = f"{row['same_text']:.0%} of the texts are the same"
        else:
            row["largest_difference_nats"] = apart(wanted, answers)
            row["remark"] = f"apart by up to {row['largest_difference_nats']:.2g} nats"
        rows.append(row)
    return rows


def _product_rates(count: int) -> Row:
    shapes, repeats = ((576, 576), (1536, 576), (576, 1536)), max(5, 4000 // max(count, 20))
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        weights = [lay_out(torch.randn(shape).to(dtype)) for shape in shapes]
        inputs = [torch.randn(count, shape[1]).to(dtype) for shape in shapes]

        def burn(inputs: Any = inputs, weights: Any = weights) -> None:
            with torch.inference_mode():
                for _ in range(repeats):
                    for x, weight in zip(inputs, weights, strict=True):
                        torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")

        best[dtype] = min(timed(burn)[0] for _ in range(4)) / repeats * 1e6
    return _half(f"products of {count} rows, one core", best[torch.float32], best[torch.bfloat16], "us")


def _half(what: str, full: float, short: float, unit: str) -> Row:
    ratio = full / short
    named = {"peer_name": "ours in float32", "ratio": ratio, "unit": unit, "samples": 1}
    return {"what": f"bfloat16: {what}", "ours": short, "peer": full, **named}


def mixtures(bench: Bench) -> list[Row]:
    """Linear children of two parents in one batch, against each child put on by itself."""
    parents = [adapter(bench.base, bench.scratch / f"p{n}", seed=50 + n, first_layer=20) for n in range(2)]
    weights = [(0.2 * n, 1.0 - 0.2 * n) for n in range(6)]
    children = []
    for number, child in enumerate(weights):
        factors: dict[str, Any] = {}
        for parent, weight in zip(parents, child, strict=True):
            for name, f in read_adapter(parent).modules.items():
                left, right = factors.get(name, (np.zeros((f.B.shape[0], 0)), np.zeros((0, f.A.shape[1]))))
                factors[name] = np.hstack([left, weight * f.scale * f.B]), np.vstack([right, f.A])
        folder = bench.scratch / f"mix{number}"
        write_adapter(folder, factors, bench.base.name, bench.base.identity.base_weights)
        children.append(folder)
    torch.set_num_threads(1)
    rows = []
    for count in (4, 8, 16, 32):
        some = [i.prompt for i in items(load_suite(shared("suites") / "general"), "public", None, count)]

        def alone(prompts: list[str] = some) -> list[tuple[str, ...]]:
            return [
                _attached(bench.engine, child, lambda: bench.engine.generate(prompts, NEW_TOKENS)) for child in children
            ]

        def together(prompts: list[str] = some) -> list[tuple[str, ...]]:
            return list(bench.engine.generate_mixtures(parents, weights, prompts, NEW_TOKENS))

        together()  # what the lower layers make of the prompts is known to both
        (apart_s, wanted), (mixed_s, found) = timed(alone), timed(together)
        same = sum(a == b for one, other in zip(wanted, found, strict=True) for a, b in zip(one, other, strict=True))
        rows.append(
            {
                "what": f"{len(children)} linear children, {count} replies each, in one batch",
                "ours": mixed_s,
                "peer": apart_s,
                "peer_name": "ours, one child after the other",
                "ratio": apart_s / mixed_s,
                "unit": "s",
                "samples": count,
                "same_text": same / (count * len(children)),
                "remark": f"{same / (count * len(children)):.0%} of the texts are the same",
            }
        )
    return rows


def _attached(engine: TransformersEngine, folder: Path, work: Callable[[], Any]) -> Any:
    with engine.attach(folder):
        return work()


def _peer(base: BaseModel, folder: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(base.folder), peft=str(folder), dtype="float32", batch_size=8, device="cpu")


def speed(engine: TransformersEngine, pairs: Sequence[tuple[str, str]]) -> float:
    """FLOP/s of scoring: 2 a weight and token that is read; padding and attention are not counted."""
    weights = sum(p.numel() for n, p in engine.model.named_parameters() if "embed" not in n)
    head = engine.model.get_output_embeddings().weight.numel()
    lm = EngineLM(engine, SilentProgress())
    answers: dict[str, list[str]] = {}
    for context, answer in pairs:
        answers.setdefault(context, []).append(answer)
    questions = [
        Question(split[0][0], tuple(answer for _, answer in split))
        for context, some in answers.items()
        if (split := [lm.split(context, one) for one in some])
    ]
    rows = fill_rows(questions, common([q.context for q in questions]), engine.threads)
    spots = sum(len({node for one in row.placed for before in one.before for node in before}) for row in rows)
    torch.set_num_threads(1)
    seconds, _ = timed(lambda: engine.score_tokens(questions))
    return 2.0 * (weights * sum(map(len, rows)) + head * spots) / seconds


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
    """Peak bytes of a process that has each adapter score eight questions and reply to eight."""
    engine = TransformersEngine(base, threads=threads)
    pairs = requests(engine, 8, 0)
    prompts = sorted({context for context, _ in pairs})
    for folder in folders:
        _attached(engine, folder, lambda: likelihoods(pairs)(EngineLM(engine, SilentProgress())))
        _attached(engine, folder, lambda: engine.generate(prompts, NEW_TOKENS))
    return peak_memory_bytes()


def memory(bench: Bench) -> list[Row]:
    """Peak memory with sixteen adapters over that with one, each in a process of its own."""
    peaks = {}
    for count in (1, 16):
        command = [sys.executable, __file__, "--probe", str(count), "--threads", str(bench.threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[count] = int(done.stdout.split()[-1])
    return [
        {
            "what": "peak memory, 16 adapters (ours) and 1 adapter (peer column)",
            "ours": peaks[16] / 1e6,
            "peer": peaks[1] / 1e6,
            "peer_name": "ours with one adapter",
            "ratio": peaks[16] / peaks[1],
            "unit": "MB (here less is better)",
            "samples": 1,
        }
    ]


def plots(bench: Bench) -> list[Row]:
    """Seconds against candidates, items, and length of the shared prefix; the points go beside the picture as JSON."""
    base, scratch, engine, folder = bench.base, bench.scratch, bench.engine, bench.plots or Path()
    upper = [adapter(base, scratch / f"u{n}", seed=100 + n, first_layer=20) for n in range(8)]
    whole = [adapter(base, scratch / "whole", seed=99)]
    torch.set_num_threads(1)
    lm = EngineLM(engine, SilentProgress())

    def cost(folders: Sequence[Path], some: Sequence[tuple[str, str]]) -> float:
        start = CLOCK[0]()
        for one in folders:
            _attached(engine, one, lambda: likelihoods(some)(lm))
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
    first, last = curves["candidates, the last 10 of 30 layers adapted"][1], total
    return [
        {
            "what": "8 candidates that change the last 10 layers, and 8 times the first of them",
            "ours": last,
            "peer": 8 * first,
            "peer_name": "ours, nothing shared below the first adapted layer",
            "ratio": 8 * first / last,
            "unit": "s",
            "samples": 8,
        }
    ]


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


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "zero": zero,
    "few": few,
    "chat": chat,
    "rates": rates,
    "dtypes": dtypes,
    "mixtures": mixtures,
    "memory": memory,
    "plots": plots,
}
"""In the order in which they are measured."""


if __name__ == "__main__":
    main()
