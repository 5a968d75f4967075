"""What trust costs: signing a sweep, verifying a candidate's claims, verifying a log of a million events.

    python benchmarks/trust.py [--json] [--events N]

Each figure is the median of its repetitions in this process, with the least and the greatest beside it. The peer of the
keyless row is ``sigstore`` itself on the same bundle; the other rows have no peer and state the demand they must meet.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ecology.audit.log import SqlAuditLog
from ecology.contracts.policy import Outcome, TrustedIdentity
from ecology.contracts.promotion import Event
from ecology.kernel.canonical import digest_bytes
from ecology.signer import intoto
from ecology.signer.evidence import Line, sweep_statement
from ecology.signer.keyless import keyless_signer
from ecology.signer.keys import LocalSigner
from ecology.signer.verify import verify_claims
from ecology.testing.sigstore import LoopbackSigstore

CHUNK = 10_000


def main() -> int:
    """Runs everything and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    rows = [*claims(), *keyless(), *log(options.events)]
    if options.json:
        print(json.dumps({"rows": rows, "machine": {"cpu": platform.processor(), "python": platform.python_version()}}))
        return 0
    for row in rows:
        peer = f"  {row['peer_name']}: {row['peer']:.4g} {row['unit']}, ratio {row['ratio']:.3g}" if row["peer"] else ""
        low, high = min(row["samples"]), max(row["samples"])
        print(f"{row['what']:<58} {row['ours']:>9.4g} {row['unit']} ({low:.4g} to {high:.4g}){peer}")
    return 0


def claims() -> list[dict[str, Any]]:
    """Keys: a sweep of 500 subjects signed, and twenty claims of a candidate verified."""
    signer = LocalSigner(Ed25519PrivateKey.generate(), "bench", False)
    lines = [Line(f"child-{i}", digest_bytes(str(i).encode()), Outcome.WARN, "") for i in range(500)]
    run = digest_bytes(b"run")
    signing = _times(lambda: signer.sign(sweep_statement(run, run, lines, "2026-11-22T12:00:00Z")), 30)
    subject = digest_bytes(b"adapter")
    statement = intoto.statement(
        [intoto.subject_entry("artifact", subject)], "https://example.com/p", {"n": list(range(400))}
    )
    envelopes = [signer.sign(statement)] * 20
    anchors = [signer.public_key]

    def verify() -> None:
        if len(verify_claims(envelopes, subject, anchors, ()).verified) != 20:
            raise SystemExit("a claim was refused")

    return [
        _row("sign a sweep of 500 subjects (must: < 100 ms)", signing, "ms"),
        _row("verify a candidate's 20 claims by key (must: < 50 ms)", _times(verify, 30), "ms"),
    ]


def keyless() -> list[dict[str, Any]]:
    """Identities, on the loop-back instance: signing talks to it, verifying does not."""
    from sigstore.models import Bundle, TrustedRoot
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity

    with LoopbackSigstore() as instance, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "trust.json"
        config.write_text(json.dumps(instance.trust_config()))
        root = json.dumps(instance.trusted_root())
        (Path(folder) / "root.json").write_text(root)
        signer = keyless_signer(config, instance.token())
        lines = [Line(f"child-{i}", digest_bytes(str(i).encode()), Outcome.WARN, "") for i in range(500)]
        run, subject = digest_bytes(b"run"), digest_bytes(b"adapter")
        signing = _times(lambda: signer.sign(sweep_statement(run, run, lines, "2026-11-22T12:00:00Z")), 10)
        bundle = signer.sign(intoto.statement([intoto.subject_entry("artifact", subject)], "https://example.com/p", {}))
        who = TrustedIdentity("ci", "reviewer@loop-back.test", instance.url, "r", digest_bytes(root.encode()), root)
        verifier = Verifier(trusted_root=TrustedRoot.from_file(f"{folder}/root.json"))
        policy = Identity(identity=who.identity, issuer=who.issuer)

        def verify() -> None:
            if not verify_claims([bundle], subject, (), (), [who]).verified:
                raise SystemExit("the bundle was refused")

        verify()
        ours = _times(verify, 30)
        theirs = _times(lambda: verifier.verify_dsse(Bundle.from_json(bundle), policy), 30)
    return [
        _row("sign a sweep of 500 subjects keyless, loop-back instance", signing, "ms"),
        _row("verify a keyless claim (must: < 50 ms)", ours, "ms", theirs, "sigstore"),
    ]


def log(events: int) -> list[dict[str, Any]]:
    """A log of many events: written in batches, verified whole, one event proven."""
    with tempfile.TemporaryDirectory() as folder:
        signer = LocalSigner(Ed25519PrivateKey.generate(), "bench", False)
        written = SqlAuditLog(f"sqlite:///{folder}/log.sqlite3", signer)
        start = time.perf_counter()
        for first in range(0, events, CHUNK):
            body = [Event("ranked", "2026-11-22T12:00:00Z", {"n": i}) for i in range(first, min(first + CHUNK, events))]
            written.append_all(body)
        append = [(time.perf_counter() - start) / events * 1e6]
        early = written.checkpoint()
        written.append(Event("ranked", "2026-11-22T12:00:01Z", {"n": events}))
        verify = _times(written.verify, 1, 1.0)
        prove = _times(lambda: written.prove(events // 2), 1, 1.0)
        consistent = _times(lambda: written.consistency(early), 1, 1.0)
        written.close()
    name = f"{events:,} events"
    return [
        _row(f"append, {name} in batches of {CHUNK}", append, "us an event"),
        _row(f"verify the log, {name} (must: < 60 s for a million)", verify, "s"),
        _row(f"prove one event, {name}", prove, "s"),
        _row(f"prove consistency, {name}", consistent, "s"),
    ]


def _times(work: Callable[[], object], repetitions: int, unit: float = 1e3) -> list[float]:
    found = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        found.append((time.perf_counter() - start) * unit)
    return found


def _row(what: str, samples: list[float], unit: str, peer: list[float] | None = None, name: str = "") -> dict[str, Any]:
    ours = statistics.median(samples)
    theirs = statistics.median(peer) if peer else None
    ratio = ours / theirs if theirs else None
    return {
        "what": what,
        "ours": ours,
        "peer": theirs,
        "peer_name": name,
        "ratio": ratio,
        "unit": unit,
        "samples": samples,
    }


if __name__ == "__main__":
    sys.exit(main())
