"""Under JAX's transformations and optax's wrappers (backends 3, JX17, JX20)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rootfree_jax
from rootfree import METHODS

every = pytest.mark.parametrize("name", METHODS)


def make(name, learning_rate=0.1, **kwargs):
    """Return an optimizer by its method's name, away from where rounding or curvature explode.

    The root of a singular statistic has the condition number 1/damping; a covariance is positive
    definite while `precond_lr` is small against the curvature.
    """
    damped = {"damping": 0.1} if "eigh" in METHODS[name].decompositions else {}
    slow = {"precond_lr": 1e-3} if name == "rf_full_matrix_inverse" else {}
    given = {"momentum": 0.9, **damped, **slow, **kwargs}
    return getattr(rootfree_jax, name)(learning_rate, **given)


def assert_close(one, two, steps):
    """Compare within 64 roundings a step of the largest element: XLA may fuse and reorder."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        bound = steps * 64 * 2.0**-24 * np.max(np.abs(b), initial=0.0)
        np.testing.assert_allclose(a, b, rtol=0, atol=bound)


@every
def test_jit_equals_eager(tree, march, name):
    """JX17."""
    assert_close(march(make(name), tree(0), 5, jit=True), march(make(name), tree(0), 5), 5)


@every
def test_scan_equals_a_loop(tree, name):
    """JX17: the state is a fixed point, so it can be a carry."""
    tx, params = make(name), tree(0)
    grads = [tree(t + 1) for t in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    carry, _ = jax.lax.scan(step, (params, tx.init(params)), stacked)
    expected = (params, tx.init(params))
    for g in grads:
        expected, _ = step(expected, g)
    assert_close(carry, expected, 4)


@every
def test_ensembles(tree, name):
    """JX17: `vmap` over parameters, state, gradients and learning rates."""
    members = [tree(seed) for seed in range(3)]
    grads = [tree(seed + 10) for seed in range(3)]
    rates = jnp.asarray([0.1, 0.2, 0.3])

    def step(params, g, rate):
        tx = make(name, rate)
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(g, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    def stack(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    found = jax.vmap(step)(stack(members), stack(grads), rates)
    expected = stack([step(*each) for each in zip(members, grads, rates, strict=True)])
    assert_close(found, expected, 2)


@every
def test_gradient_through_steps(tree, name):
    """JX17: the derivative of a loss after training equals a finite difference, in float64."""
    with jax.enable_x64(True):
        start, target = (tree(seed, "float64", {"w": (3, 2)}) for seed in (0, 1))

        def loss(params):
            pairs = zip(jax.tree.leaves(params), jax.tree.leaves(target), strict=True)
            return sum(jnp.sum((a - b) ** 2) for a, b in pairs)

        @jax.jit
        def trained(rate):
            tx, params = make(name, rate), start
            state = tx.init(params)
            for _ in range(3):
                updates, state = tx.update(jax.grad(loss)(params), state, params, batch_size=4)
                params = optax.apply_updates(params, updates)
            return loss(params)

        rate, h = 0.01, 1e-5
        slope = jax.grad(trained)(rate)
        difference = (trained(rate + h) - trained(rate - h)) / (2 * h)
        assert np.isfinite(slope)
        np.testing.assert_allclose(slope, difference, rtol=1e-5)


@every
def test_no_tracer_leaks(tree, name):
    """JX17."""
    tx, params = make(name), tree(0)
    with jax.checking_leaks():
        jax.jit(tx.update)(params, jax.jit(tx.init)(params), params)


@every
def test_export(tree, name):
    """JX17: a step can be exported and called."""
    tx, params = make(name), tree(0)
    state = tx.init(params)
    step = jax.jit(tx.update)
    exported = jax.export.export(step)(tree(1), state, params)
    assert_close(exported.call(tree(1), state, params), step(tree(1), state, params), 1)


@every
def test_wrappers_of_optax(tree, assert_same_bits, name):
    """JX20: `chain`, `masked`, `partition` and `apply_if_finite` change no update of theirs."""
    tx, params, grads = make(name), tree(0), tree(1)
    expected, _ = tx.update(grads, tx.init(params), params)

    def update(wrapped, grads):
        return wrapped.update(grads, wrapped.init(params), params, batch_size=1)[0]

    assert_same_bits(update(optax.chain(optax.identity(), tx), grads), expected)
    mask = {"layer": True, "scale": False}
    masked = update(optax.masked(tx, mask), grads)
    assert_same_bits(masked["layer"], expected["layer"])
    assert_same_bits(masked["scale"], grads["scale"])
    labels = {"layer": "ours", "scale": "frozen"}
    parts = optax.partition({"ours": tx, "frozen": optax.set_to_zero()}, labels)
    divided = update(parts, grads)
    assert_same_bits(divided["layer"], expected["layer"])
    assert not np.any(divided["scale"])
    guarded = optax.apply_if_finite(tx, max_consecutive_errors=3)
    assert_close(update(guarded, grads), expected, 1)
    broken = {**grads, "scale": jnp.asarray(jnp.nan)}
    assert not any(np.any(x) for x in jax.tree.leaves(update(guarded, broken)))


@every
def test_accumulation(tree, name):
    """JX20: `MultiSteps` averages k gradients; the batch size is that of the k together."""
    tx, params = make(name), tree(0)
    halves = [tree(1), tree(2)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    expected, _ = tx.update(mean, tx.init(params), params, batch_size=8)
    accumulating = optax.MultiSteps(tx, every_k_schedule=2)
    state = accumulating.init(params)
    updates, state = accumulating.update(halves[0], state, params, batch_size=8)
    assert not any(np.any(x) for x in jax.tree.leaves(updates))
    updates, state = accumulating.update(halves[1], state, params, batch_size=8)
    # The average itself is rounded, and a difference of gradients may have cancelled.
    assert_close(updates, expected, 2)


@every
def test_schedules(tree, march, name):
    """JX20: a schedule equals its values given one by one."""
    schedule = optax.exponential_decay(0.1, 1, 0.5)
    params = expected = tree(0)
    params, _ = march(make(name, schedule), params, 3)
    state = make(name).init(expected)
    for t in range(3):
        updates, state = make(name, 0.1 * 0.5**t).update(tree(100 + t), state, expected)
        expected = optax.apply_updates(expected, updates)
    assert_close(params, expected, 3)
