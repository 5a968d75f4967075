"""How a message becomes tokens: the base's own chat template, without a system message that nobody asked for.

Templates like that of SmolLM2 put a default system message before the first turn. It costs thirty tokens a request and
says nothing, so the template is rendered with an empty system message and that turn is cut off again, where it can be
told apart; a template that does not know system messages is rendered as it is. A base without a template gets the
message, a line break, and the reply.

The message itself is tokenised apart from its frame and with special tokens switched off, so that a prompt that
contains ``<|im_end|>`` ends no turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

MARK = "\ue000message\ue000"
"""Stands for the message while the frame is cut out; private-use characters that no template holds."""


@dataclasses.dataclass(frozen=True, slots=True)
class ChatFormat:
    """What stands before and after the user's message; the reply follows ``tail``."""

    head: str
    tail: str


def chat_format(tokenizer: Any) -> ChatFormat:
    """The frame of one user turn of this tokenizer's chat template."""
    if not tokenizer.chat_template:
        return ChatFormat("", "\n")
    user = {"role": "user", "content": MARK}
    plain = _render(tokenizer, [user], reply=True)
    if plain is None:
        return ChatFormat("", "\n")
    frame = plain
    system = {"role": "system", "content": ""}
    alone, both = _render(tokenizer, [system], reply=False), _render(tokenizer, [system, user], reply=True)
    if alone and both and both.startswith(alone):
        frame = both[len(alone) :]
        start = tokenizer.bos_token or ""
        if start and plain.startswith(start) and not frame.startswith(start):
            frame = start + frame  # it was cut off with the system turn
    head, found, tail = frame.partition(MARK)
    return ChatFormat(head, tail) if found else ChatFormat("", "\n")


def encode_prompts(tokenizer: Any, frame: ChatFormat, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each message in its frame, up to where the reply begins."""
    head, tail = encode_plain(tokenizer, frame.head), encode_plain(tokenizer, frame.tail)
    return [head + ids + tail for ids in encode_texts(tokenizer, prompts)]


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts from outside: nothing in them is a special token."""
    if not texts:
        return []
    batch = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False)
    return [list(ids) for ids in batch["input_ids"]]


def encode_plain(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text of ours, special tokens read as such; nothing is added."""
    return list(tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]) if text else []


def _render(tokenizer: Any, messages: list[dict[str, str]], *, reply: bool) -> str | None:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply))
    except (TemplateError, ValueError, TypeError):  # "this template has no system role"
        return None
