"""Methods that keep matrices, against the core on NumPy (backends 3, JX09, JX14, JX22)."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import rootfree
import rootfree_jax
from optax import MaskedNode
from rootfree import (
    METHODS,
    DiagonalCurvature,
    Hyper,
    KroneckerCurvature,
    MatrixCurvature,
    OuterProductCurvature,
    Precision,
)
from rootfree.structures import STRUCTURES

MATRIX = [name for name, method in METHODS.items() if method.matrix]
every = pytest.mark.parametrize("name", MATRIX)
STOCHASTIC = {"state_dtype": "bfloat16", "rounding": "stochastic"}
# Damping keeps roots and solves conditioned, a small precond_lr the covariance positive definite.
HYPER = {
    "precond_lr": 0.0625,
    "momentum": 0.875,
    "precond_momentum": 0.5,
    "damping": 0.25,
    "weight_decay": 0.125,
}
SHAPES = {"a": (), "b": (3,), "c": (3, 2), "d": (2, 1, 3), "e": (2, 3, 1, 2, 2)}
# Some thousand roundings a step, and conditions of some tens: 2^16 units of the largest number.
BOUND = 2.0**16 * 2.0**-53


def given(name):
    """Return the hyper-parameters that a method reads, all away from 0."""
    return {key: value for key, value in HYPER.items() if key in METHODS[name].hyper}


def arrays_of(seed, shapes, dtype="float64"):
    """Return normal numbers by name, as NumPy has them."""
    rng = np.random.default_rng(seed)
    return {key: rng.standard_normal(shape).astype(dtype) for key, shape in shapes.items()}


class Core(NamedTuple):
    """The core on NumPy, as a loop over parameters: what the adapter must equal."""

    name: str
    precision: Precision
    options: dict[str, Any]
    alpha: float = 1.0

    def run(self, params, grads, observes, curvature=None):
        """Return parameters and states by name; ``observes`` is given the step and the name."""
        rule = METHODS[self.name].rule(self.precision, **self.options)
        hyper = Hyper(lr=0.125, curvature_scale=self.alpha, **given(self.name))
        params = {key: param[None] for key, param in params.items()}
        states = {key: rule.init(param) for key, param in params.items()}
        for key, state in states.items():
            if state.salt is not None:
                salt = np.asarray([crc32(key.encode())], np.uint32).astype(np.int32)
                states[key] = state._replace(salt=salt)
        for t, each in enumerate(grads):
            for key, param in params.items():
                h = (curvature or {}).get(key)
                step, states[key] = rootfree.update(
                    rule,
                    each[key][None],
                    states[key],
                    param,
                    hyper,
                    observes(t, key),
                    curvature=None if h is None else rootfree.mapped(h, lambda x: x[None]),
                )
                params[key] = rootfree.add_step(param, step)
        return {key: param[0] for key, param in params.items()}, states


def run(tx, params, grads, *, jit=True, **extra):
    """Return parameters and state after steps of the adapter."""

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for each in grads:
        params, state = step(params, state, jax.tree.map(jnp.asarray, each))
    return params, state


def roles(stages, key):
    """Return the arrays of one parameter by the core's roles."""
    found = {}
    for stage in stages:
        for field, tree in stage._asdict().items():
            if isinstance(tree, dict):
                for path, array in jax.tree_util.tree_flatten_with_path(tree[key])[0]:
                    indices = [str(entry.idx) for entry in path]
                    found[".".join([field, *indices])] = array
    return found


def assert_equals_the_core(found, expected, bound=BOUND):
    """Compare parameters and every array of the state, relative to the largest number in each."""
    (params, stages), (core_params, states) = found, expected
    for key, state in states.items():
        core = {role: array[0] for role, array in rootfree.roles(state).items()}
        ours = {"param": params[key], "step": stages[0].count, **roles(stages, key)}
        assert set(ours) == {"param", *core}
        for role, array in {"param": core_params[key], **core}.items():
            assert ours[role].shape == array.shape
            scale = np.max(np.abs(array), initial=0.0)
            np.testing.assert_allclose(ours[role], array, rtol=0, atol=bound * scale)


@every
def test_equals_the_core_in_float64(name):
    """Every number of every shape, on steps that observe and on those that do not."""
    params = arrays_of(0, SHAPES)
    grads = [arrays_of(t + 1, SHAPES) for t in range(4)]
    core = Core(name, Precision.uniform(np.dtype("float64")), {}, 4.0)
    expected = core.run(params, grads, lambda t, _: rootfree.observes(2, t))
    with jax.enable_x64(True):
        tx = getattr(rootfree_jax, name)(0.125, **given(name), update_every=2, stagger=False)
        assert_equals_the_core(run(tx, params, grads, batch_size=4.0), expected)


PARENTHESES = {"block_diagonal": "(2)", "hierarchical": "(1, 2)", "arrowhead": "(last_row)"}
STRUCTURED = {
    **{word: {"structure": word + PARENTHESES.get(word, "")} for word in STRUCTURES},
    "by axis": {"structure": ("tril", "block_diagonal(3)")},
    "by number of axes": {"structure": {2: ["diagonal", "dense"], 3: "triu"}},
    "max_dim": {"max_dim": 4},
    "merge_dims": {"merge_dims": 20},
}


@pytest.mark.parametrize("case", STRUCTURED)
def test_structures_equal_the_core(case):
    """Whatever the core knows as a structure; several arrays for an axis are a tuple in a tuple."""
    options = STRUCTURED[case]
    three = case in ("by number of axes", "max_dim", "merge_dims")
    shapes = {"w": (5, 4), "k": (3, 2, 4)} if three else {"w": (5, 4)}
    params, grads = arrays_of(0, shapes), [arrays_of(t + 1, shapes) for t in range(2)]
    core = Core("sirf_shampoo", Precision.uniform(np.dtype("float64")), options)
    expected = core.run(params, grads, lambda *_: True)
    with jax.enable_x64(True):
        tx = rootfree_jax.sirf_shampoo(0.125, **given("sirf_shampoo"), **options)
        assert_equals_the_core(run(tx, params, grads), expected)


def test_a_function_as_period():
    """JX14: it is given the count, traced or not, and need not be periodic."""
    params, grads = arrays_of(0, SHAPES), [arrays_of(t + 1, SHAPES) for t in range(5)]
    core = Core("sirf_shampoo", Precision.uniform(np.dtype("float64")), {})
    expected = core.run(params, grads, lambda t, _: t < 2 or t == 4)
    with jax.enable_x64(True):
        tx = rootfree_jax.sirf_shampoo(
            0.125, **given("sirf_shampoo"), update_every=lambda count: (count < 2) | (count == 4)
        )
        assert_equals_the_core(run(tx, params, grads), expected)
        never = rootfree_jax.sirf_shampoo(0.125, update_every=lambda count: False)
        _, (scale, _) = run(never, params, grads[:1], jit=False)
        np.testing.assert_array_equal(scale.factor["b"][0], np.eye(3))


def equations_of(jaxpr, found):
    """Collect a program's equations, those of the functions that it calls included."""
    for equation in jaxpr.eqns:
        found.append(equation)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if hasattr(inner, "eqns"):
                    equations_of(inner, found)
                elif hasattr(inner, "jaxpr"):
                    equations_of(inner.jaxpr, found)
    return found


def equations(tx, params, wrapped=lambda f: f):
    """Return all equations of one step."""
    program = jax.make_jaxpr(wrapped(tx.update))(params, tx.init(params), params)
    return equations_of(program.jaxpr, [])


@every
def test_off_steps_do_not_observe(tree, assert_same_bits, name):
    """JX14: one `cond` a leaf, with a branch that is empty; without a period none at all."""
    params = tree(0)
    make = getattr(rootfree_jax, f"scale_by_{name}")
    plain = {"update_every": 3, "stagger": False}
    conds = [e for e in equations(make(**plain), params) if e.primitive.name == "cond"]
    assert len(conds) == len(jax.tree.leaves(params))
    for cond in conds:
        assert min(len(branch.jaxpr.eqns) for branch in cond.params["branches"]) == 0
    assert not [e for e in equations(make(), params) if e.primitive.name == "cond"]
    tx = make(**plain)
    state = tx.init(params)
    for t in range(4):
        _, new = jax.jit(tx.update)(tree(t + 1), state, params)
        if t % 3:
            assert_same_bits(new._replace(count=state.count), state)
        else:
            kept = [jax.tree.leaves(each._replace(count=())) for each in (state, new)]
            assert any(not np.array_equal(a, b) for a, b in zip(*kept, strict=True))
        state = new


def test_an_ensemble_stays_lazy(tree):
    """JX14: `vmap` over parameters and gradients keeps the `cond`, for count and phases are one."""
    tx = rootfree_jax.scale_by_sirf_shampoo(update_every=2)
    params = tree(0)
    state = tx.init(params)
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    once = {"count": state.count, "phase": state.phase}
    axes = jax.tree.map(lambda _: 0, state)._replace(count=None, phase=None)
    states = jax.tree.map(lambda x: jnp.stack([x, x]), state)._replace(**once)
    mapped = jax.vmap(lambda g, s: tx.update(g, s), in_axes=(0, axes), out_axes=(0, axes))
    program = jax.make_jaxpr(mapped)(many, states)
    found = [e.primitive.name for e in equations_of(program.jaxpr, [])]
    assert found.count("cond") == len(jax.tree.leaves(params))
    updates, _ = mapped(many, states)
    for i in range(2):
        alone, _ = tx.update(jax.tree.map(lambda x, i=i: x[i], many), state)
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(updates), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=0, atol=64 * 2.0**-24 * np.max(np.abs(a)))


def test_eager_steps_trace_a_rule_once(monkeypatch, tree):
    """JX14: a `cond` outside of `jit` compiles its branches; not anew at every step."""
    traced = []
    observe = rootfree.SIRFShampoo.observe

    def counted(self, *args):
        traced.append(self)
        return observe(self, *args)

    monkeypatch.setattr(rootfree.SIRFShampoo, "observe", counted)
    # A configuration of this test's own, that no other has traced.
    tx = rootfree_jax.scale_by_sirf_shampoo(precond_lr=0.0321, update_every=2)
    params = tree(0)
    state = tx.init(params)
    for t in range(5):
        _, state = tx.update(tree(t), state, params)
    assert len(traced) <= len(jax.tree.leaves(params))


@every
@pytest.mark.parametrize("storage", [{}, STOCHASTIC], ids=["float32", "stochastic"])
def test_a_period_is_a_fixed_point(tree, signature_of, name, storage):
    """JX10, JX14: both branches give the same types; a scan compiles the step once."""
    traces = 0
    tx = getattr(rootfree_jax, name)(0.1, **given(name), update_every=2, **storage)
    params = {**tree(0), "zero": jnp.zeros((0,)), "none": None, "half": jnp.ones(2, jnp.bfloat16)}

    @jax.jit
    def steps(params, state):
        def step(carry, _):
            nonlocal traces
            traces += 1
            params, state = carry
            updates, state = tx.update(params, state, params, batch_size=jnp.asarray(4))
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=3)[0]

    state = tx.init(params)
    new_params, new = steps(params, state)
    seen = traces
    new_params, new = steps(new_params, new)
    assert traces == seen
    assert signature_of(new) == signature_of(state)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(new_params))
    assert int(new[0].count) == 6


def test_layout():
    """JX08, JX09: a tuple by axis, in it a tuple where a structure keeps several arrays."""
    params = {"w": jnp.ones((3, 2)), "s": jnp.ones(()), "none": None, "zero": jnp.ones((0, 2))}
    scale, descent = rootfree_jax.sirf_shampoo(structure="arrowhead").init(params)
    shapes = jax.tree.map(jnp.shape, scale.factor)
    assert shapes["w"] == (((3,), (2,)), ((2,), (1,)))
    assert shapes["s"] == ((1,),)
    assert (scale.factor["none"], scale.factor["zero"]) == (None, MaskedNode())
    assert jax.tree.structure(scale.factor_momentum) == jax.tree.structure(scale.factor)
    assert scale.statistic == scale.root == scale.first_moment == scale.salt == MaskedNode()
    assert descent.momentum["w"].shape == (3, 2)
    (scale, _) = rootfree_jax.shampoo().init(params)
    assert jax.tree.map(jnp.shape, scale.statistic["w"]) == ((3, 3), (2, 2))
    assert jax.tree.structure(scale.root) == jax.tree.structure(scale.statistic)
    assert scale.factor == scale.factor_momentum == MaskedNode()
    (scale, _) = rootfree_jax.rf_full_matrix().init(params)
    assert scale.statistic["w"].shape == (6, 6)
    assert scale.root == MaskedNode()


@pytest.mark.parametrize("name", ["sirf_shampoo", "rf_full_matrix_factor"])
def test_factors_without_momentum(tree, name):
    """JX13: only a Python 0 leaves it out; a traced one may be anything."""
    make = getattr(rootfree_jax, f"scale_by_{name}")
    assert make(precond_momentum=0.0).init(tree(0)).factor_momentum == MaskedNode()
    traced = jax.jit(lambda m: make(precond_momentum=m).init(tree(0)))(0.0)
    assert jax.tree.structure(traced.factor_momentum) == jax.tree.structure(traced.factor)


@pytest.mark.parametrize("name", [name for name in MATRIX if not METHODS[name].decompositions])
def test_stochastic_state_has_the_bits_of_the_core(name):
    """4.3: bfloat16 state is rounded by the same bits as on NumPy.

    The float32 numbers before differ in their last places; that one of these draws lies between
    has a chance of about 2^-14 for each, and the seeds are fixed.
    """
    shapes = {"b": (3,), "c": (3, 2)}
    params, grads = (arrays_of(t, shapes, "float32") for t in (0, 1))
    single, half = np.dtype("float32"), np.dtype(ml_dtypes.bfloat16)
    core = Core(name, Precision(single, half, single, "stochastic"), {})
    _, states = core.run(params, [grads] * 2, lambda *_: True)
    tx = getattr(rootfree_jax, name)(0.125, **given(name), **STOCHASTIC)
    _, stages = run(tx, params, [grads] * 2)
    for key, state in states.items():
        ours = roles(stages, key)
        for role, array in rootfree.roles(state).items():
            if role != "step":
                np.testing.assert_array_equal(np.asarray(ours[role]), array[0])


@every
def test_compute_dtype(name):
    """1.4: inputs of products are rounded to bfloat16, under jit too, and multiplied in float32."""
    params, grads = (arrays_of(t, SHAPES, "float32") for t in (0, 1))
    single, half = np.dtype("float32"), np.dtype(ml_dtypes.bfloat16)
    core = Core(name, Precision(single, single, half, product_dtype=single), {})
    expected = core.run(params, [grads], lambda *_: True)
    tx = getattr(rootfree_jax, name)(0.125, **given(name), compute_dtype="bfloat16")
    found = run(tx, params, [grads])
    # An eigenvector may differ enough to be rounded otherwise, by 2^-8 in either of two products;
    # what comes from products alone differs by float32's rounding, far less.
    assert_equals_the_core(found, expected, 2.0**-6 if METHODS[name].decompositions else 2.0**-16)
    wide, _ = run(getattr(rootfree_jax, name)(0.125, **given(name)), params, [grads])
    assert not np.array_equal(found[0]["c"], wide["c"])


@every
def test_float32_products_are_float32_on_every_device(tree, name):
    """1.4: each product is asked for in full precision, and JAX's own setting stays as it was."""
    before = rootfree_jax.capabilities()["matmul_precision"]
    tx = getattr(rootfree_jax, f"scale_by_{name}")(update_every=2)
    dots = [e for e in equations(tx, tree(0)) if e.primitive.name == "dot_general"]
    assert dots
    highest = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
    assert all(e.params["precision"] == highest for e in dots)
    assert rootfree_jax.capabilities()["matmul_precision"] == before


def curvature_of(kind, shape, seed):
    """Return a curvature of a kind for a parameter's shape, positive semi-definite."""
    rng = np.random.default_rng(seed)

    def square(size):
        a = rng.standard_normal((size, size))
        return a @ a.T

    return {
        "diagonal": lambda: DiagonalCurvature(rng.random(shape)),
        "vectors": lambda: OuterProductCurvature(rng.standard_normal((2, *shape))),
        "matrix": lambda: MatrixCurvature(square(int(np.prod(shape)))),
        "factors": lambda: KroneckerCurvature(tuple(square(length) for length in shape)),
    }[kind]()


CURVED = [(name, kind) for name in MATRIX for kind in METHODS[name].curvatures]


@pytest.mark.parametrize(("name", "kind"), CURVED)
def test_curvatures_equal_the_core(name, kind):
    """Each kind replaces the gradient outer product; other leaves of the tree keep theirs."""
    shapes = {"w": (3, 2), "b": (3,), "rest": (2, 2)}
    params, grads = arrays_of(0, shapes), [arrays_of(t + 1, shapes) for t in range(2)]
    h = {key: curvature_of(kind, shapes[key], 7) for key in ("w", "b")}
    core = Core(name, Precision.uniform(np.dtype("float64")), {})
    expected = core.run(params, grads, lambda *_: True, h)
    with jax.enable_x64(True):
        tx = getattr(rootfree_jax, name)(0.125, **given(name))
        ours = {**{key: rootfree.mapped(x, jnp.asarray) for key, x in h.items()}, "rest": None}
        assert_equals_the_core(run(tx, params, grads, curvature=ours), expected)
        if kind == "diagonal":
            bare = {**ours, "w": h["w"].diagonal, "rest": MaskedNode()}
            assert_equals_the_core(run(tx, params, grads, curvature=bare, jit=False), expected)


@pytest.mark.parametrize(
    ("name", "h", "message"),
    [
        ("shampoo", jnp.ones((3, 2)), r"Shampoo, the rule of 'a\.w', has no use for a curvature"),
        ("full_adagrad", MatrixCurvature(jnp.eye(6)), "has no use for a curvature"),
        ("rf_rmsprop", MatrixCurvature(jnp.eye(6)), r"takes DiagonalCurvature; got MatrixCurv"),
        ("rf_full_matrix", KroneckerCurvature((jnp.eye(3), jnp.eye(2))), "got KroneckerCurvature"),
        ("sirf_shampoo", MatrixCurvature(jnp.eye(5)), r"curvature of 'a\.w' has shape \(5, 5\)"),
        ("sirf_shampoo", KroneckerCurvature((jnp.eye(3),)), r"needs shape \(3, 3\), \(2, 2\)"),
        ("sirf_shampoo", OuterProductCurvature(jnp.ones((3, 2))), r"has shape \(3, 2\)"),
        ("rf_shampoo", jnp.ones(6), r"curvature of 'a\.w' has shape \(6,\)"),
    ],
)
def test_curvatures_that_do_not_fit(name, h, message):
    """JX27: kind and shape, with the leaf's name."""
    params = {"a": {"w": jnp.ones((3, 2))}}
    tx = getattr(rootfree_jax, name)(0.1)
    state = tx.init(params)
    for update in (tx.update, jax.jit(tx.update)):
        with pytest.raises(ValueError, match=message):
            update(params, state, params, curvature={"a": {"w": h}})


def test_curvatures_are_arrays():
    """JX05: the message says which leaf is none."""
    params = {"a": jnp.ones((3, 2))}
    tx = rootfree_jax.rf_shampoo(0.1)
    with pytest.raises(TypeError, match="curvature 'a' must be an array, got str"):
        tx.update(params, tx.init(params), params, curvature={"a": MatrixCurvature("H")})


@pytest.mark.parametrize(
    ("name", "wrong", "error", "message"),
    [
        ("sirf_shampoo", {"update_every": 0}, ValueError, "`update_every` must be >= 1, got 0"),
        ("shampoo", {"update_every": 1.5}, TypeError, "`update_every` must be an integer or a"),
        ("rf_shampoo", {"update_every": jnp.asarray(2)}, TypeError, "`update_every` .* an array"),
        ("sirf_shampoo", {"structure": "band"}, ValueError, "unknown structure 'band'; known: d"),
        ("sirf_shampoo", {"structure": 3}, TypeError, "`structure` must be a name, a tuple"),
        ("sirf_shampoo", {"max_dim": 0}, ValueError, "`max_dim` must be >= 1"),
        ("sirf_shampoo", {"trust_clip": 1}, TypeError, "`trust_clip` must be True or False"),
        ("sirf_shampoo", {"compute_dtype": "int8"}, ValueError, "`compute_dtype` of a float32"),
        ("shampoo", {"compute_dtype": object()}, TypeError, "`compute_dtype` must be the name"),
        ("shampoo", {"damping": 0.0}, ValueError, "`damping` of Shampoo must be > 0"),
        ("rf_full_matrix_inverse", {"exact": True}, ValueError, "`exact` needs damping=0, got"),
        (
            "rf_full_matrix_inverse",
            {"exact": True, "damping": jnp.zeros(())},
            ValueError,
            "`exact` needs damping=0, got",
        ),
        ("rf_shampoo", {"init_scale": 0.0}, ValueError, "`init_scale` must be > 0"),
        ("rf_rmsprop", {"update_every": 2}, TypeError, "unexpected keyword argument"),
    ],
)
def test_wrong_arguments(name, wrong, error, message):
    """Arguments are checked when the optimizer is made."""
    for make in (getattr(rootfree_jax, name), getattr(rootfree_jax, f"scale_by_{name}")):
        with pytest.raises(error, match=message):
            make(**wrong)


def test_structures_that_do_not_fit_name_the_leaf():
    """JX27: how many axes a leaf has is known at `init`."""
    params = {"layer": {"w": jnp.ones((3, 2)), "b": jnp.ones(3)}}
    tx = rootfree_jax.sirf_shampoo(structure=("dense", "diagonal"))
    for init in (tx.init, jax.jit(tx.init)):
        with pytest.raises(ValueError, match=r"parameter 'layer\.b', shaped \(3,\): `structure` n"):
            init(params)
    tx = rootfree_jax.sirf_shampoo(structure={2: "tril"})
    with pytest.raises(ValueError, match=r"parameter 'layer\.b'.* no entry for 1 axes, it has 2"):
        tx.init(params)
    tx.init({"layer": {"w": params["layer"]["w"], "b": None}})


def test_exact_inverse(tree):
    """`exact` keeps the inverse of what `rf_full_matrix` keeps, up to rounding."""
    given = {"precond_lr": 0.1, "damping": 0.0}
    with jax.enable_x64(True):
        params = {"w": tree(0, "float64")["layer"]["w"]}
        grads = [{"w": tree(t + 1, "float64")["layer"]["w"]} for t in range(3)]
        exact = rootfree_jax.rf_full_matrix_inverse(0.1, **given, exact=True)
        solved = rootfree_jax.rf_full_matrix(0.1, **given)
        (one, _), (two, _) = (run(tx, params, grads) for tx in (exact, solved))
        np.testing.assert_allclose(one["w"], two["w"], rtol=1e-12)


def test_everything_static_is_named_for_inject_hyperparams(tree):
    """JX12: structures as a mapping and a function as period survive as static arguments."""
    function = rootfree_jax.sirf_shampoo
    names = [
        "loss_reduction",
        "update_every",
        "stagger",
        "structure",
        "max_dim",
        "merge_dims",
        "trust_clip",
        "decay",
        "init_scale",
        "weight_decay_mode",
        "state_dtype",
        "compute_dtype",
        "product_dtype",
        "rounding",
        "stack",
    ]
    assert f"static_args={tuple(names)}" in function.__doc__
    options = {
        "structure": {1: "diagonal", 2: ["tril", "dense"]},
        "update_every": lambda count: count % 2 == 0,
        "compute_dtype": jnp.bfloat16,
    }
    injected = optax.inject_hyperparams(function, static_args=names)(0.1, **options)
    params, grads = tree(0), tree(1)
    state = injected.init(params)
    for _ in range(2):
        updates, state = jax.jit(injected.update)(grads, state, params)
    plain = function(0.1, precond_momentum=jnp.asarray(0.5), **options)
    expected, plain_state = plain.update(grads, plain.init(params), params)
    expected, _ = plain.update(grads, plain_state, params)
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2.0**-8 * np.max(np.abs(b)))


def test_stalled_factors_warn_where_shapes_are_known():
    """4.2: long axes need a larger precond_lr; `init` says so, once, if that is more."""
    given = {"precond_lr": 2.0**-6, "state_dtype": "bfloat16"}
    params = {"w": jnp.ones((64, 36)), "v": jnp.ones((49, 2)), "b": jnp.ones(3)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tx = rootfree_jax.scale_by_sirf_shampoo(**given)
        tx.init({"b": params["b"]})
        rootfree_jax.scale_by_sirf_shampoo(**given, rounding="stochastic").init(params)
        rootfree_jax.scale_by_rf_shampoo(**given).init(params)
    with pytest.warns(rootfree_jax.StalledStateWarning, match="below 0.03125") as record:
        tx.init(params)
    assert [warning.filename for warning in record] == [__file__]
    with pytest.warns(rootfree_jax.StalledStateWarning, match="below 0.0078125") as record:
        rootfree_jax.sirf_shampoo(precond_lr=1e-3, state_dtype="bfloat16")
    assert [warning.filename for warning in record] == [__file__]


@every
def test_state_from_other_containers(tree, assert_same_bits, name):
    """JX25, JX26: flax's nnx and orbax without a target make lists and mappings of tuples."""
    tx = getattr(rootfree_jax, f"scale_by_{name}")()
    params = tree(0)
    state = tx.init(params)

    def listed(entry):
        return [listed(x) for x in entry] if isinstance(entry, tuple) else entry

    changed = jax.tree.map(listed, state, is_leaf=lambda x: type(x) is tuple)
    assert_same_bits(tx.update(tree(1), changed), tx.update(tree(1), state))
