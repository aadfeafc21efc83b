"""Diagonals of square matrices, read, written and summed by laying their rows out anew.

Entry (i, j) of a d x d matrix has number ``i d + j = i (d + 1) + (j - i)`` when the rows are laid
end to end. In rows of d + 1 numbers, column k therefore holds the k-th diagonal above the main one,
followed by entries from below it. So no gather is needed, and nothing is multiplied by 0.

References:
    Golub, Van Loan, Matrix Computations, 2013, section 4.7 (Toeplitz matrices).
"""

from __future__ import annotations

from rootfree._typing import Array, device, namespace


def diagonal(matrix: Array) -> Array:
    """Return the diagonals of a stack, ``(n, d, d, ...)`` -> ``(n, d, ...)``."""
    n, d, _, *rest = matrix.shape
    return namespace(matrix).reshape(matrix, (n, d * d, *rest))[:, :: d + 1, ...]


def on_diagonal(entries: Array) -> Array:
    """Return matrices with these diagonals and zeros elsewhere, the inverse of `diagonal`."""
    xp = namespace(entries)
    n, d, *rest = entries.shape
    zeros = xp.zeros((n, d, d, *rest), dtype=entries.dtype, device=device(entries))
    rows = xp.concat([xp.expand_dims(entries, axis=2), zeros], axis=2)
    return xp.reshape(_end_to_end(rows)[:, : d * d, ...], (n, d, d, *rest))


def diagonal_sums(matrix: Array) -> Array:
    """Return the sums of the main diagonal and of those above it, ``(n, d)``."""
    xp = namespace(matrix)
    n, d, _ = matrix.shape
    zeros = xp.zeros((n, d), dtype=matrix.dtype, device=device(matrix))
    numbers = xp.concat([_end_to_end(xp.triu(matrix)), zeros], axis=1)
    return xp.sum(xp.reshape(numbers, (n, d, d + 1)), axis=1)[:, :d]


def toeplitz(c: Array) -> Array:
    """Return the upper triangular Toeplitz matrices ``K[i, j] = c[j - i]``, ``(n, d, d)``."""
    xp = namespace(c)
    n, d = c.shape
    zero = xp.zeros((n, 1), dtype=c.dtype, device=device(c))
    row = xp.expand_dims(xp.concat([c, zero], axis=1), axis=1)
    numbers = _end_to_end(xp.broadcast_to(row, (n, d, d + 1)))
    return xp.triu(xp.reshape(numbers[:, : d * d], (n, d, d)))


def _end_to_end(rows: Array) -> Array:
    """Return ``(n, r, c, ...)`` as ``(n, r * c, ...)``."""
    n, r, c, *rest = rows.shape
    return namespace(rows).reshape(rows, (n, r * c, *rest))
