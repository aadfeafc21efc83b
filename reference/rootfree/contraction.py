"""Curvature as each factor of a Kronecker preconditioner sees it, through all the factors.

With ``S^-1 = (K_1 K_1^T) kron ... kron (K_N K_N^T)`` and a curvature H, axis j sees

    N_j = (d_j/D) * partial trace over the axes i != j of (kron K)^T H (kron K),

projected onto its structure. No kind of curvature but a whole matrix needs anything of size D x D.

References:
    Lin et al., 2024, arXiv 2402.03496; arXiv 2312.05705 (projections).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rootfree._typing import Array, Scalar, namespace
from rootfree.curvature import (
    Curvature,
    DiagonalCurvature,
    KroneckerCurvature,
    MatrixCurvature,
    OuterProductCurvature,
)
from rootfree.precision import Precision, cast
from rootfree.shapes import along, broadcast_along, matrix, partial_trace
from rootfree.structures import Factor, Structure, scale, transposed
from rootfree.structures._diagonals import diagonal

Spaces = tuple[Structure, ...]
Factors = tuple[Factor, ...]


def contracted(
    grad: Array,
    curvature: Curvature | None,
    spaces: Spaces,
    factors: Factors,
    alpha: Scalar,
) -> list[Factor]:
    """Return Pi_j(N_j) of every axis, in the storage of its structure.

    Args:
        grad: gradients ``(n, *shape)``.
        curvature: the caller's, or ``None`` for ``alpha g g^T``.
        spaces: the structure of every axis that has a factor.
        factors: K_j, in the working dtype.
        alpha: the scale of the gradient's outer product.
    """
    dims, precision = tuple(space.size for space in spaces), spaces[0].precision
    total = math.prod(dims)
    if isinstance(curvature, DiagonalCurvature):
        h = viewed(curvature.diagonal, dims, precision)
        return [
            _of_diagonal(h, axis, spaces, factors, length / total)
            for axis, length in enumerate(dims)
        ]
    if isinstance(curvature, KroneckerCurvature):
        return _of_factors(curvature, spaces, factors)
    if isinstance(curvature, MatrixCurvature):
        return _of_matrix(curvature, spaces, factors)
    x, weight = _vectors(grad, curvature, dims, alpha, precision)
    first = x.ndim - len(dims)  # vectors have an axis of their own before the parameter's
    for axis, (space, k) in enumerate(zip(spaces, factors, strict=True), first):
        x = _through(x, axis, space, k)
    return [
        scale(space.outer(matrix(x, axis)), weight * (space.size / total))
        for axis, space in enumerate(spaces, first)
    ]


def viewed(x: Array, dims: tuple[int, ...], precision: Precision) -> Array:
    """Return parameter-shaped arrays in the working dtype, ``(n, d_1, ..., d_N)``."""
    x = cast(x, precision.working_dtype)
    return namespace(x).reshape(x, (x.shape[0], *dims))


def mean_trace(matrix: Array) -> Array:
    """Return the mean of the diagonal of every matrix of a stack, ``(n,)``."""
    return namespace(matrix).sum(diagonal(matrix), axis=1) * (1.0 / matrix.shape[1])


def product_of_others(values: Sequence[Array], without: int) -> Array:
    """Return the product of all numbers but one, ``(n,)``: 1 if there is no other."""
    out = namespace(*values).ones_like(values[without])
    for i, value in enumerate(values):
        out = out if i == without else out * value
    return out


def _vectors(
    grad: Array,
    curvature: OuterProductCurvature | None,
    dims: tuple[int, ...],
    alpha: Scalar,
    precision: Precision,
) -> tuple[Array, Scalar]:
    """Return the vectors whose outer products make the curvature, and what weighs them.

    A narrow range takes the weight into the vectors, where it keeps the products small.
    """
    if curvature is None:
        x, weight = viewed(grad, dims, precision), alpha
    else:
        x, weight = cast(curvature.vectors, precision.working_dtype), 1.0
        x = namespace(x).reshape(x, (*x.shape[:2], *dims))
    if not precision.narrow_range:
        return x, weight
    total = math.prod(dims)
    share = weight / total
    root = math.sqrt(share) if isinstance(share, int | float) else namespace(x).sqrt(share)
    return root * x, float(total)


def _of_diagonal(h: Array, j: int, spaces: Spaces, factors: Factors, share: float) -> Factor:
    """Return the contraction of a diagonal curvature shaped like the parameter."""
    xp = namespace(h)
    for i, (space, k) in enumerate(zip(spaces, factors, strict=True)):
        if i != j:
            h = h * broadcast_along(space.row_squares(k), i + 1, h)
    weights = share * xp.sum(matrix(h, j + 1), axis=2)
    return spaces[j].gram(factors[j], weights)


def _of_factors(curvature: KroneckerCurvature, spaces: Spaces, factors: Factors) -> list[Factor]:
    """Return the contraction of a Kronecker-factored curvature."""
    seen, traces = [], []
    for space, k, given in zip(spaces, factors, curvature.factors, strict=True):
        h = cast(given, space.precision.working_dtype)
        half = transposed(space.apply_transposed(k, h))
        product = space.apply_transposed(k, half)  # K^T (K^T H)^T = K^T H K
        seen.append(space.project(product))
        traces.append(mean_trace(product))
    return [scale(target, product_of_others(traces, j)) for j, target in enumerate(seen)]


def _of_matrix(curvature: MatrixCurvature, spaces: Spaces, factors: Factors) -> list[Factor]:
    """Return the contraction of a whole curvature matrix: all factors from both sides."""
    dims = tuple(space.size for space in spaces)
    h = cast(curvature.matrix, spaces[0].precision.working_dtype)
    h = namespace(h).reshape(h, (h.shape[0], *dims, *dims))
    for axis, (space, k) in enumerate(zip(spaces * 2, factors * 2, strict=True), 1):
        h = _through(h, axis, space, k)
    total = math.prod(dims)
    return [
        scale(space.project(partial_trace(h, axis)), space.size / total)
        for axis, space in enumerate(spaces, 1)
    ]


def _through(x: Array, axis: int, space: Structure, k: Factor) -> Array:
    """Return ``x`` with K^T applied along an axis."""
    return along(x, axis, lambda m: space.apply_transposed(k, m))
