"""With flax and orbax, as they train and save (backends 3, JX07, JX25, JX26)."""

from __future__ import annotations

import flax.serialization
import jax
import jax.numpy as jnp
import orbax.checkpoint
import pytest
import rootfree_jax
from flax import nnx
from flax.training.train_state import TrainState
from rootfree import METHODS

every = pytest.mark.parametrize("name", METHODS)


@every
def test_train_state(tree, assert_same_bits, name):
    """JX25: linen's `TrainState`, and its state through flax's serialization and on."""
    tx, params = getattr(rootfree_jax, name)(0.1, momentum=0.9), tree(0)
    state = TrainState.create(apply_fn=lambda: None, params=params, tx=tx)
    state = state.apply_gradients(grads=tree(1))
    _, expected = tx.update(tree(1), tx.init(params), params)
    assert_same_bits(state.opt_state, expected)
    restored = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
    assert_same_bits(
        restored.apply_gradients(grads=tree(2)).params, state.apply_gradients(grads=tree(2)).params
    )


@every
def test_nnx_optimizer(assert_same_bits, name):
    """JX25: `nnx.Optimizer` wraps the leaves of the state; the numbers stay the same."""
    tx = getattr(rootfree_jax, name)(0.1, momentum=0.9)
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    params = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    state = tx.init(params)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    def loss(model):
        return jnp.sum(model(jnp.ones((4, 3))) ** 2)

    for _ in range(2):
        grads = nnx.grad(loss)(model)
        plain = nnx.to_pure_dict(grads)
        optimizer.update(model, grads, batch_size=4)
        updates, state = tx.update(plain, state, params, batch_size=4)
        params = jax.tree.map(jnp.add, params, updates)
    assert_same_bits(nnx.to_pure_dict(nnx.state(model, nnx.Param)), params)


@every
def test_orbax(tree, march, assert_same_bits, tmp_path, name):
    """JX08, JX26: saved and restored into an abstract target, a run goes on bit for bit."""
    tx = getattr(rootfree_jax, name)(0.1, momentum=0.9)
    params, state = march(tx, tree(0))
    target = jax.eval_shape(tx.init, params)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", target)
    assert_same_bits(restored, state)
    assert_same_bits(tx.update(tree(9), restored, params), tx.update(tree(9), state, params))
