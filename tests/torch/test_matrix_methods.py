"""The matrix methods in torch: structures, periods, products, curvatures, and what is refused."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import pickle
from collections import Counter

import numpy as np
import pytest
import rootfree
import rootfree_torch
import torch
from rootfree import (
    CURVATURES,
    METHODS,
    DiagonalCurvature,
    Hyper,
    KroneckerCurvature,
    MatrixCurvature,
    OuterProductCurvature,
    Precision,
)
from rootfree.structures import STRUCTURES
from rootfree_array._precision import StalledStateWarning
from rootfree_torch import RFFullMatrixInverse, RFRMSProp, Shampoo, SIRFShampoo
from rootfree_torch._precision import DTYPES, native, policy_of
from torch.utils._python_dispatch import TorchDispatchMode

MATRIX = [method for method in METHODS.values() if method.matrix]
SHAPES = ((), (3,), (4, 3), (2, 1, 3), (2, 3, 2, 2), (1, 1))
STRUCTURED = {
    **{name: name for name in STRUCTURES},
    "blocks of 2": "block_diagonal(2)",
    "three groups": "hierarchical(1, 1)",
    "by axis": {1: "diagonal", 2: ("tril", "hierarchical(1, 2)"), 4: ["dense"] * 4},
}
TOLERANCE = 1e-10
"""Of a float64 trajectory of some steps: 2^-52 times a condition of 1e4 and a thousand operations.
"""


@pytest.fixture(params=MATRIX, ids=lambda method: method.class_name)
def matrix(request):
    """Return the class of every matrix method."""
    return getattr(rootfree_torch, request.param.class_name)


def fitting_shapes(structure):
    """Return the shapes that a structure has something to say about."""
    if not isinstance(structure, dict):
        return SHAPES
    return tuple(s for s in SHAPES if len(rootfree.shapes.merged(s)) in structure)


class InNumPy:
    """The core's own run of one parameter in float64: what the adapter must equal."""

    def __init__(self, method, param, hyper, *, period=1, scale=1.0, **options):
        self.rule = method.rule(Precision.uniform(np.dtype("float64")), **options)
        self.param = param.detach().numpy().astype(np.float64)[None]
        self.state = self.rule.init(self.param)
        self.hyper = Hyper(**hyper, curvature_scale=scale)
        self.period, self.count = period, 0

    def step(self, grad, curvature=None, phase=0):
        """Take a step."""
        grad = grad.numpy().astype(np.float64)[None]
        if curvature is not None:
            curvature = rootfree.mapped(curvature, lambda x: x.double().numpy()[None])
        observe = rootfree.observes(self.period, self.count, phase)
        step, self.state = rootfree.update(
            self.rule, grad, self.state, self.param, self.hyper, observe, curvature=curvature
        )
        self.param = rootfree.add_step(self.param, step)
        self.count += 1

    def check(self, param, state):
        """Compare parameter and state, role by role."""
        expected = rootfree.roles(self.state)
        assert state.keys() - {"phase"} == expected.keys()
        pairs = [(param.detach(), self.param), *((state[r], expected[r]) for r in expected)]
        for ours, theirs in pairs:
            assert ours.shape == theirs.shape[1:]
            np.testing.assert_allclose(ours.double().numpy(), theirs[0], TOLERANCE, TOLERANCE)


def tame(method):
    """Return hyper-parameters that keep every method stable at gradients of order 1."""
    hyper = {**method.hyper, "lr": 0.05, "momentum": 0.5, "weight_decay": 0.01, "damping": 0.1}
    return hyper | {"precond_lr": 0.05}


def through_a_file(state_dict):
    """Return what `torch.load` makes of it by default."""
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_signature():
    """SIRF-Shampoo takes what the paper has, by the words of every other adapter."""
    assert list(inspect.signature(SIRFShampoo).parameters) == [
        *("params", "lr", "precond_lr", "momentum", "precond_momentum", "damping", "weight_decay"),
        *("batch_size", "loss_reduction", "update_every", "stagger"),
        *("structure", "max_dim", "merge_dims", "trust_clip"),
        *("decay", "init_scale", "weight_decay_mode"),
        *("state_dtype", "compute_dtype", "product_dtype", "rounding"),
        *("maximize", "foreach", "compile"),
    ]


@pytest.mark.parametrize("stagger", [False, True])
@pytest.mark.parametrize("period", [1, 2, "function"])
def test_equals_the_core_in_numpy(matrix, period, stagger, normal):
    """Each method, shape and period, with first gradients that come late: as the core in NumPy."""
    method, hyper = matrix._method, tame(matrix._method)
    every = (lambda count: count in (0, 1, 3)) if period == "function" else period
    scale = {"batch_size": 4} if method.scaled else {}
    params = [torch.nn.Parameter(normal(i, s, torch.float64)) for i, s in enumerate(SHAPES)]
    optimizer = matrix(params, **hyper, **scale, update_every=every, stagger=stagger)
    references = [InNumPy(method, p, hyper, period=every, scale=4.0) for p in params]
    phases = set()
    for t in range(5):
        for i, p in enumerate(params):
            p.grad = None
            if t >= i % 2 and (i, t) != (2, 3):  # odd ones come a step later, one misses a step
                p.grad = normal(100 * (t + 1) + i, p.shape, torch.float64)
        optimizer.step()
        for p, reference in zip(params, references, strict=True):
            if p.grad is not None:
                phase = int(optimizer.state[p].get("phase", 0))
                phases.add(phase)
                reference.step(p.grad, phase=phase)
    assert phases == ({0, 1} if period == 2 and stagger else {0})
    for p, reference in zip(params, references, strict=True):
        reference.check(p, optimizer.state[p])


@pytest.mark.parametrize("structure", STRUCTURED.values(), ids=STRUCTURED)
def test_structures(structure, normal):
    """Every structure, also as a mapping and with several arrays to a factor."""
    method, hyper = SIRFShampoo._method, tame(SIRFShampoo._method)
    shapes = fitting_shapes(structure)
    params = [torch.nn.Parameter(normal(i, s, torch.float64)) for i, s in enumerate(shapes)]
    optimizer = SIRFShampoo(params, **hyper, structure=structure)
    references = [InNumPy(method, p, hyper, structure=structure) for p in params]
    for t in range(3):
        for i, (p, reference) in enumerate(zip(params, references, strict=True)):
            p.grad = normal(100 * (t + 1) + i, p.shape, torch.float64)
            reference.step(p.grad)
        optimizer.step()
    for p, reference in zip(params, references, strict=True):
        reference.check(p, optimizer.state[p])


def test_arrays_of_a_factor():
    """A factor of several arrays has a role for each; a plain one has its axis alone."""
    p = torch.nn.Parameter(torch.ones(5, 4))
    optimizer = SIRFShampoo([p], structure=("hierarchical(1, 2)", "diagonal"))
    optimizer.init_state()
    factors = {r: tuple(x.shape) for r, x in optimizer.state[p].items() if r.startswith("factor.")}
    first = {"factor.0.0": (1, 1), "factor.0.1": (1, 4), "factor.0.2": (2,)}
    second = {"factor.0.3": (2, 2), "factor.0.4": (2, 2), "factor.1": (4,)}
    assert factors == first | second


@pytest.mark.parametrize("structure", STRUCTURED.values(), ids=STRUCTURED)
@pytest.mark.parametrize("stored", ["float32", "stochastic"])
def test_a_file_in_the_middle_of_a_period(structure, stored, normal, take_steps, equal_bits):
    """State and groups survive `torch.save` and `weights_only`, and the period goes on."""
    options = {"structure": structure, "update_every": 3, "lr": 0.1}
    if stored == "stochastic":
        options |= {"state_dtype": "bfloat16", "rounding": "stochastic"}

    def begin():
        shapes = fitting_shapes(structure)
        params = [torch.nn.Parameter(normal(i, shape)) for i, shape in enumerate(shapes)]
        return SIRFShampoo(params, **options)

    whole, first, second = begin(), begin(), begin()
    take_steps(whole, *range(8))
    take_steps(first, *range(4))
    with torch.no_grad():
        pairs = (o.param_groups[0]["params"] for o in (first, second))
        for p, q in zip(*pairs, strict=True):
            q.copy_(p)
    second.load_state_dict(through_a_file(first.state_dict()))
    for other in (second, copy.deepcopy(second), pickle.loads(pickle.dumps(second))):
        take_steps(other, *range(4, 8))
        assert equal_bits(whole, other)


def test_half_of_a_buffer_does_not_load(normal):
    """A dict that lacks one array of a factor's average, or has it in another structure."""
    p = torch.nn.Parameter(normal(0))
    optimizer = SIRFShampoo([p])
    optimizer.init_state()
    saved = copy.deepcopy(optimizer.state_dict())
    del saved["state"][0]["factor_momentum.1"]
    with pytest.raises(ValueError, match=r"keeps.*'factor_momentum\.1'"):
        optimizer.load_state_dict(saved)
    diagonal = SIRFShampoo([p], structure="diagonal")
    diagonal.init_state()
    saved = optimizer.state_dict() | {"param_groups": diagonal.state_dict()["param_groups"]}
    with pytest.raises(ValueError, match=r"'factor.0'.*shape \(3, 3\).*expected \(3,\)"):
        optimizer.load_state_dict(saved)


def test_a_function_for_the_period(make_params, take_steps, equal_bits):
    """It is asked once a step for each count, stays out of the dict, and survives a copy."""
    asked = []

    def every(count):
        asked.append(count)
        return count % 2 == 0

    params = make_params()
    groups = [{"params": params[:2]}, {"params": params[2:], "update_every": 1}]
    optimizer, plain = SIRFShampoo(groups, update_every=every), SIRFShampoo(make_params())
    plain.param_groups[0].update(update_every=2, stagger=False)
    take_steps(optimizer, 0, 1, 2)
    take_steps(plain, 0, 1, 2)
    assert asked == [0, 1, 2]
    for ours, theirs in zip(params[:2], plain.param_groups[0]["params"][:2], strict=True):
        torch.testing.assert_close(ours, theirs)  # a period keeps products, a function cannot
    assert not torch.equal(params[2], plain.param_groups[0]["params"][2])
    assert [group["update_every"] for group in optimizer.param_groups] == [None, 1]
    saved = through_a_file(optimizer.state_dict())
    other = copy.deepcopy(optimizer)
    for o in (optimizer, other):
        o.load_state_dict(saved)
        take_steps(o, 3)
    assert asked == [0, 1, 2, 3, 3]
    assert equal_bits(optimizer, other)


def test_a_saved_function_leaves_the_period(make_params, take_steps):
    """A dict cannot hold a function: the optimizer that loads it keeps its own period."""
    source, number = (
        SIRFShampoo(make_params(), update_every=every) for every in (lambda count: True, 3)
    )
    take_steps(source, 0)
    number.load_state_dict(source.state_dict())
    assert number.param_groups[0]["update_every"] == 3
    source.load_state_dict(number.state_dict())
    assert source.param_groups[0]["update_every"] == 3


def test_the_period_spares_the_factors(matrix, normal, same_bits):
    """Between two updates the matrices keep their bits, while the parameter moves."""
    p = torch.nn.Parameter(normal(0))
    optimizer = matrix([p], lr=0.1, update_every=3)
    kept = []
    for t in range(4):
        p.grad = normal(10 + t)
        before = p.detach().clone()
        optimizer.step()
        assert not torch.equal(before, p)
        name = next(r for r in optimizer.state[p] if r.startswith(("statistic", "factor")))
        kept.append(optimizer.state[p][name].clone())
    assert [same_bits(kept[0], later) for later in kept[1:]] == [True, True, False]


@pytest.mark.parametrize("inputs", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_products(matrix, inputs, normal, same_bits):
    """16-bit inputs of products with float32 parameters: the core's steps, and other numbers."""
    p, q = (torch.nn.Parameter(normal(0, (4, 3))) for _ in range(2))
    hyper = tame(matrix._method)
    optimizer = matrix([p], **hyper, compute_dtype=inputs)
    exact = matrix([q], **hyper)
    rule = matrix._method.rule(policy_of(p, optimizer.param_groups[0]).precision(DTYPES))
    assert rule.precision.compute_dtype == inputs
    stack = p.detach().clone()[None]
    state = rule.init(stack)
    for t in range(4):
        p.grad = q.grad = normal(10 + t, (4, 3))
        optimizer.step()
        exact.step()
        step, state = rootfree.update(rule, p.grad[None], state, stack, Hyper(**hyper))
        stack = rootfree.add_step(stack, step)
    assert same_bits(p, stack[0])
    roles = {role: x for role, x in optimizer.state[p].items() if role != "step"}
    assert all(x.dtype == torch.float32 for x in roles.values())
    moved = (p - q).abs().max()
    assert 0 < moved < 0.05


def test_stochastic_state(matrix, normal, same_bits):
    """bfloat16 state that is rounded stochastically follows float32 state, and repeats itself."""
    options = {"state_dtype": "bfloat16", "rounding": "stochastic"}
    hyper = tame(matrix._method)
    runs = []
    for own in (options, options, {}):
        p = torch.nn.Parameter(normal(0, (4, 3)))
        optimizer = matrix([("weight", p)], **hyper, **own)
        for t in range(20):
            p.grad = normal(10 + t, (4, 3))
            optimizer.step()
        runs.append((p, optimizer.state[p]))
    (p, state), (again, _), (wide, reference) = runs
    assert same_bits(p, again)
    for role, x in state.items():
        if role not in ("step", "salt"):
            assert x.dtype == torch.bfloat16
            assert reference[role].dtype == torch.float32
    torch.testing.assert_close(p, wide, rtol=0.1, atol=0.1)


def test_stalled_factors():
    """Nearest rounding is warned of by the longest axis of the group: 2^-8 max(2, sqrt(d))."""
    short, long = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(100, 2))
    options = {"precond_lr": 0.02, "state_dtype": "bfloat16"}
    SIRFShampoo([short], **options)
    SIRFShampoo([torch.nn.Parameter(torch.ones(100, 0)), short], **options)
    with pytest.warns(StalledStateWarning, match="below 0.0390625") as caught:
        SIRFShampoo([short, long], **options)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_groups_of_their_own(normal):
    """A group's structure, period and rule do what they would do in an optimizer of their own."""
    own = [
        {"structure": "diagonal", "update_every": 2},
        {"structure": ["tril", "diagonal"], "merge_dims": 8, "compute_dtype": "bfloat16"},
        {"rule": "rf_rmsprop", "lr": 0.01},
        {"rule": "shampoo", "damping": 1e-3, "update_every": 3},
        {"rule": "rf_full_matrix_inverse", "exact": True, "damping": 0.0},
        {"rule": "sgd"},
    ]
    shared = {"batch_size": 4, "state_dtype": "float32", "compute_dtype": torch.float32}
    params = [torch.nn.Parameter(normal(i)) for i in range(len(own))]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in params]
    groups = [{"params": [p], **group} for p, group in zip(params, own, strict=True)]
    together = SIRFShampoo(groups, **shared)
    apart = []
    for p, group in zip(alone, own, strict=True):
        cls = getattr(rootfree_torch, METHODS[group.get("rule", "sirf_shampoo")].class_name)
        taken = inspect.signature(cls).parameters
        given = {k: v for k, v in {**shared, **group}.items() if k in taken}
        apart.append(cls([p], **given))
    for t in range(4):
        for i, (p, q) in enumerate(zip(params, alone, strict=True)):
            p.grad = q.grad = normal(100 * (t + 1) + i)
        for optimizer in (together, *apart):
            optimizer.step()
    for p, q, optimizer in zip(params, alone, apart, strict=True):
        assert torch.equal(p, q)
        assert together.state[p].keys() == optimizer.state[q].keys()
    saved = through_a_file(together.state_dict())
    other = SIRFShampoo(groups, **shared)
    other.load_state_dict(saved)
    assert other.param_groups == together.param_groups
    assert other.param_groups[1]["structure"] == ("tril", "diagonal")


def curvatures(normal, shape, dims, seed):
    """Return a curvature of each kind for a parameter of a shape, all of them positive."""
    size = int(np.prod(shape))

    def square(seed, n):
        x = normal(seed, (n, n), torch.float64)
        return x @ x.T / n

    return {
        "diagonal": DiagonalCurvature(normal(seed, shape, torch.float64).square()),
        "vectors": OuterProductCurvature(normal(seed, (3, *shape), torch.float64)),
        "matrix": MatrixCurvature(square(seed, size)),
        "factors": KroneckerCurvature(tuple(square(seed + i, n) for i, n in enumerate(dims))),
    }


@pytest.mark.parametrize("kind", CURVATURES)
def test_given_curvature(matrix, kind, normal):
    """Each kind that a method takes enters as in the core; others are refused by its name."""
    method, hyper = matrix._method, tame(matrix._method) | {"precond_lr": 0.01}
    params = [torch.nn.Parameter(normal(i, s, torch.float64)) for i, s in enumerate(SHAPES)]
    optimizer = matrix(params, **hyper, update_every=2, stagger=False)
    references = [InNumPy(method, p, hyper, period=2) for p in params]
    for t in range(3):
        given = {}
        for i, (p, reference) in enumerate(zip(params, references, strict=True)):
            p.grad = normal(100 * (t + 1) + i, p.shape, torch.float64)
            dims = reference.rule.dims(tuple(p.shape))
            given[p] = curvatures(normal, tuple(p.shape), dims, seed=1000 * (t + 1) + i)[kind]
        if kind not in method.curvatures:
            with pytest.raises(ValueError, match=r"the rule of 'group 0, parameter 0'"):
                optimizer.step(curvature=given)
            assert not optimizer.state
            return
        optimizer.step(curvature=given)
        for p, reference in zip(params, references, strict=True):
            reference.step(p.grad, given[p])
    for p, reference in zip(params, references, strict=True):
        reference.check(p, optimizer.state[p])


def test_a_bare_tensor_is_a_diagonal(normal):
    """A tensor in place of a curvature, for one parameter of two; the other has its gradient's."""
    a, b, c, d = (torch.nn.Parameter(normal(0)) for _ in range(4))
    bare, named = SIRFShampoo([a, b]), SIRFShampoo([c, d])
    for p in (a, b, c, d):
        p.grad = normal(1)
    bare.step(curvature={a: normal(2).square()})
    named.step(curvature={c: DiagonalCurvature(normal(2).square())})
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert not torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "given", "error", "match"),
    [
        ("SIRFShampoo", {"structure": "dens"}, ValueError, "unknown structure 'dens'.*dense"),
        ("SIRFShampoo", {"structure": 2}, TypeError, "`structure` must be a name"),
        ("SIRFShampoo", {"structure": ()}, TypeError, "`structure` must be a name"),
        ("SIRFShampoo", {"max_dim": 0}, ValueError, "`max_dim` must be >= 1"),
        ("SIRFShampoo", {"merge_dims": 2.0}, TypeError, "`merge_dims`"),
        ("SIRFShampoo", {"trust_clip": 1}, TypeError, "`trust_clip` must be True or False"),
        ("SIRFShampoo", {"init_scale": 0.0}, ValueError, "`init_scale` must be > 0"),
        ("SIRFShampoo", {"update_every": 0}, ValueError, "`update_every` must be >= 1"),
        ("SIRFShampoo", {"update_every": 1.5}, TypeError, "`update_every` must be an integer"),
        ("SIRFShampoo", {"update_every": None}, TypeError, "`update_every` must be an integer"),
        ("SIRFShampoo", {"compute_dtype": "float8"}, ValueError, "`compute_dtype` must be one of"),
        ("SIRFShampoo", {"compute_dtype": 16}, TypeError, "`compute_dtype` must be a dtype"),
        ("SIRFShampoo", {"precond_momentum": 1.0}, ValueError, "`precond_momentum` must be in"),
        ("Shampoo", {"damping": 0}, ValueError, "`damping` of Shampoo must be > 0"),
        ("FullAdaGrad", {"damping": 0.0}, ValueError, "`damping` of full-matrix AdaGrad"),
        ("RFFullMatrixInverse", {"exact": True}, ValueError, "`exact` needs damping=0"),
        ("RFShampoo", {"structure": "dense"}, TypeError, "structure"),
        ("RFRMSProp", {"update_every": 2}, TypeError, "update_every"),
        ("RFRMSProp", {"compute_dtype": "bfloat16"}, TypeError, "compute_dtype"),
    ],
    ids=str,
)
def test_refused_arguments(name, given, error, match):
    """TR02: a bad argument is reported before the parameters are looked at."""
    with pytest.raises(error, match=match):
        getattr(rootfree_torch, name)(None, **given)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"structure": ("dense", "diagonal", "dense")}, "`structure` names 3 axes.*has 2"),
        ({"structure": {1: "dense"}}, "`structure` has no entry for 2 axes"),
        ({"compute_dtype": "float64"}, "`compute_dtype` of a float32 parameter"),
    ],
    ids=str,
)
def test_refused_parameters(given, match, normal):
    """What does not go with a parameter is refused before any step, by its name and its group."""
    bias, weight = torch.nn.Parameter(normal(0, (3,))), torch.nn.Parameter(normal(1))
    optimizer = SIRFShampoo([("bias", bias)])
    with pytest.raises(ValueError, match=rf"^parameter 'weight': {match}") as caught:
        optimizer.add_param_group({"params": [("weight", weight)], **given})
    assert caught.value.__notes__ == ["in parameter group 1"]
    assert len(optimizer.param_groups) == 1
    with pytest.raises(ValueError, match=r"^parameter 'group 0, parameter 0'"):
        SIRFShampoo([weight], **given)
    empty = torch.nn.Parameter(torch.ones(0, 3))
    if "structure" in given:
        SIRFShampoo([empty], **given)  # it has no state, and needs no structure


def test_refused_curvature(normal, same_bits):
    """A curvature that does not fit is refused before anything is written, whatever its kind."""
    a, b, c = (torch.nn.Parameter(normal(i)) for i in range(3))
    exact = {"rule": "rf_full_matrix_inverse", "exact": True, "damping": 0.0}
    groups = [{"params": [("a", a), ("b", b)]}, {"params": [("c", c)], **exact}]
    optimizer = SIRFShampoo(groups)
    for p in (a, b, c):
        p.grad = normal(5)
    before = a.detach().clone()
    one = torch.ones
    for given, error, match in [
        ({b: DiagonalCurvature(one(2, 3))}, ValueError, r"'b' has shape \(2, 3\)"),
        ({b: OuterProductCurvature(one(3, 2))}, ValueError, r"'b'.*needs shape \(3, 3, 2\)"),
        ({b: MatrixCurvature(one(3, 3))}, ValueError, r"'b'.*needs shape \(6, 6\)"),
        ({b: KroneckerCurvature((one(3, 3),))}, ValueError, r"'b'.*\(3, 3\), \(2, 2\)"),
        ({b: KroneckerCurvature((one(3, 3), 2.0))}, TypeError, "'b' must be a tensor, got float"),
        ({b: MatrixCurvature(one(6, 6).int())}, TypeError, "'b'.*int32"),
        ({b: MatrixCurvature(one(6, 6).to_sparse())}, TypeError, "'b'.*sparse"),
        ({b: MatrixCurvature(one(6, 6, device="meta"))}, ValueError, "'b' is on meta"),
        ({c: MatrixCurvature(one(6, 6))}, ValueError, "rule of 'c', has no use"),
    ]:
        with pytest.raises(error, match=match):
            optimizer.step(curvature=given)
    assert same_bits(a, before)
    assert not optimizer.state


class Calls(TorchDispatchMode):
    """Counts what reaches torch's kernels."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Count a call and make it."""
        self.count[str(func)] += 1
        return func(*args, **(kwargs or {}))


def taken(optimizer, normal):
    """Return the decompositions and products that reach torch in two steps."""
    with Calls() as calls:
        for t in range(2):
            for i, p in enumerate(optimizer.param_groups[0]["params"]):
                p.grad = normal(100 * (t + 1) + i, p.shape)
            optimizer.step()
    words = {name.split(".")[1] for name in calls.count}
    parts = ("linalg", "eig", "svd", "cholesky", "inverse", "qr_", "lu_")
    found = {word for word in words if any(part in word for part in parts)}
    return found - {"_linalg_check_errors"}, words


def test_decompositions(matrix, normal):
    """9: the decompositions that reach torch are those which the catalogue declares."""
    params = [torch.nn.Parameter(normal(i, shape)) for i, shape in enumerate(SHAPES)]
    found, words = taken(matrix(params), normal)
    kernels = {"eigh": "_linalg_eigh", "solve": "_linalg_solve_ex"}
    assert found == {kernels[name] for name in matrix._method.decompositions}
    assert "bmm" in words


@pytest.mark.parametrize("structure", STRUCTURED.values(), ids=STRUCTURED)
def test_no_decomposition_in_a_structure(structure, normal):
    """9: nor is there one in a structure, or in its projection."""
    shapes = fitting_shapes(structure)
    params = [torch.nn.Parameter(normal(i, shape)) for i, shape in enumerate(shapes)]
    found, _ = taken(SIRFShampoo(params, structure=structure), normal)
    assert not found


def test_what_max_dim_made_diagonal_is_logged(caplog):
    """Once, when a group is made, with names; nothing where nothing was limited."""
    long, short = torch.nn.Parameter(torch.ones(50, 3)), torch.nn.Parameter(torch.ones(4))
    with caplog.at_level(logging.INFO, logger="rootfree_torch"):
        SIRFShampoo([short], max_dim=10)
        SIRFShampoo([long], max_dim=10, structure="diagonal")
        SIRFShampoo([("long", long)], max_dim=None)
        assert not caplog.records
        optimizer = SIRFShampoo([("short", short), ("long", long)], max_dim=10)
        optimizer.init_state()
    assert [record.getMessage() for record in caplog.records] == [
        "max_dim made axes of 'long' diagonal, of length 50"
    ]
    assert optimizer.state[long]["factor.0"].shape == (50,)
    assert optimizer.state[long]["factor.1"].shape == (3, 3)
    assert "rootfree_torch" in inspect.getdoc(SIRFShampoo)


def test_construction_takes_no_memory():
    """A parameter is checked on the meta device: a factor of 40 GB is planned, not allocated."""
    p = torch.nn.Parameter(torch.ones(100_000, 1))
    SIRFShampoo([p], max_dim=None)
    RFFullMatrixInverse([p])


def test_autocast_does_not_reach_the_step(matrix, normal, same_bits):
    """Products in a step have the dtype of `compute_dtype`, also where autocast is on."""
    inside, outside = (torch.nn.Parameter(normal(0, (8, 8))) for _ in range(2))
    optimizers = [matrix([p]) for p in (inside, outside)]
    for t in range(2):
        inside.grad = outside.grad = normal(10 + t, (8, 8))
        with torch.autocast("cpu", torch.bfloat16):
            optimizers[0].step()
            assert torch.is_autocast_enabled("cpu")
        optimizers[1].step()
    assert same_bits(inside, outside)


def test_the_device_is_asked_once(normal):
    """What a device can do is found out at construction, never in a step."""
    p = torch.nn.Parameter(normal(0, dtype=torch.bfloat16))
    optimizer = SIRFShampoo([p])
    misses = native.cache_info().misses
    for t in range(2):
        p.grad = normal(1 + t, dtype=torch.bfloat16)
        optimizer.step()
    assert native.cache_info().misses == misses
    assert native(torch.device("meta")) == ()


@pytest.mark.parametrize("units", [(), ("bfloat16",)])
def test_default_products_of_bfloat16_parameters(units, normal, monkeypatch):
    """bfloat16 parameters have bfloat16 products where the device has units for them."""
    precision = rootfree_torch._precision
    monkeypatch.setattr(precision, "native", lambda device: units)
    precision._policy.cache_clear()
    p = torch.nn.Parameter(normal(0, dtype=torch.bfloat16))
    found = policy_of(p, SIRFShampoo([p]).param_groups[0])
    precision._policy.cache_clear()
    expected = "bfloat16" if units else "float32"
    assert (found.compute, found.product, found.state) == (expected, expected, "float32")


def test_merged_axes(normal):
    """A convolution's kernel shares a factor: the roles count merged axes."""
    p = torch.nn.Parameter(normal(0, (4, 2, 3, 3)))
    optimizer = SIRFShampoo([p], merge_dims=9, structure={2: ("dense", "tril"), 3: "dense"})
    optimizer.init_state()
    shapes = {r: tuple(x.shape) for r, x in optimizer.state[p].items() if r.startswith("factor.")}
    assert shapes == {"factor.0": (4, 4), "factor.1": (2, 2), "factor.2": (9, 9)}


def test_training_with_everything(normal):
    """A small network, bfloat16 state and products, a structure and a period: the loss falls."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    x = normal(0, (64, 6))
    y = torch.sin(x.sum(dim=1, keepdim=True))
    optimizer = SIRFShampoo(
        model.named_parameters(),
        *(0.05, 0.2, 0.9, 0.5, 1e-3, 0.0),
        batch_size=64,
        update_every=2,
        structure={1: "diagonal", 2: ("hierarchical(2, 2)", "tril")},
        max_dim=100,
        state_dtype="bfloat16",
        compute_dtype="bfloat16",
        rounding="stochastic",
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_damping_of_zero_later(normal):
    """Shampoo's roots are taken of the eigenvalues plus the damping, as it stands in the group."""
    p, q = (torch.nn.Parameter(normal(0)) for _ in range(2))
    one, other = Shampoo([p], damping=1e-3), Shampoo([q], damping=1.0)
    other.param_groups[0]["damping"] = torch.tensor(1e-3)
    p.grad = q.grad = normal(1)
    one.step()
    other.step()
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


def test_a_diagonal_rule_has_no_period(normal):
    """A group of a diagonal rule observes in every step, whatever the optimizer's period."""
    p, q = (torch.nn.Parameter(normal(0)) for _ in range(2))
    mixed = SIRFShampoo([{"params": [p], "rule": "rf_rmsprop"}], update_every=100)
    pure = RFRMSProp([q])
    for t in range(3):
        p.grad = q.grad = normal(1 + t)
        mixed.step()
        pure.step()
    assert torch.equal(p, q)
