"""A process that loads a base, serves a few prompts with one adapter, and prints its peak memory in bytes.

It does what the canary's server does and nothing else: the base with its weights laid out, the adapter merged into
copies of those that it changes, and each prompt by itself, as many at a time as there are threads.

``telemetry.memory`` starts it; the order comes as JSON on stdin:
``{"base", "adapter" or null, "prompts", "max_new_tokens", "threads"}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ecology.runtime.attachment import merge, merged, read_deltas
from ecology.runtime.chat import chat_format, encode_prompts
from ecology.runtime.decoding import greedy
from ecology.runtime.resident import load
from ecology.runtime.workers import side_by_side
from ecology.telemetry.memory import peak_memory_bytes


def main() -> None:
    """Reads the order, serves, prints one number."""
    order = json.load(sys.stdin)
    resident = load(Path(order["base"]))
    deltas = read_deltas(resident.model, Path(order["adapter"])) if order["adapter"] else {}
    sequences = encode_prompts(resident.tokenizer, chat_format(resident.tokenizer), order["prompts"])

    def serve(places: list[int]) -> None:
        greedy(resident.model, [sequences[i] for i in places], order["max_new_tokens"], frozenset(), batch_size=1)

    with merged(deltas, merge(deltas, order["threads"])):
        for _ in side_by_side(serve, [[place] for place in range(len(sequences))], order["threads"]):
            pass
    sys.stdout.write(f"{peak_memory_bytes()}\n")


if __name__ == "__main__":
    main()
