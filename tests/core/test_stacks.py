"""The laws of a rule, as `rootfree.Rule` states them: stacks, purity, order, precision."""

from __future__ import annotations

import inspect
from typing import Any

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from rootfree import (
    METHODS,
    DiagonalCurvature,
    Hyper,
    Precision,
    add_step,
    roles,
    update,
    with_roles,
)

SHAPE = (4, 3, 5)
STEPS = 4
HYPER = Hyper(0.1, 0.1, 0.9, 0.0, 1e-4, 1e-2, 6.0)


def inputs(name: str, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    """Return a stack of parameters and gradients for some steps.

    The gradients are of widely different sizes, but for matrix methods: those mix the entries, and
    the covariance of the full-matrix one stays positive for small curvature only.
    """
    rng = np.random.default_rng(5)
    param, low, high = rng.normal(size=SHAPE), *((-2, -0.5) if METHODS[name].matrix else (-6, 3))
    grads = rng.normal(size=(STEPS, *SHAPE)) * 10.0 ** rng.uniform(low, high, (STEPS, *SHAPE))
    return param.astype(dtype), grads.astype(dtype)


def train(rule, param, grads, hyper=HYPER):
    """Return the last parameters and state."""
    state = rule.init(param)
    for grad in grads:
        step, state = update(rule, grad, state, param, hyper)
        assert step.dtype == rule.precision.working_dtype
        param = add_step(param, step)
    return param, state


def arrays(state):
    """Return a state's arrays."""
    return list(roles(state).values())


def frozen(x: np.ndarray) -> np.ndarray:
    """Return a copy that refuses to be written."""
    x = x.copy()
    x.flags.writeable = False
    return x


# LAPACK refuses a stack with a NaN, so beside one only rules without a decomposition can be seen.
BESIDE = [(name, None) for name in METHODS]
BESIDE += [(n, bad) for n, m in METHODS.items() if not m.decompositions for bad in (np.nan, np.inf)]


@pytest.mark.parametrize(("name", "bad"), BESIDE)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_members_are_independent(name, dtype, bad):
    """A member's result has the same bits alone, in a stack, and beside NaN or infinity."""
    rule = METHODS[name].rule(Precision.uniform(np.dtype(dtype)))
    param, grads = inputs(name, dtype)
    alone = [train(rule, param[i : i + 1], grads[:, i : i + 1]) for i in range(len(param))]
    if bad is not None:
        grads[1:, 2] = bad
    with np.errstate(all="ignore" if bad is not None else "warn"):
        moved, state = train(rule, param, grads)
    for i, (param_i, state_i) in enumerate(alone):
        if bad is not None and i == 2:
            continue
        assert moved[i].tobytes() == param_i[0].tobytes()
        for stacked, single in zip(arrays(state), arrays(state_i), strict=True):
            assert stacked[i].tobytes() == single[0].tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_inputs_are_read_only(name, float64):
    """Purity on NumPy: read-only arguments are enough, state included, and none changes."""
    rule = METHODS[name].rule(float64)
    param, grads = map(frozen, inputs(name))
    state = rule.init(param)
    state = with_roles(state, {role: frozen(x) for role, x in roles(state).items()})
    hyper = Hyper(*(frozen(np.asarray(value)) for value in HYPER))
    diagonal = frozen(grads[0] ** 2)
    curvature = DiagonalCurvature(diagonal) if METHODS[name].curvatures else None
    given = (grads[0], *arrays(state), param, *hyper, diagonal)
    before = [x.tobytes() for x in given]
    step, new = update(rule, grads[0], state, param, hyper, curvature=curvature)
    moved = add_step(param, step)
    assert [x.tobytes() for x in given] == before
    for out in (step, moved, new.step):
        assert not any(np.shares_memory(out, x) for x in given)


@pytest.mark.parametrize("name", METHODS)
def test_inputs_are_not_written_on_torch(name):
    """Purity on torch: the counter of in-place writes of no argument moves."""
    rule = METHODS[name].rule(Precision.uniform(torch.float64))
    param, grads = map(torch.tensor, inputs(name))
    state = rule.init(param)
    hyper = Hyper(*(torch.tensor(value, dtype=torch.float64) for value in HYPER))
    given = (grads[0], *arrays(state), param, *hyper)
    before = [x._version for x in given]
    step, _ = update(rule, grads[0], state, param, hyper)
    add_step(param, step)
    assert [x._version for x in given] == before


@pytest.mark.parametrize("name", METHODS)
def test_no_observation_leaves_the_preconditioner_alone(name, float64):
    """Without `observe` only the counter and the heavy ball of the state change."""
    rule = METHODS[name].rule(float64)
    param, grads = inputs(name)
    _, state = train(rule, param, grads)
    _, new = update(rule, grads[0], state, param, HYPER, False)
    before, after = roles(state), roles(new)
    assert before.keys() == after.keys()
    assert all(after[role] is before[role] for role in before.keys() - {"step", "momentum"})
    np.testing.assert_array_equal(new.step, state.step + 1)
    if state.momentum is not None:
        assert np.any(new.momentum != state.momentum)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("array_scalars", [False, True])
def test_strictest_namespace(name, array_scalars):
    """The standard's minimum is enough, on a device that is not the default; bits as on NumPy."""
    strictest = array_api_strict.ArrayAPIStrictFlags(
        api_version="2024.12",
        boolean_indexing=False,
        data_dependent_shapes=False,
        enabled_extensions=("linalg",) if METHODS[name].decompositions else (),
    )
    method, (param, grads) = METHODS[name], inputs(name)
    expected, expected_state = train(
        method.rule(Precision.uniform(np.dtype("float64"))), param, grads
    )
    with strictest:
        device = array_api_strict.Device("device1")

        def there(x: Any) -> Any:
            return array_api_strict.asarray(x, dtype=array_api_strict.float64, device=device)

        rule = method.rule(Precision.uniform(array_api_strict.float64))
        hyper = Hyper(*map(there, HYPER)) if array_scalars else HYPER
        moved, state = train(rule, there(param), [there(grad) for grad in grads], hyper)
        assert all(x.device == device for x in (moved, *arrays(state)))
        results = [
            array_api_strict.asarray(x, device=array_api_strict.Device("CPU_DEVICE"))
            for x in (moved, *arrays(state))
        ]
    for came, wanted in zip(results, (expected, *arrays(expected_state)), strict=True):
        # Scalar arithmetic such as 1 - b2 rounds alike on 0-d arrays and Python floats.
        assert np.asarray(came).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_declared_decompositions(name, monkeypatch):
    """A rule calls the matrix decompositions that the catalogue says, and no other."""
    called = []
    # A port elsewhere may have set the strictest flags, which have no linear algebra.
    with array_api_strict.ArrayAPIStrictFlags(enabled_extensions=("linalg",)):
        everything = {f for f in dir(array_api_strict.linalg) if not f.startswith("_")}
        products = {"matmul", "matrix_norm", "matrix_transpose", "outer", "tensordot", "trace"}
        products |= {"vecdot", "vector_norm", "diagonal", "cross"}
        for function in everything - products:
            original = getattr(array_api_strict.linalg, function)
            if inspect.isfunction(original):

                def noted(*args: Any, _name: str = function, _original: Any = original) -> Any:
                    called.append(_name)
                    return _original(*args)

                monkeypatch.setattr(array_api_strict.linalg, function, noted)
        rule = METHODS[name].rule(Precision.uniform(array_api_strict.float64))
        param, grads = map(array_api_strict.asarray, inputs(name))
        train(rule, param, [grads[0, ...]])
    assert set(called) == set(METHODS[name].decompositions)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "scalar", [np.float64, np.float32, np.asarray, lambda x: np.asarray(x, np.float32)]
)
def test_scalars_never_widen(name, dtype, scalar):
    """A NumPy scalar or a 0-d array of any width changes no dtype; np.float64 changes no bit."""
    rule = METHODS[name].rule(Precision.uniform(np.dtype(dtype)))
    param, grads = inputs(name, dtype)
    hyper = Hyper(*map(scalar, HYPER))
    moved, state = train(rule, param, grads, hyper)
    assert {x.dtype for x in (moved, *arrays(state)[1:])} == {np.dtype(dtype)}
    assert state.step.dtype == np.int32
    if scalar is np.float64:
        expected, _ = train(rule, param, grads)
        assert moved.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_scalars_never_widen_on_frameworks(name):
    """The same for torch, and for JAX with strict promotion and no implicit broadcasting."""
    param, grads = inputs(name, "float32")
    hyper = Hyper(*map(np.float64, HYPER))
    rule = METHODS[name].rule(Precision.uniform(torch.float32))
    moved, state = train(rule, torch.tensor(param), torch.tensor(grads), hyper)
    assert {x.dtype for x in (moved, *arrays(state)[1:])} == {torch.float32}
    rule = METHODS[name].rule(Precision.uniform(jnp.dtype("float32")))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        moved, state = train(rule, jnp.asarray(param), jnp.asarray(grads), hyper)
    assert {x.dtype for x in (moved, *arrays(state)[1:])} == {np.dtype("float32")}


@pytest.mark.parametrize("name", METHODS)
def test_half_width_parameters_work_in_float32(name):
    """The step is in the working dtype and the state in its own, whatever the parameter's."""
    precision = Precision.uniform(torch.float32)
    rule = METHODS[name].rule(precision)
    param, grads = (torch.tensor(x).bfloat16() for x in inputs(name))
    step, state = update(rule, grads[0], rule.init(param), param, HYPER)
    assert step.dtype == torch.float32
    assert {x.dtype for x in arrays(state)[1:]} <= {torch.float32}
    assert add_step(param, step).dtype == torch.bfloat16


@pytest.mark.parametrize("name", METHODS)
def test_state_is_a_fixed_point(name):
    """Structure, shapes and dtypes of the state never change: `lax.scan` takes it as a carry.

    The scalars are traced too, as in a schedule: no value is read.
    """
    rule = METHODS[name].rule(Precision.uniform(jnp.dtype("float32")))
    param, grads = map(jnp.asarray, inputs(name, "float32"))

    def body(carry: Any, grad: Any) -> Any:
        param, state, hyper = carry
        step, state = update(rule, grad, state, param, hyper)
        return (add_step(param, step), state, hyper), None

    hyper = Hyper(*map(jnp.float32, HYPER))
    (moved, state, _), _ = jax.lax.scan(body, (param, rule.init(param), hyper), grads)
    expected, _ = train(rule, param, grads)
    assert jax.tree.structure(state) == jax.tree.structure(rule.init(param))
    # XLA contracts a product and a sum into one rounding, and divides by multiplying.
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)
