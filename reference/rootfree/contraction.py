"""Curvature as each factor of a Kronecker preconditioner sees it, through all the factors.

With ``S^-1 = (K_1 K_1^T) kron ... kron (K_N K_N^T)`` and a curvature H, axis j sees

    N_j = (d_j/D) * partial trace over the axes i != j of (kron K)^T H (kron K),

projected onto its structure. No kind of curvature but a whole matrix needs anything of size D x D.

References:
    Lin et al., 2024, arXiv 2402.03496; arXiv 2312.05705 (projections).
"""

from __future__ import annotations

import math
from typing import Any

from rootfree._typing import Array, Scalar, namespace
from rootfree.curvature import (
    Curvature,
    DiagonalCurvature,
    KroneckerCurvature,
    MatrixCurvature,
    OuterProductCurvature,
)
from rootfree.precision import Precision, cast
from rootfree.shapes import along, matrix, partial_trace
from rootfree.structures import Factor, Structure, identity, scale

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
    root: Any = math.sqrt(share) if isinstance(share, float) else namespace(x).sqrt(share)
    return root * x, float(total)


def _of_diagonal(h: Array, j: int, spaces: Spaces, factors: Factors, share: float) -> Factor:
    """Return the contraction of a diagonal curvature shaped like the parameter."""
    xp = namespace(h)
    for i, (space, k) in enumerate(zip(spaces, factors, strict=True)):
        if i != j:
            shape = tuple(n if a in (0, i + 1) else 1 for a, n in enumerate(h.shape))
            h = h * xp.reshape(space.row_squares(k), shape)
    weights = share * xp.sum(matrix(h, j + 1), axis=2)
    return spaces[j].gram(factors[j], weights)


def _of_factors(curvature: KroneckerCurvature, spaces: Spaces, factors: Factors) -> list[Factor]:
    """Return the contraction of a Kronecker-factored curvature."""
    seen, traces = [], []
    for space, k, given in zip(spaces, factors, curvature.factors, strict=True):
        h = cast(given, space.precision.working_dtype)
        xp = namespace(h)
        half = xp.matrix_transpose(space.apply_transposed(k, h))
        product = space.apply_transposed(k, half)  # K^T (K^T H)^T = K^T H K
        seen.append(space.project(product))
        trace = xp.sum(xp.sum(product * identity(space.size, h, space.precision), axis=2), axis=1)
        traces.append(trace * (1.0 / space.size))
    out = []
    for j, target in enumerate(seen):
        weight = namespace(traces[j]).ones_like(traces[j])
        for i, trace in enumerate(traces):
            weight = weight if i == j else weight * trace
        out.append(scale(target, weight))
    return out


def _of_matrix(curvature: MatrixCurvature, spaces: Spaces, factors: Factors) -> list[Factor]:
    """Return the contraction of a whole curvature matrix: all factors from both sides."""
    dims, precision = tuple(space.size for space in spaces), spaces[0].precision
    h = cast(curvature.matrix, precision.working_dtype)
    h = namespace(h).reshape(h, (h.shape[0], *dims, *dims))
    for axis, (space, k) in enumerate(zip(spaces * 2, factors * 2, strict=True), 1):
        h = _through(h, axis, space, k)
    total = math.prod(dims)
    return [
        scale(space.project(partial_trace(h, axis, precision)), space.size / total)
        for axis, space in enumerate(spaces, 1)
    ]


def _through(x: Array, axis: int, space: Structure, k: Factor) -> Array:
    """Return ``x`` with K^T applied along an axis."""
    return along(x, axis, lambda m: space.apply_transposed(k, m))
