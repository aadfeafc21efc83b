"""Scale in the diagonal family: the loss, its reduction, its gradients' size (P06, P07, P08)."""

from __future__ import annotations

import numpy as np
import pytest
from rootfree import METHODS, Hyper

DIAGONAL = [name for name, method in METHODS.items() if not method.matrix]
ROOT_FREE = [name for name in DIAGONAL if METHODS[name].scaled]
SHAPE = (2, 3, 4)
STEPS = 30

# A product or quotient of numbers that differ by a power of two differs by it exactly; by another
# factor, to a rounding or two. Thirty steps with heavy ball 0.9 add up ten of each, at 1e-16.
ROUNDING = 1e-13


def gradients(seed: int = 0) -> np.ndarray:
    """Return gradients whose size varies by a factor of e^2 and that never vanish."""
    rng = np.random.default_rng(seed)
    return rng.choice([-1.0, 1.0], (STEPS, *SHAPE)) * np.exp(rng.uniform(-1, 1, (STEPS, *SHAPE)))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference, relative to the largest change of a parameter."""
    return float(np.abs(a - b).max() / np.abs(a - a[0]).max())


@pytest.mark.parametrize("name", ROOT_FREE)
@pytest.mark.parametrize(("size", "limit"), [(8, 0.0), (7, ROUNDING)])
def test_mean_and_sum_agree(march, float64, name, size, limit):
    """P06: a mean over B with (B, s_0, lam) is a sum with (1, B s_0, B lam)."""
    method, g, w = METHODS[name], gradients(), np.ones(SHAPE)
    hyper = Hyper(0.01, 0.1, 0.9, damping=0.1, weight_decay=0.1, curvature_scale=size)
    mean = march(method.rule(float64, init_scale=0.5), w, lambda t, _: g[t], hyper, STEPS)
    hyper = hyper._replace(damping=size * 0.1, curvature_scale=1)
    rule = method.rule(float64, init_scale=size * 0.5)
    total = march(rule, w, lambda t, _: size * g[t], hyper, STEPS)
    assert distance(mean.params, total.params) <= limit


@pytest.mark.parametrize("name", ROOT_FREE)
@pytest.mark.parametrize(("init_scale", "damping"), [(0.5, 0.8), (4.0, 0.1)])
def test_mean_and_sum_differ_if_the_statistic_starts_alike(
    march, float64, name, init_scale, damping
):
    """P06, converse: with equal s_0, or with equal damping, the two losses part."""
    method, g, w = METHODS[name], gradients(), np.ones(SHAPE)
    hyper = Hyper(0.01, 0.1, 0.9, damping=0.1, curvature_scale=8)
    mean = march(method.rule(float64, init_scale=0.5), w, lambda t, _: g[t], hyper, STEPS)
    hyper = hyper._replace(damping=damping, curvature_scale=1)
    rule = method.rule(float64, init_scale=init_scale)
    total = march(rule, w, lambda t, _: 8 * g[t], hyper, STEPS)
    assert distance(mean.params, total.params) > 1e-3


@pytest.mark.parametrize("name", ROOT_FREE)
@pytest.mark.parametrize(("c", "limit"), [(4.0, 0.0), (3.0, ROUNDING)])
def test_loss_times_a_constant(march, float64, name, c, limit):
    """P07: l -> c l with alpha/c, c s_0 and c lam leaves the parameters alone."""
    method, g, w = METHODS[name], gradients(), np.ones(SHAPE)
    hyper = Hyper(0.01, 0.1, 0.9, damping=0.1, weight_decay=0.1, curvature_scale=6)
    plain = march(method.rule(float64, init_scale=0.5), w, lambda t, _: g[t], hyper, STEPS)
    hyper = hyper._replace(damping=c * 0.1, curvature_scale=6 / c)
    rule = method.rule(float64, init_scale=c * 0.5)
    scaled = march(rule, w, lambda t, _: c * g[t], hyper, STEPS)
    assert distance(plain.params, scaled.params) <= limit


@pytest.mark.parametrize("name", [name for name in DIAGONAL if name != "sgd"])
def test_loss_times_a_constant_with_alpha_kept(march, float64, name):
    """P07, second part: with s_0 = lam = 0 a root-free step becomes 1/c, a root step stays."""
    method, g, w = METHODS[name], gradients(), np.zeros(SHAPE)
    rule = method.rule(float64, **({"init_scale": 0.0} if method.scaled else {}))
    hyper = Hyper(0.01, 0.1, 0.9, curvature_scale=6)
    plain = march(rule, w, lambda t, _: g[t], hyper, STEPS)
    scaled = march(rule, w, lambda t, _: 4 * g[t], hyper, STEPS)
    np.testing.assert_array_equal(scaled.steps, plain.steps / (4 if method.scaled else 1))


@pytest.mark.parametrize("name", ["rmsprop", "adamw", "rf_rmsprop", "rf_adamw"])
def test_clipping_by_a_constant_factor(march, float64, name):
    """P08: gradients times rho multiply the long-run root-free step by 1/rho, a root step by 1.

    After 500 steps at precond_lr 0.1 the start weighs 0.9^500 = 1e-23 of the statistic's least
    value rho^2/e^2 = 1e-3: nothing in float64.
    """
    method, rho, count = METHODS[name], 0.1, 500
    g, w = gradients(), np.zeros(SHAPE)
    hyper = Hyper(0.01, 0.1, 0.9)
    rule = method.rule(float64)
    plain = march(rule, w, lambda t, _: g[t % STEPS], hyper, count)
    clipped = march(rule, w, lambda t, _: rho * g[t % STEPS], hyper, count)
    ratio = clipped.steps[-1] / plain.steps[-1]
    np.testing.assert_allclose(ratio, 1 / rho if method.scaled else 1.0, rtol=ROUNDING)
