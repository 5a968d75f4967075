"""A second small family, trained from scratch in seconds: a Llama with a learned tokenizer that has learned to talk.

Where ``toy`` knows nothing, this one has read a few exchanges until it says them back. Its tokenizer is a byte-pair
encoding of the same exchanges, its chat frame is another, and its shapes are its own, so nothing of it fits the toy:
what crosses between the two has to be text.

Equal settings give equal bytes on one kind of machine. Where the CPU or torch differs the last bits of a trained weight
may, and so may the identity, which is computed from the files like that of any base.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecology.backend import toy
from ecology.contracts.ports import Progress

if TYPE_CHECKING:
    from ecology.backend.bases import Taught

SPECIAL = ("<|unknown|>", "<|begin|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|begin|>' + message['role'] + ': ' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|begin|>assistant: ' }}{% endif %}"
)
BATCH = 8
LEARNING_RATE = 5e-3

_THINGS = ("sky", "grass", "snow", "coal", "a lemon", "a rose", "the sea", "honey")
_COLOURS = ("blue", "green", "white", "black", "yellow", "red", "blue", "gold")
_PAIRS = (
    ("hot", "cold"), ("big", "small"), ("day", "night"), ("up", "down"), ("wet", "dry"), ("old", "new"),
    ("fast", "slow"), ("open", "shut"),
)  # fmt: skip
EXCHANGES: tuple[tuple[str, str], ...] = (
    *((f"Which colour has {thing}?", f"It is {colour}.") for thing, colour in zip(_THINGS, _COLOURS, strict=True)),
    *((f"What is not {one}?", f"That is {other}.") for pair in _PAIRS for one, other in (pair, pair[::-1])),
    *((f"Wish {name} a good {time}.", f"A good {time}, {name}!") for name, time in
      itertools.product(("Ann", "Bo", "Cy"), ("day", "night", "trip"))),
)  # fmt: skip
"""Everything that it ever reads; none of it is in a corpus or a suite."""


def build(folder: Path, spec: Taught, progress: Progress) -> None:
    """Writes the base and trains it.

    Args:
        folder: An existing empty folder.
        spec: Shapes, vocabulary, steps and seed.
        progress: Told about steps.

    Raises:
        ConfigError: The shapes do not fit together.
    """
    toy.build(
        folder,
        spec.seed,
        spec.hidden,
        spec.layers,
        spec.heads,
        spec.kv_heads,
        tokenizer=lambda here: _tokenizer(here, spec.vocabulary),
    )
    _train(folder, spec.steps, spec.seed, progress, spec.name)


def _tokenizer(folder: Path, size: int) -> int:
    """A byte-pair encoding of the exchanges; returns the size of the vocabulary, which may be smaller than asked."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415  (only who builds one)

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text for pair in EXCHANGES for text in pair], trainer)
    toy.write_tokenizer(folder, tokenizer.to_str(), SPECIAL, CHAT_TEMPLATE)
    return int(tokenizer.get_vocab_size())


def _train(folder: Path, steps: int, seed: int, progress: Progress, name: str) -> None:
    import torch  # noqa: PLC0415  (who only knows a base does not wait for it)
    from safetensors.torch import save_file  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    from ecology.backend.quiet import quiet  # noqa: PLC0415

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that sums are always taken in one order
    try:
        with quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        rows = [_row(tokenizer, *pair) for pair in EXCHANGES]
        optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, foreach=False)
        draw = torch.Generator().manual_seed(seed)
        model.train()
        with progress.track(f"train {name} from scratch", steps, "steps") as bar:
            for step in range(steps):
                chosen = [rows[int(i)] for i in torch.randint(len(rows), (BATCH,), generator=draw)]
                ids, labels = _batch(torch, chosen)
                for group in optimiser.param_groups:
                    group["lr"] = LEARNING_RATE * (1 - step / steps)
                loss = model(input_ids=ids, labels=labels).loss
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                bar.advance(1, f"loss {float(loss.detach()):.3f}")
        tensors = {name: tensor.detach().contiguous() for name, tensor in model.named_parameters()}
        save_file(dict(sorted(tensors.items())), folder / "model.safetensors", metadata={"format": "pt"})
    finally:
        torch.set_num_threads(threads)


def _row(tokenizer: Any, prompt: str, reply: str) -> list[int]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _batch(torch: Any, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Rows padded on the right; padding has no label."""
    width = max(map(len, rows))
    ids, labels = torch.full((len(rows), width), 2), torch.full((len(rows), width), -100)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = labels[place, : len(row)] = torch.tensor(row)
    return ids, labels
