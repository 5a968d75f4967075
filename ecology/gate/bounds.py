"""How large a change may be, by module, against the weight that it changes.

    ||dW||_F <= max_relative_norm ||W||_F                    for every module
    ||dW||_2 <= max_relative_spectral_norm ||W||_2           where the policy bounds it

    s ||B||_F ||A||_F <= 64 max_relative_norm ||W||_F       for every module
    ||A||_F, ||B||_F <= 64 max(||W||_F, sqrt(r))            for every module

The first bounds the second in absolute terms (||dW||_2 <= ||dW||_F), but not relative to the weight: a trained weight
spreads its norm over hundreds of directions, so a change of one direction can be a small share of ||W||_F and still
outweigh the strongest direction that the weight has.

The last two are about what PEFT computes, which is not dW but s (x A^T) B^T in float32 or bfloat16. A product in such
arithmetic is off relative to the norms of its factors, however much of it cancels: with a unit roundoff of 2^-9
(bfloat16) and three roundings, of two products and the scale, by up to 3/8 max_relative_norm ||W||_F under the third
bound, and by 2^-15 of that in float32. So cancellation hides less than the first bound admits anyway. Trained adapters
are far from it: ||B||_F ||A||_F is 1 to sqrt(r) times ||dW||_F where factors are split evenly, as PiSSA's are, and
where B was trained from 0 on a random A.

The fourth is about range: entries of 3e38 against entries of 1e-42 have any product, and x A^T is infinite. What lies
between the factors is at most 64 times as large as the base's own x W^T, or 64 times as large as orthonormal rows make
it, which is how a decomposition may leave A or B; float32 and bfloat16 then have 30 decades left. float16 overflows at
65504, and whether it does depends on the inputs, for the base as for the adapter.

For a DoRA, whose rows of W + s B A are scaled to the lengths m, s B A is bounded as above, and m by being positive and
||m|| <= (1 + max_relative_norm) ||W||_F. How m is spread over the rows is left to the measured gates, and so is a row
of s B A that takes away a row of W, whose direction is then anything: W itself is not at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ecology.contracts.artifact import WEIGHTS_FILE
from ecology.contracts.policy import AdapterLimits
from ecology.gate.violation import Violation
from ecology.gate.weighing import Change

MOST_FACTORS = 64.0
"""By how much ||A|| and ||B|| may exceed the weight, and ||A|| ||B|| the largest change that is allowed."""


def check_norms(
    found: Sequence[Change],
    weight_norms: Mapping[str, float],
    spectral_norms: Mapping[str, float],
    limits: AdapterLimits,
) -> list[Violation]:
    """Modules whose change is too large a share of the base's weight.

    Args:
        found: What ``weighing.weigh`` measured.
        weight_norms: ||W||_F by name of the base's tensor.
        spectral_norms: ||W||_2, or a lower bound of it, by name of the base's tensor.
        limits: The policy's bounds on the two ratios.
    """
    wrong = []
    for change in found:
        weight = f"{change.module.name}.weight"
        base = weight_norms.get(weight, 0.0)
        if not base > 0:
            wrong.append(
                _of(change.module.name, "no norm of the base's weight", "a weight whose norm bounds the change")
            )
            continue
        bound = limits.max_relative_norm
        if not change.norm <= bound * base:
            said = f"a change of {change.norm / base:.4g} of the weight's norm"
            wrong.append(_of(change.module.name, said, f"at most {bound:g}"))
        if not change.product <= MOST_FACTORS * bound * base:
            said = f"factors whose norms multiply to {change.product / base:.4g} of the weight's norm"
            wrong.append(_of(change.module.name, said, f"at most {MOST_FACTORS * bound:g}, or rounding decides"))
        largest = max(base, math.sqrt(change.module.rank))
        if not change.factor <= MOST_FACTORS * largest:
            said = f"a factor of norm {change.factor:.4g}"
            allowed = f"at most {MOST_FACTORS * largest:.4g}, or what is between the factors overflows"
            wrong.append(_of(change.module.name, said, allowed))
        if not change.magnitude <= (1 + bound) * base:
            said = f"magnitudes of {change.magnitude / base:.4g} of the weight's norm"
            wrong.append(_of(change.module.m, said, f"positive ones of at most {1 + bound:g}"))
        wrong += _spectral(change, spectral_norms.get(weight, 0.0), limits.max_relative_spectral_norm)
    return wrong


def _spectral(change: Change, base: float, bound: float) -> list[Violation]:
    if bound == math.inf or not change.spectrum:  # a change that is not finite is refused by its norm
        return []
    if not base > 0:
        what = "a weight whose spectral norm bounds the change"
        return [_of(change.module.name, "no spectral norm of the base's weight", what)]
    if change.spectrum[0] <= bound * base:
        return []
    said = f"a change of {change.spectrum[0] / base:.4g} of the weight's spectral norm"
    return [_of(change.module.name, said, f"at most {bound:g}")]


def _of(key: str, found: str, allowed: str) -> Violation:
    return Violation("magnitude", WEIGHTS_FILE, key, found, allowed)
