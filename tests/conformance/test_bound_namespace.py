"""Arrays that carry a bound (conformance 4.2): what costs, what does not, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from rootfree_conformance.namespaces.bound import BOOL, INT32, BoundArray, BoundNamespace
from rootfree_conformance.numeric import FORMATS, NumericModel

SINGLE = FORMATS["float32"]
XP = BoundNamespace(NumericModel())
U = SINGLE.unit
ULP = 2 * U
ETA = SINGLE.smallest_subnormal / 2


def array(value, error=0.0, dtype=SINGLE, xp=XP):
    """Return values with a bound."""
    return BoundArray(np.asarray(value, dtype=np.float64), error, dtype, xp)


@pytest.mark.parametrize("name", ["bfloat16", "float64"])
@pytest.mark.parametrize("operation", ["__add__", "__sub__", "__mul__", "__truediv__", "__lt__"])
def test_mixing_dtypes_raises(name, operation):
    """An operation on two formats has no result that all libraries agree on."""
    with pytest.raises(TypeError, match="mixed in one operation"):
        getattr(array([1.0]), operation)(array([1.0], dtype=FORMATS[name]))


def test_stochastic_state_is_a_dtype_of_its_own():
    """Stochastically rounded state must be cast before it is computed with."""
    state = replace(FORMATS["bfloat16"], stochastic=True)
    with pytest.raises(TypeError, match="mixed"):
        array([1.0], dtype=FORMATS["bfloat16"]) + array([1.0], dtype=state)


@pytest.mark.parametrize("operation", ["einsum", "exp", "prod", "tensordot", "cumulative_sum"])
def test_an_operation_without_a_bound_raises(operation):
    """What the bound does not know, no rule may use unnoticed."""
    with pytest.raises(AttributeError, match=operation):
        getattr(XP, operation)
    with pytest.raises(TypeError):
        array([1.0]) @ array([1.0])
    assert set(vars(XP.linalg)) == {"solve", "eigh"}


@pytest.mark.parametrize(
    "result",
    [
        array([1.5]) + array([2.25]),
        array([1.5]) - 0.25,
        array([1.5]) * array([-3.0]),
        array([1 + ULP]) * 2.0**-3 - array([1 + ULP]) * 2.0**-4,
        -array([0.1]),
        XP.abs(array([-0.1])),
        XP.maximum(array([0.1]), array([0.2])),
        XP.reshape(array([0.1]), (1, 1)),
        XP.full((2,), 0.5, dtype=SINGLE),
        XP.astype(array([0.5], dtype=FORMATS["bfloat16"]), SINGLE),
        XP.astype(array([0.5]), FORMATS["bfloat16"]),
        XP.scalar(0.375, SINGLE),
    ],
    ids=range(12),
)
def test_exact_results_cost_nothing(result):
    """Correct rounding returns a result that the format holds."""
    assert np.all(result.error == 0), result.error


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (array([1.0]) + array([2.0**-30]), 1 + 2.0**-30),
        (array([1 + 2.0**-23]) * array([1 + 2.0**-23]), (1 + 2.0**-23) ** 2),
        (array([1.0]) / array([3.0]), 1 / 3),
        (array([4.0]) / array([2.0]), 2.0),  # division is judged by the model's ulps alone
        (XP.sqrt(array([2.0])), math.sqrt(2)),
        (XP.astype(array([1 / 3], dtype=FORMATS["float64"]), SINGLE), 1 / 3),
        (XP.scalar(0.1, SINGLE), 0.1),
        (XP.full((1,), 0.1, dtype=SINGLE), 0.1),
    ],
    ids=range(8),
)
def test_one_rounding_costs_u(result, value):
    """A result of exact operands costs ``u |v| + eta``, no more and no less."""
    assert result.value == value
    np.testing.assert_array_equal(result.error, U * abs(value) + ETA)


def test_an_inexact_zero_in_float64_costs():
    """What float64 itself has lost is not exact: the suite's own arithmetic is no excuse."""
    one = array([1.0], dtype=FORMATS["float64"])
    assert (one + 2.0**-60).error > 0
    assert (one * array([1 / 3], dtype=FORMATS["float64"])).error == 0  # a power of two
    third = array([1 / 3], dtype=FORMATS["float64"])
    assert (third * third).error > 0


def test_errors_propagate():
    """Sum, product, quotient and root of numbers with bounds cover every number within them."""
    x, y = array([2.0], 0.125), array([4.0], 0.25)
    corners = [(a, b) for a in (1.875, 2.125) for b in (3.75, 4.25)]
    for result, function in (
        (x + y, lambda a, b: a + b),
        (x - y, lambda a, b: a - b),
        (x * y, lambda a, b: a * b),
        (x / y, lambda a, b: a / b),
        (XP.sqrt(x), lambda a, b: math.sqrt(a)),
        (XP.log1p(x), lambda a, b: math.log1p(a)),
        (XP.expm1(x), lambda a, b: math.expm1(a)),
        (XP.maximum(x, y), lambda a, b: max(a, b)),
    ):
        away = max(abs(function(a, b) - result.value[0]) for a, b in corners)
        assert away <= result.error[0] <= 1.5 * away


def test_a_divisor_that_may_be_zero_has_no_bound():
    """Where the divisor's bound reaches 0 anything may come out, and the bound says so."""
    assert (array([1.0]) / array([0.5], 0.5)).error == math.inf


def test_an_infinite_bound_stays_infinite():
    """Nothing makes an unknown number known: 0 times it included; the bound is never NaN."""
    unknown = array([1.0], math.inf)
    zero = array([0.0])
    known_zero = array([0.0], 1.0)
    for result in (unknown * zero, zero * unknown, unknown * known_zero, unknown + zero):
        assert np.all(result.error == math.inf)


def test_an_uncertain_condition_covers_both_branches():
    """Where the comparison could come out the other way, so could the choice."""
    a, b = array([10.0, 10.0], 0.5), array([13.0, 13.0], 0.25)
    x = array([1.0, 1.0], np.asarray([0.25, 1.0]))
    chosen = XP.where(x < 1.5, a, b)
    assert chosen.value.tolist() == [10.0, 10.0]
    assert chosen.error.tolist() == [0.5, 3.25]  # certain; 13.25 - 10
    other = XP.where(x > 1.5, a, b)
    assert other.value.tolist() == [13.0, 13.0]
    assert other.error.tolist() == [0.25, 3.5]  # 13 - 9.5


@pytest.mark.parametrize(
    ("x", "error", "certain"), [(1.0, 0.0, True), (1.0, 0.5, False), (3.0, 0.5, True)]
)
def test_comparisons_know_whether_they_are_certain(x, error, certain):
    """Numbers without error compare exactly; those within reach of each other do not."""
    for compared in (array([x], error) < 1.0, array([x], error) > 1.0, array([x], error) == 1.0):
        assert compared.dtype == BOOL
        assert bool(compared.error[0] == 0) == certain
    both = (array([x], error) > 0.0) & (array([x], error) < 1.0)
    assert bool(both.error[0] == 0) == certain


def test_counters_have_no_rounding():
    """An int32 counter counts, whatever is added to it."""
    count = XP.zeros((2,), dtype=INT32) + 1
    assert count.value.tolist() == [1, 1]
    assert count.error.tolist() == [0, 0]
    assert XP.astype(count, SINGLE).error.tolist() == [0, 0]


def test_flushed_subnormals_cost_the_smallest_normal():
    """Where small results become zero the bound reaches from them to zero."""
    flushing = BoundNamespace(NumericModel(subnormals="flushed"))
    small = array([2.0**-64], xp=flushing)
    product = small * array([2.0**-64], xp=flushing)
    assert product.error[0] >= product.value[0]
    kept = array([2.0**-64]) * array([2.0**-64])
    assert kept.error[0] == 0  # 2**-128 is a float32 number


@pytest.mark.parametrize(("bits", "unit"), [(None, 2.0**-24), (11, 2.0**-11), (53, 2.0**-24)])
def test_the_declared_bits_enter(bits, unit):
    """Arithmetic with fewer bits than its dtype has a larger unit; it never has more than that."""
    assert NumericModel(bits=bits).working("float32").unit == unit


@pytest.mark.parametrize(
    ("field", "function", "argument"),
    [
        ("div", lambda xp, x: x / 3.0, 1.0),
        ("sqrt", lambda xp, x: xp.sqrt(x), 2.0),
        ("log1p", lambda xp, x: xp.log1p(x), 1.0),
        ("expm1", lambda xp, x: xp.expm1(x), 1.0),
    ],
)
def test_the_declared_ulps_enter(field, function, argument):
    """A port that declares less accurate functions gets a bound that is larger by as much."""
    bounds = []
    for ulps in (0.5, 4.0):
        xp = BoundNamespace(NumericModel(**{field: ulps}))
        bounds.append(function(xp, array([argument], xp=xp)).error[0])
    assert bounds[1] == pytest.approx(8 * bounds[0], rel=1e-6)


def matrix(value, error=0.0, xp=XP):
    """Return a stack of one matrix with a bound."""
    return array([value], np.broadcast_to(error, (1, *np.shape(value))), xp=xp)


def test_products_follow_the_table():
    """Inputs narrowed, bilinear terms, gamma_n, then one rounding of the result (4.2)."""
    draws = np.random.default_rng(1)
    a, b = draws.normal(size=(3, 4)), draws.normal(size=(4, 2))
    ea, eb = 1e-4 * draws.random((3, 4)), 1e-4 * draws.random((4, 2))
    u = 2.0**-11
    xp = BoundNamespace(NumericModel(matmul_bits=11, accumulator_bits=16))
    product = xp.matmul(matrix(a, ea, xp), matrix(b, eb, xp))
    ea, eb = ea + u * (abs(a) + ea), eb + u * (abs(b) + eb)
    gamma = 4 * 2.0**-16 / (1 - 4 * 2.0**-16)
    bound = abs(a) @ eb + ea @ abs(b) + ea @ eb + gamma * ((abs(a) + ea) @ (abs(b) + eb))
    bound = bound + U * (abs(a @ b) + bound)
    np.testing.assert_allclose(product.error[0], bound, rtol=1e-9)
    assert np.all(product.value[0] == a @ b)


def test_zeros_in_products_and_sums_cost_nothing():
    """A term that is 0 for certain is added without rounding; a sum of one term is that term."""
    a = np.asarray([[1.5, 0.0], [0.0, 0.0]])
    third = matrix(np.full((2, 2), 1 / 3))
    product = XP.matmul(matrix(a), third)
    assert np.all(product.error[0, 1] == 0)
    assert np.all(product.error[0, 0] <= 3 * U)
    assert np.all(XP.sum(third * matrix(np.eye(2)), axis=2).error <= 2 * ETA)
    total = XP.sum(matrix(np.ones((2, 8))), axis=2)
    np.testing.assert_allclose(total.error, 8 * 7 * U, rtol=1e-5)


def test_accumulators_enter():
    """Truncating ones have twice the unit; float64 products have float64's."""
    a = matrix(np.ones((4, 4)) / 3)
    nearest, truncating = (
        BoundNamespace(NumericModel(accumulator_bits=16, accumulator_rounding=rounding))
        for rounding in ("nearest", "truncate")
    )
    ratio = truncating.matmul(a, a).error / nearest.matmul(a, a).error
    np.testing.assert_allclose(ratio, 2, rtol=0.02)
    double = BoundArray(a.value, 0.0, FORMATS["float64"], XP)
    assert np.all(XP.matmul(double, double).error < 1e-14)


def test_layout_moves_bounds_along():
    """Values and bounds keep together, whatever is permuted, cut or joined."""
    value = np.arange(12.0).reshape(1, 3, 4)
    x = array(value, value / 64)
    square = x[:, :, :3]
    for moved in (
        XP.permute_dims(x, (0, 2, 1)),
        XP.matrix_transpose(x),
        XP.expand_dims(x, axis=1),
        XP.flip(x, axis=2),
        XP.concat([x, x[:, :1, :]], axis=1),
        XP.stack([x, x], axis=0),
        XP.tril(square, k=-1),
        XP.triu(square, k=1),
        XP.broadcast_to(x, (2, 3, 4)),
        x[:, ::2, ...],
        x[:, 0, :],
        XP.max(x, axis=1),
    ):
        np.testing.assert_array_equal(moved.error, moved.value / 64)
        assert moved.dtype == SINGLE


def positive(seed, d, spread):
    """Return a positive definite matrix, its eigenvalues over ``spread`` powers of two."""
    draws = np.random.default_rng(seed)
    q, _ = np.linalg.qr(draws.normal(size=(d, d)))
    a = (q * 2.0 ** np.linspace(-spread / 2, spread / 2, d)) @ q.T
    return (a + a.T) / 2


@pytest.mark.parametrize("d", [1, 2, 5, 12])
@pytest.mark.parametrize("spread", [1, 6])
def test_solutions(d, spread):
    """Float32 elimination of a perturbed matrix, with any pivots, stays within the bound."""
    draws = np.random.default_rng(d)
    a, b = positive(d, d, spread), draws.normal(size=(d, 3))
    error = 1e-5 * np.abs(a)
    solved = XP.linalg.solve(matrix(a, error), matrix(b, 1e-6))
    largest = 0.0
    for _ in range(60):
        moved = a + error * draws.choice([-1, 1], a.shape)
        order = draws.permutation(d)
        x = np.linalg.solve(
            moved[order].astype(np.float32),
            (b + 1e-6 * draws.choice([-1, 1], b.shape))[order].astype(np.float32),
        )
        largest = max(largest, np.max(np.abs(x - solved.value[0]) / solved.error[0]))
    assert 1e-3 < largest <= 1
    assert XP.condition >= np.linalg.cond(a)


def test_what_cannot_be_solved_has_no_bound():
    """Where the matrix may be singular anything may come out, and the bound says so."""
    solved = XP.linalg.solve(matrix(np.eye(2), 1.0), matrix(np.ones((2, 1))))
    assert np.all(np.isinf(solved.error))
    zero = XP.linalg.solve(matrix(np.eye(2), 0.1), matrix(np.zeros((2, 1))))
    assert np.all(zero.error == 0)


def root(xp, s, damping, power):
    """Return the inverse root as the core takes it."""
    from rootfree import Precision
    from rootfree.shampoo import inverse_root

    return inverse_root(s, damping, power, Precision.uniform(SINGLE))


@pytest.mark.parametrize("power", [2, 4, 6])
@pytest.mark.parametrize("d", [1, 3, 8])
def test_roots(power, d):
    """Float32 roots of perturbed matrices, repeated eigenvalues included, stay within the bound."""
    draws = np.random.default_rng(d + power)
    s = positive(d, d, 4)
    s[:1, :1] = s[:1, :1]
    for a in (s, np.eye(d)):
        bound = root(XP, matrix(a, 1e-6), XP.scalar(0.1, SINGLE), power)
        largest = 0.0
        for _ in range(40):
            e = 1e-6 * draws.uniform(-1, 1, a.shape)
            w, v = np.linalg.eigh((a + (e + e.T) / 2).astype(np.float32))
            f = (np.maximum(w, 0) + np.float32(0.1)) ** np.float32(-1 / power)
            x = (v * f) @ v.T
            assert x.dtype == np.float32
            largest = max(largest, np.max(np.abs(x - bound.value[0]) / bound.error[0]))
        assert 1e-3 < largest <= 1


def test_eigenvectors_alone_have_no_bound():
    """A rule that uses them for anything but a function of the matrix raises."""
    w, v = XP.linalg.eigh(matrix(np.eye(3)))
    with pytest.raises(TypeError, match="no bound is known"):
        XP.matmul(v, XP.matrix_transpose(v))
    with pytest.raises(TypeError, match="no bound is known"):
        XP.matrix_transpose(w)
    with pytest.raises((TypeError, AttributeError)):
        w * 2.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_eigh_is_as_accurate_as_declared(library, dtype):
    """Backward error and orthogonality, in units of ``d u``, are below the model's."""
    import jax
    import jax.numpy as jnp
    import torch

    functions = {
        "numpy": np.linalg.eigh,
        "torch": lambda a: tuple(x.numpy() for x in torch.linalg.eigh(torch.tensor(a))),
        "jax": lambda a: tuple(np.asarray(x) for x in jax.jit(jnp.linalg.eigh)(a)),
    }
    u, worst = FORMATS[dtype].unit, 0.0
    with jax.enable_x64(dtype == "float64"):
        for d in (1, 2, 3, 5, 15, 24):
            for spread in (1, 20):
                a = positive(d, d, spread).astype(dtype)
                w, v = (x.astype(np.longdouble) for x in functions[library](a))
                size = np.sqrt(np.sum(a.astype(np.longdouble) ** 2))
                back = np.sqrt(np.sum(((v * w) @ v.T - a) ** 2)) / size
                loss = np.sqrt(np.sum((v.T @ v - np.eye(d)) ** 2))
                worst = max(worst, float(back) / (d * u), float(loss) / (2 * d * u))
    assert worst <= NumericModel().eigh
