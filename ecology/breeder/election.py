"""Electing a sign for each entry, and averaging the parents that agree with it: the half of TIES that others share.

Source: "TIES-Merging", arXiv:2306.01708, section 4, steps 2 and 3; where weights go is a choice (see ``ties``).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ecology.lowrank.basis import Array

SignWeighting = Literal["weighted", "unweighted"]
Normalise = Literal["weights", "count", "none"]

TIE_TOLERANCE = 1e-9
"""A majority smaller than this share of the votes is none."""


def elect(block: Array, weights: Array, sign_weighting: SignWeighting, normalise: Normalise) -> Array:
    """Elects and averages N x p x q entries into p x q.

    Args:
        block: Entries of the parents; 0 is no vote.
        weights: N.
        sign_weighting: Whether weights count in the election.
        normalise: What the sum of agreeing entries is divided by: their weights' magnitudes, their number, nothing.
    """
    weighted = block * weights[:, None, None]
    votes = weighted if sign_weighting == "weighted" else block * (weights != 0)[:, None, None]
    balance = votes.sum(axis=0)
    # Where parents cancel to rounding, noise must not elect a sign.
    elected = np.where(np.abs(balance) > TIE_TOLERANCE * np.abs(votes).sum(axis=0), np.sign(balance), 0.0)
    agrees = (np.sign(votes) == elected) & (votes != 0)
    total: Array = np.where(agrees, weighted, 0.0).sum(axis=0)
    if normalise == "none":
        return total
    # |w|, because a parent of negative weight has its sign turned already.
    shares = np.abs(weights) if normalise == "weights" else np.ones_like(weights)
    divisor = np.tensordot(shares, agrees.astype(np.float64), axes=1)
    return np.divide(total, divisor, out=np.zeros_like(total), where=divisor > 0)
