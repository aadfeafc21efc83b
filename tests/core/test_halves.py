"""A step in its two halves, what may be kept between them, and members that take no part."""

import array_api_compat.numpy as xp
import numpy as np
import pytest
from rootfree import (
    METHODS,
    Hyper,
    Precision,
    SIRFShampoo,
    add_step,
    advanced,
    observed,
    roles,
    update,
)

HYPER = Hyper(0.1, 0.1, 0.9, 0.5, 1e-3, 1e-2, 6.0)
SHAPE = (4, 3, 5)


def drawn(name, seed=3):
    """Return a rule, two gradients, a state after one step and parameters."""
    rng = np.random.default_rng(seed)
    rule = METHODS[name].rule(Precision.uniform(xp.float64))
    grads = rng.normal(size=(2, *SHAPE)) * 0.1
    param = rng.normal(size=SHAPE)
    _, state = update(rule, grads[0], rule.init(param), param, HYPER)
    return rule, grads[1], state, param


@pytest.mark.parametrize("name", METHODS)
def test_two_halves_are_the_whole(name):
    """`observed` and then `advanced` give the bits of `update`."""
    rule, grad, state, param = drawn(name)
    whole, after = update(rule, grad, state, param, HYPER)
    seen = observed(rule, grad, state, HYPER)
    step, halves = advanced(rule, grad, seen, param, HYPER)
    assert np.array_equal(step, whole)
    for role, array in roles(after).items():
        assert np.array_equal(roles(halves)[role], array), role


@pytest.mark.parametrize("observe", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_members_that_take_no_part_keep_every_bit(name, observe):
    """Active members do as without the others; the others keep state and parameter."""
    rule, grad, state, param = drawn(name)
    active = xp.asarray([True, False, True, False])
    grad[1], grad[3] = 0.0, 0.0
    step, after = update(rule, grad, state, param, HYPER, observe, active=active)
    alone, expected = update(rule, grad, state, param, HYPER, observe)
    assert np.array_equal(step[active], alone[active])
    assert np.array_equal(add_step(param, step)[~active], param[~active])
    for role, array in roles(after).items():
        assert np.array_equal(array[active], roles(expected)[role][active]), role
        assert np.array_equal(array[~active], roles(state)[role][~active]), role


def test_inactive_members_are_selected_away_and_not_multiplied():
    """What a member without a part would have become never shows, be it infinite."""
    rule, grad, state, param = drawn("rf_rmsprop")
    huge = Hyper(np.inf, 0.1, 0.9, 0.5, 1e-3, 1e-2, 6.0)
    grad[0] = 0.0
    step, after = update(
        rule, grad, state, param, huge, active=xp.asarray([False, True, True, True])
    )
    assert np.array_equal(step[0], np.zeros(SHAPE[1:]))
    assert all(np.all(np.isfinite(np.asarray(a)[0])) for a in roles(after).values())


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 7, 3), (2, 4, 2, 6)])
@pytest.mark.parametrize("period", [1, 10, 10**6])
def test_kept_products_give_the_same_direction(shape, period):
    """K K^T taken once, or K and K^T one after the other: equal to rounding."""
    rng = np.random.default_rng(1)
    rule = SIRFShampoo(Precision.uniform(xp.float64))
    param, grad = rng.normal(size=shape), rng.normal(size=shape)
    state = rule.init(param)
    for _ in range(3):
        state = observed(rule, grad, state, HYPER)
    kept = rule.derive(state, shape[1:], period)
    assert any(both is not None for both in kept)
    bare, _ = advanced(rule, grad, state, param, HYPER, derived=(None,) * (len(shape) - 1))
    step, _ = advanced(rule, grad, state, param, HYPER, derived=kept)
    assert not np.array_equal(step, bare)
    # Two products in a row of numbers near 1: far fewer than 64 roundings each.
    assert np.max(np.abs(step - bare)) <= 64 * 2.0**-53 * np.max(np.abs(bare))


def test_products_are_formed_where_they_save_work():
    """K K^T pays against M columns and T directions while d < M T, for square structures."""

    def formed(structure, shape, period):
        rule = SIRFShampoo(Precision.uniform(xp.float64), structure=structure)
        state = rule.init(xp.zeros((1, *shape)))
        return [both is not None for both in rule.derive(state, shape, period)]

    assert formed("dense", (3, 8), 1) == [True, False]
    assert formed("dense", (8, 8), 1) == [False, False]
    assert formed("dense", (8, 8), 2) == [True, True]
    assert formed("dense", (3, 8), 10) == [True, True]
    assert formed("dense", (8,), 5) == [False]
    assert formed("dense", (8,), 9) == [True]
    assert formed("diagonal", (3, 8), 10) == [False, False]
    assert formed("hierarchical", (30, 80), 10) == [False, False]


def test_narrow_range_forms_none():
    """Float16 products scale the factors first, which a kept product could not."""
    precision = Precision(xp.float32, xp.float32, xp.float16, narrow_range=True)
    rule = SIRFShampoo(precision)
    state = rule.init(xp.zeros((1, 3, 8), dtype=xp.float32))
    assert rule.derive(state, (3, 8), 10) == (None, None)
