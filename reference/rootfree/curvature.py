"""Curvature that enters a preconditioner: the gradient outer product, or one the caller supplies.

Preconditioner and curvature are separate ideas (Lin et al., 2024, arXiv 2402.03496): the
preconditioner S is an inverse covariance, the curvature H is a partial derivative of the
variational objective, and any symmetric estimate may stand in for it. The default is the gradient
outer product ``alpha g g^T``, alpha from `rootfree.curvature_scale`; diagonal rules need only its
diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

from rootfree._typing import Array, Scalar


class DiagonalCurvature(NamedTuple):
    """A diagonal curvature from the caller, for example a Hutchinson or Gauss-Newton diagonal.

    It replaces the gradient outer product as it is: neither alpha nor a square is applied to it.

    Attributes:
        diagonal: h, shaped like the stack of parameters ``(n, *shape)``; >= 0 keeps the
            preconditioner positive, which is the caller's to see to.
    """

    diagonal: Array


def outer_product_diagonal(grad: Array, scale: Scalar | None) -> Array:
    """Return the diagonal of the gradient outer product, ``alpha * grad**2``.

    Args:
        grad: gradients ``(n, *shape)``.
        scale: alpha > 0, or ``None`` for the unscaled square that root-based rules accumulate.
    """
    square = grad * grad
    return square if scale is None else scale * square
