"""Block-diagonal matrices: coordinates in groups, each with a dense factor of its own.

Blocks stop being symmetric after two updates, so K and its transpose are kept apart throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rootfree._typing import Array, device, namespace
from rootfree.structures._base import Factor, Structure, identity, integers, transposed
from rootfree.structures._diagonals import diagonal, on_diagonal


@dataclass(frozen=True)
class BlockDiagonal(Structure):
    """q blocks of k x k and one of r x r for the rest, q = d div k and r = d mod k.

    They are stored as ``(n, q, k, k)`` and ``(n, r, r)``; the one that would be empty is left out.
    The projection keeps the blocks.

    Args:
        size, precision: as in `Structure`.
        block: k >= 1.
    """

    block: int = 30

    @classmethod
    def parsed(cls, name: str, words: Sequence[str]) -> tuple[int, ...]:
        """Return k."""
        return integers(name, words, least=1, meaning="size of a block")

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The blocks of one size, then the last one."""
        q, r = divmod(self.size, self.block)
        return ((q, self.block, self.block),) * (q > 0) + ((r, r),) * (r > 0)

    def to_dense(self, factor: Factor) -> Array:
        """Return the matrix, ``(n, d, d)``."""
        xp, dense = namespace(*factor), [_together(part) for part in self._blocks(factor)]
        if len(dense) == 1:
            return dense[0]
        head, tail = dense
        n, h, t = head.shape[0], head.shape[1], tail.shape[1]
        beside = xp.zeros((n, h, t), dtype=head.dtype, device=device(head))
        return xp.concat(
            [xp.concat([head, beside], axis=2), xp.concat([transposed(beside), tail], axis=2)],
            axis=1,
        )

    def from_dense(self, matrix: Array) -> Factor:
        """Return the blocks."""
        xp, n = namespace(matrix), matrix.shape[0]
        blocks, start = [], 0
        for q, k in self._groups:
            stop = start + q * k
            square = xp.reshape(matrix[:, start:stop, start:stop], (n, q, k, q, k))
            blocks.append(diagonal(xp.permute_dims(square, (0, 1, 3, 2, 4))))
            start = stop
        return self._packed(blocks)

    def project(self, matrix: Array) -> Factor:
        """Return the blocks: every entry of them is free."""
        return self.from_dense(matrix)

    def eye(self, like: Array, value: float = 1.0) -> Factor:
        """Return ``value`` times the identity."""
        xp = namespace(like)
        return self._packed(
            [
                zeros + value * xp.expand_dims(identity(k, like, self.precision), axis=1)
                for zeros, (_, k) in zip(self._blocks(self.zeros(like)), self._groups, strict=True)
            ]
        )

    def apply(self, factor: Factor, x: Array) -> Array:
        """Return K X, block by block."""
        return self._products(self._blocks(factor), x)

    def apply_transposed(self, factor: Factor, x: Array) -> Array:
        """Return K^T X, block by block."""
        return self._products([transposed(k) for k in self._blocks(factor)], x)

    def times(self, one: Factor, other: Factor) -> Factor:
        """Return the products of the blocks."""
        pairs = zip(one, other, strict=True)
        return tuple(self.precision.matmul(k, m) for k, m in pairs)

    def outer(self, x: Array) -> Factor:
        """Return X_b X_b^T for the rows X_b of every block."""
        return self._packed([self.precision.matmul(xb, transposed(xb)) for xb in self._rows(x)])

    def gram(self, factor: Factor, weights: Array | None = None) -> Factor:
        """Return K_b^T diag(w_b) K_b for every block."""
        xp, blocks = namespace(*factor), self._blocks(factor)
        weighted = blocks
        if weights is not None:
            rows = self._rows(xp.expand_dims(weights, axis=2))
            weighted = [w * k for w, k in zip(rows, blocks, strict=True)]
        pairs = zip(blocks, weighted, strict=True)
        return self._packed([self.precision.matmul(transposed(k), wk) for k, wk in pairs])

    def row_squares(self, factor: Factor) -> Array:
        """Return the squared norms of the blocks' rows."""
        xp = namespace(*factor)
        return self._joined([xp.sum(k * k, axis=3) for k in self._blocks(factor)])

    @property
    def _groups(self) -> tuple[tuple[int, int], ...]:
        """Number and size of the blocks in every stored array."""
        return tuple((shape[0] if len(shape) == 3 else 1, shape[-1]) for shape in self.shapes)

    def _blocks(self, factor: Factor) -> list[Array]:
        """Return every stored array as ``(n, blocks, k, k)``."""
        xp = namespace(*factor)
        return [
            xp.reshape(part, (part.shape[0], q, k, k))
            for part, (q, k) in zip(factor, self._groups, strict=True)
        ]

    def _packed(self, blocks: Sequence[Array]) -> Factor:
        """Undo `_blocks`."""
        xp = namespace(*blocks)
        return tuple(
            xp.reshape(part, (part.shape[0], *shape))
            for part, shape in zip(blocks, self.shapes, strict=True)
        )

    def _rows(self, x: Array) -> list[Array]:
        """Return the rows of X for every stored array, ``(n, blocks, k, M)`` each."""
        xp, (n, _, m) = namespace(x), x.shape
        rows, start = [], 0
        for q, k in self._groups:
            rows.append(xp.reshape(x[:, start : start + q * k, :], (n, q, k, m)))
            start += q * k
        return rows

    def _joined(self, rows: Sequence[Array]) -> Array:
        """Undo `_rows`, for any number of axes after the rows'."""
        xp = namespace(*rows)
        flat = [xp.reshape(part, (part.shape[0], -1, *part.shape[3:])) for part in rows]
        return flat[0] if len(flat) == 1 else xp.concat(flat, axis=1)

    def _products(self, blocks: Sequence[Array], x: Array) -> Array:
        pairs = zip(blocks, self._rows(x), strict=True)
        return self._joined([self.precision.matmul(k, xb) for k, xb in pairs])


def _together(blocks: Array) -> Array:
    """Return blocks ``(n, q, k, k)`` as one block-diagonal matrix each, ``(n, q k, q k)``."""
    xp, (n, q, k, _) = namespace(blocks), blocks.shape
    spread = xp.permute_dims(on_diagonal(blocks), (0, 1, 3, 2, 4))  # (n, q, q, k, k) before
    return xp.reshape(spread, (n, q * k, q * k))
