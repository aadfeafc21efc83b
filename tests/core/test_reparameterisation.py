"""Diagonal changes of variables: root-free methods do not see them (mathematics P12)."""

from __future__ import annotations

import numpy as np
import pytest
from rootfree import METHODS, Hyper

SHAPE = (2, 5)
STEPS = 40
RNG = np.random.default_rng(3)
A = np.exp(RNG.uniform(-1.5, 1.5, SHAPE))  # w = A v + c
C = RNG.normal(size=SHAPE)
TARGET = RNG.normal(size=SHAPE)
STEEPNESS = np.exp(RNG.uniform(-1, 1, SHAPE))


def gradient(w: np.ndarray) -> np.ndarray:
    """Return the gradient at w of sum log cosh(steepness (w - target))."""
    return STEEPNESS * np.tanh(STEEPNESS * (w - TARGET))


def distance(march, float64, name, hyper, scale):
    """Return how far apart training w and training v end up, with s_0 of v times ``scale``."""
    rule = METHODS[name].rule(float64)
    v = np.zeros(SHAPE)
    state = rule.init(v)
    state = state._replace(statistic=state.statistic * scale)
    plain = march(rule, A * v + C, lambda _, w: gradient(w), hyper, STEPS).params
    changed = march(rule, v, lambda _, v: A * gradient(A * v + C), hyper, STEPS, state=state).params
    return np.abs(A * changed + C - plain).max() / np.abs(plain - plain[0]).max()


@pytest.mark.parametrize("name", ["rf_adagrad", "rf_rmsprop", "rf_adamw"])
def test_invariant(march, float64, name):
    """P12: with s_0 of v = a^2 s_0 of w, and no damping or decay, the trajectories are one."""
    hyper = Hyper(0.02, 0.1, 0.9, curvature_scale=3.0)
    assert distance(march, float64, name, hyper, A * A) < 1e-12


@pytest.mark.parametrize(
    ("name", "hyper", "scale"),
    [
        pytest.param("rf_rmsprop", Hyper(0.02, 0.1, 0.9), 1.0, id="equal start"),
        pytest.param("rf_rmsprop", Hyper(0.02, 0.1, 0.9, damping=0.1), A * A, id="damping"),
        pytest.param("rf_rmsprop", Hyper(0.02, 0.1, 0.9, weight_decay=0.1), A * A, id="decay"),
        pytest.param("rmsprop", Hyper(0.02, 0.1, 0.9), A * A, id="root"),
        pytest.param("adagrad", Hyper(0.02, 1.0, 0.9), A * A, id="root, sum"),
    ],
)
def test_not_invariant(march, float64, name, hyper, scale):
    """P12, converse: each condition is needed, and the root destroys the invariance."""
    assert distance(march, float64, name, hyper, scale) > 1e-2
