"""The curvature H as the D x D matrix that it is, for the matrix methods without a root.

The first-order estimate of the Hessian is the gradient outer product alpha g g^T, g = vec(G) row by
row. A caller may put another one in its place; damping is added in all cases:

    H = alpha g g^T + lam I        or        H = (the caller's matrix) + lam I

References:
    W. Lin and others. Can We Remove the Square-Root in Adaptive Gradient Methods? ICML 2024. arXiv
    2402.03496: the poster separates the curvature from the preconditioner in this way.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from rootfree_textbook.descent import Array

Curvature: TypeAlias = Mapping[str, Any]


def curvature_matrix(
    grad: Array, batch_size: float, damping: float, curvature: Curvature | None = None
) -> Array:
    """H of one step.

    Args:
        grad: G, any shape, with D entries.
        batch_size: alpha > 0; scales the outer product of the gradient and nothing else.
        damping: lam >= 0.
        curvature: None for the gradient outer product, or a mapping with exactly one of

                "diagonal"   h, shape of `grad`:                   H = diag(vec(h))
                "vectors"    x_1 ... x_r, shape (r, *grad.shape):  H = sum_i vec(x_i) vec(x_i)^T
                "matrix"     symmetric, (D, D):                    H itself
                "factors"    H_1 ... H_N, (d_j, d_j) each:         H = H_1 kron ... kron H_N

    Returns:
        H with its damping, (D, D).

    Raises:
        ValueError: `curvature` has not exactly one of the four keys, or the wrong shape.

    Example:
        >>> curvature_matrix(np.array([1.0, 2.0]), 3, 0.5)
        array([[ 3.5,  6. ],
               [ 6. , 12.5]])
    """
    D = grad.size
    return np.asarray(_undamped(grad, batch_size, curvature) + damping * np.eye(D))


def kron(matrices: Sequence[Array]) -> Array:
    """The Kronecker product M_1 kron ... kron M_N: the first matrix acts on the first axis."""
    product: Array = np.ones((1, 1))
    for matrix in matrices:
        product = np.kron(product, matrix).astype(np.float64)
    return product


def _undamped(grad: Array, batch_size: float, curvature: Curvature | None) -> Array:
    if curvature is None:
        g = grad.reshape(-1)
        return np.asarray(batch_size * np.outer(g, g))
    if len(curvature) != 1:
        msg = f"`curvature` must have exactly one key, got {sorted(curvature)}"
        raise ValueError(msg)
    ((kind, given),) = curvature.items()
    D = grad.size
    H: Array = np.zeros((D, D))
    if kind == "diagonal":
        H[np.diag_indices(D)] = np.reshape(given, -1)
    elif kind == "vectors":
        for x in given:
            H = H + np.outer(x, x)  # NumPy flattens both row by row
    elif kind == "matrix":
        H = np.asarray(given)
    elif kind == "factors":
        H = kron(given)
    else:
        msg = f"unknown curvature {kind!r}; known are diagonal, vectors, matrix and factors"
        raise ValueError(msg)
    if H.shape != (D, D):
        msg = f"`curvature` {kind!r} must make a matrix of shape {(D, D)}, got {H.shape}"
        raise ValueError(msg)
    return H
