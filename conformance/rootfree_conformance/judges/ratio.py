"""Comparing numbers: error over bound, and equality.

An array that is missing, misshapen or not a number fails; nothing to compare fails as well, unless
the truth has no elements either.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rootfree_conformance.thresholds import RATIO, SUITE_ROUNDING


class Worst(NamedTuple):
    """The largest ratio of an array, and where: port's value, truth and bound there."""

    ratio: float
    at: tuple[int, ...]
    x: float
    v: float
    e: float
    above: int  # elements above the bound


def ratio(x: Any, v: Any, e: Any) -> Worst:
    """Return ``max |x - v| / e`` with its place.

    Where the bound is 0 only equality passes; where it is not finite nothing does.
    """
    if x is None or np.shape(x) != np.shape(v):
        return Worst(math.inf, (), math.nan, math.nan, math.nan, int(np.size(v)))
    x, v = (np.asarray(a, dtype=np.float64) for a in (x, v))
    e = np.broadcast_to(np.asarray(e, dtype=np.float64), v.shape)
    if x.size == 0:
        return Worst(0.0, (), 0.0, 0.0, 0.0, 0)
    with np.errstate(all="ignore"):
        error = np.abs(x - v)
        ratios = error / (e * (1 + SUITE_ROUNDING))
    ratios = np.where(error == 0, 0.0, np.where(np.isnan(ratios), math.inf, ratios))
    ratios = np.where(np.isfinite(e), ratios, math.inf)
    at = np.unravel_index(int(np.argmax(ratios)), ratios.shape)
    index = tuple(int(i) for i in at)
    return Worst(
        float(ratios[at]),
        index,
        float(x[at]),
        float(v[at]),
        float(e[at]),
        int(np.sum(ratios > RATIO)),
    )


def differing(x: Any, y: Any) -> int:
    """Return the number of elements that differ; all of them if the shapes do. NaN equals NaN."""
    if x is None or y is None or np.shape(x) != np.shape(y):
        return max(1, int(np.size(y if y is not None else 0)))
    return int(np.sum(~((np.asarray(x) == np.asarray(y)) | (np.isnan(x) & np.isnan(y)))))
