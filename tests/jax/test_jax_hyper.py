"""Hyper-parameters: checks, schedules, tracers, batch size, curvature (backends 2.4, 3)."""

from __future__ import annotations

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rootfree_jax
from rootfree import METHODS

every = pytest.mark.parametrize("name", METHODS)
SCALED = [name for name, method in METHODS.items() if method.scaled]
PRECONDITIONED = [name for name in METHODS if name != "sgd"]
DIAGONAL = [name for name in PRECONDITIONED if not METHODS[name].matrix]


def static_args(function):
    """Return the arguments that the docstring says are static."""
    return [
        name
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is p.KEYWORD_ONLY and name != "batch_size"
    ]


@every
@pytest.mark.parametrize("jit", [False, True])
def test_inject_hyperparams(tree, name, jit):
    """JX12: the docstring's `static_args` make it work; a rate changed in the state counts."""
    function = getattr(rootfree_jax, name)
    names = tuple(static_args(function))
    assert f"static_args={names}" in function.__doc__
    tx = optax.inject_hyperparams(function, static_args=names)(learning_rate=0.1, momentum=0.9)
    plain = function(0.1, momentum=0.9)
    params, grads = tree(0), tree(1)
    state = tx.init(params)
    assert "learning_rate" in state.hyperparams
    assert not set(names) & set(state.hyperparams)
    update = jax.jit(tx.update) if jit else tx.update
    updates, state = update(grads, state, params)
    expected, _ = plain.update(grads, plain.init(params), params)
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2.0**-20)
    state.hyperparams["learning_rate"] = jnp.asarray(0.0)
    updates, _ = update(grads, state, params)
    assert not any(np.any(x) for x in jax.tree.leaves(updates))


def test_inject_hyperparams_with_a_schedule(tree, march, assert_same_bits):
    """JX12, JX20: as a schedule of ours."""
    schedule = optax.linear_schedule(0.0, 0.1, 3)
    function = rootfree_jax.rf_rmsprop
    injected = optax.inject_hyperparams(function, static_args=static_args(function))(schedule)
    ours, _ = march(function(schedule), tree(0), 4)
    theirs, _ = march(injected, tree(0), 4)
    assert_same_bits(ours, theirs)


@pytest.mark.parametrize("name", PRECONDITIONED)
def test_what_cannot_be_traced_says_so(tree, name):
    """JX12: without `static_args` the error says what to pass."""
    function = getattr(rootfree_jax, name)
    if "decay" in inspect.signature(function).parameters:
        tx = optax.inject_hyperparams(function)(0.1)
        with pytest.raises(TypeError, match=r"` of \w+ cannot be an array; .*static_args=\("):
            tx.init(tree(0))
    dtypes = ["state_dtype", *["compute_dtype"] * METHODS[name].matrix]
    for dtype in dtypes:
        others = tuple(each for each in static_args(function) if each != dtype)
        tx = optax.inject_hyperparams(function, static_args=others)(0.1, **{dtype: jnp.float32})
        with pytest.raises(TypeError, match=rf"`{dtype}` of .* cannot be an array"):
            tx.init(tree(0))


@every
def test_defaults_survive_inject_hyperparams(name):
    """JX12: no default is callable, for optax would take it for a schedule."""
    for p in inspect.signature(getattr(rootfree_jax, name)).parameters.values():
        assert not callable(p.default)


@every
def test_traced_values_are_not_read(tree, name):
    """JX13: derivatives with respect to any hyper-parameter; a traced momentum has its buffer."""
    params, grads = tree(0), tree(1)
    reads = [h for h in METHODS[name].hyper if h != "lr"]

    def loss(values):
        tx = getattr(rootfree_jax, name)(**values)
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(grads, state, params)
        return sum(jnp.sum(u * u) for u in jax.tree.leaves(updates))

    values = dict.fromkeys(reads, 0.3) | {"learning_rate": 0.1}
    slopes = jax.jit(jax.grad(loss))(values)
    assert all(np.isfinite(slope) and slope != 0 for slope in slopes.values())
    zero = jax.jit(lambda m: getattr(rootfree_jax, name)(0.1, momentum=m).init(params))(0.0)
    buffer = "first_moment" if METHODS[name].momentum == "average" else "momentum"
    found = [x for _, x in optax.tree.get_all_with_path(zero, buffer)]
    assert any(jax.tree.leaves(x) for x in found)


@every
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"learning_rate": -0.1}, ValueError, "must be >= 0, got -0.1"),
        ({"learning_rate": "0.1"}, TypeError, "must be a number or a 0-d array, got str"),
        ({"momentum": 1.0}, ValueError, r"`momentum` must be in \[0, 1\), got 1.0"),
        ({"momentum": jnp.ones(2)}, TypeError, "`momentum` must be a number or a 0-d array"),
        ({"weight_decay": float("nan")}, ValueError, "`weight_decay` must be >= 0, got nan"),
        ({"rounding": "up"}, ValueError, "`rounding` must be one of 'nearest', 'stochastic'"),
        ({"state_dtype": "int8"}, ValueError, "`state_dtype` of a float32 parameter must be"),
        ({"state_dtype": object()}, TypeError, "`state_dtype` must be the name of a dtype"),
        ({"rounding": "stochastic"}, ValueError, "needs `state_dtype='bfloat16'`"),
        ({"weight_decay_mode": "l2"}, ValueError, "`weight_decay_mode` must be one of"),
        ({"nesterov": True}, TypeError, r"\w+\(\) got an unexpected keyword argument 'nesterov'"),
    ],
)
def test_wrong_arguments(name, given, error, message):
    """Arguments are checked when the optimizer is made; the message says what came."""
    with pytest.raises(error, match=message):
        getattr(rootfree_jax, name)(**given)


@pytest.mark.parametrize("name", SCALED)
def test_batch_size(tree, march, assert_same_bits, name):
    """2.4: given once, per step, as a number or an array, it is the same; a sum has scale 1."""
    function = getattr(rootfree_jax, name)
    expected = march(function(0.1, batch_size=32), tree(0))
    assert_same_bits(march(function(0.1), tree(0), batch_size=32), expected)
    assert_same_bits(march(function(0.1, batch_size=jnp.asarray(32)), tree(0)), expected)
    for terms in (np.int64(32), np.asarray(32)):
        assert_same_bits(march(function(0.1, batch_size=8), tree(0), batch_size=terms), expected)
    one = march(function(0.1), tree(0))
    assert not np.array_equal(one[0]["layer"]["w"], expected[0]["layer"]["w"])
    assert_same_bits(march(function(0.1, batch_size=32, loss_reduction="sum"), tree(0)), one)


@pytest.mark.parametrize("name", SCALED)
def test_wrong_batch_sizes(tree, name):
    """2.4: a function is refused with the remedy; so is what is not a positive number."""
    function = getattr(rootfree_jax, name)
    with pytest.raises(TypeError, match=r"got a function; pass it per step: update\("):
        function(0.1, batch_size=lambda: 32)
    with pytest.raises(ValueError, match="`batch_size` must be > 0"):
        function(0.1, batch_size=0)
    tx = function(0.1)
    state = tx.init(tree(0))
    with pytest.raises(ValueError, match="`batch_size` must be > 0"):
        tx.update(tree(1), state, tree(0), batch_size=0)
    with pytest.raises(TypeError, match="`batch_size` must be a number or a 0-d array"):
        tx.update(tree(1), state, tree(0), batch_size=jnp.ones(2))


@pytest.mark.parametrize("name", [name for name in PRECONDITIONED if name not in SCALED])
def test_root_based_methods_do_not_read_the_batch_size(tree, march, assert_same_bits, name):
    """2.4: Adam(c g) = Adam(g); so one argument can be passed to every part of a partition."""
    tx = getattr(rootfree_jax, name)(0.1)
    assert_same_bits(march(tx, tree(0)), march(tx, tree(0), batch_size=32))


@pytest.mark.parametrize("name", DIAGONAL)
def test_curvature(tree, assert_same_bits, name):
    """A diagonal curvature replaces the squared gradient; `None` for a leaf keeps its own."""
    tx = getattr(rootfree_jax, name)(0.1)
    params, grads, h = tree(0), tree(1), jax.tree.map(jnp.abs, tree(2))
    state = tx.init(params)
    plain, _ = tx.update(grads, state, params)
    given, _ = tx.update(grads, state, params, curvature=h)
    some = {"layer": {"w": h["layer"]["w"], "b": None}, "scale": None}
    mixed, _ = tx.update(grads, state, params, curvature=some)
    assert_same_bits(mixed["layer"]["w"], given["layer"]["w"])
    assert_same_bits(mixed["layer"]["b"], plain["layer"]["b"])
    assert not np.array_equal(given["layer"]["w"], plain["layer"]["w"])
    square = jax.tree.map(lambda g: g * g, grads)
    assert_same_bits(tx.update(grads, state, params, curvature=square)[0], plain)


def test_curvatures_that_do_not_fit(tree):
    """JX27: shape and structure, with the leaf's name."""
    tx = rootfree_jax.rf_rmsprop(0.1)
    params = tree(0)
    state = tx.init(params)
    wrong = {**params, "layer": {**params["layer"], "b": jnp.ones(1)}}
    with pytest.raises(ValueError, match=r"curvature of 'layer\.b' has shape \(1,\)"):
        tx.update(params, state, params, curvature=wrong)
    with pytest.raises(ValueError, match=r"a gradient 'layer.* but no curvature of that name"):
        tx.update(params, state, params, curvature={"scale": params["scale"]})


@every
def test_schedules_read_the_count(tree, name):
    """JX20: the schedule sees 0 at the first step, and may give numbers or arrays."""
    seen = []

    def schedule(count):
        seen.append(int(count))
        return 0.1 if seen[-1] else np.float32(0.2)

    tx = getattr(rootfree_jax, name)(schedule)
    params = tree(0)
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(tree(1), state, params)
    assert seen == [0, 1, 2]


def test_the_warning_for_stalled_state_points_at_the_caller():
    """4.2: nearest bfloat16 state warns at construction, once, where the optimizer is made."""
    for function in (rootfree_jax.rf_rmsprop, rootfree_jax.scale_by_rf_rmsprop):
        with pytest.warns(rootfree_jax.StalledStateWarning, match="precond_lr=0.001") as record:
            function(precond_lr=1e-3, state_dtype="bfloat16")
        assert [warning.filename for warning in record] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rootfree_jax.rf_rmsprop(precond_lr=0.1, state_dtype="bfloat16")
        rootfree_jax.rf_rmsprop(precond_lr=1e-3, state_dtype="bfloat16", rounding="stochastic")
