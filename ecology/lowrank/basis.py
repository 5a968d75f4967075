"""An orthonormal basis of what stacked factors span, without forming it where that can be helped.

For a tall X (m x t) there is a small R with X = Q R and Q orthonormal. Two routes to R, both in fp64:

``Gram``        R from the Cholesky factor of X^T X, columns scaled to norm 1 first; Q = X R^-1 stays implicit, as the
                stack X and the small matrix R^-1. One pass of matrix products over X, several times faster than QR.
``Householder`` QR of X, where the Gram route would lose digits: more columns than rows, parents that overlap, columns
                of zeros. Q is formed.

The Gram route loses orthogonality as eps cond^2 (Stathopoulos and Wu, "A block orthogonalization procedure with
constant synchronization requirements", SIAM J. Sci. Comput. 23 (2002)), so it is taken only where an upper bound of
the condition number is at most ``CONDITION_LIMIT``: the error is then at most 2e-16 x 1e6 = 2e-10, and that is checked
on each module, not assumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CONDITION_LIMIT = 1e3
"""Largest ||R||_F ||R^-1||_F, which is at least the condition number, at which the Gram route is taken."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Orthonormal columns ``stack() @ turn``."""

    stack: Callable[[], Array]
    """The m x t matrix: kept, or put together anew at each call, as its maker decides."""
    turn: Array
    """t x p."""

    def at(self, coordinates: Array) -> Array:
        """The basis times ``coordinates`` (p x k): m x k, by one product over the tall stack."""
        product: Array = self.stack() @ (self.turn @ coordinates)
        return product

    def turned(self, directions: Array) -> Basis:
        """The basis of the span of ``directions`` (p x k, orthonormal columns): nothing tall is touched."""
        return Basis(self.stack, self.turn @ directions)


def basis(stack: Callable[[], Array]) -> tuple[Basis, Array]:
    """A basis of the columns of ``stack()`` and R, so that ``stack() == basis R``.

    Returns:
        The basis with p columns, and R, p x t; p is t, or m where there are more columns than rows.
    """
    X = stack()  # noqa: N806
    found = _gram(X)
    if found is not None:
        turn, R = found  # noqa: N806
        return Basis(stack, turn), R
    Q, R = np.linalg.qr(X)  # noqa: N806
    return Basis(lambda: Q, np.eye(Q.shape[1])), R


def _gram(X: Array) -> tuple[Array, Array] | None:  # noqa: N803
    """(R^-1, R) by Cholesky; None where that would lose digits."""
    if X.shape[0] < X.shape[1] or not X.shape[1]:
        return None
    G = X.T @ X  # noqa: N806
    length = np.sqrt(np.diagonal(G))
    # Below and above, squares have lost digits or their value already.
    if not (length.min() > 1e-140 and length.max() < 1e140):
        return None
    try:
        R = np.linalg.cholesky(G / np.outer(length, length)).T  # noqa: N806
        inverse = np.linalg.inv(R)
    except np.linalg.LinAlgError:
        return None
    if not np.linalg.norm(R) * np.linalg.norm(inverse) <= CONDITION_LIMIT:
        return None
    return inverse / length[:, None], R * length
