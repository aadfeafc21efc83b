"""Bounds of sums, matrix products and solutions: what any order of the operations may add.

With u the unit roundoff of the sums, adding up n products in any order, block size or tree errs by
at most ``gamma_n |A| |B|``, ``gamma_n = n u / (1 - n u)``; a term that is 0 for certain is added
without rounding, so that n counts the others.

References:
    Higham, Accuracy and Stability of Numerical Algorithms, 2002: lemma 3.1 (gamma), 3.5 (products),
    theorem 9.4 (elimination), 7.2 (perturbation of solutions, componentwise).
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

Pair: TypeAlias = tuple[Any, Any]
"""A value and its bound."""

_ROOM = 2.0
"""Computed factors of a matrix are not the exact ones, of which the bound is made."""
_BRANCHES = 16
"""So many choices of pivots are followed; beyond, ``|L| <= 1`` and ``|U| <= 2^(n-1) max |A|``."""


def gamma(terms: Any, unit: float) -> Any:
    """Return ``n u / (1 - n u)``, infinite where that is no bound."""
    share = np.asarray(terms) * unit
    with np.errstate(divide="ignore"):
        return np.where(share < 1, share / np.maximum(1 - share, 0), math.inf)


def total(value: Any, error: Any, axis: int | None, unit: float) -> Pair:
    """Return the sum along an axis and its bound, the rounding of the additions included."""
    size = np.abs(value) + error
    terms = np.sum(size > 0, axis=axis)
    with np.errstate(invalid="ignore"):
        bound = np.sum(error, axis=axis) + gamma(np.maximum(terms - 1, 0), unit) * np.sum(
            size, axis=axis
        )
    return np.sum(value, axis=axis), bound


def product(one: Pair, other: Pair, *, unit: float, underflow: float) -> tuple[Any, Any, Any]:
    """Return a matrix product, its bound before the result is rounded, and the terms of each sum.

    Args:
        one: the left factors with their bounds.
        other: the right factors with theirs.
        unit: unit roundoff of the sums.
        underflow: largest absolute error of a product that underflows.
    """
    (a, ea), (b, eb) = one, other
    size_a, size_b = np.abs(a) + ea, np.abs(b) + eb
    terms = (size_a > 0).astype(float) @ (size_b > 0).astype(float)
    with np.errstate(invalid="ignore"):
        bound = np.abs(a) @ eb + ea @ size_b
        bound = bound + gamma(terms, unit) * (size_a @ size_b) + terms * underflow
    return a @ b, np.where(np.isnan(bound), math.inf, bound), terms


def solution(a: Pair, b: Pair, unit: float, underflow: float) -> tuple[Any, Any, float]:
    """Return the solution of ``A X = B``, its bound, and the condition number of A.

    Elimination with row interchanges solves ``(A + D) x = b`` with ``|D| <= gamma_3n P^T |L| |U|``;
    with E the sum of that and A's own bound, and ``M = |A^-1| E``,

        |x' - x| <= (I - M)^-1 |A^-1| (E |x| + e_b)

    The count is 4n + 4 and not 3n, for libraries that multiply by reciprocals of pivots. Where two
    candidates for a pivot are so near each other that a port might take either, the bound holds for
    each choice.
    """
    (value, error), (right, right_error) = a, b
    n = value.shape[-1]
    bounds, answers, condition = [], [], 1.0
    for m, e, r, re in zip(value, error, right, right_error, strict=True):
        inverse = np.linalg.inv(m)
        size = np.abs(inverse)
        condition = max(condition, float(np.linalg.cond(m)))
        e = np.asarray(e) + _ROOM * float(gamma(4 * n + 4, unit)) * _factors(m, e, unit)
        e = e + 4 * n * underflow
        x, reach = inverse @ r, size @ e
        answers.append(np.linalg.solve(m, r))
        something = np.any(np.abs(r) + re > 0, axis=0)
        with np.errstate(invalid="ignore"):
            spread = size @ (e @ np.abs(x) + re + 4 * n * underflow)
            if not np.max(np.abs(np.linalg.eigvals(np.nan_to_num(reach, posinf=1e300)))) < 1:
                spread = np.full_like(spread, math.inf)
            else:
                spread = np.linalg.solve(np.eye(n) - reach, spread)
        bounds.append(np.where(something, spread, 0.0))
    return np.stack(answers), np.stack(bounds), condition


def _factors(matrix: Any, error: Any, unit: float) -> Any:
    """Return the largest ``P^T |L| |U|`` over all pivots that a port might take.

    At each step the rest of the matrix, a Schur complement, may be off by the error of the whole
    times ``(1 + |A21 A11^-1|) (1 + |A11^-1 A12|)``, to first order.
    """
    n = len(matrix)
    own = float(np.max(error)) + 8 * n * unit * float(np.max(np.abs(matrix)))
    anything = n * 2.0 ** (n - 1) * np.full_like(matrix, np.max(np.abs(matrix) + error))
    branches = [(matrix.copy(), np.zeros_like(matrix), np.arange(n))]
    for k in range(n):
        grown = []
        for u, low, order in branches:
            doubt = 2 * own * _amplified(u, low, k)
            pivots = np.abs(u[k:, k])
            if pivots.max() <= doubt:
                return anything
            near = k + np.flatnonzero((pivots > 0) & (pivots >= pivots.max() - 2 * doubt))
            grown += [_eliminated(u, low, order, k, int(best)) for best in near]
        if len(grown) > _BRANCHES:
            return anything
        branches = grown
    largest = np.zeros_like(matrix)
    for u, low, order in branches:
        largest[order] = np.maximum(largest[order], np.abs(low) @ np.abs(np.triu(u)))
    return largest


def _amplified(u: Any, low: Any, k: int) -> float:
    """Return by how much an error of the matrix grows in the rest after k steps."""
    if k == 0:
        return 1.0
    left = np.linalg.solve(low[:k, :k].T, low[k:, :k].T)
    right = np.linalg.solve(np.triu(u[:k, :k]), u[:k, k:])
    return float((1 + np.abs(left).sum(axis=0).max()) * (1 + np.abs(right).sum(axis=0).max()))


def _eliminated(u: Any, low: Any, order: Any, k: int, best: int) -> tuple[Any, Any, Any]:
    """Return the three after one more step, with a pivot of choice."""
    u, low, order = u.copy(), low.copy(), order.copy()
    for array in (u, low, order):
        array[[k, best]] = array[[best, k]]
    low[k, k] = 1.0
    low[k + 1 :, k] = u[k + 1 :, k] / u[k, k]
    u[k + 1 :] -= np.outer(low[k + 1 :, k], u[k])
    return u, low, order
