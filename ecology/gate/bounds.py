"""How large a change may be, by module, against the weight that it changes.

    ||dW||_F <= max_relative_norm ||W||_F                    for every module
    ||dW||_2 <= max_relative_spectral_norm ||W||_2           where the policy bounds it

The first bounds the second in absolute terms (||dW||_2 <= ||dW||_F), but not relative to the weight: a trained weight
spreads its norm over hundreds of directions, so a change of one direction can be a small share of ||W||_F and still
outweigh the strongest direction that the weight has.

For a DoRA, whose rows of W + s B A are scaled to the lengths m, s B A is bounded as above, and m by being positive and
||m|| <= (1 + max_relative_norm) ||W||_F; how m is spread over the rows is left to the measured gates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ecology.contracts.artifact import WEIGHTS_FILE
from ecology.contracts.policy import AdapterLimits
from ecology.gate.violation import Violation
from ecology.gate.weighing import Change


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
