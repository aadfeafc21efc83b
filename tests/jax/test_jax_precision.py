"""Dtypes: kept per leaf, never promoted, state that can follow (backends 1.4, JX15, JX16)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rootfree_jax
from rootfree import METHODS

every = pytest.mark.parametrize("name", METHODS)
STOCHASTIC = {"state_dtype": "bfloat16", "rounding": "stochastic"}


@every
def test_dtypes_are_kept_per_leaf(name):
    """JX15: 16-bit parameters have float32 state; a tree may mix every dtype, float64 under x64."""
    with jax.enable_x64(True):
        params = {d: jnp.ones(3, d) for d in ("float16", "bfloat16", "float32", "float64")}
        tx = getattr(rootfree_jax, name)(0.1, momentum=0.9)
        updates, state = tx.update(params, tx.init(params), params)
        for dtype, update in updates.items():
            assert update.dtype == jnp.dtype(dtype)
        for stage in (state,) if name == "sgd" else state:
            for found in stage[1:]:
                for dtype, entry in found.items() if isinstance(found, dict) else ():
                    wide = "float64" if dtype == "float64" else "float32"
                    assert {x.dtype for x in jax.tree.leaves(entry)} == {jnp.dtype(wide)}


@every
def test_a_float64_leaf_is_computed_in_float64(tree, name):
    """JX15: a float64 step differs from the float32 one by float32's rounding, no more."""
    with jax.enable_x64(True):
        # The root of a singular statistic has the condition number 1/damping.
        damped = {"damping": 0.1} if "eigh" in METHODS[name].decompositions else {}
        tx = getattr(rootfree_jax, name)(0.1, **damped)
        steps = {}
        for dtype in ("float32", "float64"):
            params, grads = tree(0, dtype), tree(1, dtype)
            steps[dtype], _ = tx.update(grads, tx.init(params), params)
    narrow, wide = (np.asarray(steps[d]["layer"]["w"]) for d in ("float32", "float64"))
    np.testing.assert_allclose(narrow, wide, rtol=2.0**-16)
    assert np.any(wide != wide.astype(np.float32))


@every
def test_float64_without_x64_warns(name):
    """JX15: JAX would make float32 of it without a word."""
    params = {"w": np.ones(2)}
    with pytest.warns(UserWarning, match="parameter 'w' is float64, but JAX computes .* float32"):
        getattr(rootfree_jax, name)(0.1).init(params)


def test_float64_state_needs_float64_parameters():
    """1.4: the message names what a float32 parameter can have."""
    tx = rootfree_jax.rf_rmsprop(0.1, state_dtype="float64")
    with pytest.raises(ValueError, match="`state_dtype` of a float32 parameter must be one of"):
        tx.init({"w": jnp.ones(2)})
    with jax.enable_x64(True):
        (scale, _) = tx.init({"w": jnp.ones(2, jnp.float64)})
        assert scale.statistic["w"].dtype == jnp.float64


@pytest.mark.parametrize("given", ["bfloat16", jnp.bfloat16, np.dtype(jnp.bfloat16)])
def test_state_dtype_by_name_or_object(given):
    """JX12: a name, a `numpy.dtype`, or JAX's scalar type outside `inject_hyperparams`."""
    tx = rootfree_jax.rf_rmsprop(0.1, state_dtype=given, rounding="stochastic")
    for state, role in zip(tx.init({"w": jnp.ones(2)}), ("statistic", "momentum"), strict=True):
        assert getattr(state, role)["w"].dtype == jnp.bfloat16


@every
@pytest.mark.parametrize("storage", [{}, STOCHASTIC], ids=["float32", "stochastic"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_strict_promotion(tree, name, dtype, storage):
    """JX16: nothing is left to promotion of dtypes or ranks."""
    # Made without a dtype, an array would be weakly typed, and promote like a Python number.
    hyper = {h: jnp.asarray(0.1, jnp.float16) for h in METHODS[name].hyper if h != "lr"}
    tx = getattr(rootfree_jax, name)(jnp.asarray(0.1, jnp.float16), **hyper, **storage)
    terms = jnp.asarray(4, jnp.int32)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        params = tree(0, dtype)
        state = jax.eval_shape(tx.init, params)
        updates, _ = jax.eval_shape(tx.update, params, state, params, batch_size=terms)
        jax.eval_shape(optax.apply_updates, params, updates)


def decayed(tx, dtype, steps=1000):
    """Return the mean of a statistic that started at 1, after steps of zero gradients."""
    params = jnp.ones(256, dtype)
    zero = jnp.zeros_like(params)

    def step(state, _):
        return tx.update(zero, state, params)[1], None

    (scale, _), _ = jax.lax.scan(step, tx.init(params), None, length=steps)
    return float(jnp.mean(scale.statistic.astype(jnp.float32)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_statistic_decays(dtype):
    """4.2: by (1 - b2)^t with float32 state, whatever the parameter; on average when stochastic.

    float32: 1000 products of relative error 2^-24 each. Stochastic: a step moves an element by at
    most one spacing, 2^-8 relative to the power of two above it, with a variance of f (1 - f) of
    it; the sum over 1000 steps is below 0.04 for one element, a 16th of that for 256, times 5.
    """
    b2 = 1e-3
    expected = (1 - b2) ** 1000
    default = decayed(rootfree_jax.rf_rmsprop(precond_lr=b2), dtype)
    assert default == pytest.approx(expected, rel=2 * 1000 * 2.0**-24)
    stochastic = decayed(rootfree_jax.rf_rmsprop(precond_lr=b2, **STOCHASTIC), dtype)
    assert stochastic == pytest.approx(expected, abs=5 * 0.04 / 16)


def test_nearest_rounding_stalls():
    """4.2: bfloat16 state that is rounded to nearest stays where it is, and a warning says so."""
    with pytest.warns(rootfree_jax.StalledStateWarning):
        tx = rootfree_jax.rf_rmsprop(precond_lr=1e-3, state_dtype="bfloat16")
    assert decayed(tx, "bfloat16") == 1.0


def test_capabilities():
    """1.4: plain data, and float64 only where JAX has it."""
    found = rootfree_jax.capabilities()
    assert found["platform"] == jax.default_backend()
    assert not found["x64"]
    assert "float64" not in found["dtypes"]
    with jax.enable_x64(True):
        assert "float64" in rootfree_jax.capabilities()["dtypes"]
    with jax.default_matmul_precision("float32"):
        assert rootfree_jax.capabilities()["matmul_precision"] == "float32"
