"""How long a reviewer waits: replay on 10,000 stored verdicts, and lint, test, diff and explain of the shipped policy.

    python benchmarks/policy.py [--json] [--verdicts N]

Replay is timed from a cold start of the command's own function: every envelope is read from the store, its signature is
verified, its evidence is read and judged. Every verdict has other evidence; the store lies in a temporary folder. The
others are timed as the command line runs them, in this process, imports done. There is no peer: no other tool was found
that replays a policy on stored evidence.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ecology.contracts.artifact import CLAIMS_FILE, Artifact
from ecology.contracts.evidence import Count, Measurement, Paired, Proportion, Samples, Statistic
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Policy, Rule
from ecology.kernel.canonical import canonical
from ecology.kernel.verdicts import verdict
from ecology.pipeline import policies
from ecology.pipeline.house import House
from ecology.policy.layers import tighten
from ecology.policy.replay import replay
from ecology.signer import dsse
from ecology.signer.statements import verdict_statement
from ecology.telemetry.clock import SystemClock
from ecology.telemetry.progress import SilentProgress

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
    """A store with as many signed verdicts, each of another adapter and on other evidence."""
    dice = random.Random(0)
    subject = Digest(f"sha256:{NOBODY}")
    signer = house.signer
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


def seconds(call: Callable[[], object], times: int) -> list[float]:
    """Wall time of each call."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
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
        house = House(Path(folder), SystemClock(), SilentProgress())
        compiled = policies.load_policy(policies.policy_file("release"))
        strict = tighten(compiled, {"SAFE-001": {"threshold": 0.80}})
        fill(house, compiled, options.verdicts)
        result = {}

        def again() -> None:
            past = policies.past_of(house)
            result["sentence"] = replay(strict, past.verdicts).sentence

        rows = [
            row(f"replay of {options.verdicts} stored verdicts", seconds(again, 3)),
            row("lint release", seconds(lambda: policies.lint_file("release", AT), 10)),
            row("test release", seconds(lambda: policies.test_file("release"), 10)),
            row("diff baseline release", seconds(lambda: policies.diff_files("baseline", "release"), 10)),
            row("explain release", seconds(lambda: policies.explain_file("release"), 10)),
        ]
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    if options.json:
        print(json.dumps({"rows": rows, "machine": machine}))
        return
    print(result["sentence"])
    for one in rows:
        print(f"{one['what']:<36} {one['ours']:>8} s  (worst of {one['samples']}: {one['worst']} s)")


if __name__ == "__main__":
    main()
