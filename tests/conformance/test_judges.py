"""The comparator alone (A4): right numbers pass, and nothing else does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rootfree_conformance.judges.ratio import differing, ratio
from rootfree_conformance.thresholds import EXACT, RATIO, SUITE_ROUNDING

V = np.asarray([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
E = np.asarray([[1e-3, 1e-3, 1e-3], [1e-3, 1e-3, 2e-3]])


def changed(value: float, at: tuple[int, int] = (1, 2)) -> np.ndarray:
    """Return the right numbers, one of them replaced."""
    x = V.copy()
    x[at] = value
    return x


@pytest.mark.parametrize(
    ("x", "e"),
    [(V, E), (V, 0 * E), (V + E, E), (V - E, E), (-0.0 * V, V * V)],
    ids=["equal", "no bound", "at the bound", "below", "zeros"],
)
def test_right_numbers_pass(x, e):
    """Equal numbers pass without a bound; numbers at their bound pass with it."""
    assert ratio(x, V, e).ratio <= RATIO


@pytest.mark.parametrize(
    ("x", "e"),
    [
        (changed(-6.0 + 2.0001e-3), E),
        (changed(math.nan), E),
        (changed(math.nan), np.full_like(V, math.inf)),
        (changed(math.inf), E),
        (changed(math.inf), np.full_like(V, math.inf)),
        (changed(-math.inf), E),
        (np.nextafter(V, math.inf), 0 * E),
        (V.T, E),
        (V[0], E),
        (V[np.newaxis], E),
        (V[:0], E),
        (None, E),
        (1.0, E),
        (V, np.full_like(V, math.inf)),
        (V, np.full_like(V, math.nan)),
    ],
    ids=[
        "above",
        "NaN",
        "NaN without a limit",
        "inf",
        "inf without a limit",
        "-inf",
        "one bit",
        "transposed",
        "a row",
        "another axis",
        "empty",
        "missing",
        "a number",
        "equal, infinite bound",
        "equal, unknown bound",
    ],
)
def test_wrong_numbers_fail(x, e):
    """NaN, infinite, misshapen, missing and empty arrays fail whatever the bound."""
    assert ratio(x, V, e).ratio > RATIO


def test_the_worst_element_is_named():
    """Value, truth, bound and place of the largest ratio, and how many are above 1."""
    x = changed(-6.0 + 8e-3)
    x[0, 1] += 3e-3
    worst = ratio(x, V, E)
    assert worst.at == (1, 2)
    assert (worst.x, worst.v, worst.e) == (x[1, 2], -6.0, 2e-3)
    assert worst.ratio == pytest.approx(4 / (1 + SUITE_ROUNDING))
    assert worst.above == 2


def test_arrays_without_elements():
    """Nothing was asked for and nothing came: equal, and counted as no error."""
    assert ratio(np.zeros((0, 4)), np.zeros((0, 4)), 0.0).ratio == 0
    assert ratio(np.zeros((4, 0)), np.zeros((0, 4)), 0.0).ratio == math.inf
    assert differing(np.zeros((0, 4)), np.zeros((0, 4))) == EXACT
    assert differing(np.zeros((4, 0)), np.zeros((0, 4))) > EXACT


def test_scalars():
    """0-d arrays are judged as any other."""
    assert ratio(np.asarray(1.0), np.asarray(1.0), 0.0).at == ()
    assert ratio(np.asarray(2.0), np.asarray(1.0), 0.5).ratio == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize(
    ("x", "y", "count"),
    [
        (V, V.copy(), 0),
        (changed(math.nan), changed(math.nan), 0),
        (changed(math.inf), changed(math.inf), 0),
        (changed(math.inf), changed(-math.inf), 1),
        (changed(math.nan), V, 1),
        (np.nextafter(V, 0), V, 6),
        (V.T, V, 6),
        (None, V, 6),
        (V, None, 1),
        (None, None, 1),
    ],
    ids=range(10),
)
def test_differing_counts(x, y, count):
    """The number of elements that differ; all of them where the shapes do, at least one."""
    assert differing(x, y) == count
