"""Zero gradients and zero learning rates (mathematics 4.5, 4.6)."""

from __future__ import annotations

import numpy as np
import pytest
from rootfree import METHODS, Hyper, add_step, as_update, roles, update

DIAGONAL = [name for name, method in METHODS.items() if not method.matrix]
PARAM = np.array([[-0.0, 0.0, -1.5, 2.0**-1074, -3e300], [1.0, -0.0, 0.0, -1e-310, 7.0]])


@pytest.mark.parametrize("name", DIAGONAL)
@pytest.mark.parametrize("damping", [0.0, 1e-4])
def test_zero_gradients(march, float64, name, damping):
    """4.5: s decays by (1 - b2)^t, or stays if it is a sum; the step is 0, never 0/0."""
    method, b2, count = METHODS[name], 0.1, 200
    rule = method.rule(float64)
    w = np.ones((2, 3))
    hyper = Hyper(0.1, b2, 0.9, damping=damping, curvature_scale=4.0)
    run = march(rule, w, lambda t, w: np.zeros_like(w), hyper, count)
    np.testing.assert_array_equal(run.steps, 0.0)
    if run.state.statistic is not None:
        start = rule.init_scale
        expected = start * (1 - b2) ** count if rule.decay else start
        np.testing.assert_allclose(run.state.statistic, expected, rtol=count * 2.0**-53)


@pytest.mark.parametrize("name", DIAGONAL)
def test_zero_gradients_until_the_statistic_underflows(march, float64, name):
    """4.5: `tiny` keeps 0/0 out after s has underflowed to 0 without damping."""
    rule = METHODS[name].rule(float64)
    w = np.ones((1, 2))
    run = march(rule, w, lambda t, w: np.zeros_like(w), Hyper(0.1, 0.9, 0.9), 400)
    np.testing.assert_array_equal(run.steps, 0.0)
    if rule.power and rule.decay:
        np.testing.assert_array_equal(run.state.statistic, 0.0)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("mode", ["coupled", "decoupled"])
def test_zero_learning_rate(float64, name, mode):
    """4.6: lr = 0 leaves every bit of a parameter alone, signs of zeros included; state moves."""
    rule = METHODS[name].rule(float64, weight_decay_mode=mode)
    grad = np.random.default_rng(1).normal(size=PARAM.shape)
    hyper = Hyper(0.0, 0.1, 0.9, damping=1e-4, weight_decay=1e-2)
    param, state = PARAM, rule.init(PARAM)
    for _ in range(5):
        step, state = update(rule, grad, state, param, hyper)
        param = add_step(param, step)
    assert param.tobytes() == PARAM.tobytes()
    assert (PARAM + step).tobytes() != PARAM.tobytes()  # so a plain sum would not do
    assert np.all(state.step == 5)
    start = roles(rule.init(PARAM))
    moved = [np.any(now != start[role]) for role, now in roles(state).items()]
    assert moved
    assert all(moved)


def test_zero_steps_are_selected_and_not_added():
    """4.6: where the step is 0 the parameter stands, elsewhere it moves; each entry by itself."""
    step = np.array([[0.0, -0.0, 1.0, 0.0, -0.0], [0.0, 0.0, -0.0, 2.0, 0.5]])
    moved = add_step(PARAM, step)
    still = step == 0
    assert moved[still].tobytes() == PARAM[still].tobytes()
    np.testing.assert_array_equal(moved[~still], (PARAM + step)[~still])


def test_an_update_of_zero_is_negative():
    """4.6: frameworks that add by themselves get -0.0, whose addition changes no bit."""
    update_ = as_update(np.zeros_like(PARAM), np.dtype("float64"))
    assert (PARAM + update_).tobytes() == PARAM.tobytes()
    assert (PARAM + np.zeros_like(PARAM)).tobytes() != PARAM.tobytes()
