"""AdamW's bias correction is accurate in float32 at any step (mathematics 2.1, R4)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from rootfree import METHODS, Hyper, Precision, update

FLOAT32 = np.dtype("float32")
STEPS = np.unique(np.round(10 ** np.linspace(0, 6, 400))).astype(np.int32)
NAMESPACES = {
    "numpy": (np.asarray, FLOAT32),
    "torch": (torch.tensor, torch.float32),
    "jax": (jnp.asarray, jnp.dtype("float32")),
}


def exact(weight: float) -> np.ndarray:
    """Return 1 - (1 - weight)^t in float64."""
    return -np.expm1(STEPS * np.log1p(-weight))


def corrected(library: str, hyper: Hyper) -> np.ndarray:
    """Return AdamW's step for e = g = 1, s = 1 before every step in `STEPS`, a stack of them."""
    asarray, dtype = NAMESPACES[library]
    rule = METHODS["adamw"].rule(Precision.uniform(dtype))
    one = asarray(np.ones((len(STEPS), 1), FLOAT32))
    state = rule.init(one)._replace(step=asarray(STEPS - 1), statistic=one, first_moment=one)
    step, _ = update(rule, one, state, one, hyper)
    return np.asarray(step)[:, 0].astype(np.float64)


@pytest.mark.parametrize("library", NAMESPACES)
@pytest.mark.parametrize("weight", [0.1, 1e-2, 1e-3, 1e-4])
def test_second_moment(library, weight):
    """R4: c2 is off by 2e-7 at most for t up to 1e6.

    With momentum 0 the step is -1/sqrt(1/c2): two divisions and a root add 2^-24 each, of which
    the square counts five halves at most twice.
    """
    c2 = corrected(library, Hyper(1.0, weight)) ** 2
    assert np.abs(c2 / exact(weight) - 1).max() <= 2e-7 + 5 * 2.0**-24


@pytest.mark.parametrize("library", NAMESPACES)
@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99, 0.999])
def test_first_moment(library, momentum):
    """R4: c1 likewise; the step is -(1/c1)/sqrt(1/c2), with c2 = 1 as precond_lr is 1."""
    c1 = 1 / -corrected(library, Hyper(1.0, 1.0, momentum))
    assert np.abs(c1 / exact(1 - momentum) - 1).max() <= 2e-7 + 3 * 2.0**-24


@pytest.mark.parametrize(("weight", "loss"), [(1e-3, 1e-5), (1e-4, 1e-4)])
def test_the_power_would_not_do(weight, loss):
    """R4: 1 - beta^t in float32 is wrong by more than 50 times the limit above."""
    naive = 1 - np.float32(1 - weight) ** STEPS.astype(FLOAT32)
    assert naive.dtype == FLOAT32
    assert np.abs(naive / exact(weight) - 1).max() > loss


def test_first_step_is_a_sign(float64):
    """R4: without damping the first step is -lr sign(g), whatever the gradient's size."""
    g = np.array([[1e-8, -1e-3, 5.0, -1e9]])
    rule = METHODS["adamw"].rule(float64)
    step, _ = update(rule, g, rule.init(g), g, Hyper(0.1, 1e-3, 0.9))
    np.testing.assert_allclose(step, -0.1 * np.sign(g), rtol=1e-12)


def test_root_free_rules_have_none(float64):
    """R7: the first moment enters as it is, (1 - a1) g / s at the first step."""
    g = np.array([[0.5, -2.0]])
    rule = METHODS["rf_adamw"].rule(float64)
    step, _ = update(rule, g, rule.init(g), np.zeros_like(g), Hyper(1.0, 0.25, 0.75))
    np.testing.assert_array_equal(step, -(0.25 * g) / (0.75 + 0.25 * g * g))
