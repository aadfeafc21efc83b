"""Pytrees as users have them, errors that name the leaf (backends 3: JX05, JX06, JX24, JX27)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rootfree_jax
from rootfree import METHODS

OPTIMIZERS = [getattr(rootfree_jax, name) for name in METHODS]
every = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda f: f.__name__)


class Pair(NamedTuple):
    """A container."""

    w: Any
    b: Any


@partial(jax.tree_util.register_dataclass, data_fields=["w", "b"], meta_fields=[])
@dataclass
class Module:
    """A container."""

    w: Any
    b: Any


W = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
B = jnp.asarray([-1.0, 0.5])
CONTAINERS = {
    "dict": {"w": W, "b": B},
    "list": [W, B],
    "tuple": (W, B),
    "namedtuple": Pair(W, B),
    "dataclass": Module(W, B),
    "nested": {"x": [Pair(W, (B,))]},
    "leaf": W,
    "empty": {},
    "none": {"w": W, "fixed": None, "b": B},
    "masked": {"w": W, "fixed": optax.MaskedNode(), "b": [B]},
    "numpy": {"w": np.asarray(W), "b": np.asarray(B)},
}


@every
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(assert_same_bits, optimizer, container):
    """JX05: the container changes no number; what is absent passes through."""
    params = CONTAINERS[container]
    tx = optimizer(0.1)
    updates, state = tx.update(params, tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
    for leaf, update in zip(jax.tree.leaves(params), jax.tree.leaves(updates), strict=True):
        alone, _ = tx.update(leaf, tx.init(leaf), leaf)
        assert_same_bits(update, alone)


@every
def test_a_missing_gradient_leaves_its_parameter_and_state(assert_same_bits, optimizer):
    """JX05: `None` where a parameter is means no update and no change of state."""
    params = {"w": W, "b": B}
    tx = optimizer(0.1, momentum=0.9)
    state = tx.init(params)
    updates, new = tx.update({"w": W, "b": None}, state, params)
    assert updates["b"] is None
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for role in ("statistic", "first_moment", "momentum"):
        for (_, before), (_, after) in zip(
            optax.tree.get_all_with_path(state, role),
            optax.tree.get_all_with_path(new, role),
            strict=True,
        ):
            if jax.tree.leaves(before):
                assert_same_bits(before["b"], after["b"])
                assert not np.array_equal(before["w"], after["w"])


@every
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (3, 1), (1, 3, 1), (2, 1, 3, 2, 2)])
def test_shapes(tree, march, optimizer, shape):
    """JX06: no axis is special; elements go the same way in any shape, with axes of length 1."""
    size = int(np.prod(shape))
    lengths = [length for length in shape if length != 1] or [1]
    flat = tree(0, shapes=tuple(lengths) if METHODS[optimizer.__name__].matrix else (size,))
    tx = optimizer(0.1, precond_lr=0.1) if optimizer.__name__ != "sgd" else optimizer(0.1)
    expected, _ = tx.update(flat, tx.init(flat), flat)
    shaped = flat.reshape(shape)
    updates, _ = tx.update(shaped, tx.init(shaped), shaped)
    assert updates.shape == shape
    # Vectorised and scalar division may differ in the last place.
    np.testing.assert_allclose(np.ravel(updates), np.ravel(expected), rtol=2.0**-22)


@every
def test_parameters_without_elements_have_no_state(optimizer):
    """JX06, JX08: they pass through, and nothing in the state has a size of 0."""
    params = {"none": jnp.zeros((0, 3)), "w": W}
    tx = optimizer(0.1, momentum=0.9)
    updates, state = tx.update(params, tx.init(params), params)
    assert updates["none"].shape == (0, 3)
    for last in (state,) if optimizer is rootfree_jax.sgd else state:
        trees = [tree for tree in last[1:] if tree != optax.MaskedNode()]
        assert all(tree["none"] == optax.MaskedNode() for tree in trees)
        assert trees or last._fields[1] == "momentum"
    assert all(leaf.size for leaf in jax.tree.leaves(state))
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))


MISMATCHES = {
    "shape": ({"a": {"w": W}}, {"a": {"w": W[:1]}}, r"gradient of 'a\.w' has shape \(1, 2\)"),
    "rank": ({"a": {"w": W}}, {"a": {"w": W[None]}}, r"gradient of 'a\.w' has shape \(1, 2, 2\)"),
    "dtype": (
        {"a": {"w": W}},
        {"a": {"w": W.astype(jnp.bfloat16)}},
        r"gradient of 'a\.w' has dtype bfloat16",
    ),
    "missing": ({"a": {"w": W, "b": B}}, {"a": {"w": W}}, r"a parameter 'a\.b' but no gradient"),
    "extra": ({"a": {"w": W}}, {"a": {"w": W, "b": B}}, r"a gradient 'a\.b' but no parameter"),
    "deeper": ({"a": W}, {"a": {"w": W}}, r"a gradient 'a\.w' but no parameter"),
    "container": ([W, B], (W, B), "the gradient tree is .* the parameter tree is"),
    "unmasked": ({"a": None}, {"a": W}, "a gradient 'a' but no parameter"),
}


@every
@pytest.mark.parametrize("case", MISMATCHES)
def test_gradients_that_do_not_fit(optimizer, case):
    """JX27: one kind of error, eagerly and under jit, naming the leaf; nothing is computed."""
    params, grads, message = MISMATCHES[case]
    tx = optimizer(0.1)
    state = tx.init(params)
    for update in (tx.update, jax.jit(tx.update)):
        with pytest.raises(ValueError, match=message):
            update(grads, state, params)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "sgd"])
def test_state_that_does_not_fit(name):
    """JX27: without parameters the state's shapes are what there is to compare with."""
    tx = getattr(rootfree_jax, name)(0.1, weight_decay=0.0)
    params = {"w": jnp.ones((2, 2))}
    state = tx.init(params)
    role = "statistic" if state[0].factor == optax.MaskedNode() else "factor"
    shape = str(jax.tree.leaves(getattr(state[0], role))[0].shape).replace("(", r"\(")
    with pytest.raises(ValueError, match=rf"state '{role}' of 'w' has shape {shape[:-1]}\)"):
        tx.update({"w": jnp.ones((3, 5))}, state)
    for grads in ({**params, "b": B}, {"b": B, **params}):
        with pytest.raises(ValueError, match=f"a gradient 'b' but no {role} of that name"):
            tx.update(grads, state)
    with pytest.raises(ValueError, match=rf"a {role} 'b(\.0)?' but no gradient of that"):
        tx.update(params, tx.init({**params, "b": B}))
    with pytest.raises(ValueError, match=f"state '{role}' of 'w' has shape None"):
        tx.update(params, tx.init({"w": None}))


@every
@pytest.mark.parametrize(
    "leaf", [jnp.arange(3), jnp.ones(3, bool), jnp.ones(3, jnp.complex64), jnp.ones(3, "int8")]
)
def test_kinds_of_numbers_that_are_not_optimized(optimizer, leaf):
    """JX24: complex parameters are refused like integers; the message names leaf and dtype."""
    with pytest.raises(TypeError, match=rf"parameter 'a\.0' has dtype {leaf.dtype}"):
        optimizer(0.1).init({"a": [leaf]})


@every
@pytest.mark.parametrize("leaf", [jnp.sin, "text", jax.random.key(0)])
def test_leaves_that_are_no_arrays(optimizer, leaf):
    """JX05: a function in a module is the user's to mask; the message says how."""
    with pytest.raises(TypeError, match=r"parameter 'a' (must be an array|has dtype key)"):
        optimizer(0.1).init({"a": leaf})


def test_names_with_dots_stay_apart(march):
    """Two leaves whose key paths read alike are two leaves."""
    params = {"a.b": W, "a": {"b": B}}
    tx = rootfree_jax.rf_rmsprop(0.1)
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["a.b"].shape == W.shape
    assert updates["a"]["b"].shape == B.shape
