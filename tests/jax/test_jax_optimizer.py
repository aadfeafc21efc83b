"""The optimizers' functions and what they compute (backends 3, JX01 to JX04)."""

from __future__ import annotations

import inspect
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rootfree
import rootfree_jax
from rootfree import METHODS, Hyper, Precision

HYPER = {
    "precond_lr": 0.25,
    "momentum": 0.9,
    "precond_momentum": 0.5,
    "damping": 1e-2,
    "weight_decay": 0.1,
}


def make(name, learning_rate=0.1, **kwargs):
    """Return an optimizer with every hyper-parameter away from 0."""
    known = inspect.signature(getattr(rootfree_jax, name)).parameters
    given = {k: v for k, v in {**HYPER, **kwargs}.items() if k in known}
    return getattr(rootfree_jax, name)(learning_rate, **given)


def test_names():
    """Every method of the catalogue has its function, and its first stage if it has a statistic."""
    optimizers = list(METHODS)
    stages = [f"scale_by_{name}" for name in METHODS if name != "sgd"]
    assert rootfree_jax.__all__[: len(optimizers) + len(stages) + 1] == [
        *optimizers,
        *stages,
        "descend",
    ]
    for name in rootfree_jax.__all__:
        assert getattr(rootfree_jax, name).__name__ == name
        assert getattr(rootfree_jax, name).__doc__


@pytest.mark.parametrize("name", METHODS)
def test_signature(name):
    """JX02: `learning_rate` has optax's own annotation; names and defaults are the catalogue's."""
    function, method = getattr(rootfree_jax, name), METHODS[name]
    signature = inspect.signature(function)
    assert signature.parameters["learning_rate"].annotation is optax.ScalarOrSchedule
    assert function.__annotations__["learning_rate"] is optax.ScalarOrSchedule
    assert signature.return_annotation is optax.GradientTransformationExtraArgs
    expected = rootfree.signature(method, lr="learning_rate", trailing={"stack": False}).parameters
    assert {k: p.default for k, p in signature.parameters.items()} == {
        k: p.default for k, p in expected.items()
    }
    assert function.__module__ == "rootfree_jax"


def test_descend_takes_what_belongs_to_the_descent():
    """`scale_by_*` has no argument of `descend`; both together have the optimizer's."""
    for name, method in METHODS.items():
        if name != "sgd":
            whole = set(inspect.signature(getattr(rootfree_jax, name)).parameters)
            first = set(inspect.signature(getattr(rootfree_jax, f"scale_by_{name}")).parameters)
            last = set(inspect.signature(rootfree_jax.descend).parameters)
            shared = {"state_dtype", "rounding", "stack"}
            shared |= {"momentum"} if method.momentum == "average" else set()
            assert first | last == whole
            assert first & last == shared


@pytest.mark.parametrize(
    ("dtype", "storage", "mode"),
    [
        ("float32", "float32", "coupled"),
        ("float32", "float32", "decoupled"),
        ("float32", "bfloat16", "coupled"),
        ("bfloat16", "float32", "decoupled"),
    ],
)
@pytest.mark.parametrize("name", METHODS)
def test_chain_is_the_core_update(tree, assert_same_bits, name, dtype, storage, mode):
    """JX03: the two stages together are `rootfree.update`, bit for bit; so is all their state."""
    rounding = "stochastic" if storage == "bfloat16" else "nearest"
    tx = make(name, weight_decay_mode=mode, state_dtype=storage, rounding=rounding, batch_size=8)
    dtypes = {name: jnp.dtype(name) for name in ("float32", "bfloat16")}
    precision = Precision(dtypes["float32"], dtypes[storage], dtypes["float32"], rounding)
    rule = METHODS[name].rule(precision, weight_decay_mode=mode)
    hyper = Hyper(lr=0.1, **HYPER, curvature_scale=8)

    params = {"w": tree(0, dtype)["layer"]["w"]}
    state, core_state = tx.init(params), rule.init(params["w"][None])
    if core_state.salt is not None:
        signed = np.uint32(crc32(b"w")).astype(np.int32)
        core_state = core_state._replace(salt=jnp.full_like(core_state.salt, signed))
    for t in range(4):
        grads = {"w": tree(100 + t, dtype)["layer"]["w"]}
        updates, state = tx.update(grads, state, params)
        param = params["w"][None]
        step, core_state = rootfree.update(rule, grads["w"][None], core_state, param, hyper)
        assert_same_bits(updates["w"], rootfree.as_update(step, dtypes[dtype])[0])
        params = optax.apply_updates(params, updates)
    found = {}
    for stage in (state,) if name == "sgd" else state:
        for path, array in jax.tree_util.tree_flatten_with_path(stage)[0]:
            role = jax.tree_util.keystr(path, simple=True, separator=".").replace(".w", "")
            found[role] = array
    expected = {role: array[0] for role, array in rootfree.roles(core_state).items()}
    expected["count"] = expected.pop("step")
    assert_same_bits(dict(sorted(found.items())), dict(sorted(expected.items())))


@pytest.mark.parametrize("name", ["rf_rmsprop", "rf_adamw", "rmsprop", "adamw"])
def test_parts_chain_with_optax(tree, name):
    """`scale_by_*` ends in the preconditioned direction: optax's stages can follow it."""
    method = METHODS[name]
    momentum = {"momentum": 0.9} if method.momentum == "average" else {}
    parts = optax.chain(
        getattr(rootfree_jax, f"scale_by_{name}")(precond_lr=0.25, damping=1e-2, **momentum),
        optax.scale_by_learning_rate(0.1),
    )
    momentum = momentum or {"momentum": 0.0}
    whole = make(name, weight_decay=0.0, **momentum)
    params, grads = tree(0), tree(1)
    ours, _ = whole.update(grads, whole.init(params), params)
    theirs, _ = parts.update(grads, parts.init(params), params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2**-23)


OPTAX = {
    "sgd": lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9)),
    # optax adds eps inside the root; without it the definitions are one.
    "adagrad": lambda: optax.chain(
        optax.scale_by_rss(initial_accumulator_value=0.5, eps=0.0),
        optax.add_decayed_weights(0.1),
        optax.sgd(0.1, momentum=0.9),
    ),
    # The learning rate comes before the heavy ball here: the same where it is constant.
    "rmsprop": lambda: optax.rmsprop(0.1, decay=0.75, eps=1e-2, momentum=0.9, eps_in_sqrt=False),
    "adamw": lambda: optax.adamw(0.1, b1=0.9, b2=0.75, eps=1e-2, weight_decay=0.1),
}
OURS = {
    "sgd": {},
    "adagrad": {"precond_lr": 1.0, "damping": 0.0, "init_scale": 0.5},
    "rmsprop": {"weight_decay": 0.0},
    "adamw": {},
}


@pytest.mark.parametrize("name", OPTAX)
def test_agrees_with_optax(tree, march, name):
    """Where definitions coincide trajectories do, in float64.

    b2 is ``1 - precond_lr``, eps is ``damping``. A step has fewer than 32 roundings, and
    1 - b2**t of optax loses a factor of 1/precond_lr = 4: 128 units in the last place a step.
    """
    with jax.enable_x64(True):
        params = tree(0, "float64")
        ours, _ = march(make(name, **OURS[name]), params, 10)
        theirs, _ = march(OPTAX[name](), params, 10)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=0, atol=10 * 128 * 2.0**-53 * np.max(np.abs(b)))


@pytest.mark.parametrize("name", METHODS)
def test_unknown_extra_arguments_are_ignored(tree, assert_same_bits, name):
    """JX01: `chain` forwards every extra argument to every transformation."""
    tx = make(name)
    params, grads = tree(0), tree(1)
    expected = tx.update(grads, tx.init(params), params)
    assert_same_bits(tx.update(grads, tx.init(params), params, value=1.0, other=object()), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", METHODS)
def test_update_has_the_dtype_of_the_parameter(tree, name, dtype):
    """JX03, JX15."""
    tx = make(name)
    params = tree(0, dtype)
    updates, _ = tx.update(tree(1, dtype), tx.init(params), params)
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("learning_rate", [0.0, lambda count: 0.1 * count])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_zero_learning_rate_changes_no_bit(assert_same_bits, name, dtype, learning_rate):
    """JX20, mathematics 4.6: nor the sign of a zero; a schedule may start at 0."""
    params = {"w": jnp.asarray([-0.0, -0.0, 0.0, 0.0, -1.5, 3.0], dtype)}
    grads = {"w": jnp.asarray([1.0, -1.0, 1.0, -1.0, 0.0, -0.0], dtype)}
    tx = make(name, learning_rate)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert_same_bits(optax.apply_updates(params, updates), params)


@pytest.mark.parametrize("name", METHODS)
def test_without_parameters(tree, assert_same_bits, name):
    """JX04: works where no decay needs them, else the error names `params`."""
    params, grads = tree(0), tree(1)
    tx = make(name, weight_decay=0.0)
    updates, state = tx.update(grads, tx.init(params))
    assert_same_bits((updates, state), tx.update(grads, tx.init(params), params))
    for decay in (0.1, jnp.asarray(0.0)):
        tx = make(name, weight_decay=decay)
        with pytest.raises(ValueError, match="`params` is needed"):
            tx.update(grads, tx.init(params))
