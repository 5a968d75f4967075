"""What a request costs, adapter by adapter, measured so that a busy machine does not decide.

All who are compared answer the same prompt one after the other on the same core, beside the same neighbours. Who goes
first turns with the prompt (of two: ABBA), so drift of the machine's speed cancels in ratios; one of each is run before
and thrown away. Every core has a prompt of its own, as when the machine serves. Adapters stand beside the weights, as
in a server that has many.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from ecology.contracts.evidence import Turn
from ecology.contracts.ports import Clock, Step
from ecology.runtime.attachment import Delta, Switch, unmerged
from ecology.runtime.decoding import greedy
from ecology.runtime.workers import LockedStep, side_by_side


def take_turns(
    model: Any,
    adapters: Sequence[Mapping[str, Delta]],
    sequences: Sequence[Sequence[int]],
    max_new_tokens: int,
    clock: Clock,
    workers: int = 1,
    progress: Step | None = None,
) -> tuple[tuple[Turn, ...], ...]:
    """Times of each adapter for each sequence; no adapter at all is the bare base.

    Args:
        model: A causal language model of transformers with nothing attached.
        adapters: Who is compared.
        sequences: Token ids of prompts.
        max_new_tokens: Length of every reply, at least 1.
        clock: Looked at before a request, at its first token, and at its end.
        workers: Prompts at a time.
        progress: Advanced by one for each prompt.
    """
    if not sequences:
        return ()
    switches = [Switch() for _ in adapters]
    bar = LockedStep(progress)

    def turn(sequence: Sequence[int], who: int) -> Turn:
        for place, switch in enumerate(switches):
            switch.on = place == who
        heard: list[float] = []

        def listen(said: Sequence[int]) -> bool:
            if len(said) == 1:
                heard.append(clock.monotonic())
            return False

        start = clock.monotonic()
        greedy(model, [sequence], max_new_tokens, frozenset(), batch_size=1, done=listen)
        return Turn(heard[0] - start, clock.monotonic() - start, max_new_tokens)

    def turns(places: list[int]) -> tuple[Turn, ...]:
        (place,) = places
        found = {
            who: turn(sequences[place], who) for who in ((place + n) % len(adapters) for n in range(len(adapters)))
        }
        bar.advance()
        return tuple(found[who] for who in range(len(adapters)))

    with contextlib.ExitStack() as stack:
        for deltas, switch in zip(adapters, switches, strict=True):
            stack.enter_context(unmerged(deltas, switch))
        for who in range(len(adapters)):
            turn(sequences[0], who)
        return tuple(side_by_side(turns, [[place] for place in range(len(sequences))], workers))
