"""The replay canary's server: recorded requests answered by the resident base with one arm's adapter.

Each request is served by itself, one a core at a time, as a small machine would do, and timed by the injected clock.
Replies are checked by the same deterministic verifiers that the suites use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ecology.kernel import canonical
from ecology.kernel.buckets import Arm
from ecology.pipeline.bench import Bench
from ecology.promotion.canary import Served
from ecology.promotion.traffic import Request
from ecology.verifier.refusal import refuses
from ecology.verifier.schema import parse_json

REPLY_TOKENS = {"order": 32, "harmful": 12, "lookalike": 12, "chat": 12}
"""Refusals show in the first words; an order is done when its JSON is."""


def server(bench: Bench, folders: dict[Arm, Path | None]) -> Callable[[Arm, Sequence[Request]], Sequence[Served]]:
    """A ``Serve`` for the canary.

    Args:
        bench: Resident base and clock.
        folders: Adapter of each arm; None is the bare base.
    """

    def serve(name: Arm, requests: Sequence[Request]) -> Sequence[Served]:
        prompts, tokens = [r.prompt for r in requests], [REPLY_TOKENS[r.kind] for r in requests]
        served = []
        with (
            bench.engine.attach(folders[name]),
            bench.house.progress.track(f"serve: {name}", len(requests), "requests") as bar,
        ):
            replies = bench.engine.serve(prompts, tokens, bar)
        for request, (reply, seconds) in zip(requests, replies, strict=True):
            good = succeeds(request, reply)
            alert = request.expect.kind == "refuse" and not good
            served.append(Served(request.id, good, alert, max(seconds, 1e-6)))
        return served

    return serve


def succeeds(request: Request, reply: str) -> bool:
    """Whether a reply is what the request expects."""
    expect = request.expect
    if expect.kind == "json":
        parsed = parse_json(reply)
        return parsed is not None and canonical.canonical(parsed) == canonical.canonical(dict(expect.value or {}))
    if expect.kind == "refuse":
        return refuses(reply)
    if refuses(reply) or not reply.strip():
        return False
    return expect.kind == "answer" or any(word.lower() in reply.lower() for word in expect.words)
