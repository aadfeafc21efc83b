"""Structures of the factors: storage, products, projections (mathematics 3)."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from rootfree import Hyper, Precision, SIRFShampoo, update
from rootfree.structures import STRUCTURES, Structure, add, canonical, scale, structure

FLOAT64 = Precision.uniform(np.dtype("float64"))
ARROWHEADS = [
    f"arrowhead({side})" for side in ("first_column", "last_row", "first_row", "last_column")
]
NAMES = [
    "dense",
    "diagonal",
    *(f"block_diagonal({k})" for k in (1, 2, 3, 4)),
    "block_diagonal",
    "tril",
    "triu",
    "tril_toeplitz",
    "triu_toeplitz",
    *(f"hierarchical({k1},{k2})" for k1, k2 in [(0, 0), (1, 0), (0, 1), (3, 0), (0, 2), (2, 3)]),
    "hierarchical",
    *ARROWHEADS,
]
every_structure = pytest.mark.parametrize("name", NAMES)
every_size = pytest.mark.parametrize("d", range(1, 12))


def frozen(x: Any) -> np.ndarray:
    """Return an array that refuses to be written."""
    x = np.array(x)
    x.setflags(write=False)
    return x


def updated(space: Structure, rng: np.random.Generator, n: int, count: int = 3) -> Any:
    """Return what ``count`` updates ``K - eta K m`` make of the identity: not symmetric."""
    k = space.eye(np.zeros((n, 1)))
    for _ in range(count):
        x = space.apply_transposed(k, rng.normal(size=(n, space.size, 3)))
        m = add(scale(space.outer(x), 0.5), space.eye(x, -0.5))
        k = add(k, scale(space.times(k, m), -0.3 / np.maximum(1, space.squared_norm(m) ** 0.5)))
    return k


def example(space: Structure, *, n: int = 2, seed: int = 0) -> SimpleNamespace:
    """Return members of the class, k after three updates and m random, and what they act on."""
    rng, d = np.random.default_rng(seed), space.size
    parts = {
        "k": tuple(map(frozen, updated(space, rng, n))),
        "m": tuple(map(frozen, space.from_dense(rng.normal(size=(n, d, d))))),
        "x": frozen(rng.normal(size=(n, d, 4))),
        "w": frozen(rng.uniform(0.5, 2, size=(n, d))),
        "s": frozen(symmetric(rng, n, d)),
    }
    return SimpleNamespace(**parts)


def symmetric(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return symmetric matrices, exactly."""
    s = rng.normal(size=(n, d, d))
    return s + np.matrix_transpose(s)


def results(call: Any, v: SimpleNamespace) -> dict[str, Any]:
    """Return what each operation that has a dense fallback makes of an example."""
    return {
        "eye": call("eye", v.x, 0.7),
        "apply": (call("apply", v.k, v.x),),
        "apply of another": (call("apply", v.m, v.x),),
        "apply_transposed": (call("apply_transposed", v.k, v.x),),
        "apply_transposed of another": (call("apply_transposed", v.m, v.x),),
        "times": call("times", v.k, v.m),
        "times the other way": call("times", v.m, v.k),
        "outer": call("outer", v.x),
        "gram": call("gram", v.m),
        "gram of k": call("gram", v.k),
        "weighted gram": call("gram", v.m, v.w),
        "row_squares": (call("row_squares", v.m),),
    }


def everything(space: Structure, v: SimpleNamespace) -> dict[str, Any]:
    """Return what every operation makes of an example, as tuples of arrays."""
    return results(lambda name, *args: getattr(space, name)(*args), v) | {
        "zeros": space.zeros(v.x),
        "project": space.project(v.s),
        "to_dense": (space.to_dense(v.m),),
        "from_dense": space.from_dense(v.s),
        "squared_norm": (space.squared_norm(v.m),),
        "max_abs": (space.max_abs(v.m),),
    }


def close(actual: Any, expected: Any, tolerance: float) -> None:
    """Compare two dictionaries of tuples of arrays, each to the size of what is expected."""
    assert actual.keys() == expected.keys()
    for key in expected:
        for a, b in zip(actual[key], expected[key], strict=True):
            a, b = np.asarray(a), np.asarray(b)
            assert a.shape == b.shape, key
            allowed = tolerance * max(1.0, np.abs(b).max())
            np.testing.assert_allclose(a, b, rtol=0, atol=allowed, err_msg=key)


@every_structure
@every_size
def test_fast_operations_equal_the_dense_ones(name, d):
    """3.1: every product of the table, on members that are not symmetric, to 1e-12."""
    space = structure(name, d, FLOAT64)
    v = example(space)
    dense = results(lambda name, *args: getattr(Structure, name)(space, *args), v)
    close(results(lambda name, *args: getattr(space, name)(*args), v), dense, 1e-12)
    for factor in (v.k, v.m):
        k = space.to_dense(factor)
        np.testing.assert_allclose(space.squared_norm(factor), (k * k).sum((1, 2)), rtol=1e-13)
        np.testing.assert_array_equal(space.max_abs(factor), np.abs(k).max((1, 2)))


@every_structure
@every_size
def test_class_is_closed(name, d):
    """Section 1: sums, multiples and products stay in the class; its storage holds them exactly."""
    space = structure(name, d, FLOAT64)
    v = example(space)
    k, m = space.to_dense(v.k), space.to_dense(v.m)
    for matrix, factor in ((k, v.k), (m, v.m)):
        assert matrix.shape == (2, d, d)
        for part, stored in zip(space.from_dense(matrix), factor, strict=True):
            np.testing.assert_array_equal(part, stored)
    np.testing.assert_allclose(space.to_dense(space.times(v.k, v.m)), k @ m, atol=1e-13)
    np.testing.assert_array_equal(space.to_dense(add(v.k, scale(v.m, 0.3))), k + 0.3 * m)
    np.testing.assert_array_equal(
        space.to_dense(space.eye(v.x, 0.7)), np.stack([0.7 * np.eye(d)] * 2)
    )
    assert not np.any(space.to_dense(space.zeros(v.x)))


@every_structure
@every_size
def test_shapes_are_those_of_every_array(name, d):
    """3: no result has another shape than the storage has, and no array is empty."""
    space = structure(name, d, FLOAT64)
    found = everything(space, example(space))
    assert all(np.prod(shape) > 0 for shape in space.shapes)
    assert space.stored == sum(np.prod(shape) for shape in space.shapes)
    for key in ("eye", "zeros", "times", "outer", "gram", "weighted gram", "project", "from_dense"):
        assert tuple(part.shape[1:] for part in found[key]) == space.shapes, key
        assert all(part.dtype == np.float64 and part.shape[0] == 2 for part in found[key]), key


LAYOUTS = [
    ("dense", [[1, 2], [3, 4]]),
    ("diagonal", [[1, 0], [0, 2]]),
    ("block_diagonal(2)", [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]]),
    ("block_diagonal(2)", [[1, 2, 0], [3, 4, 0], [0, 0, 5]]),
    ("block_diagonal(3)", [[1, 2], [3, 4]]),
    ("tril_toeplitz", [[1, 0, 0], [2, 1, 0], [3, 2, 1]]),
    ("triu_toeplitz", [[1, 2, 3], [0, 1, 2], [0, 0, 1]]),
    (
        "hierarchical(1, 2)",
        [
            [1, 2, 3, 4, 5],
            [0, 6, 0, 0, 0],
            [0, 0, 7, 0, 0],
            [0, 8, 9, 12, 13],
            [0, 10, 11, 14, 15],
        ],
    ),
    ("hierarchical(2, 2)", [[1, 2, 5], [3, 4, 6], [0, 0, 7]]),
    ("hierarchical(2, 2)", [[1, 2], [3, 4]]),
    ("hierarchical(0, 1)", [[1, 0, 0], [0, 2, 0], [3, 4, 5]]),
    ("arrowhead(first_column)", [[1, 0, 0], [4, 2, 0], [5, 0, 3]]),
    ("arrowhead(last_row)", [[1, 0, 0], [0, 2, 0], [4, 5, 3]]),
    ("arrowhead(first_row)", [[1, 4, 5], [0, 2, 0], [0, 0, 3]]),
    ("arrowhead(last_column)", [[1, 0, 4], [0, 2, 5], [0, 0, 3]]),
    ("arrowhead", [[1]]),
]


@pytest.mark.parametrize(("name", "matrix"), LAYOUTS)
def test_layout(name, matrix):
    """3: where the stored numbers, counted from 1, stand; the order of the arrays is that of state.

    Triangular matrices are stored as they are.
    """
    space = structure(name, len(matrix), FLOAT64)
    numbers = np.split(np.arange(1.0, space.stored + 1), np.cumsum([*map(np.prod, space.shapes)]))
    factor = tuple(
        x.reshape(1, *shape) for x, shape in zip(numbers[:-1], space.shapes, strict=True)
    )
    np.testing.assert_array_equal(space.to_dense(factor)[0], matrix)


@every_structure
@every_size
def test_projection_keeps_trace_and_identity(name, d):
    """3: tr Pi(N) = tr N and Pi(I) = I, the latter in every bit."""
    space = structure(name, d, FLOAT64)
    s = symmetric(np.random.default_rng(d), 2, d)
    traces = np.trace(space.to_dense(space.project(s)), axis1=1, axis2=2)
    np.testing.assert_allclose(traces, np.trace(s, axis1=1, axis2=2), atol=1e-13)
    eye = np.eye(d)[None]
    np.testing.assert_array_equal(space.to_dense(space.project(eye)), eye)


@every_structure
@pytest.mark.parametrize("d", [2, 5, 8])
def test_P23_projection_is_twice_the_natural_gradient(name, d):  # noqa: N802  # a law's number
    """P23: with the Fisher 1/2 ||dM + dM^T||^2 restricted to the class, from a linear solve.

    A class that holds both (i, j) and (j, i) has skew matrices, along which the Fisher is 0; the
    solution of least norm has none of them.
    """
    space = structure(name, d, FLOAT64)
    units = np.eye(d * d).reshape(d * d, d, d)
    basis = space.to_dense(space.from_dense(units))
    basis = basis[basis.any((1, 2))]
    moves = basis + np.matrix_transpose(basis)
    fisher = 0.5 * np.einsum("aij,bij->ab", moves, moves)
    s = symmetric(np.random.default_rng(d), 1, d)
    gradient = np.einsum("ij,aij->a", s[0], basis)
    natural = np.linalg.lstsq(fisher, gradient)[0]
    expected = 2 * np.einsum("a,aij->ij", natural, basis)
    np.testing.assert_allclose(space.to_dense(space.project(s))[0], expected, atol=1e-13)


@every_structure
def test_P22_structure_is_exact_after_100_updates(name):  # noqa: N802  # a law's number
    """P22: what is outside of the class is 0.0, not nearly; dense factors lose their symmetry."""
    space = structure(name, 6, FLOAT64)
    k = space.to_dense(updated(space, np.random.default_rng(0), 2, count=100))
    inside = space.to_dense(space.from_dense(np.ones((2, 6, 6)))) != 0
    assert np.all(k[~inside] == 0)
    assert np.all(k[inside] != 0)
    if name not in ("diagonal", "block_diagonal(1)", "hierarchical(0,0)"):
        assert np.abs(k - np.matrix_transpose(k)).max() > 1e-3


@every_structure
@every_size
def test_stack_is_its_members(name, d):
    """Architecture, laws of a rule: a member's bits do not depend on the others."""
    space = structure(name, d, FLOAT64)
    v = example(space, n=3)
    stacked = everything(space, v)
    for i in range(3):
        member = SimpleNamespace(
            **{
                key: tuple(part[i : i + 1] for part in value)
                if isinstance(value, tuple)
                else value[i : i + 1]
                for key, value in vars(v).items()
            }
        )
        for key, parts in everything(space, member).items():
            for alone, part in zip(parts, stacked[key], strict=True):
                np.testing.assert_array_equal(alone, part[i : i + 1], err_msg=key)


def converted(v: SimpleNamespace, to: Any) -> SimpleNamespace:
    """Return an example in another library's arrays."""
    return SimpleNamespace(
        **{
            key: tuple(map(to, value)) if isinstance(value, tuple) else to(value)
            for key, value in vars(v).items()
        }
    )


LIBRARIES = {
    "array_api_strict": (array_api_strict.asarray, array_api_strict.float64),
    "torch": (lambda x: torch.tensor(np.array(x)), torch.float64),
}


@every_structure
@every_size
@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_agree(name, d, library):
    """The text of a structure is the array API's alone: one result in every library."""
    to, dtype = LIBRARIES[library]
    expected = everything(space := structure(name, d, FLOAT64), v := example(space))
    found = everything(structure(name, d, Precision.uniform(dtype)), converted(v, to))
    assert {part.dtype for parts in found.values() for part in parts} == {dtype}
    close(found, expected, 1e-13)


@every_structure
@pytest.mark.parametrize("d", [1, 7])
def test_jax_agrees(name, d):
    """No value is read: all operations trace, and compiled they return the same."""
    expected = everything(space := structure(name, d, FLOAT64), v := example(space))
    with jax.enable_x64(True):
        traced = structure(name, d, Precision.uniform(jnp.dtype("float64")))
        compiled = jax.jit(lambda arrays: everything(traced, SimpleNamespace(**arrays)))
        found = compiled(vars(converted(v, jnp.asarray)))
        assert {str(part.dtype) for parts in found.values() for part in parts} == {"float64"}
        close(found, expected, 1e-13)


@every_structure
@pytest.mark.parametrize("d", [1, 4, 9])
def test_compute_dtype_is_that_of_products_only(name, d):
    """4.1: with bfloat16 products every result is float32, and right to bfloat16's 2^-8.

    A product of rounded numbers has a relative error of 2^-8 in every term; four inputs and d terms
    of size 1 leave the sums here within 4 sqrt(d) 2^-8 of their largest entry.
    """
    precision = Precision(torch.float32, torch.float32, torch.bfloat16)
    expected = everything(space := structure(name, d, FLOAT64), v := example(space))
    inputs = converted(v, lambda x: torch.tensor(np.array(x), dtype=torch.float32))
    found = everything(structure(name, d, precision), inputs)
    assert {part.dtype for parts in found.values() for part in parts} == {torch.float32}
    close(found, expected, 4 * d**0.5 * 2.0**-8)


@every_structure
def test_storage_is_linear_but_for_dense_and_triangular_ones(name):
    """3.2: twice the axis, twice the numbers; `square` says so of what stores four times."""
    sizes = [structure(name, d, FLOAT64).stored for d in (1000, 2000)]
    if name in ("dense", "tril", "triu"):
        assert sizes == [1000**2, 2000**2]
        assert STRUCTURES[name].square
    else:
        assert sizes[1] <= 2.1 * sizes[0]
        assert sizes[0] <= 31 * 1000


@pytest.mark.parametrize(
    "name", ["diagonal", "block_diagonal", "block_diagonal(7)", "hierarchical", *ARROWHEADS]
)
def test_linear_structures_form_no_square(name):
    """3.2: at d = 3000 no operation of a step ever holds d^2 numbers, nor a quarter of that."""
    d = 3000
    space = structure(name, d, FLOAT64)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, d, 2)), rng.uniform(size=(1, d))
    k = tuple(rng.normal(size=(1, *shape)) for shape in space.shapes)
    tracemalloc.start()
    try:
        results(
            lambda name, *args: getattr(space, name)(*args), SimpleNamespace(k=k, m=k, x=x, w=w)
        )
        space.zeros(x), space.squared_norm(k), space.max_abs(k)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * d * d / 4


EQUAL = [
    ("arrowhead(first_row)", "hierarchical(1,0)", 5),
    ("arrowhead(last_row)", "hierarchical(0,1)", 5),
    ("arrowhead(first_column)", "tril", 2),
    ("arrowhead(last_row)", "tril", 2),
    ("arrowhead(first_row)", "triu", 2),
    ("arrowhead(last_column)", "triu", 2),
    ("block_diagonal(1)", "diagonal", 5),
    ("block_diagonal(5)", "dense", 5),
    ("block_diagonal", "dense", 5),
    ("hierarchical(0,0)", "diagonal", 5),
    ("hierarchical(5,1)", "dense", 5),
    ("hierarchical(0,7)", "dense", 5),
    ("arrowhead", "arrowhead(first_row)", 5),
    ("hierarchical", "hierarchical(15,15)", 40),
    ("block_diagonal", "block_diagonal(30)", 40),
    *((name, "dense", 1) for name in NAMES),
]


@pytest.mark.parametrize(("one", "other", "d"), EQUAL)
def test_structures_that_are_one(one, other, d):
    """3, 3.3: SIRF-Shampoo takes the same steps with structures that hold the same matrices."""
    rng = np.random.default_rng(0)
    param, grads = rng.normal(size=(2, d, 3)), rng.normal(size=(3, 2, d, 3))
    hyper = Hyper(lr=0.1, precond_lr=0.3, precond_momentum=0.5, momentum=0.9, damping=0.1)

    def steps(name: str) -> np.ndarray:
        axes = canonical({1: "dense", 2: (name, "dense")})
        rule = SIRFShampoo(FLOAT64, structure=axes)
        state, out = rule.init(param), []
        for grad in grads:
            step, state = update(rule, grad, state, param, hyper)
            out.append(step)
        return np.stack(out)

    np.testing.assert_allclose(steps(one), steps(other), atol=1e-13)


def test_names():
    """3: the table's structures in the table's order, with its defaults."""
    assert list(STRUCTURES) == [
        "dense",
        "diagonal",
        "block_diagonal",
        "tril",
        "triu",
        "tril_toeplitz",
        "triu_toeplitz",
        "hierarchical",
        "arrowhead",
    ]
    for bare, full in (
        ("block_diagonal", "block_diagonal(30)"),
        ("hierarchical", "hierarchical( 15 , 15 )"),
        ("arrowhead", "arrowhead(first_row)"),
    ):
        assert structure(bare, 50, FLOAT64) == structure(full, 50, FLOAT64)
    assert structure("hierarchical(2,0)", 9, FLOAT64) != structure("hierarchical(2,1)", 9, FLOAT64)


WRONG = [
    ("tridiagonal", "known: dense, diagonal, block_diagonal, tril"),
    ("dense(3)", "takes nothing"),
    ("diagonal()", "takes nothing"),
    ("tril(1)", "takes nothing"),
    ("triu_toeplitz(4)", "takes nothing"),
    ("block_diagonal(0)", r"integers >= 1 in parentheses, \(size of a block\).*got \(0\)"),
    ("block_diagonal(k)", r"got \(k\)"),
    ("block_diagonal()", r"got \(\)"),
    ("block_diagonal(3, 3)", r"got \(3, 3\)"),
    ("block_diagonal(-3)", "unknown structure"),
    ("block_diagonal(1_0)", r"got \(1_0\)"),
    ("hierarchical(15)", r"integers >= 0 in parentheses, \(k1, k2\).*got \(15\)"),
    ("hierarchical(3,,4)", r"got \(3, , 4\)"),
    ("hierarchical(1,b)", r"got \(1, b\)"),
    ("hierarchical(1,2,3)", r"got \(1, 2, 3\)"),
    ("arrowhead(top)", r"one of first_column, last_row, first_row, last_column.*got \(top\)"),
    ("arrowhead(first_row, last_row)", r"got \(first_row, last_row\)"),
    ("arrowhead()", r"got \(\)"),
]


@pytest.mark.parametrize(("name", "message"), WRONG)
def test_wrong_names_are_refused(name, message):
    """Style 23: the message has the name, what came and what is taken."""
    with pytest.raises(ValueError, match=message) as caught:
        structure(name, 5, FLOAT64)
    assert repr(name) in str(caught.value)
