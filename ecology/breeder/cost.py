"""What a training by reward will take: memory, time and money, before anything is spent.

With N parameters of the base, L layers, K keys and values a token and layer, R replies a step of T tokens at most, Q
prompts of P tokens, b bytes a weight, and M = Q P + R T tokens a step (R P + R T for TRL, which reads a prompt once a
reply):

    memory   b N (once more for vLLM's copy)  +  L K b R (P + T)  +  4 V T        +  2 b L H (P + T)
             weights                              cache             logits, one reply  activations, one reply
    compute  rollouts 2 N M, training forward and backward 4 N M (frozen weights need no gradient of their own), and one
             more forward, 2 N M, where TRL computes activations again
    decode   T reads of all weights at the memory's speed, whatever R is
    time     steps * (compute / (peak * USE) + decode)
    money    time * price

It is an estimate within a factor of two or three, and an upper bound where replies end before T: how long they get is
what training changes. FLOPs as in arXiv:2001.08361, section 2.1; memory as in arXiv:1910.02054.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

from ecology.breeder.grpo import GrpoOptions

PROMPT = 128
"""Tokens of a prompt with its frame, where nothing is known of the corpus."""
USE = 0.4
"""Share of the peak rate that large matrix products reach."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What of a base costs."""

    parameters: float
    layers: int
    hidden: int
    kept: int
    """Keys and values a token and layer, 2 * heads of keys * size."""
    vocabulary: int


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """What it is trained on."""

    name: str
    flops: float
    """Peak, a second, in the precision used."""
    bandwidth: float
    """Bytes a second of its memory."""
    memory: float
    """Bytes."""
    bytes_per_weight: int
    price: float
    """US dollars an hour; a list price, to be replaced by one's own."""


SHAPES: Mapping[str, Shape] = types.MappingProxyType(
    {
        "smollm2-135m": Shape(134.5e6, 30, 576, 2 * 3 * 64, 49152),
        "qwen2.5-7b-instruct": Shape(7.616e9, 28, 3584, 2 * 4 * 128, 152064),
        "r1-distill-qwen-1.5b": Shape(1.777e9, 28, 1536, 2 * 2 * 128, 151936),
    }
)
"""By name of the base's preset, from their published configurations."""
MACHINES: Mapping[str, Machine] = types.MappingProxyType(
    {
        "two cores": Machine("two cores", 3e11, 2e10, 16e9, 4, 0.1),
        "one H100": Machine("one H100", 9.9e14, 3.35e12, 80e9, 2, 3.0),
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Of one training."""

    memory: float
    """Bytes at the peak."""
    seconds: float
    dollars: float
    fits: bool


def cost(options: GrpoOptions, shape: Shape, machine: Machine, prompt: int = PROMPT) -> Cost:
    """The estimate of the docstring above.

    Args:
        options: The recipe; its longest replies are taken for the usual ones.
        shape: Of the base.
        machine: Where.
        prompt: Tokens of a prompt, frame included.
    """
    b, replies = machine.bytes_per_weight, options.prompts * options.group
    tokens = prompt + options.max_new_tokens
    weights = b * shape.parameters * (2 if options.vllm else 1)
    cache = shape.layers * shape.kept * b * replies * tokens
    logits = 4.0 * shape.vocabulary * options.max_new_tokens
    activations = 2.0 * b * shape.layers * shape.hidden * tokens
    again = 2.0 if options.trainer == "trl" else 0.0
    read = (replies if options.trainer == "trl" else options.prompts) * prompt + replies * options.max_new_tokens
    compute = (2.0 + 4.0 + again) * shape.parameters * read / (machine.flops * USE)
    decode = options.max_new_tokens * b * shape.parameters / machine.bandwidth
    seconds = options.steps * (compute + decode)
    memory = weights + cache + logits + activations
    return Cost(memory, seconds, seconds / 3600 * machine.price, memory <= machine.memory)
