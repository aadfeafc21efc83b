"""The last stage of every rule: weight decay, heavy ball, learning rate (mathematics 2.0)."""

from __future__ import annotations

import numpy as np
import pytest
from rootfree import METHODS, Hyper, descend, update

# Few binary digits each, so that every result below is exact.
U = np.array([[1.0, -2.0, 0.0]])
W = np.array([[8.0, 4.0, -16.0]])
BUFFER = np.array([[0.5, 1.0, -4.0]])
HYPER = Hyper(lr=0.5, momentum=0.25, weight_decay=0.125)


@pytest.mark.parametrize(
    ("mode", "buffer", "step", "new"),
    [
        ("coupled", BUFFER, -0.5 * (0.25 * BUFFER + U + W / 8), 0.25 * BUFFER + U + W / 8),
        ("decoupled", BUFFER, -0.5 * (0.25 * BUFFER + U + W / 8), 0.25 * BUFFER + U),
        ("coupled", None, -0.5 * (U + W / 8), None),
        ("decoupled", None, -0.5 * (U + W / 8), None),
    ],
)
def test_one_step(mode, buffer, step, new):
    """2.0: coupled decay passes through the heavy ball, decoupled decay does not."""
    came, moved = descend(U, W, buffer, HYPER, weight_decay_mode=mode)
    np.testing.assert_array_equal(came, step)
    if new is None:
        assert moved is None
    else:
        np.testing.assert_array_equal(moved, new)


@pytest.mark.parametrize("mode", ["coupled", "decoupled"])
def test_decay_does_not_pass_through_the_preconditioner(mode, float64):
    """2.0: a statistic of 1024 divides the gradient and leaves the decay alone."""
    rule = METHODS["rf_rmsprop"].rule(float64, init_scale=1024.0, weight_decay_mode=mode)
    step, _ = update(rule, 1024 * U, rule.init(W), W, HYPER)
    np.testing.assert_array_equal(step, -0.5 * (U + W / 8))


@pytest.mark.parametrize("name", METHODS)
def test_heavy_ball_is_not_an_average(name, float64, march):
    """2.0: a constant direction is summed, to 1/(1 - momentum) of itself, without Nesterov.

    An average of gradients (AdamW, RF-AdamW) stays at the gradient. After t steps the sum lacks
    momentum^t, and a statistic that does not move is held by precond_lr = 0.
    """
    method, count = METHODS[name], 60
    rule = method.rule(float64, **({} if name in ("sgd", "adamw") else {"init_scale": 1.0}))
    if name == "adamw":  # its corrections divide by the masses, which a constant gradient fills
        hyper, expected = Hyper(1.0, 0.5, 0.5), 1.0
    else:
        hyper, expected = Hyper(1.0, 0.0, 0.5), 1.0 if method.momentum == "average" else 2.0
    run = march(rule, np.ones((1, 2)), lambda t, w: np.ones_like(w), hyper, count)
    np.testing.assert_allclose(run.steps[-1], -expected, rtol=1e-14)
