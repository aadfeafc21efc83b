"""State in bfloat16: nearest rounding stands still, stochastic rounding follows (P26, 4.2)."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from rootfree import METHODS, DiagonalCurvature, Hyper, Precision, add_step, roles, update

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype("float32")


def decayed(s, precond_lr, rounding, count):
    """Return the statistic after ``count`` steps without any gradient."""
    precision = Precision(FLOAT32, BFLOAT16, FLOAT32, rounding)
    rule = METHODS["rf_rmsprop"].rule(precision, without=["momentum"])
    zero = np.zeros(s.shape, FLOAT32)
    state = rule.init(zero)._replace(statistic=s.astype(BFLOAT16))
    for _ in range(count):
        _, state = update(rule, zero, state, zero, Hyper(0.1, precond_lr))
    assert state.statistic.dtype == BFLOAT16
    return state.statistic.astype(np.float64)


@pytest.mark.parametrize(
    ("precond_lr", "percent"), [(0.0019, 0), (0.002, 5), (0.003, 70), (2**-8 * 1.001, 100)]
)
def test_nearest_moves_only_some(precond_lr, percent):
    """4.2: of the 128 bfloat16 numbers in [1, 2) this share decays at all.

    1 + k/128 decays if (1 + k/128) b2 exceeds half the spacing, 2^-8; 1 itself, whose lower
    neighbour is half as far, if b2 exceeds 2^-9.
    """
    s = 1 + np.arange(128.0)[None] / 128
    moves = decayed(s, precond_lr, "nearest", 1) != s
    assert round(100 * moves.mean()) == percent
    clear = np.abs(s * precond_lr - 2**-8) > 1e-6  # away from ties, which float32 may settle
    clear[0, 0] = False
    np.testing.assert_array_equal(moves[clear], (s * precond_lr > 2**-8)[clear])
    assert moves[0, 0] == (precond_lr > 2**-9)


def test_nearest_stalls_where_stochastic_decays():
    """P26: 1000 decays by 1e-3 leave 1 with nearest rounding, give 0.999^1000 with stochastic.

    One rounding adds a variance of at most f ulp^2 with f ulp = 1e-3 s and ulp <= 2^-8, hence a
    thousand at most 2^-8: over n elements the mean is within 5 sigma = 5 * 2^-4 / sqrt(n). The
    float32 arithmetic before it may be off by 1000 * 2^-23.
    """
    n = 2**16
    ones = np.ones((1, n))
    assert np.all(decayed(ones, 1e-3, "nearest", 1000) == 1)
    mean = decayed(ones, 1e-3, "stochastic", 1000).mean()
    assert abs(mean - 0.999**1000) < 5 / 16 / np.sqrt(n) + 1000 * 2.0**-23


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_every_state_array_is_stored(name, rounding):
    """4.3: rounding holds for every array of the state, with the counters left as they are."""
    precision = Precision(FLOAT32, BFLOAT16, FLOAT32, rounding)
    rule = METHODS[name].rule(precision)
    param = np.ones((2, 3), BFLOAT16)
    grad = np.linspace(-1, 1, 6).reshape(2, 3).astype(BFLOAT16)
    state = rule.init(param)
    for _ in range(2):
        dtypes = {role: x.dtype for role, x in roles(state).items()}
        step, state = update(rule, grad, state, param, Hyper(0.1, 0.1, 0.9, damping=1e-3))
        assert step.dtype == FLOAT32
        assert {role: x.dtype for role, x in roles(state).items()} == dtypes
        assert dtypes.pop("step") == np.int32
        assert dtypes.pop("salt", None) == (None if rounding == "nearest" else np.int32)
        assert set(dtypes.values()) == {BFLOAT16}


def test_roles_have_their_own_bits():
    """4.3: two state arrays with equal values are rounded by different bits.

    Both become g with f = 1/2: independent draws agree in half of n cases, within 5 sigma.
    """
    n = 2**14
    precision = Precision(FLOAT32, BFLOAT16, FLOAT32, "stochastic")
    rule = METHODS["rf_adamw"].rule(precision, init_scale=0.0)
    grad = np.full((1, n), 1 + 2.0**-8, FLOAT32)
    weight = 2.0**-3  # of the gradient in e, and of the curvature, which is g here, in s
    hyper = Hyper(0.1, weight, 1 - weight)
    _, state = update(rule, grad, rule.init(grad), grad, hyper, curvature=DiagonalCurvature(grad))
    assert abs(np.mean(state.statistic == state.first_moment) - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_a_step_is_rounded_once_into_the_parameter():
    """4.1: the sum is taken in float32 and rounded to the parameter's bfloat16 at the end.

    1 + 2^-8 (1 + 2^-10) lies just above the middle of 1 and 1 + 2^-7: it rounds up, while a step
    rounded to bfloat16 first would be 2^-8, a tie, and round down to even.
    """
    param = np.ones((1, 1), BFLOAT16)
    step = np.full((1, 1), 2.0**-8 * (1 + 2.0**-10), FLOAT32)
    moved = add_step(param, step)
    assert moved.dtype == BFLOAT16
    assert float(moved[0, 0]) == 1 + 2**-7
    zero = np.array([[-0.0, 3e38]], BFLOAT16)
    assert add_step(zero, np.zeros((1, 2), FLOAT32)).tobytes() == zero.tobytes()
