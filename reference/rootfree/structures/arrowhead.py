"""Arrowhead matrices: a diagonal and one dense column or row, the rank-one triangular classes.

The preconditioner ``K K^T`` (for a row) or its inverse (for a column) is an arrowhead matrix: a
diagonal, one row, and the same numbers as a column.

References:
    Lin et al., Structured Inverse-Free Natural Gradient Descent, 2024, arXiv 2312.05705.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rootfree._typing import Array, namespace
from rootfree.structures._base import Factor, transposed
from rootfree.structures._diagonals import diagonal
from rootfree.structures.diagonal import Diagonal

SIDES: Final = ("first_column", "last_row", "first_row", "last_column")
"""Where the border is; the first two are lower triangular, the others upper."""


@dataclass(frozen=True)
class Arrowhead(Diagonal):
    """A diagonal ``(n, d)`` and a border ``(n, d - 1)`` beside the corner that both share.

        K = diag(k) + b e^T   (column)        K = diag(k) + e b^T   (row)

    e is the corner's unit vector, first or last, and b is 0 there. The projection doubles the
    border. For d = 1 there is no border, and this is a diagonal matrix.

    Args:
        size, precision: as in `Structure`.
        side: one of `SIDES`.
    """

    side: str = "first_row"

    @classmethod
    def parsed(cls, name: str, words: Sequence[str]) -> tuple[Any, ...]:
        """Return the side."""
        if len(words) > 1 or not set(words) <= set(SIDES):
            raise ValueError(
                f"structure {name!r} takes one of {', '.join(SIDES)} in parentheses, or none; "
                f"got ({', '.join(words)})"
            )
        return tuple(words)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The diagonal, then the border."""
        return ((self.size,),) + ((self.size - 1,),) * (self.size > 1)

    def to_dense(self, factor: Factor) -> Array:
        """Return the matrix, ``(n, d, d)``."""
        main = super().to_dense(factor)
        if self.size == 1:
            return main
        xp, (k, b) = namespace(*factor), factor
        zeros = xp.zeros_like(main)[:, :, 1:]
        line = xp.expand_dims(self._joined(xp.zeros_like(k)[:, :1], b), axis=2)
        column = xp.concat([line, zeros] if self._first else [zeros, line], axis=2)
        return main + (column if self._column else transposed(column))

    def from_dense(self, matrix: Array) -> Factor:
        """Return the diagonal and the border."""
        if self.size == 1:
            return super().from_dense(matrix)
        line = matrix if self._column else transposed(matrix)
        line = line[:, :, 0 if self._first else self.size - 1]
        return diagonal(matrix), self._split(line)[1]

    def project(self, matrix: Array) -> Factor:
        """Return the diagonal and twice the border."""
        main, *border = self.from_dense(matrix)
        return (main, *(2.0 * b for b in border))

    def eye(self, like: Array, value: float = 1.0) -> Factor:
        """Return ``value`` times the identity."""
        return super().eye(like, value) + self.zeros(like)[1:]

    def apply(self, factor: Factor, x: Array) -> Array:
        """Return K X."""
        return self._product(factor, x, column=self._column)

    def apply_transposed(self, factor: Factor, x: Array) -> Array:
        """Return K^T X: a column becomes a row."""
        return self._product(factor, x, column=not self._column)

    def times(self, one: Factor, other: Factor) -> Factor:
        """Return the product."""
        main = super().times(one, other)
        if self.size == 1:
            return main
        (k, b), (mu, beta) = one, other
        (k_corner, k_rest), (mu_corner, mu_rest) = self._split(k), self._split(mu)
        if self._column:
            return (*main, b * mu_corner + k_rest * beta)
        return (*main, k_corner * beta + b * mu_rest)

    def outer(self, x: Array) -> Factor:
        """Return the squared norms of the rows of X, and twice their products with the corner's."""
        main = super().outer(x)
        if self.size == 1:
            return main
        corner, rest = self._split(x)
        return (*main, 2.0 * self.precision.matmul(rest, transposed(corner))[:, :, 0])

    def gram(self, factor: Factor, weights: Array | None = None) -> Factor:
        """Return Pi(K^T diag(w) K)."""
        main = super().gram(factor, weights)
        if self.size == 1:
            return main
        k, b = factor
        k_corner, k_rest = self._split(k)
        weighted = b
        if weights is not None:
            w_corner, w_rest = self._split(weights)
            weighted = (w_rest if self._column else w_corner) * b
        border = 2.0 * ((k_rest if self._column else k_corner) * weighted)
        return self._with_border(main[0], b * weighted, summed=self._column), border

    def row_squares(self, factor: Factor) -> Array:
        """Return the squares of the diagonal, and of the border where it stands."""
        main = super().row_squares(factor)
        if self.size == 1:
            return main
        return self._with_border(main, factor[1] * factor[1], summed=not self._column)

    @property
    def _column(self) -> bool:
        return self.side.endswith("column")

    @property
    def _first(self) -> bool:
        return self.side.startswith("first")

    def _split(self, x: Array) -> tuple[Array, Array]:
        """Return the corner's row of ``(n, d, ...)`` and the rest, ``(n, 1, ...)`` and the rest."""
        if self._first:
            return x[:, :1, ...], x[:, 1:, ...]
        return x[:, self.size - 1 :, ...], x[:, : self.size - 1, ...]

    def _joined(self, corner: Array, rest: Array) -> Array:
        """Undo `_split`."""
        return namespace(rest).concat([corner, rest] if self._first else [rest, corner], axis=1)

    def _product(self, factor: Factor, x: Array, *, column: bool) -> Array:
        """Return K X for a border that is a column, or else a row."""
        main = super().apply(factor, x)
        if self.size == 1:
            return main
        xp, (_, b) = namespace(*factor), factor
        (x_corner, x_rest), (corner, rest) = self._split(x), self._split(main)
        if column:
            return self._joined(corner, rest + xp.expand_dims(b, axis=2) * x_corner)
        row = xp.expand_dims(b, axis=1)
        return self._joined(corner + self.precision.matmul(row, x_rest), rest)

    def _with_border(self, main: Array, squares: Array, *, summed: bool) -> Array:
        """Return ``(n, d)`` plus the border's squares: in the corner their sum, or in the rest."""
        xp, (corner, rest) = namespace(main), self._split(main)
        if summed:
            return self._joined(corner + xp.expand_dims(xp.sum(squares, axis=1), axis=1), rest)
        return self._joined(corner, rest + squares)
