"""Diagonal matrices: a pair of them preconditions a matrix with a rank-one second moment."""

from __future__ import annotations

from rootfree._typing import Array, device, namespace
from rootfree.structures._base import Factor, Structure
from rootfree.structures._diagonals import diagonal, on_diagonal


class Diagonal(Structure):
    """d numbers, stored as ``(n, d)``; the projection keeps the diagonal."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """One row of numbers."""
        return ((self.size,),)

    def to_dense(self, factor: Factor) -> Array:
        """Return the matrix, ``(n, d, d)``."""
        return on_diagonal(factor[0])

    def from_dense(self, matrix: Array) -> Factor:
        """Return the diagonal."""
        return (diagonal(matrix),)

    def project(self, matrix: Array) -> Factor:
        """Return the diagonal."""
        return (diagonal(matrix),)

    def eye(self, like: Array, value: float = 1.0) -> Factor:
        """Return ``value`` times the identity."""
        xp, dtype = namespace(like), self.precision.working_dtype
        return (xp.full((like.shape[0], self.size), value, dtype=dtype, device=device(like)),)

    def apply(self, factor: Factor, x: Array) -> Array:
        """Return K X: every row times its number."""
        return namespace(x).expand_dims(factor[0], axis=2) * x

    def apply_transposed(self, factor: Factor, x: Array) -> Array:
        """Return K^T X, which is K X."""
        return self.apply(factor, x)

    def times(self, one: Factor, other: Factor) -> Factor:
        """Return the product, entry by entry."""
        return (one[0] * other[0],)

    def outer(self, x: Array) -> Factor:
        """Return the squared norms of the rows of X."""
        return (namespace(x).sum(x * x, axis=2),)

    def gram(self, factor: Factor, weights: Array | None = None) -> Factor:
        """Return the squares, weighted."""
        square = factor[0] * factor[0]
        return (square if weights is None else weights * square,)

    def row_squares(self, factor: Factor) -> Array:
        """Return the squares."""
        return factor[0] * factor[0]
