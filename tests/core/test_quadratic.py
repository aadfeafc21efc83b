"""On a quadratic: Newton's method with the true curvature, the edge of stability without (P24)."""

from __future__ import annotations

import numpy as np
import pytest
from rootfree import METHODS, DiagonalCurvature, Hyper

H = np.array([[0.25, 1.0, 3.0, 40.0]])


def test_true_curvature_is_newton(march, float64):
    """P24: with h fed in and s_0 = h the parameter contracts by 1 - beta_1, whatever h is."""
    lr, count = 0.1, 60
    rule = METHODS["rf_rmsprop"].rule(float64, without=["momentum"])
    w = np.ones_like(H)
    run = march(
        rule,
        w,
        lambda _, w: H * w,
        Hyper(lr, 0.05, curvature_scale=9.0),
        count,
        state=rule.init(w)._replace(statistic=H.copy()),
        curvature=DiagonalCurvature(H),
    )
    # s = (1 - b2) h + b2 h and the step's three operations round: 2e-16 each, 60 times.
    contraction = (1 - lr) ** np.arange(count + 1)[:, None, None]
    np.testing.assert_allclose(
        run.params, np.broadcast_to(contraction, run.params.shape), rtol=1e-13
    )
    np.testing.assert_allclose(run.state.statistic, H, rtol=1e-13)


@pytest.mark.parametrize("precond_lr", [0.02, 0.1])
def test_gradient_products_end_at_the_edge_of_stability(march, float64, precond_lr):
    """P24: with the gradient's square, full batch, s falls until beta_1 h/s = 2, not to h.

    At the edge the parameter changes sign at every step and its squared gradient is s.
    """
    lr, h = 0.1, np.array([[1.0, 2.0]])
    rule = METHODS["rf_rmsprop"].rule(float64, without=["momentum"])
    run = march(rule, np.ones_like(h), lambda _, w: h * w, Hyper(lr, precond_lr), 6000)
    np.testing.assert_allclose(lr * h / run.state.statistic, 2.0, rtol=1e-9)
    np.testing.assert_allclose((h * run.params[-1]) ** 2, run.state.statistic, rtol=1e-9)
    np.testing.assert_allclose(run.params[-1], -run.params[-2], rtol=1e-9)
