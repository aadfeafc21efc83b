"""What the tests of the JAX adapter share: a tree of parameters, gradients, and steps over both."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

SHAPES = {"layer": {"w": (3, 2), "b": (3,)}, "scale": ()}


@pytest.fixture
def tree():
    """Return a function that makes a tree of normal numbers, away from 0."""

    def tree(seed: int, dtype: Any = "float32", shapes: Any = SHAPES) -> Any:
        rng = np.random.default_rng(seed)

        def leaf(shape: tuple[int, ...]) -> jax.Array:
            x = rng.standard_normal(shape)
            return jnp.asarray(x + 0.1 * np.sign(x), dtype)

        return jax.tree.map(leaf, shapes, is_leaf=lambda x: isinstance(x, tuple))

    return tree


@pytest.fixture
def march(tree):
    """Return a function that takes steps with given gradients: ``(params, state)``."""

    def march(tx: Any, params: Any, count: int = 3, *, jit: bool = False, **extra: Any) -> Any:
        def step(grads: Any, state: Any, params: Any) -> Any:
            updates, state = tx.update(grads, state, params, **extra)
            return optax.apply_updates(params, updates), state

        step = jax.jit(step) if jit else step
        state = tx.init(params)
        dtype = jax.tree.leaves(params)[0].dtype
        for t in range(count):
            params, state = step(tree(100 + t, dtype), state, params)
        return params, state

    return march


@pytest.fixture
def signature_of():
    """Return a function that gives what of a tree a compilation depends on."""

    def signature_of(tree: Any) -> Any:
        leaves, treedef = jax.tree.flatten(tree)
        return treedef, [(x.shape, x.dtype, x.aval.weak_type) for x in leaves]

    return signature_of


@pytest.fixture
def assert_same_bits():
    """Return a check that two trees of arrays agree in structure and every bit."""

    def assert_same_bits(one: Any, two: Any) -> None:
        assert jax.tree.structure(one) == jax.tree.structure(two)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    return assert_same_bits
