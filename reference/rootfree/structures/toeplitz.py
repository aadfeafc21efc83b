"""Triangular Toeplitz matrices: one number for each diagonal."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from rootfree._typing import Array, device, namespace
from rootfree.structures._base import Factor, Structure, transposed
from rootfree.structures._diagonals import diagonal_sums, toeplitz


class _Toeplitz(Structure):
    """A triangular Toeplitz matrix K, stored as its diagonals c, ``(n, d)``, the main one first.

    The projection takes the mean of every diagonal, and twice that off the main one. K is written
    out where it multiplies a matrix; a product of two needs one column, and so does ``K^T K``, with
    entries ``c[j-k]`` and ``c[j]`` in the rows of c[j]:

        sum of the k-th diagonal of K^T diag(w) K = sum_j c[j-k] c[j] (sum of w over those rows)
    """

    square: ClassVar[bool] = True

    @abstractmethod
    def _upper(self, matrix: Array) -> Array:
        """Return a matrix of the class as an upper triangular one, and back."""

    @abstractmethod
    def _ordered(self, weights: Array) -> Array:
        """Return the weights of the rows, in the order in which c[k] stands in all from k on."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """One row of numbers."""
        return ((self.size,),)

    def to_dense(self, factor: Factor) -> Array:
        """Return the matrix, ``(n, d, d)``."""
        return self._upper(toeplitz(factor[0]))

    def from_dense(self, matrix: Array) -> Factor:
        """Return the numbers that start the diagonals."""
        return (self._upper(matrix)[:, 0, :],)

    def project(self, matrix: Array) -> Factor:
        """Return the mean of the main diagonal, twice the means of the others."""
        sums = diagonal_sums(self._upper(matrix))
        return (self._off_doubled(sums / self._lengths(matrix)),)

    def eye(self, like: Array, value: float = 1.0) -> Factor:
        """Return ``value`` times the identity."""
        xp, (zeros,) = namespace(like), self.zeros(like)
        return (xp.where(self._lengths(like) == self.size, zeros + value, zeros),)

    def times(self, one: Factor, other: Factor) -> Factor:
        """Return the product: the convolution of the diagonals, cut after d."""
        column = namespace(*other).expand_dims(other[0], axis=2)
        return (self.precision.matmul(transposed(toeplitz(one[0])), column)[:, :, 0],)

    def gram(self, factor: Factor, weights: Array | None = None) -> Factor:
        """Return Pi(K^T diag(w) K) from the sums above, without forming the product."""
        xp, (c,) = namespace(*factor), factor
        lengths = self._lengths(c)
        share = lengths if weights is None else self._tail_sums(weights)
        # NOTE: shares of d keep the product in the range of c^2, where float16 can hold it.
        column = xp.expand_dims(c * (share / self.size), axis=2)
        sums = self.precision.matmul(toeplitz(c), column)[:, :, 0]
        return (self._off_doubled(sums * (self.size / lengths)),)

    def squared_norm(self, factor: Factor) -> Array:
        """Return the squared Frobenius norm: every number as often as it stands in K."""
        xp, (c,) = namespace(*factor), factor
        return xp.sum(self._lengths(c) * (c * c), axis=1)

    def _lengths(self, like: Array) -> Array:
        """Return the lengths of the diagonals, d, d - 1, ..., 1, as ``(1, d)``."""
        xp, dtype = namespace(like), self.precision.working_dtype
        k = xp.arange(0, self.size, dtype=dtype, device=device(like))
        return xp.expand_dims(self.size - k, axis=0)

    def _off_doubled(self, c: Array) -> Array:
        """Return twice every diagonal but the main one."""
        return namespace(c).where(self._lengths(c) == self.size, c, 2.0 * c)

    def _tail_sums(self, weights: Array) -> Array:
        """Return the sum of the weights of the rows where each c[k] stands, ``(n, d)``."""
        xp, (n, d) = namespace(weights), weights.shape
        rows = xp.expand_dims(self._ordered(weights), axis=1)
        return xp.sum(xp.triu(xp.broadcast_to(rows, (n, d, d))), axis=2)


class TrilToeplitz(_Toeplitz):
    """Lower triangular Toeplitz matrices, ``K[i, j] = c[i - j]``; see the module."""

    def _upper(self, matrix: Array) -> Array:
        return transposed(matrix)

    def _ordered(self, weights: Array) -> Array:
        return weights


class TriuToeplitz(_Toeplitz):
    """Upper triangular Toeplitz matrices, ``K[i, j] = c[j - i]``; see the module."""

    def _upper(self, matrix: Array) -> Array:
        return matrix

    def _ordered(self, weights: Array) -> Array:
        return namespace(weights).flip(weights, axis=1)
