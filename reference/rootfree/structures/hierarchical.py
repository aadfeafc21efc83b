"""Hierarchical matrices: a diagonal between two small dense blocks, with what joins them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from rootfree._typing import Array, device, namespace
from rootfree.structures._base import Factor, Structure, identity, integers, transposed
from rootfree.structures._diagonals import diagonal, on_diagonal

Part: TypeAlias = Any
"""An array, or ``None`` where it would be empty; a product with an empty array is empty."""


class _Parts(NamedTuple):
    """The blocks of K."""

    a: Part  # (n, k1, k1)
    b: Part  # (n, k1, d - k1)
    c: Part  # (n, f), a diagonal
    d: Part  # (n, k2, f)
    e: Part  # (n, k2, k2)


@dataclass(frozen=True)
class Hierarchical(Structure):
    """Three groups of k1, f and k2 coordinates, f = d - k1 - k2.

            [ A  B1  B2 ]
        K = [ 0  C   0  ]        C diagonal
            [ 0  D   E  ]

    A, B = [B1 B2], the diagonal of C, D and E are stored in this order, without the empty ones. In
    a short axis k1 is served first, then k2. The projection doubles B and D.

    Args:
        size, precision: as in `Structure`.
        top: k1 >= 0, rows that are dense.
        bottom: k2 >= 0, rows that are dense but for the first k1 entries.
    """

    top: int = 15
    bottom: int = 15

    @classmethod
    def parsed(cls, name: str, words: Sequence[str]) -> tuple[int, ...]:
        """Return k1 and k2."""
        return integers(name, words, least=0, meaning="k1, k2")

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """A, B, C, D and E, as far as there are any."""
        return tuple(shape for shape in self._all_shapes if math.prod(shape) > 0)

    def to_dense(self, factor: Factor) -> Array:
        """Return the matrix, ``(n, d, d)``."""
        a, b, c, d, e = self._parts(factor)
        top, middle, bottom = self._sizes
        first = _joined(a, b, axis=2)
        second = None
        if c is not None:
            beside = (_zeros(c, middle, width) for width in (top, bottom))
            second = _joined(next(beside), on_diagonal(c), next(beside), axis=2)
        third = None if e is None else _joined(_zeros(e, bottom, top), d, e, axis=2)
        return _stacked(first, second, third)

    def from_dense(self, matrix: Array) -> Factor:
        """Return the five blocks."""
        return _packed(self._read(matrix))

    def project(self, matrix: Array) -> Factor:
        """Return the blocks, twice B and D."""
        parts = self._read(matrix)
        return _packed(parts._replace(b=_scaled(2.0, parts.b), d=_scaled(2.0, parts.d)))

    def eye(self, like: Array, value: float = 1.0) -> Factor:
        """Return ``value`` times the identity."""
        parts = self._parts(self.zeros(like))
        a, e = (
            None if x is None else x + value * identity(x.shape[1], like, self.precision)
            for x in (parts.a, parts.e)
        )
        c = None if parts.c is None else parts.c + value
        return _packed(parts._replace(a=a, c=c, e=e))

    def apply(self, factor: Factor, x: Array) -> Array:
        """Return K X."""
        a, b, c, d, e = self._parts(factor)
        (top, rest), (_, middle, bottom) = self._halves(x), self._thirds(x)
        return _stacked(
            _total(self._product(a, top), self._product(b, rest)),
            _weighted(c, middle),
            _total(self._product(d, middle), self._product(e, bottom)),
        )

    def apply_transposed(self, factor: Factor, x: Array) -> Array:
        """Return K^T X."""
        a, b, c, d, e = self._parts(factor)
        b1, b2 = self._columns(b)
        top, middle, bottom = self._thirds(x)
        return _stacked(
            self._product(_turned(a), top),
            _total(
                _weighted(c, middle),
                self._product(_turned(b1), top),
                self._product(_turned(d), bottom),
            ),
            _total(self._product(_turned(b2), top), self._product(_turned(e), bottom)),
        )

    def times(self, one: Factor, other: Factor) -> Factor:
        """Return the product, block by block."""
        a, b, c, d, e = self._parts(one)
        a_, b_, c_, d_, e_ = self._parts(other)
        b1, b2 = self._columns(b)
        through = _joined(
            _total(_by_column(b1, c_), self._product(b2, d_)), self._product(b2, e_), axis=2
        )
        return _packed(
            _Parts(
                a=self._product(a, a_),
                b=_total(self._product(a, b_), through),
                c=_scaled(c, c_),
                d=_total(_by_column(d, c_), self._product(e, d_)),
                e=self._product(e, e_),
            )
        )

    def outer(self, x: Array) -> Factor:
        """Return Pi(X X^T) from the rows of the three groups."""
        (top, rest), (_, middle, bottom) = self._halves(x), self._thirds(x)
        return _packed(
            _Parts(
                a=self._product(top, _turned(top)),
                b=_scaled(2.0, self._product(top, _turned(rest))),
                c=_squares(middle, axis=2),
                d=_scaled(2.0, self._product(bottom, _turned(middle))),
                e=self._product(bottom, _turned(bottom)),
            )
        )

    def gram(self, factor: Factor, weights: Array | None = None) -> Factor:
        """Return Pi(K^T diag(w) K), block by block."""
        a, b, c, d, e = self._parts(factor)
        w1, w2, w3 = (None,) * 3 if weights is None else self._thirds(weights)
        wa, wb, wd, we = _weighted(w1, a), _weighted(w1, b), _weighted(w3, d), _weighted(w3, e)
        (b1, b2), (wb1, wb2) = self._columns(b), self._columns(wb)
        square = _scaled(c, c)
        return _packed(
            _Parts(
                a=self._product(_turned(a), wa),
                b=_scaled(2.0, self._product(_turned(a), wb)),
                c=_total(
                    square if w2 is None else _scaled(w2, square),
                    _inner(b1, wb1),
                    _inner(d, wd),
                ),
                d=_scaled(
                    2.0, _total(self._product(_turned(b2), wb1), self._product(_turned(e), wd))
                ),
                e=_total(self._product(_turned(b2), wb2), self._product(_turned(e), we)),
            )
        )

    def row_squares(self, factor: Factor) -> Array:
        """Return the squared norms of the rows."""
        a, b, c, d, e = self._parts(factor)
        return _stacked(
            _total(_squares(a, axis=2), _squares(b, axis=2)),
            _scaled(c, c),
            _total(_squares(d, axis=2), _squares(e, axis=2)),
        )

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """Sizes of the three groups."""
        top = min(self.top, self.size)
        bottom = min(self.bottom, self.size - top)
        return top, self.size - top - bottom, bottom

    @property
    def _all_shapes(self) -> tuple[tuple[int, ...], ...]:
        top, middle, bottom = self._sizes
        return (
            (top, top),
            (top, middle + bottom),
            (middle,),
            (bottom, middle),
            (bottom, bottom),
        )

    def _parts(self, factor: Factor) -> _Parts:
        """Return the blocks, with ``None`` for those that are not stored."""
        stored = iter(factor)
        return _Parts(*(next(stored) if math.prod(s) > 0 else None for s in self._all_shapes))

    def _read(self, matrix: Array) -> _Parts:
        """Return the blocks of a matrix."""
        top, _, bottom = self._thirds(matrix)
        _, square, _ = self._thirds(matrix, axis=2)
        square = None if square is None else self._thirds(square)[1]
        (a, b), (_, d, e) = self._halves(top, axis=2), self._thirds(bottom, axis=2)
        return _Parts(a, b, None if square is None else diagonal(square), d, e)

    def _thirds(self, x: Part, axis: int = 1) -> tuple[Part, ...]:
        """Return the rows, or columns, of the three groups."""
        return _cut(x, self._sizes, axis)

    def _halves(self, x: Part, axis: int = 1) -> tuple[Part, ...]:
        """Return the rows, or columns, of the first group and of both others."""
        top, middle, bottom = self._sizes
        return _cut(x, (top, middle + bottom), axis)

    def _columns(self, b: Part) -> tuple[Part, ...]:
        """Return B1 and B2."""
        _, middle, bottom = self._sizes
        return _cut(b, (middle, bottom), 2)

    def _product(self, one: Part, other: Part) -> Part:
        return None if one is None or other is None else self.precision.matmul(one, other)


def _packed(parts: _Parts) -> Factor:
    """Return the blocks that are stored."""
    return tuple(part for part in parts if part is not None)


def _cut(x: Part, sizes: Iterable[int], axis: int) -> tuple[Part, ...]:
    """Return consecutive pieces of axis 1, or of axis 2, the last."""
    pieces, start = [], 0
    for size in sizes:
        piece: Part = None
        if x is not None and size > 0:
            stop = start + size
            piece = x[:, start:stop, ...] if axis == 1 else x[:, :, start:stop]
        pieces.append(piece)
        start += size
    return tuple(pieces)


def _joined(*parts: Part, axis: int) -> Part:
    """Undo `_cut`."""
    there = [part for part in parts if part is not None]
    if len(there) < 2:
        return there[0] if there else None
    return namespace(*there).concat(there, axis=axis)


def _stacked(*groups: Part) -> Array:
    """Return the rows of the groups as one array; one of them at least is there."""
    rows: Array = _joined(*groups, axis=1)
    return rows


def _zeros(like: Array, rows: int, columns: int) -> Part:
    if rows * columns == 0:
        return None
    xp = namespace(like)
    return xp.zeros((like.shape[0], rows, columns), dtype=like.dtype, device=device(like))


def _turned(x: Part) -> Part:
    return None if x is None else transposed(x)


def _scaled(one: Part, other: Part) -> Part:
    return None if one is None or other is None else one * other


def _total(*parts: Part) -> Part:
    first, *rest = [part for part in parts if part is not None] or [None]
    for part in rest:
        first = first + part
    return first


def _weighted(rows: Part, x: Part) -> Part:
    """Return the rows of X times their weights; X itself without weights."""
    return x if rows is None or x is None else namespace(x).expand_dims(rows, axis=2) * x


def _by_column(x: Part, columns: Part) -> Part:
    """Return the columns of X times their weights."""
    return None if x is None else x * namespace(x).expand_dims(columns, axis=1)


def _squares(x: Part, axis: int) -> Part:
    return None if x is None else namespace(x).sum(x * x, axis=axis)


def _inner(one: Part, other: Part) -> Part:
    """Return the inner products of the columns."""
    return None if one is None else namespace(one).sum(one * other, axis=1)
