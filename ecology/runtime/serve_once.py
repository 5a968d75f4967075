"""A process that loads a base, serves a few prompts with one adapter, and prints its peak memory in bytes.

``telemetry.memory`` starts it; the order comes as JSON on stdin:
``{"base", "adapter" or null, "prompts", "max_new_tokens", "threads"}``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ecology.backend.quiet import quiet
from ecology.runtime.attachment import read_deltas, unmerged
from ecology.runtime.chat import chat_format, encode_prompts
from ecology.runtime.decoding import greedy
from ecology.telemetry.memory import peak_memory_bytes


def main() -> None:
    """Reads the order, serves, prints one number."""
    order = json.load(sys.stdin)
    torch.set_num_threads(order["threads"])
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(order["base"], local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(order["base"], dtype=torch.float32, local_files_only=True)
    model.eval().requires_grad_(False)
    deltas = read_deltas(model, Path(order["adapter"])) if order["adapter"] else {}
    sequences = encode_prompts(tokenizer, chat_format(tokenizer), order["prompts"])
    with unmerged(deltas) if deltas else contextlib.nullcontext():
        greedy(model, sequences, order["max_new_tokens"], frozenset(), batch_size=max(1, len(sequences)))
    sys.stdout.write(f"{peak_memory_bytes()}\n")


if __name__ == "__main__":
    main()
