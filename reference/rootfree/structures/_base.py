"""What a structure is: the stored numbers of a factor, and the products that a rule takes of it.

A factor K is a d x d matrix of a class that is closed under products. It is kept as a tuple of
arrays, each with the stack axis first, that hold the numbers which the class leaves free. A new
structure needs `shapes`, `to_dense`, `from_dense` and `project`; all else has a dense fallback
here, against which the faster versions are tested.

References:
    Lin et al., Structured Inverse-Free Natural Gradient Descent, 2024, arXiv 2312.05705.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from rootfree._typing import Array, Scalar, device, namespace
from rootfree.precision import Precision, per_member

Factor: TypeAlias = tuple[Array, ...]
"""The stored arrays of one factor, ``(n, ...)`` each; a class decides how many and what they hold.
"""


@dataclass(frozen=True)
class Structure(ABC):
    """A class of d x d matrices with the operations that SIRF-Shampoo takes.

    Factors passed in, and all results, are in the working dtype; matrix products take their inputs
    in the compute dtype.

    Args:
        size: d >= 1.
        precision: dtypes.

    Attributes:
        square: whether d x d numbers are stored, or formed on the way to a product.
    """

    size: int
    precision: Precision

    square: ClassVar[bool] = False

    @property
    @abstractmethod
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the stored arrays, without the stack axis; none of them is empty."""

    @abstractmethod
    def to_dense(self, factor: Factor) -> Array:
        """Return the matrix, ``(n, d, d)``."""

    @abstractmethod
    def from_dense(self, matrix: Array) -> Factor:
        """Return the stored numbers of a matrix of the class, ``(n, d, d)``."""

    @abstractmethod
    def project(self, matrix: Array) -> Factor:
        """Return Pi(N) of symmetric N, ``(n, d, d)``: twice the natural gradient in the class.

        Entries that exist in one triangle only are doubled; tr Pi(N) = tr N and Pi(I) = I.
        """

    @classmethod
    def parsed(cls, name: str, words: Sequence[str]) -> tuple[Any, ...]:
        """Return the arguments after size and precision, from the words in a name's parentheses.

        Raises:
            ValueError: if there are too many of them, or they are not what the class takes.
        """
        if words:
            raise ValueError(f"structure {name!r} takes nothing in parentheses")
        return ()

    @property
    def stored(self) -> int:
        """How many numbers a factor keeps."""
        return sum(map(math.prod, self.shapes))

    def eye(self, like: Array, value: float = 1.0) -> Factor:
        """Return ``value`` times the identity, in the working dtype.

        Args:
            like: gives n, namespace and device.
            value: what the diagonal holds.
        """
        return self.from_dense(value * identity(self.size, like, self.precision))

    def zeros(self, like: Array) -> Factor:
        """Return the zero matrix."""
        xp, dtype, where = namespace(like), self.precision.working_dtype, device(like)
        return tuple(
            xp.zeros((like.shape[0], *shape), dtype=dtype, device=where) for shape in self.shapes
        )

    def apply(self, factor: Factor, x: Array) -> Array:
        """Return K X for X of shape ``(n, d, M)``."""
        return self.precision.matmul(self.to_dense(factor), x)

    def apply_transposed(self, factor: Factor, x: Array) -> Array:
        """Return K^T X for X of shape ``(n, d, M)``."""
        return self.precision.matmul(transposed(self.to_dense(factor)), x)

    def times(self, one: Factor, other: Factor) -> Factor:
        """Return the product of two matrices of the class."""
        return self.from_dense(self.precision.matmul(self.to_dense(one), self.to_dense(other)))

    def outer(self, x: Array) -> Factor:
        """Return Pi(X X^T) for X of shape ``(n, d, M)``."""
        return self.project(self.precision.matmul(x, transposed(x)))

    def gram(self, factor: Factor, weights: Array | None = None) -> Factor:
        """Return Pi(K^T diag(w) K), w of shape ``(n, d)``; without weights Pi(K^T K)."""
        k = self.to_dense(factor)
        weighted = k if weights is None else namespace(k).expand_dims(weights, axis=2) * k
        return self.project(self.precision.matmul(transposed(k), weighted))

    def row_squares(self, factor: Factor) -> Array:
        """Return the squared norm of every row of K, ``(n, d)``."""
        k = self.to_dense(factor)
        return namespace(k).sum(k * k, axis=2)

    def squared_norm(self, factor: Factor) -> Array:
        """Return the squared Frobenius norm of K, ``(n,)``.

        This version is right where every stored number stands in one place of K.
        """
        return sum_of_squares(factor)

    def max_abs(self, factor: Factor) -> Array:
        """Return the largest absolute value in K, ``(n,)``."""
        xp = namespace(*factor)
        first, *rest = (xp.max(xp.abs(flat(part)), axis=1) for part in factor)
        for value in rest:
            first = xp.maximum(first, value)
        return first


def add(one: Factor, other: Factor) -> Factor:
    """Return the sum of two matrices of one class."""
    return tuple(a + b for a, b in zip(one, other, strict=True))


def scale(factor: Factor, value: Scalar) -> Factor:
    """Return a matrix times a number: Python's, a 0-d array, or one for each member, ``(n,)``."""
    if getattr(value, "ndim", 0) == 1:
        return tuple(per_member(value, part) * part for part in factor)  # type: ignore[arg-type]  # an array
    return tuple(value * part for part in factor)


def identity(size: int, like: Array, precision: Precision) -> Array:
    """Return a stack of identity matrices ``(n, size, size)`` in the working dtype."""
    xp, dtype, where = namespace(like), precision.working_dtype, device(like)
    one = xp.expand_dims(xp.eye(size, dtype=dtype, device=where), axis=0)
    return one + xp.zeros((like.shape[0], size, size), dtype=dtype, device=where)


def transposed(matrix: Array) -> Array:
    """Return the transpose of every matrix of a stack."""
    return namespace(matrix).matrix_transpose(matrix)


def flat(part: Array) -> Array:
    """Return an array ``(n, ...)`` as ``(n, m)``."""
    return namespace(part).reshape(part, (part.shape[0], math.prod(part.shape[1:])))


def integers(name: str, words: Sequence[str], *, least: int, meaning: str) -> tuple[int, ...]:
    """Return the words in a structure's parentheses as integers.

    Args:
        name: of the structure, as it was given.
        words: none, for the class's defaults, or one for each number in ``meaning``.
        least: the smallest integer that is taken.
        meaning: what the numbers are, parted by commas.

    Raises:
        ValueError: if there is another number of words, or they are not such integers.
    """
    if not words:
        return ()
    right = all(word.isascii() and word.isdecimal() and int(word) >= least for word in words)
    if not right or len(words) != len(meaning.split(",")):
        raise ValueError(
            f"structure {name!r} takes integers >= {least} in parentheses, ({meaning}), or none; "
            f"got ({', '.join(words)})"
        )
    return tuple(map(int, words))


def sum_of_squares(factor: Factor) -> Array:
    """Return the sum of the squares of all stored numbers, ``(n,)``."""
    xp = namespace(*factor)
    total, *rest = (xp.sum(flat(part * part), axis=1) for part in factor)
    for value in rest:
        total = total + value
    return total
