"""Curvature from the caller stands in for the gradient's square (mathematics 1, 2.1)."""

from __future__ import annotations

import numpy as np
import pytest
from rootfree import METHODS, DiagonalCurvature, Hyper, curvature_scale, update

G = np.array([[0.5, -2.0, 3.0]])
H = np.array([[0.25, 7.0, 0.125]])


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if n != "sgd" and not m.matrix])
def test_replaces_the_square_as_it_is(name, float64):
    """H enters unsquared and without alpha; the gradient still gives the direction."""
    rule = METHODS[name].rule(float64)
    hyper = Hyper(0.5, 0.25, curvature_scale=64.0)
    _, state = update(rule, G, rule.init(G), G, hyper, curvature=DiagonalCurvature(H))
    kept = 0.75 if rule.decay else 1.0
    np.testing.assert_array_equal(state.statistic, kept * rule.init_scale + 0.25 * H)
    _, other = update(rule, 2 * G, rule.init(G), G, hyper, curvature=DiagonalCurvature(H))
    np.testing.assert_array_equal(state.statistic, other.statistic)


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.scaled and not m.matrix])
def test_alpha_scales_the_square_only(name, float64):
    """Without one, h = alpha G^2: a given alpha G^2 makes the same step, bit for bit."""
    rule = METHODS[name].rule(float64)
    hyper = Hyper(0.5, 0.25, 0.5, curvature_scale=3.0)
    h = DiagonalCurvature(3.0 * (G * G))
    mine = update(rule, G, rule.init(G), G, hyper)
    given = update(rule, G, rule.init(G), G, hyper._replace(curvature_scale=1.0), curvature=h)
    np.testing.assert_array_equal(mine[0], given[0])
    np.testing.assert_array_equal(mine[1].statistic, given[1].statistic)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.scaled])
def test_root_based_methods_ignore_alpha(name, float64):
    """Only root-free methods read the curvature scale."""
    rule = METHODS[name].rule(float64)
    hyper = Hyper(0.5, 0.25, damping=1e-3, curvature_scale=1.0)
    first = update(rule, G, rule.init(G), G, hyper)[0]
    second = update(rule, G, rule.init(G), G, hyper._replace(curvature_scale=64.0))[0]
    np.testing.assert_array_equal(first, second)


def test_is_cast_to_the_working_dtype(float64):
    """A float32 curvature takes part in float64 arithmetic, not the other way round."""
    rule = METHODS["rf_rmsprop"].rule(float64)
    narrow = (H / 3).astype(np.float32)
    (step, state), (expected, expected_state) = (
        update(rule, G, rule.init(G), G, Hyper(0.5, 0.3), curvature=DiagonalCurvature(h))
        for h in (narrow, narrow.astype(np.float64))
    )
    assert step.tobytes() == expected.tobytes()
    assert state.statistic.tobytes() == expected_state.statistic.tobytes()


def test_curvature_scale():
    """0.3: alpha is the batch size for a mean and 1 for a sum; nothing else is known."""
    assert curvature_scale(32) == 32
    assert curvature_scale(32, "sum") == 1
    with pytest.raises(ValueError, match="'mean' or 'sum', got 'none'"):
        curvature_scale(32, "none")  # type: ignore[arg-type]  # what the check is for
