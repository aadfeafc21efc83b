"""What matrix methods add: structures, a period, kinds of curvature, a dtype of products."""

from __future__ import annotations

import pickle
import re

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
import rootfree
import rootfree_array
import rootfree_textbook
from rootfree import (
    METHODS,
    DiagonalCurvature,
    Hyper,
    KroneckerCurvature,
    MatrixCurvature,
    OuterProductCurvature,
)
from rootfree_array import (
    SGD,
    FullAdaGrad,
    Platform,
    RFFullMatrix,
    RFFullMatrixInverse,
    RFRMSProp,
    RFShampoo,
    Shampoo,
    SIRFShampoo,
    StalledStateWarning,
    init,
    update,
)

MATRIX = [getattr(rootfree_array, m.class_name) for m in METHODS.values() if m.matrix]
HYPER = {"lr": 0.25, "momentum": 0.5, "weight_decay": 0.125, "precond_lr": 0.125, "damping": 0.125}
HYPER |= {"precond_momentum": 0.25}
SHAPES = {"bias": (5,), "weight": (4, 3), "kernel": (2, 3, 2)}
SETTLED = {**SHAPES, "weight": (9, 4)}  # SIRF-Shampoo forms the same products for 1 step and for 2


def settings(cls):
    """Return hyper-parameters at which every term shows."""
    return {name: HYPER[name] for name in cls.method.hyper}


def assert_textbook(optimizer, params, states):
    """Compare parameters and states, relative to the largest number of each array."""
    for name, param in params.items():
        ours = {**optimizer.state[name], "param": optimizer.params[name]}
        theirs = {**states[name], "param": param}
        assert set(ours) == set(theirs)
        for role, array in theirs.items():
            within = 1e-12 * np.max(np.abs(array))
            np.testing.assert_allclose(ours[role], array, rtol=0, atol=within, err_msg=role)


@pytest.mark.parametrize("name", rootfree.structures.STRUCTURES)
def test_structures(name, normal):
    """Every structure steps as the textbook's, three steps of three parameters."""
    optimizer = SIRFShampoo(normal(0, shapes=SHAPES), structure=name, **settings(SIRFShampoo))
    params = normal(0, shapes=SHAPES)
    given = {"structure": name}
    states = {n: rootfree_textbook.init("sirf_shampoo", p, **given) for n, p in params.items()}
    for number in range(3):
        grads = normal(number, shapes=SHAPES)
        optimizer.step(grads, batch_size=3)
        for n, grad in grads.items():
            params[n], states[n] = rootfree_textbook.step(
                *("sirf_shampoo", params[n], grad, states[n]),
                **settings(SIRFShampoo),
                **given,
                batch_size=3,
            )
    assert_textbook(optimizer, params, states)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"structure": ("dense", "diagonal")}, "parameter 'bias': `structure` names 2 axes"),
        ({"structure": {2: "dense"}}, "parameter 'bias': `structure` has no entry for 1 axes"),
        ({"structure": "sparse"}, "unknown structure 'sparse'; known: dense, diagonal"),
        ({"update_every": 0}, "`update_every` must be >= 1, got 0"),
        ({"max_dim": 0}, "`max_dim` must be >= 1"),
        ({"compute_dtype": "int8"}, "`compute_dtype` of a float64 parameter must be one of"),
        ({"compute_dtype": "bfloat16"}, "`compute_dtype` of a float64 parameter must be one of"),
        ({"precond_momentum": 1.0}, "`precond_momentum` must be in [0, 1), got 1.0"),
        ({"init_scale": 0}, "`init_scale` must be > 0, got 0"),
    ],
    ids=range(9),
)
def test_what_does_not_fit_is_refused_at_construction(given, words, normal):
    """Before the first step, and by the parameter's name where it is one parameter's shape."""
    with pytest.raises(ValueError, match=re.escape(words)):
        SIRFShampoo(normal(shapes=SHAPES), **given)


def test_a_functional_rule_names_the_parameter_too(float64, normal):
    """`init` says which parameter a structure does not fit."""
    rule = METHODS["sirf_shampoo"].rule(float64, structure=("dense", "dense"))
    with pytest.raises(ValueError, match="parameter 'bias': `structure` names 2 axes"):
        init(rule, normal(shapes=SHAPES))


@pytest.fixture
def float64():
    """Return the policy in which all is NumPy's float64."""
    return rootfree.Precision.uniform(np.dtype("float64"))


@pytest.mark.parametrize("cls", MATRIX)
@pytest.mark.parametrize("period", [2, 3])
def test_period(cls, period, normal):
    """Steps 0, T, 2T, ... update the preconditioner, the others use it: as in the textbook."""
    given = {"update_every": period, "stagger": False}
    optimizer = cls(normal(0, shapes=SHAPES), **given, **settings(cls))
    params, name = normal(0, shapes=SHAPES), cls.method.name
    states = {n: rootfree_textbook.init(name, p) for n, p in params.items()}
    for number in range(4):
        grads = normal(number, shapes=SHAPES)
        optimizer.step(grads, batch_size=3)
        for n, grad in grads.items():
            params[n], states[n] = rootfree_textbook.step(
                *(name, params[n], grad, states[n]),
                **settings(cls),
                batch_size=3,
                update_now=number % period == 0,
            )
    assert_textbook(optimizer, params, states)


def test_a_function_decides(normal, same_bits):
    """A function of the count is asked once for each count in a step; a period is a case of it."""
    asked = []

    def odd(count):
        asked.append(count)
        return count % 2 == 0

    ours = SIRFShampoo(normal(shapes=SETTLED), update_every=odd)
    periodic = SIRFShampoo(normal(shapes=SETTLED), update_every=2, stagger=False)
    for number in range(3):
        for optimizer in (ours, periodic):
            optimizer.step(normal(number, shapes=SETTLED))
    assert asked == [0, 1, 2]
    assert same_bits(ours.params, periodic.params)
    assert same_bits(ours.state, periodic.state)


def test_each_parameter_has_its_own_count(normal, same_bits):
    """A parameter that missed a step is at another point of its period."""
    optimizer = SIRFShampoo(normal(), update_every=2)
    optimizer.step({"bias": normal(0)["bias"]})
    before = optimizer.state
    optimizer.step(normal(1))
    assert same_bits(optimizer.state["bias"]["factor.0"], before["bias"]["factor.0"])
    assert not same_bits(optimizer.state["weight"]["factor.0"], before["weight"]["factor.0"])


@pytest.mark.parametrize("cls", MATRIX)
@pytest.mark.parametrize("taken", [1, 2])
def test_a_run_is_resumed_within_its_period(cls, taken, normal, take_steps, same_bits):
    """The count is loaded with the state, and the period with it."""
    whole = cls(normal(0, np.float32), update_every=3, **settings(cls))
    take_steps(whole, *range(taken))
    saved = pickle.loads(pickle.dumps({"params": whole.params, "optimizer": whole.state_dict()}))
    resumed = cls(saved["params"], **settings(cls))
    resumed.load_state_dict(saved["optimizer"])
    assert resumed.update_every == 3
    for optimizer in (whole, resumed):
        take_steps(optimizer, *range(taken, 5))
    assert same_bits(whole.params, resumed.params)
    assert same_bits(whole.state, resumed.state)


def test_a_function_is_the_programs(normal):
    """It is not saved, and loading leaves it where it is."""
    asked = SIRFShampoo(normal(), update_every=lambda count: True)
    saved = asked.state_dict()
    assert saved["update_every"] is None
    periodic = SIRFShampoo(normal(), update_every=2)
    periodic.load_state_dict(saved)
    assert periodic.update_every == 2


def test_the_period_may_change(normal, unchanged):
    """`optimizer.update_every = n` counts from the next step on, and is checked there."""
    optimizer = SIRFShampoo(normal(), update_every=1)
    optimizer.update_every = 0
    with unchanged(optimizer), pytest.raises(ValueError, match="`update_every` must be >= 1"):
        optimizer.step(normal(1))


KINDS = {
    "diagonal": lambda d: DiagonalCurvature(np.abs(d(4, 3)) + 0.5),
    "vectors": lambda d: OuterProductCurvature(d(2, 4, 3)),
    "matrix": lambda d: MatrixCurvature(square(d(12, 12))),
    "factors": lambda d: KroneckerCurvature((square(d(4, 4)), square(d(3, 3)))),
}


def square(x):
    """Return a positive definite matrix."""
    return x @ x.T / len(x) + 0.5 * np.eye(len(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", MATRIX)
def test_curvatures(cls, kind, normal, unchanged):
    """Each kind that a method takes enters as in the textbook; another is refused by name."""
    draw = np.random.default_rng(3).normal
    h = KINDS[kind](lambda *shape: draw(size=shape))
    shapes = {"weight": (4, 3)}
    optimizer = cls(normal(0, shapes=shapes), **settings(cls))
    if kind not in cls.method.curvatures:
        words = "no use for a curvature" if not cls.method.curvatures else "takes DiagonalCurv"
        with unchanged(optimizer), pytest.raises(ValueError, match=f"'weight'.*{words}"):
            optimizer.step(normal(1, shapes=shapes), curvature={"weight": h})
        return
    optimizer.step(normal(1, shapes=shapes), batch_size=3, curvature={"weight": h})
    param, name = normal(0, shapes=shapes)["weight"], cls.method.name
    after, state = rootfree_textbook.step(
        *(name, param, normal(1, shapes=shapes)["weight"], rootfree_textbook.init(name, param)),
        **settings(cls),
        batch_size=3,
        curvature={kind: h[0]},
    )
    assert_textbook(optimizer, {"weight": after}, {"weight": state})


def test_an_array_is_a_diagonal(normal, same_bits):
    """A bare array and a DiagonalCurvature are one thing."""
    runs = []
    for wrap in (lambda h: h, DiagonalCurvature):
        optimizer = SIRFShampoo(normal())
        optimizer.step(normal(1), curvature={"weight": wrap(normal(2)["weight"] ** 2)})
        runs.append(optimizer.params)
    assert same_bits(*runs)


@pytest.mark.parametrize(
    ("h", "error", "words"),
    [
        (np.ones((3, 4)), ValueError, "curvature of 'weight' has shape (3, 4), a DiagonalCurv"),
        (MatrixCurvature(np.ones((4, 3))), ValueError, "curvature of 'weight' has shape (4, 3)"),
        (KroneckerCurvature((np.eye(4),)), ValueError, "curvature of 'weight' has shape (4, 4)"),
        (OuterProductCurvature(np.ones((4, 3))), ValueError, "curvature of 'weight' has shape"),
        ([1.0], TypeError, "curvature of 'weight' must be an array, got list"),
        (MatrixCurvature(2.0), TypeError, "curvature of 'weight' must be an array, got float"),
    ],
    ids=range(6),
)
def test_a_wrong_curvature_changes_nothing(h, error, words, normal, unchanged):
    """Refused in the class and in the function, with the parameter's name."""
    optimizer = SIRFShampoo(normal(shapes=SHAPES))
    grads = normal(1, shapes=SHAPES)
    with unchanged(optimizer), pytest.raises(error, match=re.escape(words)):
        optimizer.step(grads, curvature={"weight": h})
    rule, params = optimizer._rules["weight"], normal(shapes=SHAPES)
    with pytest.raises(error, match=re.escape(words)):
        update(rule, params, grads, init(rule, params), Hyper(0.1), curvature={"weight": h})


def test_a_curvature_on_another_device_is_refused():
    """Nothing is copied behind the user's back."""
    here, there = (array_api_strict.Device(name) for name in ("device1", "device2"))
    single = array_api_strict.float32
    ones = {"w": array_api_strict.ones(2, dtype=single, device=here)}
    h = array_api_strict.ones(2, dtype=single, device=there)
    optimizer = SIRFShampoo(ones)
    with pytest.raises(ValueError, match=r"curvature of 'w' has device .*device2.*convert"):
        optimizer.step(ones, curvature={"w": h})


@pytest.mark.parametrize("cls", MATRIX)
def test_the_function_observes_where_it_is_told(cls, normal, same_bits):
    """`update(..., observe=False)` is a step between two updates of the preconditioner."""
    optimizer = cls(normal(shapes=SETTLED), update_every=2, stagger=False, **settings(cls))
    (rule,) = set(optimizer._rules.values())
    params = normal(shapes=SETTLED)
    state = init(rule, params)
    for number in range(3):
        hyper = Hyper(**settings(cls), curvature_scale=2.0)
        grads = normal(number, shapes=SETTLED)
        params, state = update(rule, params, grads, state, hyper, number % 2 == 0)
        optimizer.step(grads, batch_size=2)
    assert same_bits(params, optimizer.params)
    for name, arrays in optimizer.state.items():
        plain = {role: array[0] for role, array in rootfree.roles(state[name]).items()}
        assert same_bits(plain, arrays)


def test_a_riemannian_momentum_of_zero_needs_no_buffer(normal, same_bits):
    """Switched on it gets one, of zeros; the factors go on, and the other buffer with them."""
    optimizer = SIRFShampoo(normal(), precond_momentum=0.0)
    optimizer.step(normal(1))
    before = optimizer.state["weight"]
    assert not any(role.startswith("factor_momentum") for role in before)
    optimizer.hyper["precond_momentum"] = 0.5
    optimizer.step({"bias": normal(2)["bias"]})
    after = optimizer.state["weight"]
    assert not np.any(after["factor_momentum.0"])
    assert after["factor_momentum.1"].shape == (5, 5)
    assert all(same_bits(after[role], array) for role, array in before.items())
    resumed = SIRFShampoo(normal(), precond_momentum=0.0)
    resumed.load_state_dict(optimizer.state_dict())
    assert same_bits(resumed.state, optimizer.state)


@pytest.mark.parametrize("cls", MATRIX)
def test_products_of_rounded_inputs(cls, normal):
    """`compute_dtype` rounds the inputs of products; state and working dtype stay float32."""
    exact, rounded = (
        cls(normal(0, np.float32), compute_dtype=dtype, **settings(cls))
        for dtype in ("float32", "bfloat16")
    )
    for optimizer in (exact, rounded):
        optimizer.step(normal(1, np.float32))
    one, other = exact.params["weight"], rounded.params["weight"]
    assert other.dtype == np.float32
    assert {a.dtype.name for a in rounded.state["weight"].values()} == {"float32", "int32"}
    assert not np.array_equal(one, other)
    assert np.max(np.abs(one - other)) < 0.1 * np.max(np.abs(one))


def test_native_products_are_the_platforms(normal):
    """bfloat16 parameters take products in it only where the platform has units for them."""
    import array_api_compat.numpy as xp

    dtypes = {"float32": np.dtype("float32"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
    param = {"w": np.ones((2, 2), ml_dtypes.bfloat16)}
    for native, compute in (((), "float32"), (("bfloat16",), "bfloat16")):
        platform = Platform(xp, dtypes, native=native)
        precision = SIRFShampoo(param, platform=platform)._rules["w"].precision
        assert (precision.compute_dtype, precision.product_dtype) == (dtypes[compute],) * 2
    asked = SIRFShampoo(param, compute_dtype="bfloat16")._rules["w"].precision
    assert (asked.compute_dtype, asked.product_dtype) == (dtypes["bfloat16"], dtypes["float32"])


def test_stalled_factors_are_warned_of(normal):
    """A long axis needs a larger precond_lr; the warning says which, at the caller's line."""
    params = {"weight": np.ones((100, 3), np.float32), "bias": np.ones(3, np.float32)}
    with pytest.warns(StalledStateWarning, match=r"precond_lr=0\.03: below 0\.039") as caught:
        SIRFShampoo(params, precond_lr=0.03, state_dtype="bfloat16")
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_stochastic_state_of_matrices(normal, take_steps):
    """Factors in bfloat16 move from the identity, each with bits of its own."""
    given = {"state_dtype": "bfloat16", "rounding": "stochastic", "precond_lr": 0.01}
    optimizer = SIRFShampoo(normal(0, np.float32), **given)
    take_steps(optimizer, *range(3))
    assert optimizer.state["weight"]["factor.0"].dtype == ml_dtypes.bfloat16
    assert np.any(optimizer.state["weight"]["factor.0"] != np.eye(3))


@pytest.mark.parametrize(
    ("cls", "given", "words"),
    [
        (FullAdaGrad, {"damping": 0}, "`damping` of full-matrix AdaGrad must be > 0, got 0"),
        (Shampoo, {"damping": 0.0}, "`damping` of Shampoo must be > 0, got 0.0"),
        (RFFullMatrixInverse, {"exact": True}, "`exact` needs damping=0, got 0.0001"),
        (RFFullMatrix, {"init_scale": 0}, "`init_scale` must be > 0, got 0"),
        (RFShampoo, {"merge_dims": 0}, "`merge_dims` must be >= 1"),
    ],
)
def test_limits_of_methods(cls, given, words, normal):
    """What makes a method divide by zero, or compute what it does not say, is refused."""
    with pytest.raises(ValueError, match=re.escape(words)):
        cls(normal(), **given)


@pytest.mark.parametrize("cls", [SGD, RFRMSProp])
@pytest.mark.parametrize("name", ["update_every", "compute_dtype", "structure"])
def test_only_matrix_methods_have_them(cls, name, normal):
    """An argument without effect is an error."""
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        cls(normal(), **{name: None})


def test_saved_structures_do_not_mix(normal, unchanged):
    """Factors of one structure are not taken for another's."""
    saved = SIRFShampoo(normal(), structure="diagonal").state_dict()
    optimizer = SIRFShampoo(normal())
    with unchanged(optimizer), pytest.raises(ValueError, match=r"saved with .*'diagonal'"):
        optimizer.load_state_dict(saved)
