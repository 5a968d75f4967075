"""The static gate against two scanners: how long it takes on a 20 MB adapter, and what each of them finds.

    python benchmarks/gate.py [--json] [--samples 5]     wall time, interpreter start included, interleaved
    python benchmarks/gate.py --table                    writes the table of docs/gate.md from the conformance set

The scanners are modelscan and picklescan. They need older libraries than we do, so ``--scanners`` makes an environment
of their own (in the user's cache, once, through pip) and asks them on the same folders; ``--scanners PYTHON`` uses one
that is there. Without it the rows have no peer.

Times: "new home" is the first call in a home that is not there yet, "measured" looks into every file, "unchanged" is
another call on the same bytes. All of them include the start of the interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ecology.contracts.evidence import Count
from ecology.contracts.genome import INTERFACE_VERSION, Genome, Lineage, ResourceProfile
from ecology.contracts.policy import AdapterLimits
from ecology.gate import weighing
from ecology.gate.static import static_evidence
from ecology.gate.tensors import implied, linear_modules
from ecology.pipeline.bench import known_base
from ecology.pipeline.house import open_house
from ecology.signer.statements import genome_statement
from ecology.store.header import read_header
from ecology.store.writer import write_adapter
from ecology.testing.attacks import HOSTILE
from ecology.testing.benign import OPTIONS, save
from ecology.testing.benign import submit as submit_benign
from ecology.testing.gates import submit

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- table: python benchmarks/gate.py --table -->", "<!-- end of table -->"
PATIENCE_S = 20
SCANNERS = ("modelscan==0.8.8", "picklescan==1.0.5")
IMPORTS = {
    "the interpreter": "pass",
    "it and cryptography with OpenSSL": "import hashlib, cryptography.hazmat.primitives.serialization",
    "all that the gate imports": "import ecology.cli, ecology.pipeline.gating, ecology.pipeline.boundaries",
}
READER = "the process that reads weights"
LAUNCH = """
import os, resource, sys, time
null = os.open(os.devnull, os.O_WRONLY)
started = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 1),
                                                                           (os.POSIX_SPAWN_DUP2, null, 2)])
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - started, usage.ru_maxrss)
"""
SCAN = """
import json, signal, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from modelscan.modelscan import ModelScan
from modelscan.settings import DEFAULT_SETTINGS
from picklescan.scanner import scan_directory_path
import logging; logging.disable()

class Late(BaseException): pass
def late(*_): raise Late
signal.signal(signal.SIGALRM, late)

def modelscan(path):
    summary = ModelScan(settings=DEFAULT_SETTINGS).scan(path)["summary"]
    return "hit" if summary["total_issues"] else "miss"

def picklescan(path):
    found = scan_directory_path(path)
    return "hit" if found.issues_count or found.infected_files or found.suspicious_count else "miss"

for path in map(str.strip, sys.stdin):
    row = {}
    for scan in (modelscan, picklescan):
        signal.alarm(PATIENCE_S)
        try:
            row[scan.__name__] = scan(Path(path) if scan is modelscan else path)
        except Late:
            row[scan.__name__] = "no end"
        except Exception as error:
            row[scan.__name__] = "error"
        signal.alarm(0)
    print("ROW " + json.dumps(row), flush=True)
"""


def adapter(folder: Path, home: Path) -> int:
    """A signed LoRA of rank 16 on every projection of the default base; its size in bytes."""
    house = open_house(str(home), quiet=True)
    base = known_base("smollm2-135m", house)
    rng = np.random.Generator(np.random.PCG64(0))
    modules = {
        name: (0.01 * rng.normal(size=(outputs, 16)), 0.02 * rng.normal(size=(16, inputs)))
        for name, (outputs, inputs) in linear_modules(base.tensor_schema).items()
        if ".layers." in name
    }
    artifact = write_adapter(folder, modules, "smollm2-135m", base.identity.base_weights)
    count = sum(b.size + a.size for b, a in modules.values())
    profile = ResourceProfile(count, artifact.size_bytes, 16, len(modules), 1.0)
    genome = Genome(base.identity, INTERFACE_VERSION, (), Lineage((), "import", {}, 0, (), 0, {}), profile)
    line = house.signer.sign(genome_statement(artifact, genome, "2026-01-01T00:00:00Z"))
    (folder / "claims.jsonl").write_text(line + "\n", encoding="utf-8")
    return artifact.size_bytes


def wall(command: list[str], expected: set[int]) -> tuple[float, int]:
    """Seconds and peak resident memory in bytes of a command.

    A small launcher starts it: what a process has resident when it forks counts as its child's.

    Raises:
        RuntimeError: It ended in another way than expected.
    """
    ran = subprocess.run([sys.executable, "-S", "-c", LAUNCH, *command], capture_output=True, text=True, check=True)
    code, seconds, peak = ran.stdout.split()
    if int(code) not in expected:
        raise RuntimeError(f"{command} ended with {code}")
    return float(seconds), int(peak) * 1024


def times(samples: int, scanners: str | None) -> list[dict[str, Any]]:
    """Wall times on a good and on spoiled copies of one adapter."""
    with tempfile.TemporaryDirectory() as place:
        good, home = Path(place) / "good", Path(place) / "home"
        size = adapter(good, home)
        folders = {"20 MB adapter": good}
        for name in ("overwrites the base", "not finite", "costly pattern"):
            folders[f"20 MB adapter, {name}"] = spoiled(good, Path(place) / name.replace(" ", "-"), name)
        ours = [sys.executable, "-m", "ecology", "gate", "--static", "--home"]
        peers = {name: [str(Path(scanners).parent / name), "-p"] for name in ("modelscan", "picklescan") if scanners}
        imports = {name: _imported(what, samples) for name, what in IMPORTS.items()}
        bare = imports[next(reversed(IMPORTS))]
        imports[READER] = _reader(good, home)
        rows: list[dict[str, Any]] = [
            {
                "what": f"peak resident memory of {name}",
                "ours": value,
                "unit": "bytes",
                "peer": None,
                "samples": samples,
            }
            for name, value in imports.items()
        ]
        took: dict[str, dict[str, list[float]]] = {what: {} for what in folders}
        peaks = dict.fromkeys(folders, 0)
        for number in range(samples):
            for what, folder in folders.items():  # interleaved, so that a busy machine slows all alike
                calls = {"measured": [*ours, str(home), "--fresh", str(folder)]}
                if folder == good:
                    calls["new home"] = [*ours, str(Path(place) / f"new-{number}"), str(folder)]
                    calls["unchanged"] = [*ours, str(home), str(folder)]
                calls |= {name: [*command, str(folder)] for name, command in peers.items()}
                for name, command in calls.items():
                    right = {0} if folder == good and name != "new home" else {1}
                    seconds, memory = wall(command, {0, 1, 2, 3} if name in peers else right)
                    took[what].setdefault(name, []).append(seconds)
                    peaks[what] = max(peaks[what], memory) if name == "measured" else peaks[what]
        usual = sorted(took["20 MB adapter"]["measured"])[samples // 2]
        for what, calls_of in took.items():
            middle = {name: sorted(values)[len(values) // 2] for name, values in calls_of.items()}
            for name in (name for name in calls_of if name not in peers):
                row = {"what": f"{what}, {name}", "ours": middle[name], "unit": "s", "samples": calls_of[name]}
                compared = {peer: middle[peer] for peer in peers if name == "measured"}
                if folders[what] != good:
                    compared["the good adapter"] = usual
                for peer, theirs in compared.items() or [(None, None)]:
                    ratio = middle[name] / theirs if theirs else None
                    rows.append({**row, "peer": theirs, "peer_name": peer, "ratio": ratio})
            peak, more = peaks[what], peaks[what] - bare
            for words, value in (("peak resident memory", peak), ("memory beyond what importing it takes", more)):
                rows.append(
                    {
                        "what": f"{what}: {words}", "ours": value, "peer": size, "peer_name": "the file",
                        "ratio": value / size, "unit": "bytes", "samples": samples,
                    }
                )  # fmt: skip
        return rows


def _imported(what: str, samples: int) -> int:
    """Peak resident memory in bytes of an interpreter that imports something and ends; the median."""
    peaks = sorted(wall([sys.executable, "-c", what], {0})[1] for _ in range(samples))
    return peaks[len(peaks) // 2]


def _reader(folder: Path, home: Path) -> int:
    """Peak resident memory in bytes of the process that reads weights, when it has read these."""
    base = known_base("smollm2-135m", open_house(str(home), quiet=True))
    config = json.loads((folder / "adapter_config.json").read_bytes())
    meant, _ = implied(config, base.tensor_schema, "adapter_config.json")
    weighing.start()
    header = read_header(folder / "adapter_model.safetensors")
    with (folder / "adapter_model.safetensors").open("rb") as stream:
        stream.seek(header.data_offset)
        weighing.weigh(stream, header, meant, AdapterLimits())
    status = Path(f"/proc/{weighing.reader_id()}/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def scanners_of(named: str) -> str:
    """An interpreter that has both scanners: the named one, or that of an environment made for them."""
    if named:
        return named
    place = Path.home() / ".cache" / "tiny-ecology-scanners"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        venv.create(place, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *SCANNERS], check=True, stdout=sys.stderr)
        (place / "complete").write_text("\n".join(SCANNERS), "utf-8")
    return str(python)


def spoiled(good: Path, folder: Path, how: str) -> Path:
    """A copy of the large adapter with one thing wrong."""
    folder.mkdir()
    for file in good.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    data = weights.read_bytes()
    if how == "overwrites the base":
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        body = data[8 + int.from_bytes(data[:8], "little") :] + bytes(4 * 576)
        head["base_model.model.model.norm.weight"] = {
            "dtype": "F32", "shape": [576], "data_offsets": [len(body) - 4 * 576, len(body)],
        }  # fmt: skip
        text = json.dumps(head).encode()
        weights.write_bytes(len(text).to_bytes(8, "little") + text + body)
    elif how == "not finite":
        weights.write_bytes(data[:-4] + b"\x00\x00\xc0\x7f")
    else:
        config.write_text(json.dumps({**json.loads(config.read_bytes()), "target_modules": "(?:.*.?.*)*" * 100 + "!"}))
    return folder


def table(scanners: str | None) -> str:
    """Every class of the conformance set, and what each scanner says of it."""
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "home"
        for number, case in enumerate(HOSTILE):
            folder = Path(place) / str(number)
            submission, context = submit(case, folder, home)
            found = _counts(static_evidence(submission, context))
            rows.append((case.kind, str(folder), "hit" if found.get(case.metric, 0) else "miss"))
        for number, options in enumerate(OPTIONS):
            folder = save(Path(place) / f"benign-{number}", **options)
            found = _counts(static_evidence(*submit_benign(folder, home)))
            rows.append(("benign, written by PEFT", str(folder), "hit" if any(found.values()) else "miss"))
        scanned = _scanned([folder for _, folder, _ in rows], scanners)
    kinds = list(dict.fromkeys(kind for kind, _, _ in rows))
    lines = [
        "| class | folders | this gate refuses | modelscan finds | picklescan finds |",
        "|---|---|---|---|---|",
    ]
    for kind in kinds:
        members = [(ours, theirs) for (one, _, ours), theirs in zip(rows, scanned, strict=True) if one == kind]
        cells = [_cell([ours for ours, _ in members])]
        cells += [_cell([theirs[name] for _, theirs in members]) for name in ("modelscan", "picklescan")]
        lines.append(f"| {kind} | {len(members)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(answers: list[str]) -> str:
    seen = Counter(answers)
    rest = ", ".join(f"{seen[word]} {word}" for word in ("no end", "error", "not run") if seen[word])
    return f"{seen['hit']}{f' ({rest})' if rest else ''}"


def _counts(evidence: Any) -> dict[str, int]:
    return {m.metric: m.statistic.count for m in evidence if isinstance(m.statistic, Count)}


def _scanned(folders: list[str], scanners: str | None) -> list[dict[str, str]]:
    if scanners is None:
        return [{"modelscan": "not run", "picklescan": "not run"}] * len(folders)
    ran = subprocess.run(
        [scanners, "-c", f"PATIENCE_S = {PATIENCE_S}{SCAN}"],
        input="\n".join(folders),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line[4:]) for line in ran.stdout.splitlines() if line.startswith("ROW ")]


def main() -> None:
    """Reads the command line and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--table", action="store_true", help="write the table of docs/gate.md")
    parser.add_argument("--samples", type=int, default=5)
    words = "compare with modelscan and picklescan, in an environment made for them or that of PYTHON"
    parser.add_argument("--scanners", metavar="PYTHON", nargs="?", const="", help=words)
    options = parser.parse_args()
    scanners = None if options.scanners is None else scanners_of(options.scanners)
    if options.table:
        page = ROOT / "docs" / "gate.md"
        text = page.read_text("utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        page.write_text(f"{before}{BEGIN}\n{table(scanners)}\n{END}{after}", "utf-8")
        return
    rows = times(options.samples, scanners)
    if options.json:
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": sys.version}
        print(json.dumps({"rows": rows, "machine": machine}))
        return
    for row in rows:
        peer = f"  {row['peer_name']} {row['peer']:.4g}  ratio {row['ratio']:.2f}" if row["peer"] else ""
        print(f"{row['what']}: {row['ours']:.4g} {row['unit']}{peer}")


if __name__ == "__main__":
    main()
