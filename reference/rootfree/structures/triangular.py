"""Triangular matrices: half of a dense factor's freedom, in the same storage."""

from __future__ import annotations

from typing import ClassVar

from rootfree._typing import Array, namespace
from rootfree.structures._base import Factor, Structure


class Tril(Structure):
    """Lower triangular, stored as ``(n, d, d)`` with the upper triangle exactly 0.

    The projection doubles what is below the diagonal. Products are dense and cut to the triangle
    again, so that the zeros stay exact.
    """

    square: ClassVar[bool] = True

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """One square array."""
        return ((self.size, self.size),)

    def to_dense(self, factor: Factor) -> Array:
        """Return the array itself."""
        return factor[0]

    def from_dense(self, matrix: Array) -> Factor:
        """Return the lower triangle."""
        return (namespace(matrix).tril(matrix),)

    def project(self, matrix: Array) -> Factor:
        """Return the lower triangle, twice what is below the diagonal."""
        xp = namespace(matrix)
        return (xp.tril(matrix) + xp.tril(matrix, k=-1),)


class Triu(Structure):
    """Upper triangular, stored as ``(n, d, d)`` with the lower triangle exactly 0.

    The projection doubles what is above the diagonal. Products are dense and cut to the triangle
    again, so that the zeros stay exact.
    """

    square: ClassVar[bool] = True

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """One square array."""
        return ((self.size, self.size),)

    def to_dense(self, factor: Factor) -> Array:
        """Return the array itself."""
        return factor[0]

    def from_dense(self, matrix: Array) -> Factor:
        """Return the upper triangle."""
        return (namespace(matrix).triu(matrix),)

    def project(self, matrix: Array) -> Factor:
        """Return the upper triangle, twice what is above the diagonal."""
        xp = namespace(matrix)
        return (xp.triu(matrix) + xp.triu(matrix, k=1),)
