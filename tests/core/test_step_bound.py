"""The root-free step is bounded although nothing clips it (mathematics P10)."""

from __future__ import annotations

import numpy as np
from rootfree import METHODS, Hyper, update

LR, PRECOND_LR, ALPHA = 0.1, 0.02, 7.0
HYPER = Hyper(LR, PRECOND_LR, curvature_scale=ALPHA)


def bound(s: np.ndarray) -> np.ndarray:
    """Return beta_1 / (2 sqrt((1 - beta_2) s alpha beta_2)), s before the step."""
    return LR / (2 * np.sqrt((1 - PRECOND_LR) * s * ALPHA * PRECOND_LR))


def step(float64, s, g):
    """Return one step without momentum, damping or decay."""
    rule = METHODS["rf_rmsprop"].rule(float64, without=["momentum"])
    state = rule.init(g)._replace(statistic=s)
    return update(rule, g, state, np.zeros_like(g), HYPER)[0]


def test_no_gradient_exceeds_the_bound(float64):
    """P10: over 40 decades of G and 20 of s no step is longer; 4 roundings are allowed."""
    rng = np.random.default_rng(0)
    g = 10.0 ** rng.uniform(-20, 20, (1, 20000))
    s = 10.0 ** rng.uniform(-10, 10, (1, 20000))
    assert np.all(np.abs(step(float64, s, g)) <= bound(s) * (1 + 4 * np.finfo(float).eps))


def test_the_bound_is_attained(float64):
    """P10: G^2 = (1 - beta_2) s / (alpha beta_2) attains it, and a gradient 1.5 times off does not.

    The step is stationary there, so G's own rounding does not show.
    """
    s = 10.0 ** np.linspace(-8, 8, 50)[None]
    best = np.sqrt((1 - PRECOND_LR) * s / (ALPHA * PRECOND_LR))
    np.testing.assert_allclose(-step(float64, s, best), bound(s), rtol=8 * np.finfo(float).eps)
    # With G = k best the step is 2 k/(1 + k^2) of the bound: 12/13 at k = 3/2.
    np.testing.assert_allclose(-step(float64, s, 1.5 * best), bound(s) * 12 / 13, rtol=1e-14)


def test_no_bound_without_a_start(float64):
    """P10: with s_0 = 0 a small gradient makes a long step, beta_1/(alpha beta_2 G)."""
    g = np.array([[1e-3, 1e-6, 1e-9]])
    expected = -LR / (ALPHA * PRECOND_LR * g)
    np.testing.assert_allclose(step(float64, np.zeros_like(g), g), expected, rtol=1e-14)
