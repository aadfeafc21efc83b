"""Any matrix at all: with it SIRF-Shampoo is IF-Shampoo."""

from __future__ import annotations

from typing import ClassVar

from rootfree._typing import Array
from rootfree.structures._base import Factor, Structure


class Dense(Structure):
    """d x d numbers, stored as one array ``(n, d, d)``; the projection changes nothing."""

    square: ClassVar[bool] = True

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """One square array."""
        return ((self.size, self.size),)

    def to_dense(self, factor: Factor) -> Array:
        """Return the array itself."""
        return factor[0]

    def from_dense(self, matrix: Array) -> Factor:
        """Return the array itself."""
        return (matrix,)

    def project(self, matrix: Array) -> Factor:
        """Return the array itself: every entry is free."""
        return (matrix,)
