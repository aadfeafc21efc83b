"""A parameter's shape as the matrix rules see it, and products along one axis of a stack.

Axes of length 1 carry no statistics and are dropped; small neighbouring axes, as of a convolution
kernel, can be merged. Both are row-major reshapes of the stack, undone on the direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rootfree._typing import Array, namespace
from rootfree.structures._diagonals import diagonal


def merged(shape: tuple[int, ...], limit: int | None = None) -> tuple[int, ...]:
    """Return the lengths of the axes that get a factor each.

    Args:
        shape: of the parameter, without the stack axis.
        limit: neighbouring axes, from the last one leftwards and never into axis 0, are multiplied
            while the product does not exceed it; ``None`` merges nothing.

    Returns:
        The lengths without ones, at least one of them: a scalar has ``(1,)``.

    Example:
        >>> merged((64, 1, 3, 3)), merged((64, 64, 3, 3), 16), merged(())
        ((64, 3, 3), (64, 64, 9), (1,))
    """
    dims = [length for length in shape if length != 1] or [1]
    if limit is None:
        return tuple(dims)
    *front, last = dims
    out: tuple[int, ...] = (last,)
    for axis, length in reversed(list(enumerate(front))):
        if axis > 0 and length * out[0] <= limit:
            out = (length * out[0], *out[1:])
        else:
            out = (length, *out)
    return out


def along(x: Array, axis: int, apply: Callable[[Array], Array]) -> Array:
    """Return ``x`` with ``apply`` taken on one axis.

    Args:
        x: ``(n, d_1, ..., d_N)``.
        axis: which, 1 to N.
        apply: maps stacks of matrices ``(n, d_axis, M)`` to the same shape.
    """
    return unmatrix(apply(matrix(x, axis)), x.shape, axis)


def matrix(x: Array, axis: int) -> Array:
    """Return mat_axis of every member: that axis first, the rest flattened, ``(n, d_axis, M)``."""
    xp = namespace(x)
    if x.ndim == 3:
        return x if axis == 1 else xp.matrix_transpose(x)
    order = (0, axis, *(i for i in range(1, x.ndim) if i != axis))
    moved = x if order == tuple(range(x.ndim)) else xp.permute_dims(x, order)
    n, length = x.shape[0], x.shape[axis]
    return xp.reshape(moved, (n, length, math.prod(x.shape[1:]) // max(length, 1)))


def unmatrix(m: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Return the stack of ``shape`` that `matrix` turns into ``m``."""
    xp = namespace(m)
    if len(shape) == 3:
        return m if axis == 1 else xp.matrix_transpose(m)
    rest = [i for i in range(1, len(shape)) if i != axis]
    x = xp.reshape(m, (shape[0], shape[axis], *(shape[i] for i in rest)))
    order = (0, axis, *rest)
    back = tuple(order.index(i) for i in range(len(shape)))
    return x if back == order == tuple(range(len(shape))) else xp.permute_dims(x, back)


def broadcast_along(values: Array, axis: int, like: Array) -> Array:
    """Return ``(n, d_axis)`` reshaped to broadcast over ``like``, ``(n, d_1, ..., d_N)``."""
    shape = tuple(length if i in (0, axis) else 1 for i, length in enumerate(like.shape))
    return namespace(values).reshape(values, shape)


def partial_trace(x: Array, axis: int) -> Array:
    """Return the trace over all axes but one, ``(n, d_axis, d_axis)``.

    Args:
        x: ``(n, d_1, ..., d_N, d_1, ..., d_N)``, a matrix on the product space.
        axis: which stays, 1 to N.
    """
    xp, axes = namespace(x), (x.ndim - 1) // 2
    rest = [i for i in range(1, axes + 1) if i != axis]
    order = (0, *rest, *(axes + i for i in rest), axis, axes + axis)
    moved = x if order == tuple(range(x.ndim)) else xp.permute_dims(x, order)
    n, length = x.shape[0], x.shape[axis]
    others = math.prod(x.shape[i] for i in rest)
    square = xp.reshape(moved, (n, others, others, length, length))
    return xp.sum(diagonal(square), axis=1)
