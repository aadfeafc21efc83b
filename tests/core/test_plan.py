"""The plan: what a rule costs, from its own text run on arrays without numbers."""

from __future__ import annotations

import math
import re
import tracemalloc

import array_api_strict
import jax.numpy
import ml_dtypes
import numpy as np
import pytest
import torch
from rootfree import METHODS, Hyper, Plan, Precision, SIRFShampoo, plan, roles, update
from rootfree._shapes_only import ShapeArray, ShapesOnly, itemsize
from rootfree._typing import Namespace, namespace
from rootfree.structures import STRUCTURES, named, structure

FLOAT32 = np.dtype("float32")
SINGLE = Precision.uniform(FLOAT32)
SHAPES = ((), (1,), (5,), (6, 4), (3, 1, 5), (4, 3, 2, 2))
# Libraries by their zeros, float32 and bfloat16.
LIBRARIES = {
    "numpy": (np.zeros, FLOAT32, np.dtype(ml_dtypes.bfloat16)),
    "torch": (torch.zeros, torch.float32, torch.bfloat16),
}
HYPER = Hyper(0.1, 0.1, 0.5, 0.5, damping=1e-3, weight_decay=0.1, curvature_scale=2.0)


# 3.2: numbers stored, then operations of K X, `outer` and K m, for X of shape (d, m).
TABLE = {
    "dense": lambda d, m: (d * d, 2 * d * d * m, 2 * d * d * m, 2 * d**3),
    "diagonal": lambda d, m: (d, d * m, 2 * d * m, d),
    "block_diagonal(30)": lambda d, m: (30 * d, 60 * d * m, 60 * d * m, 1800 * d),
    "triangular": lambda d, m: (d * d, 2 * d * d * m, 2 * d * d * m, 2 * d**3),
    "toeplitz": lambda d, m: (d, 2 * d * d * m, 2 * d * d * m, 2 * d * d),
    "hierarchical(15, 20)": lambda d, m: (
        *(15 * d + 20 * (d - 15) + d - 35, 70 * d * m, 70 * d * m, 2450 * d),
    ),
    "arrowhead": lambda d, m: (2 * d - 1, 4 * d * m, 4 * d * m, 4 * d),
}
SIDES = ("first_column", "last_row", "first_row", "last_column")
# Structures by the row that holds for them.
NAMES = {
    **{name: name for name in TABLE if name not in ("triangular", "toeplitz", "arrowhead")},
    **dict.fromkeys(("tril", "triu"), "triangular"),
    **dict.fromkeys(("tril_toeplitz", "triu_toeplitz"), "toeplitz"),
    **{f"arrowhead({side})": "arrowhead" for side in SIDES},
}
SHORT = ("block_diagonal(2)", "block_diagonal(4)", "hierarchical(2, 1)", "hierarchical(0, 2)")


@pytest.fixture(autouse=True)
def _one_thread():
    """Arrays as small as these are slower with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def precisions(single, half):
    """Return state in float32, and in bfloat16 with both roundings."""
    yield Precision.uniform(single)
    for rounding in ("nearest", "stochastic"):
        yield Precision(single, half, half, rounding, product_dtype=single)


def check_bytes(rule, library):
    """Check the plan of every shape against what is allocated, before and after a step."""
    zeros, single, _ = LIBRARIES[library]
    planned = plan(rule, SHAPES)
    for shape, row in zip(SHAPES, planned.rows, strict=True):
        param = zeros((1, *shape), dtype=single)
        state = rule.init(param)
        _, after = update(rule, param, state, param, HYPER)
        for found in (state, after):
            assert row.state_bytes == sum(x.nbytes for x in roles(found).values()), shape
    assert planned.state_bytes == sum(row.state_bytes for row in planned.rows)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", METHODS)
def test_bytes_of_every_method(name, library):
    """Equal to the byte to what NumPy and torch allocate, counters included."""
    for precision in precisions(*LIBRARIES[library][1:]):
        check_bytes(METHODS[name].rule(precision), library)
        check_bytes(METHODS[name].rule(precision, without=METHODS[name].buffers), library)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", [*NAMES, *SHORT])
def test_bytes_of_every_structure(name, library):
    """The same for the factors' structures, by themselves, mixed, and with axes merged."""
    for precision in precisions(*LIBRARIES[library][1:]):
        check_bytes(SIRFShampoo(precision, structure=name), library)
        check_bytes(SIRFShampoo(precision, structure=name, max_dim=4, merge_dims=6), library)
        mixed = {2: (name, "diagonal"), **dict.fromkeys((1, 4), name)}
        check_bytes(SIRFShampoo(precision, structure=mixed), library)


def test_every_structure_is_in_the_table():
    """A new structure needs a row."""
    assert {name.partition("(")[0] for name in NAMES} == set(STRUCTURES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("d", "m"), [(300, 300), (600, 150)])
def test_operations_of_every_structure(name, d, m):
    """3.2: stored numbers exactly, operations to leading order.

    The table counts (k1 + k2)^2 for K m of a hierarchical matrix, which takes k1^2 + k1 k2 + k2^2,
    and 4 for a row of an arrowhead's K X, which takes 3.
    """
    space = structure(name, d, SINGLE)
    xp = ShapesOnly()
    x = xp.array((1, d, m), FLOAT32)
    k = space.zeros(x)
    stored, *expected = TABLE[NAMES[name]](d, m)
    assert sum(part.size for part in k) == space.stored == stored
    calls = (lambda: space.apply(k, x), lambda: space.outer(x), lambda: space.times(k, k))
    for call, count in zip(calls, expected, strict=True):
        xp.flops.clear()
        call()
        assert 0.6 * count < xp.flops.total() < 1.1 * count


@pytest.mark.parametrize(("p", "d"), [(7, 5), (64, 64), (512, 32)])
@pytest.mark.parametrize("damping", [1.0, 0.0])
def test_twelve_products(p, d, damping):
    """4.7: the products of a dense 2-D step are the twelve of the table, ten without damping.

    On the shorter axis K K^T is formed and taken once, a product of d^3 in place of one of d^2 M.
    Products that are symmetric are taken in full. Elementwise and in sums, for an axis of length d:
    16 d^2 + 7 in `observe`, of which 4 d^2 + 3 for the damping; 5 for each number of the parameter
    in `descend`, and 1 for the counter.
    """
    row = plan(METHODS["sirf_shampoo"].rule(SINGLE), [(p, d)], damping=damping).rows[0]
    squares, cubes, mixed = p**2 + d**2, p**3 + d**3, p * d * (p + d)
    products, other = 4 * cubes + 4 * mixed, 16 * squares + 14
    if damping == 0:
        products, other = products - 2 * cubes, other - 4 * squares - 6
    assert row.observe_flops == products + other
    short, long = sorted((p, d))
    saved = 2 * short**2 * (long - short)
    assert row.direction_flops == 4 * mixed - saved + 5 * p * d + 1


def test_only_products_where_no_decomposition_is_declared():
    """The catalogue's `decompositions` are what the rules call, and products need a matrix."""
    for entry in METHODS.values():
        rule, xp = entry.rule(SINGLE), ShapesOnly()
        param = xp.array((1, 6, 4), FLOAT32)
        update(rule, param, rule.init(param), param, HYPER)
        assert (xp.flops["decompositions"] > 0) == bool(entry.decompositions), entry.name
        assert (xp.flops["products"] > 0) == entry.matrix, entry.name


def test_decompositions_by_their_leading_terms():
    """Golub, Van Loan: 9 n^3 for eigenvectors; 2/3 n^3 for L and U, 2 n^2 a right-hand side."""
    n, other = 90, 20 * 90**2
    root = plan(METHODS["full_adagrad"].rule(SINGLE), [(n,)]).rows[0]
    assert 0 <= root.observe_flops - (9 + 2) * n**3 < other
    solve = plan(METHODS["rf_full_matrix"].rule(SINGLE), [(n,)]).rows[0]
    assert 0 <= solve.direction_flops - (2 * n**3 // 3 + 2 * n**2) < other // n
    both = plan(METHODS["rf_shampoo"].rule(SINGLE), [(n,)]).rows[0]
    assert 0 <= both.observe_flops - (2 * n**3 // 3 + 2 * n**3) < other


@pytest.mark.parametrize(("p", "d"), [(3, 2), (64, 48)])
def test_state_of_a_dense_matrix(p, d):
    """R14: 2 (p^2 + d^2) + p d numbers, and a counter of 4 bytes; less without momentum."""
    entry = METHODS["sirf_shampoo"]
    numbers = 2 * (p * p + d * d) + p * d
    assert plan(entry.rule(SINGLE), [(p, d)]).state_bytes == 4 * numbers + 4
    bare = entry.rule(SINGLE, without=["momentum", "precond_momentum"])
    assert plan(bare, [(p, d)]).state_bytes == 4 * (p * p + d * d) + 4


@pytest.mark.parametrize("name", ["diagonal", "tril_toeplitz", "triu_toeplitz"])
@pytest.mark.parametrize("d", [10, 100_000])
def test_linear_state(name, d):
    """3.2: d numbers for K, for m and for the heavy ball of a vector."""
    rule = SIRFShampoo(SINGLE, structure=name)
    assert plan(rule, [(d,)]).state_bytes == 4 * 3 * d + 4


def test_an_embedding_has_no_square_of_its_vocabulary():
    """4.8: with the default `max_dim` the long axis is diagonal, and the plan says so."""
    (row,) = plan(METHODS["sirf_shampoo"].rule(SINGLE), {"embedding": (50_000, 512)}).rows
    assert row.name == "embedding"
    assert row.dims == row.shape == (50_000, 512)
    assert row.structure == ("diagonal", "dense")
    assert row.state_bytes == 4 * (2 * (50_000 + 512**2) + 50_000 * 512) + 4


def test_structure_by_axis():
    """Every axis that has a factor, after merging and `max_dim`; none for rules without them."""
    rule = SIRFShampoo(SINGLE, structure={4: "dense", 3: "dense", 2: "tril"}, merge_dims=16)
    wide, kernel = plan(rule, [(9, 1, 8000), (64, 64, 3, 3)]).rows
    assert (wide.dims, wide.structure) == ((9, 8000), ("tril", "diagonal"))
    assert (kernel.dims, kernel.structure) == ((64, 64, 9), ("dense",) * 3)
    flat = plan(METHODS["rf_full_matrix_factor"].rule(SINGLE), [(4, 3)]).rows[0]
    assert (flat.dims, flat.structure) == ((12,), ("dense",))
    assert plan(METHODS["shampoo"].rule(SINGLE), [(4, 3)]).rows[0].structure == ()
    assert plan(METHODS["sgd"].rule(SINGLE), [(4, 1, 3)]).rows[0].dims == (4, 1, 3)


@pytest.mark.parametrize("name", [*NAMES, *SHORT, *STRUCTURES])
def test_names_of_structures(name):
    """A plan shows a name that makes the same structure, with what it takes."""
    (shown,) = plan(SIRFShampoo(SINGLE, structure=name), [(20,)]).rows[0].structure
    assert structure(shown, 20, SINGLE) == structure(name, 20, SINGLE)
    assert shown.startswith(name)
    assert named(shown)[0] is STRUCTURES[name.partition("(")[0]]


def test_nothing_is_allocated():
    """A parameter of 3 GB with a factor of 160 GB is planned in less than a megabyte."""
    rule = SIRFShampoo(SINGLE, max_dim=None)
    plan(rule, [(2, 3)])  # what is imported and cached
    tracemalloc.start()
    try:
        found = plan(rule, {"huge": (200_000, 4096)})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20
    assert found.rows[0].structure == ("dense", "dense")
    assert found.state_bytes == 4 * (2 * (200_000**2 + 4096**2) + 200_000 * 4096) + 4


def test_totals_and_average():
    """Totals are sums over the rows; `observe` counts once in `update_every` steps."""
    shapes = [(6, 4), (3,), (6, 4), ()]
    found = plan(METHODS["sirf_shampoo"].rule(SINGLE), shapes)
    assert [row.name for row in found.rows] == ["0", "1", "2", "3"]
    assert [row.shape for row in found.rows] == shapes
    for total in ("state_bytes", "observe_flops", "direction_flops"):
        assert getattr(found, total) == sum(getattr(row, total) for row in found.rows)
    assert found.per_step() == found.observe_flops + found.direction_flops
    assert found.per_step(10) == found.observe_flops / 10 + found.direction_flops
    with pytest.raises(ValueError, match=re.escape("`update_every` must be >= 1, got 0")):
        found.per_step(0)


def test_table():
    """Names and shapes to the left, grouped numbers to the right, units in the head."""
    rule = METHODS["rf_rmsprop"].rule(SINGLE)
    text = str(plan(rule, {"weight": (50, 20), "b": (20,)}))
    assert (
        text
        == """\
name    shape     axes     state (bytes)  observe (flop)  direction (flop)
------  --------  -------  -------------  --------------  ----------------
weight  (50, 20)  50 x 20          8,004           4,000             8,001
b       (20,)     20                 164              80               161
------  --------  -------  -------------  --------------  ----------------
total                              8,168           4,080             8,162"""
    )
    wide = str(plan(METHODS["sirf_shampoo"].rule(SINGLE), {"w": (50_000, 512)}))
    assert " 50000 diagonal x 512 dense " in wide
    assert len({len(line) for line in wide.splitlines()}) == 1


def test_no_parameters():
    """A parameter without elements has no state and no work; neither have no parameters."""
    rule = METHODS["sirf_shampoo"].rule(SINGLE)
    for shapes in ({}, {"empty": (0, 3)}):
        found = plan(rule, shapes)
        assert (found.state_bytes, found.per_step()) == (0, 0)
        assert str(found).splitlines()[-1].split() == ["total", "0", "0", "0"]
    assert plan(rule, {}) == Plan(())


def test_shapes_may_be_arrays():
    """What has a shape will do: arrays, meta tensors, shapes of frameworks, lists."""
    rule = METHODS["sirf_shampoo"].rule(SINGLE)
    entries = [np.zeros((3, 2)), torch.empty((3, 2), device="meta"), torch.Size((3, 2)), [3, 2]]
    assert {row.shape for row in plan(rule, entries).rows} == {(3, 2)}


@pytest.mark.parametrize(
    ("shapes", "error", "message"),
    [
        ((3, 4), TypeError, "`shapes` must have a shape for every parameter, a tuple of integers"),
        ({"w": (2.0,)}, TypeError, "got (2.0,) for 'w'"),
        ({"w": (2, -1)}, ValueError, "lengths in a shape must be >= 0, got (2, -1) for 'w'"),
    ],
)
def test_shapes_are_checked(shapes, error, message):
    """The message names the parameter and what came."""
    with pytest.raises(error, match=re.escape(message)):
        plan(METHODS["sgd"].rule(SINGLE), shapes)


def test_exact_asks_for_no_damping():
    """What a rule refuses in a step, the plan of it refuses as well."""
    rule = METHODS["rf_full_matrix_inverse"].rule(SINGLE, exact=True)
    with pytest.raises(ValueError, match="set damping=0"):
        plan(rule, [(3,)])
    assert plan(rule, [(3,)], damping=0).state_bytes == 4 * (9 + 3) + 4


@pytest.mark.parametrize(
    "dtype",
    [
        *("float32", np.float32, np.dtype(">f4"), torch.float32, jax.numpy.float32),
        *(jax.numpy.dtype("float32"), array_api_strict.float32, array_api_strict.int32),
    ],
    ids=repr,
)
def test_bytes_of_a_number(dtype):
    """Every library's dtype says its size by itself or by its name."""
    assert itemsize(dtype) == 4


def test_bytes_of_other_numbers():
    """bfloat16 and others by name; what says nothing is refused."""
    assert {itemsize(d) for d in (torch.bfloat16, ml_dtypes.bfloat16, jax.numpy.bfloat16)} == {2}
    assert itemsize(array_api_strict.float64) == itemsize(torch.float64) == 8
    assert itemsize(ml_dtypes.float8_e4m3fn) == itemsize(torch.float8_e4m3fn) == 1
    with pytest.raises(TypeError, match="must have an `itemsize` or bits in its name, got None"):
        itemsize(None)


@pytest.mark.parametrize(
    "single", [np.float32, torch.float32, jax.numpy.float32, array_api_strict.float32], ids=repr
)
def test_dtypes_of_every_library(single):
    """Dtype objects are only passed on: the plan is the same with every library's."""
    reference = plan(METHODS["sirf_shampoo"].rule(SINGLE), SHAPES)
    found = plan(METHODS["sirf_shampoo"].rule(Precision.uniform(single)), SHAPES)
    assert found == reference


def test_a_gradient_may_have_another_dtype():
    """Casts count nothing, and state has its own dtype: the parameter's does not matter."""
    rule = METHODS["sirf_shampoo"].rule(SINGLE)
    assert plan(rule, SHAPES, param_dtype=np.dtype("float16")) == plan(rule, SHAPES)


# Functions by what they do to x of shape (2, 3, 4): the same in NumPy and without numbers.
FUNCTIONS = {
    "broadcast_to": lambda xp, x: xp.broadcast_to(x[:, :1, :], (5, 2, 7, 4)[1:]),
    "comparison": lambda xp, x: (x < 1) & (x == 0) & (x > x[0, ...]),
    "concat": lambda xp, x: xp.concat([x, x[:, 1:, :]], axis=1),
    "concat_last": lambda xp, x: xp.concat([x, x], axis=-1),
    "ellipsis": lambda xp, x: x[..., 1:],
    "expand_dims": lambda xp, x: xp.expand_dims(x, axis=-1) * xp.expand_dims(x[0, ...], axis=1),
    "flip": lambda xp, x: xp.flip(x, axis=1),
    "full_like": lambda xp, x: (
        xp.full_like(x, 2, dtype=xp.int32) + xp.zeros_like(x, dtype=xp.int32)
    ),
    "arange": lambda xp, x: xp.arange(2, 7, dtype=xp.int32),
    "integer_index": lambda xp, x: x[:, -1, ::2],
    "matmul": lambda xp, x: xp.matmul(x, xp.matrix_transpose(x[:1, :, :])),
    "max": lambda xp, x: xp.max(xp.abs(x), axis=-1),
    "permute_dims": lambda xp, x: xp.permute_dims(x, (2, 0, 1)),
    "pow": lambda xp, x: xp.pow(xp.maximum(x, xp.ones_like(x)), x),
    "reshape": lambda xp, x: xp.reshape(x, (-1, 6)),
    "slices": lambda xp, x: x[1:, ::-2, 5:],
    "solve": lambda xp, x: xp.linalg.solve(x[:, :, 1:] + xp.eye(3, dtype=x.dtype), x),
    "stack": lambda xp, x: xp.stack([x, x], axis=1),
    "stack_last": lambda xp, x: xp.stack([x, x], axis=-1),
    "sum": lambda xp, x: xp.sum(x),
    "sum_axis": lambda xp, x: xp.sum(x, axis=1),
    "take": lambda xp, x: xp.take(x, xp.arange(0, 2, dtype=xp.int32), axis=2),
    "triangles": lambda xp, x: xp.tril(x) + xp.triu(x, k=1),
    "vectors": lambda xp, x: xp.linalg.eigh(xp.matmul(x, xp.matrix_transpose(x)))[1],
    "values": lambda xp, x: xp.linalg.eigh(xp.matmul(x, xp.matrix_transpose(x)))[0],
    "where": lambda xp, x: xp.where(x[:, :1, :] < 0, -x, 1.0 / (1 - x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_shapes_are_those_of_numbers(name):
    """Every function returns the shape and the dtype's size that NumPy returns."""
    function, x = FUNCTIONS[name], np.linspace(2, 3, 24, dtype=FLOAT32).reshape(2, 3, 4)
    with_numbers = function(namespace(x), x)
    xp = ShapesOnly()
    without = function(xp, xp.array(x.shape, x.dtype))
    assert isinstance(without, ShapeArray)
    assert without.shape == with_numbers.shape
    assert (without.ndim, without.size) == (with_numbers.ndim, with_numbers.size)
    assert without.nbytes == with_numbers.nbytes
    assert namespace(without) is xp


def test_every_function_of_the_protocol():
    """The namespace has what the rules may use."""
    wanted = {*vars(Namespace), *Namespace.__annotations__}
    assert not [name for name in wanted if name[0] != "_" and not hasattr(ShapesOnly(), name)]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda xp, x: bool(x < 1), TypeError, "no rule may branch on a value"),
        (lambda xp, x: x + xp.zeros((4,), dtype=xp.int32), TypeError, "dtypes differ: float32, "),
        (lambda xp, x: x + x[:, :2, :], ValueError, "(2, 3, 4), (2, 2, 4)"),
        (lambda xp, x: xp.matmul(x, x), ValueError, "no product of (2, 3, 4)"),
        (lambda xp, x: xp.linalg.solve(x[:, :2, :2], x), ValueError, "no solution of (2, 2, 2)"),
        (lambda xp, x: xp.reshape(x, (5, -1)), ValueError, "cannot be reshaped to (5, -1)"),
        (lambda xp, x: xp.concat([x, x[:1, ...]], axis=1), ValueError, "cannot be joined on axis"),
        (lambda xp, x: xp.permute_dims(x, (0, 1)), ValueError, "cannot be permuted to (0, 1)"),
        (lambda xp, x: xp.broadcast_to(x, (3, 4)), ValueError, "cannot be broadcast to (3, 4)"),
        (lambda xp, x: x[:, 3, :], IndexError, "out of range"),
    ],
)
def test_what_numbers_would_refuse_is_refused(call, error, message):
    """A mistake of shape or dtype is found without numbers too, and so is a branch on a value."""
    xp = ShapesOnly()
    with pytest.raises(error, match=re.escape(message)):
        call(xp, xp.array((2, 3, 4), FLOAT32))


def test_a_step_keeps_shapes_and_dtypes():
    """The state after a step is laid out as before it, and the step like the parameter."""
    xp = ShapesOnly()
    for entry in METHODS.values():
        rule = entry.rule(SINGLE)
        param = xp.array((2, 4, 3), FLOAT32)
        state = rule.init(param)
        step, after = update(rule, param, state, param, HYPER)
        assert (step.shape, step.dtype) == (param.shape, FLOAT32)
        before, found = roles(state), roles(after)
        assert {k: (x.shape, x.dtype) for k, x in before.items()} == {
            k: (x.shape, x.dtype) for k, x in found.items()
        }
        assert all(math.prod(x.shape) for x in found.values())
