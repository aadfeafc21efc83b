"""The matrix products that a step of dense SIRF-Shampoo takes: the least that it has to do.

For an axis of length d of a parameter with D numbers, seen as M = D/d columns, they are products
of K, m, N: (d, d) and of X, A: (d, M). A step that does all of them anew takes 12 for a matrix of
two axes: 2 for A, 2 for A A^T, 2 for K^T K, 2 for K m and 4 for K (K^T X). Three need not be taken
each time: K^T K where damping is 0, the observation where it is not its turn, and K^T X where
K K^T is formed, or kept, and applied once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from rootfree import METHODS, Precision, plan

from benchmarks.shape_sets import Shape

Product: TypeAlias = tuple[str, str, str]
"""Left and right factor and result by name; ``'`` transposes."""

_SEEN: Final[tuple[Product, ...]] = (("K'", "X", "A"), ("A", "A'", "N"))
_DAMPED: Final[Product] = ("K'", "K", "N")
_MOVED: Final[Product] = ("K", "m", "N")
# L is the moved K: a compiler must not find the same product twice.
_TWICE: Final[tuple[Product, ...]] = (("L'", "X", "A"), ("L", "A", "U"))
_FORMED: Final[Product] = ("L", "L'", "S")
_ONCE: Final[Product] = ("S", "X", "U")


class Axis(NamedTuple):
    """An axis of equal parameters, with the products that are taken for it.

    Attributes:
        members: number of the parameters.
        length: d.
        columns: M.
        observation: products that let the curvature in.
        direction: products of every step.
    """

    members: int
    length: int
    columns: int
    observation: tuple[Product, ...]
    direction: tuple[Product, ...]

    def shape(self, name: str) -> tuple[int, int, int]:
        """Return the shape of the stack that a product's factor or result is."""
        columns = self.columns if name.rstrip("'") in "XAU" else self.length
        return (self.members, self.length, columns)

    def flops(self, products: Iterable[Product]) -> int:
        """Return the floating-point operations of products: 2 m n k for (m, n) by (n, k)."""
        total = 0
        for left, _, out in products:
            inner = self.shape(left)[1 if left.endswith("'") else 2]
            total += 2 * math.prod(self.shape(out)) * inner
        return total


def all_products(shapes: Iterable[Shape], *, merge_dims: int | None = None) -> list[Axis]:
    """Return the products of a step that takes every one of them: 12 for a matrix.

    Args:
        shapes: of the parameters.
        merge_dims: as in `rootfree.SIRFShampoo`.
    """
    return [
        Axis(count, length, columns, (*_SEEN, _DAMPED, _MOVED), _TWICE)
        for count, length, columns in _axes(shapes, merge_dims)
    ]


def taken_products(
    shapes: Iterable[Shape],
    *,
    damping: float,
    update_every: int = 1,
    merge_dims: int | None = None,
) -> list[Axis]:
    """Return the products that rootfree really takes.

    Args:
        shapes: of the parameters.
        damping: if it is 0, K^T K is left out.
        update_every: steps between two observations. K K^T is formed where that is cheaper than
            what it saves, and kept between observations.
        merge_dims: as in `rootfree.SIRFShampoo`.
    """
    gram = (_DAMPED,) if damping else ()
    axes = []
    for count, length, columns in _axes(shapes, merge_dims):
        formed = length < update_every * columns
        kept = formed and update_every > 1
        axes.append(
            Axis(
                count,
                length,
                columns,
                (*_SEEN, *gram, _MOVED, *((_FORMED,) if kept else ())),
                _TWICE if not formed else (_ONCE,) if kept else (_FORMED, _ONCE),
            )
        )
    return axes


def flops(axes: Iterable[Axis], update_every: int = 1) -> float:
    """Return the mean floating-point operations of a step."""
    return sum(
        axis.flops(axis.direction) + axis.flops(axis.observation) / update_every for axis in axes
    )


def _axes(shapes: Iterable[Shape], merge_dims: int | None) -> list[tuple[int, int, int]]:
    """Return count, length and columns of each axis of each distinct shape."""
    counts = Counter(shapes)
    rule = METHODS["sirf_shampoo"].rule(
        Precision("float64", "float64", "float64"), max_dim=None, merge_dims=merge_dims
    )
    return [
        (count, length, math.prod(row.dims) // length)
        for row, count in zip(plan(rule, counts.keys()).rows, counts.values(), strict=True)
        for length in row.dims
    ]
