"""Learning with a handful of numbers: what they buy, and what a step costs.

    python benchmarks/learning.py --ladder --base DIR [--device cuda] [--workers 12] [--seconds 540] --out FILE.json
    python benchmarks/learning.py --ladder --like FILE.json [--only ROW ...] [--seeds 0] --base DIR --out FILE.json
    python benchmarks/learning.py --speed [--json] [--repeats 3] [--kept FILE] [--toy]
    python benchmarks/learning.py --plot FILE.json ... [docs/learning.svg]
    python benchmarks/learning.py --table FILE.json ... [--against ROW]

``--ladder`` trains on the task of ``ladder`` (experiments 1 and 2). It asks for hours of two CPU cores or minutes of an
accelerator, so what one machine found is kept in ``benchmarks/results`` and drawn and tabled from there. With
``--like``, range and learning rates are those of an earlier file and no pilot is run: what is left of that can be made
elsewhere, with the row to compare it with made there too.

``--speed`` (experiment 3) times one GRPO step, rollouts and gradient, of ours and of TRL's trainer with its defaults,
in one process, in turns, on the same prompts, replies of the same length and equal loss.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


def main() -> int:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ladder", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--plot", nargs="+", metavar="FILE")
    parser.add_argument("--table", nargs="+", metavar="FILE")
    parser.add_argument("--against", default="", metavar="ROW", help="of --table: compare every row with this one")
    parser.add_argument("--base", type=Path, help="folder of the base: config, tokenizer, safetensors")
    parser.add_argument("--cache", type=Path, default=Path(".ecology/ladder"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=86400.0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=None, help="rows, by name, in the order in which they are run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=2, help="replies drawn to each test sum beside the greedy one")
    parser.add_argument("--like", type=Path, metavar="FILE", help="take range and rates from this file; no pilots")
    parser.add_argument(
        "--range", nargs=2, type=int, default=None, help="of the numbers; chosen by rule where not given"
    )
    parser.add_argument("--out", type=Path, default=Path("ladder.json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--kept", type=Path, metavar="FILE", help="of --speed: keep its rounds here, and go on from them"
    )
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.ladder:
        return climbed(asked)
    if asked.speed:
        from grpo_speed import measure

        rows = measure(asked.repeats, toy=asked.toy, kept=asked.kept)
        return said(rows, asked.json)
    from learning_figures import drawn, joined, tabled

    def read(names: list[str]) -> list[Mapping[str, Any]]:
        return joined([json.loads(Path(name).read_text())["runs"] for name in names])

    if asked.plot:
        *files, out = asked.plot if asked.plot[-1].endswith(".svg") else [*asked.plot, "docs/learning.svg"]
        Path(out).write_text(drawn(read(files)))
        return 0
    if asked.table:
        print(tabled(read(asked.table), asked.against))
        return 0
    parser.print_usage()
    return 2


def climbed(asked: argparse.Namespace) -> int:
    """The ladder, and its file with the machine's name."""
    import torch
    from ladder import RANGES, ROWS, SLOW_FIRST, Bench, Pool, climb

    from ecology.telemetry.environment import environment

    asked.cache.mkdir(parents=True, exist_ok=True)
    rows = {name: ROWS[name] for name in asked.only or SLOW_FIRST}
    like = json.loads(asked.like.read_text())["runs"] if asked.like else ()
    started = sys.argv[1:]
    Bench(asked.base, "cpu", asked.cache).prepare(rows.values())  # decompositions, once and for all processes
    settings = {
        "base": str(asked.base),
        "device": asked.device,
        "cache": str(asked.cache),
        "samples": asked.samples,
    }
    raw = asked.out.with_suffix(".runs.json")
    if not raw.exists() and asked.out.exists():  # more rows or seeds of a ladder that is there
        raw.write_text(json.dumps(json.loads(asked.out.read_text())["runs"]))
    pool = Pool(settings, asked.workers, raw, asked.seconds)
    try:
        runs = climb(
            pool,
            rows,
            steps=asked.steps,
            prompts=asked.prompts,
            ranges=[tuple(asked.range)] if asked.range else RANGES,
            seeds=asked.seeds,
            like=like,
        )
    finally:
        pool.end()
    name = torch.cuda.get_device_name() if asked.device.startswith("cuda") else platform.processor()
    machine = {**environment(1), "accelerator": name, "processes": str(asked.workers)}
    asked.out.write_text(
        json.dumps({"command": " ".join(["python benchmarks/learning.py", *started]), "machine": machine, "runs": runs})
    )
    return 0


def said(rows: list[dict[str, object]], as_json: bool) -> int:
    """Prints rows."""
    if as_json:
        from ecology.telemetry.environment import environment

        print(json.dumps({"rows": rows, "machine": dict(environment(1))}, indent=1))
        return 0
    for row in rows:
        print(
            f"{row['what']:<48} {row['ours']!s:>10} {row['peer']!s:>10}  {row['peer_name']}  ratio {row['ratio']} "
            f"{row['unit']}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
