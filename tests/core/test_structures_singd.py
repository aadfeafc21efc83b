"""Structures against the authors' package `singd`, whose classes SIRF-Shampoo was released with.

Their matrices have no stack axis, and `from_dense` there is our projection. ``from_inner(X)`` is
``Pi(K^T X X^T K)``, without X ``Pi(K^T K)``. They multiply in at most float32. Triangular matrices
are not among their classes, but are what their recursive template makes of scalars.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from rootfree import Precision
from rootfree.structures import Structure, add, scale, structure
from singd.structures.base import StructuredMatrix
from singd.structures.blockdiagonal import Block3DiagonalMatrix, Block30DiagonalMatrix
from singd.structures.dense import DenseMatrix
from singd.structures.diagonal import DiagonalMatrix
from singd.structures.hierarchical import Hierarchical3_2Matrix, Hierarchical15_15Matrix
from singd.structures.recursive import (
    RecursiveBottomLeftMatrixTemplate,
    RecursiveTopRightMatrixTemplate,
)
from singd.structures.trilbottomrightdiag import TrilBottomRightDiagonalMatrix
from singd.structures.triltoeplitz import TrilToeplitzMatrix
from singd.structures.triltopleftdiag import TrilTopLeftDiagonalMatrix
from singd.structures.triubottomrightdiag import TriuBottomRightDiagonalMatrix
from singd.structures.triutoeplitz import TriuToeplitzMatrix
from singd.structures.triutopleftdiag import TriuTopLeftDiagonalMatrix

# They advise to write faster versions of what their recursive classes leave to the base class.
pytestmark = pytest.mark.filterwarnings("ignore:Calling naive implementation of:UserWarning")

FLOAT32 = Precision.uniform(torch.float32)
Made = tuple[type[StructuredMatrix], StructuredMatrix]


def of_one_array(cls: type[StructuredMatrix]) -> Callable[..., Made]:
    """Return what makes a class of theirs that stores one array as we do."""
    return lambda space, factor: (cls, cls(factor[0][0]))


def hierarchical(cls: type[StructuredMatrix]) -> Callable[..., Made]:
    """Return what makes a hierarchical matrix, whose empty arrays they keep."""

    def make(space: Structure, factor: Any) -> Made:
        stored = iter(factor)
        top, bottom = cls.MAX_K1, cls.MAX_K2
        k1 = min(top, space.size)
        k2 = min(bottom, space.size - k1)
        f = space.size - k1 - k2
        shapes = [(k1, k1), (k1, f + k2), (f,), (k2, f), (k2, k2)]
        return cls, cls(*(next(stored)[0] if np.prod(s) else torch.zeros(s) for s in shapes))

    return make


def rank_one(
    cls: type[StructuredMatrix], *, corner_first: bool, column: bool
) -> Callable[..., Made]:
    """Return what makes an arrowhead matrix: their B is a column or a row."""

    def make(space: Structure, factor: Any) -> Made:
        k = factor[0][0]
        b = factor[1][0] if space.size > 1 else k[:0]
        b = b[:, None] if column else b[None, :]
        if corner_first:
            return cls, cls(DenseMatrix(k[:1, None]), b, DiagonalMatrix(k[1:]))
        return cls, cls(DiagonalMatrix(k[:-1]), b, DenseMatrix(k[-1:, None]))

    return make


def triangular(template: type[StructuredMatrix]) -> Callable[..., Made]:
    """Return what makes a triangular matrix: a scalar, a border, a smaller triangular matrix."""

    @cache
    def kind(d: int) -> type[StructuredMatrix]:
        if d == 1:
            return DenseMatrix
        parts = {"MAX_DIMS": (1, inf), "CLS_A": DenseMatrix, "CLS_C": kind(d - 1)}
        return type("Triangular", (template,), parts)

    def matrix(k: torch.Tensor) -> StructuredMatrix:
        d = k.shape[0]
        if d == 1:
            return DenseMatrix(k)
        border = k[1:, :1] if template is RecursiveBottomLeftMatrixTemplate else k[:1, 1:]
        return kind(d)(DenseMatrix(k[:1, :1]), border, matrix(k[1:, 1:]))

    return lambda space, factor: (kind(space.size), matrix(factor[0][0]))


def blocks(cls: type[StructuredMatrix]) -> Callable[..., Made]:
    """Return what makes a block-diagonal matrix, whose empty arrays they keep."""

    def make(space: Structure, factor: Any) -> Made:
        k, stored = cls.BLOCK_DIM, iter(factor)
        q, r = divmod(space.size, k)
        several = next(stored)[0] if q else torch.zeros((0, k, k))
        return cls, cls(several, next(stored)[0] if r else torch.zeros((0, 0)))

    return make


THEIRS: dict[str, Callable[..., Made]] = {
    "dense": of_one_array(DenseMatrix),
    "diagonal": of_one_array(DiagonalMatrix),
    "tril": triangular(RecursiveBottomLeftMatrixTemplate),
    "triu": triangular(RecursiveTopRightMatrixTemplate),
    "tril_toeplitz": of_one_array(TrilToeplitzMatrix),
    "triu_toeplitz": of_one_array(TriuToeplitzMatrix),
    "hierarchical(3,2)": hierarchical(Hierarchical3_2Matrix),
    "hierarchical": hierarchical(Hierarchical15_15Matrix),
    "arrowhead(first_column)": rank_one(
        TrilBottomRightDiagonalMatrix, corner_first=True, column=True
    ),
    "arrowhead(last_row)": rank_one(TrilTopLeftDiagonalMatrix, corner_first=False, column=False),
    "arrowhead(first_row)": rank_one(
        TriuBottomRightDiagonalMatrix, corner_first=True, column=False
    ),
    "arrowhead(last_column)": rank_one(TriuTopLeftDiagonalMatrix, corner_first=False, column=True),
}


def example(space: Structure, seed: int) -> tuple[Any, Any, torch.Tensor, torch.Tensor]:
    """Return a factor after three updates, a random member, vectors and a symmetric matrix."""
    torch.manual_seed(seed)
    d = space.size
    k = space.eye(torch.zeros((1, d)))
    for _ in range(3):
        x = space.apply_transposed(k, torch.randn((1, d, 3)))
        m = add(scale(space.outer(x), 0.5), space.eye(x, -0.5))
        k = add(k, scale(space.times(k, m), -0.3 / max(1, float(space.squared_norm(m)) ** 0.5)))
    s = torch.randn((1, d, d))
    member = space.from_dense(torch.randn((1, d, d)))
    return k, member, torch.randn((1, d, 4)), s + s.mT


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Compare to 50 units of float32's roundoff, of the largest entry: sums of up to 40 terms."""
    allowed = 50 * 2.0**-24 * max(1.0, float(theirs.abs().max()))
    torch.testing.assert_close(ours[0], theirs, rtol=0, atol=allowed)


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("d", [1, 2, 4, 7, 17, 40])
def test_operations_are_theirs(name, d):
    """Products, projections and norms of every class that is right in `singd`."""
    space = structure(name, d, FLOAT32)
    k, m, x, s = example(space, d)
    (cls, their_k), (_, their_m) = (THEIRS[name](space, factor) for factor in (k, m))
    close(space.to_dense(k), their_k.to_dense())
    close(space.apply(k, x), their_k @ x[0])
    close(space.apply_transposed(k, x), their_k.rmatmat(x[0]))
    close(space.to_dense(space.times(k, m)), (their_k @ their_m).to_dense())
    close(space.to_dense(space.project(s)), cls.from_dense(s[0]).to_dense())
    close(space.to_dense(space.outer(x)), cls.from_mat_inner(x[0]).to_dense())
    close(space.to_dense(space.gram(k)), their_k.from_inner().to_dense())
    seen = space.outer(space.apply_transposed(k, x))
    close(space.to_dense(seen), their_k.from_inner(x[0]).to_dense())
    close(space.squared_norm(k), their_k.frobenius_norm() ** 2)


@pytest.mark.parametrize(
    ("name", "cls"),
    [("block_diagonal(3)", Block3DiagonalMatrix), ("block_diagonal", Block30DiagonalMatrix)],
)
@pytest.mark.parametrize("d", [4, 40])
def test_block_diagonal_differs_from_theirs(name, cls, d):
    """3.4: they take blocks as symmetric; after three updates these are not, and ours is right.

    What does not transpose K is equal: the product K X, K m, and the projection. The rest is off
    by more than thirty times what is allowed here.
    """
    space = structure(name, d, FLOAT32)
    k, m, x, s = example(space, d)
    (_, their_k), (_, their_m) = (blocks(cls)(space, factor) for factor in (k, m))
    dense = space.to_dense(k)
    close(dense, their_k.to_dense())
    close(space.apply(k, x), their_k @ x[0])
    close(space.to_dense(space.times(k, m)), (their_k @ their_m).to_dense())
    close(space.to_dense(space.project(s)), cls.from_dense(s[0]).to_dense())

    back, gram = dense.mT @ x, space.to_dense(space.project(dense.mT @ dense))
    close(space.apply_transposed(k, x), back[0])
    close(space.to_dense(space.gram(k)), gram[0])
    assert (their_k.rmatmat(x[0]) - back[0]).abs().max() > 1e-4
    assert (their_k.from_inner().to_dense() - gram[0]).abs().max() > 1e-4
    torch.testing.assert_close(their_k.rmatmat(x[0]), their_k @ x[0])
