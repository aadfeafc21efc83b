"""The optimizer state (backends 3, JX07 to JX11, JX18, JX19, JX26)."""

from __future__ import annotations

import pickle
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rootfree
import rootfree_jax
from optax import MaskedNode
from rootfree import METHODS, Precision
from rootfree_jax import DescendState, ScaleState

STOCHASTIC = {"state_dtype": "bfloat16", "rounding": "stochastic"}
STORAGES: dict[str, dict[str, Any]] = {"float32": {}, "stochastic": STOCHASTIC}
every = pytest.mark.parametrize("name", METHODS)
stored = pytest.mark.parametrize("storage", STORAGES)


def make(name, learning_rate=0.1, **kwargs):
    """Return an optimizer by its method's name."""
    return getattr(rootfree_jax, name)(learning_rate, **kwargs)


def test_layout(tree):
    """JX08, JX09: a tree per role, parallel to the parameters; an absent role is `MaskedNode()`."""
    params = tree(0)
    scale, descent = make("rf_rmsprop").init(params)
    assert isinstance(scale, ScaleState)
    assert isinstance(descent, DescendState)
    assert jax.tree.structure(scale.statistic) == jax.tree.structure(params)
    assert jax.tree.structure(descent.momentum) == jax.tree.structure(params)
    assert scale.first_moment == scale.salt == descent.salt == MaskedNode()
    scale, descent = make("adamw", **STOCHASTIC).init(params)
    assert jax.tree.structure(scale.first_moment) == jax.tree.structure(params)
    assert jax.tree.structure(scale.salt) == jax.tree.structure(params)
    assert descent.momentum == descent.salt == MaskedNode()
    assert make("sgd").init(params).momentum == MaskedNode()


@every
def test_no_buffer_for_no_momentum(tree, name):
    """JX08: a momentum of 0 stores nothing."""
    buffers = METHODS[name].buffers

    def roles(value):
        state = make(name, **dict.fromkeys(buffers, value)).init(tree(0))
        stages = (state,) if name == "sgd" else state
        return {r for stage in stages for r in stage._fields if jax.tree.leaves(getattr(stage, r))}

    assert roles(0.5) - roles(0.0) == set(buffers.values())


@every
@stored
def test_arrays_only(tree, march, assert_same_bits, name, storage):
    """JX07: leaves are arrays with elements; the state survives pickle and the host."""
    tx = make(name, **STORAGES[storage])
    params, state = march(tx, tree(0))
    assert all(isinstance(x, jax.Array) and x.size for x in jax.tree.leaves(state))
    assert_same_bits(pickle.loads(pickle.dumps(state)), state)
    host = jax.device_get(state)
    grads = tree(7)
    assert_same_bits(tx.update(grads, host, params), tx.update(grads, state, params))


@every
@stored
def test_fixed_point(tree, signature_of, name, storage):
    """JX10: structure, shape, dtype and weak type stay as `init` made them."""
    tx = make(name, momentum=0.9, **STORAGES[storage])
    params = {**tree(0), "zero": jnp.zeros((0,)), "none": None, "half": jnp.ones(2, jnp.bfloat16)}
    state = tx.init(params)
    _, new = tx.update(params, state, params, batch_size=jnp.asarray(4))
    assert signature_of(new) == signature_of(state)
    assert not any(x.aval.weak_type for x in jax.tree.leaves(state))


@every
def test_weakly_typed_parameters_leave_no_weak_state(signature_of, name):
    """JX10: a Python number as a parameter is weakly typed, its state is not."""
    tx = make(name, momentum=0.9)
    params = {"a": 1.0}
    state = tx.init(params)
    _, new = tx.update(params, state, params)
    assert signature_of(new) == signature_of(state)


@every
@stored
def test_steps_compile_once(tree, name, storage):
    """JX10: state, learning rate and batch size of later steps never retrace."""
    traces = 0
    tx_of = lambda rate: make(name, rate, momentum=0.9, **STORAGES[storage])  # noqa: E731

    @jax.jit
    def step(params, state, grads, rate, terms):
        nonlocal traces
        traces += 1
        updates, state = tx_of(rate).update(grads, state, params, batch_size=terms)
        return optax.apply_updates(params, updates), state

    params = tree(0)
    state = tx_of(0.1).init(params)
    for t in range(4):
        params, state = step(params, state, tree(t + 1), 0.1 / (t + 1), 8 * (t + 1))
    assert traces == 1


@every
def test_count(tree, march, name):
    """JX11: int32, one per transformation, saturating."""
    tx = make(name)
    params, state = march(tx, tree(0), 3)
    counts = [x for _, x in optax.tree.get_all_with_path(state, "count")]
    assert len(counts) == (1 if name == "sgd" else 2)
    for count in counts:
        assert count.dtype == jnp.int32
        assert int(count) == 3
    last = np.iinfo(np.int32).max
    state = optax.tree.set(state, count=jnp.asarray(last, jnp.int32))
    _, state = tx.update(tree(1), state, params)
    assert all(int(x) == last for _, x in optax.tree.get_all_with_path(state, "count"))


def test_salts_come_from_key_paths():
    """`salt` is the CRC-32 of the key path, as a signed number: other frameworks have the same."""
    params = {"layer": [{"w": jnp.ones(2)}], "a": jnp.ones(1)}
    assert crc32(b"a") >= 2**31
    tx = rootfree_jax.rf_rmsprop(0.1, **STOCHASTIC)
    for state in tx.init(params):
        for name, salt in (("layer.0.w", state.salt["layer"][0]["w"]), ("a", state.salt["a"])):
            assert salt.dtype == jnp.int32
            assert int(salt) % 2**32 == crc32(name.encode())


def test_equal_leaves_of_other_names_round_differently():
    """Rounding bits depend on salt, role and count: no two of these draw the same ones."""
    params = {name: jnp.ones(4096) for name in "ab"}
    grads = {name: jnp.full(4096, 0.3) for name in "ab"}
    tx = rootfree_jax.rf_rmsprop(0.1, **STOCHASTIC)
    _, (scale, descent) = tx.update(grads, tx.init(params), params)
    for tree in (scale.statistic, descent.momentum):
        assert len(np.unique(tree["a"])) == 2
        assert not np.array_equal(tree["a"], tree["b"])


@every
@stored
def test_map_params_finds_the_roles(tree, name, storage):
    """JX09: `optax.tree.map_params` maps each role with the parameters, and leaves counts alone."""
    tx = make(name, momentum=0.9, **STORAGES[storage])
    params = tree(0)
    names = {"layer": {"w": "w", "b": "b"}, "scale": "scale"}
    state = tx.init(params)
    # Factors are a tuple for each parameter; without one of these there is nothing to stop at.
    mapped = optax.tree.map_params(
        tx,
        lambda _, name: name,
        state,
        names,
        transform_non_params=lambda _: "rest",
        is_leaf=lambda x: isinstance(x, tuple),
    )
    for stage in [mapped] if name == "sgd" else mapped:
        assert stage.count == "rest"
        for role in stage._fields[1:]:
            assert getattr(stage, role) in (names, MaskedNode())
    shapes = optax.tree.map_params(tx, jnp.shape, state, transform_non_params=jnp.shape)
    assert shapes == jax.tree.map(jnp.shape, state)


@every
def test_key_paths_read_as_roles(tree, name):
    """JX09: `statistic.layer.w`, `factor.layer.w.0`: the core's roles, with the leaf's name."""
    params = {"layer": {"w": tree(0)["layer"]["w"]}}
    state = make(name, momentum=0.9).init(params)
    rule = METHODS[name].rule(Precision.uniform(jnp.dtype("float32")))
    found = {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for stage in ([state] if name == "sgd" else state)
        for path, _ in jax.tree_util.tree_flatten_with_path(stage)[0]
    }
    expected = set()
    for role in rootfree.roles(rule.init(params["layer"]["w"][None])):
        field, *indices = role.split(".")
        expected.add(".".join([field, "layer", "w", *indices]))
    assert found == expected - {"step.layer.w"} | {"count"}


@every
@stored
def test_abstract_init(tree, name, storage):
    """JX18: shapes alone give the state's shapes."""
    tx = make(name, **STORAGES[storage])
    params = tree(0)
    abstract = jax.eval_shape(lambda: params)
    planned = jax.eval_shape(tx.init, abstract)
    made = tx.init(params)
    assert jax.tree.structure(planned) == jax.tree.structure(made)
    for a, b in zip(jax.tree.leaves(planned), jax.tree.leaves(made), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


@every
def test_donation(tree, name):
    """JX19: every buffer of parameters and state is consumed, without a warning."""
    # What every step writes anew without reading it, a root, is no input, and so never consumed.
    tx = make(name, momentum=0.9, **{"update_every": 2} if METHODS[name].matrix else {})

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = tree(0)
    state = tx.init(params)
    jax.jit(step, donate_argnums=(0, 1))(params, state, tree(1))
    assert all(x.is_deleted() for x in jax.tree.leaves((params, state)))
