"""How long a reviewer waits: replay on 10,000 stored verdicts, and lint, test, diff and explain of the shipped policy.

    python benchmarks/policy.py [--json] [--verdicts N]

Every row is the command line as a person runs it, start of the interpreter included. Every stored verdict is of another
adapter and rests on other evidence; log and registry know of all of them. What a replay reads of a verdict is noted
when the verdict is given, as a run does it; the row "all verified anew" has lost those notes, reads every envelope from
the store, verifies its signature, and judges. There is no peer: no other tool was found that replays a policy on stored
evidence.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ecology.contracts.artifact import CLAIMS_FILE, Artifact
from ecology.contracts.evidence import Count, Measurement, Paired, Proportion, Samples, Statistic
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import Policy, Rule
from ecology.contracts.promotion import Event
from ecology.kernel.canonical import canonical
from ecology.kernel.verdicts import verdict
from ecology.pipeline.house import House
from ecology.pipeline.replay_index import INDEX, note
from ecology.policy.reader import load_policy
from ecology.signer import dsse
from ecology.signer.statements import verdict_statement
from ecology.telemetry.clock import SystemClock
from ecology.telemetry.progress import SilentProgress

ROOT = Path(__file__).resolve().parents[1]
NOBODY = "f" * 64
AT = "2026-01-01T00:00:00Z"


def measured(rule: Rule, dice: random.Random) -> Statistic:
    """Evidence as the ladder leaves it."""
    n = rule.min_samples
    if rule.metric.startswith(("static", "liveness")):
        return Count(int(dice.random() < 0.02), ())
    if rule.metric.startswith("resource"):
        return Samples(tuple(round(rule.threshold * dice.uniform(0.5, 0.95), 6) for _ in range(max(1, n))), "s")
    if rule.against != "absolute":
        lost = dice.randint(0, 12)
        return Paired(n, dice.randint(0, 12), lost)
    good = dice.randint(round(0.7 * n), n)
    return Proportion(n - good if rule.comparator == "<=" else good, n)


def evidence(policy: Policy, subject: Digest, dice: random.Random) -> tuple[Measurement, ...]:
    """One measurement a rule."""
    found = {}
    for rule in policy.rules:
        comparator = "" if rule.against == "absolute" else str(subject)
        key = (rule.metric, rule.split, rule.against)
        found[key] = Measurement(
            rule.metric, subject, measured(rule, dice), rule.split, rule.against, comparator, "bench"
        )
    return tuple(found.values())


def fill(house: House, policy: Policy, count: int) -> None:
    """A home with as many signed verdicts, each of another adapter and on other evidence, and the facts of them."""
    dice = random.Random(0)
    subject = Digest(f"sha256:{NOBODY}")
    signer = house.signer
    facts = []
    for i in range(count):
        found = evidence(policy, subject, dice)
        given = verdict(policy, found, subject, "full", AT)
        payload = canonical(verdict_statement(Artifact(subject, ()), given, policy, found))
        hexed = hashlib.sha256(str(i).encode()).hexdigest()
        envelope = dsse.Envelope(payload.replace(NOBODY.encode(), hexed.encode()), dsse.PAYLOAD_TYPE, ())
        signed = dsse.seal(envelope.payload, [dsse.Signature(signer.keyid, signer.sign_bytes(envelope.signed_bytes))])
        folder = house.home / "store" / "artifacts" / hexed
        folder.mkdir(parents=True)
        (folder / CLAIMS_FILE).write_text(signed + "\n", "ascii")
        note(house, Digest(f"sha256:{hexed}"), folder / CLAIMS_FILE)
        body: dict[str, Json] = {
            "digest": f"sha256:{hexed}",
            "name": f"child-{i}",
            "policy": policy.digest,
            "outcome": given.outcome.value,
            "rung": "",
            "run": "bench",
            "scope": "full",
            "findings": [{"rule": f.rule, "outcome": f.outcome.value} for f in given.findings],
        }
        facts.append(Event("judged", AT, body))
    house.log.append_all(facts)
    house.registry.follow(house.log)


def seconds(home: Path, times: int, *words: str, before: Callable[[], object] = lambda: None) -> list[float]:
    """Wall time of each call of ``ecology policy WORDS``."""
    command = [sys.executable, "-m", "ecology", "--home", str(home), "--quiet", "policy", *words]
    found = []
    for _ in range(times):
        before()
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
        found.append(time.perf_counter() - start)
    return found


def row(what: str, samples: Sequence[float]) -> dict[str, object]:
    """One line of the result; no peer, so no ratio."""
    return {
        "what": what,
        "ours": round(statistics.median(samples), 4),
        "worst": round(max(samples), 4),
        "peer": None,
        "peer_name": "",
        "ratio": None,
        "unit": "s",
        "samples": len(samples),
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verdicts", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, mine = Path(folder) / "home", Path(folder) / "policies"
        shutil.copytree(ROOT / "policies", mine)
        text = (mine / "release.yaml").read_text("utf-8")
        start = text.index("- id: SAFE-001")
        changed = text[start:].replace("threshold: 0.75", "threshold: 0.80", 1)
        (mine / "release.yaml").write_text(text[:start] + changed, "utf-8")
        strict = str(mine / "release.yaml")
        house = House(home, SystemClock(), SilentProgress())
        fill(house, load_policy(ROOT / "policies" / "release.yaml"), options.verdicts)
        index = home / "notes" / INDEX

        def forget() -> None:
            index.unlink(missing_ok=True)

        many = f"replay of {options.verdicts} verdicts"
        rows = [
            row(many, seconds(home, 5, "replay", strict)),
            row(f"{many}, all verified anew", seconds(home, 3, "replay", strict, before=forget)),
            row("lint", seconds(home, 7, "lint", "release")),
            row("test", seconds(home, 7, "test", "release")),
            row("diff", seconds(home, 7, "diff", "release", strict)),
            row("explain", seconds(home, 7, "explain", "release")),
        ]
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    if options.json:
        print(json.dumps({"rows": rows, "machine": machine}))
        return
    for one in rows:
        print(f"{one['what']:<36} {one['ours']:>8} s  (worst of {one['samples']}: {one['worst']} s)")


if __name__ == "__main__":
    main()
