"""Buckets: equal parameters step together, each as if it were alone."""

from __future__ import annotations

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
import rootfree
import rootfree_array
from rootfree import METHODS, DiagonalCurvature, OuterProductCurvature
from rootfree_array import SGD, AdamW, RFRMSProp, Shampoo, SIRFShampoo, _buckets

HYPER = {"lr": 0.25, "momentum": 0.5, "weight_decay": 0.125, "precond_lr": 0.125, "damping": 0.125}
HYPER |= {"precond_momentum": 0.25}
EQUAL = {"a": (4, 3), "bias": (5,), "b": (4, 3), "number": (), "c": (4, 3), "gain": (5,)}
PERIODS = [(m.class_name, period) for m in METHODS.values() for period in (1, 3)[: m.matrix + 1]]


@pytest.fixture(params=PERIODS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def make(request, normal):
    """Return a function that makes an optimizer of each method, every step and every third."""
    name, period = request.param
    cls = getattr(rootfree_array, name)
    every = {"update_every": period} if cls.method.matrix else {}

    def make(shapes=EQUAL, dtype=np.float32, **given):
        hyper = {name: HYPER[name] for name in cls.method.hyper}
        return cls(normal(0, dtype, shapes), **{**hyper, **every, **given})

    return make


def names(optimizer):
    """Return the names in each bucket."""
    return [bucket.names for bucket in optimizer._store.arrangement.buckets.values()]


def together(optimizers, *grads, **given):
    """Take the same steps with several optimizers."""
    for grad in grads:
        for optimizer in optimizers:
            optimizer.step(grad, **given)


def test_equal_parameters_are_one_bucket(normal):
    """Rule, shape, dtype and device agree; the order of the parameters decides all else."""
    params = normal(0, np.float32, EQUAL)
    params["empty"] = np.ones((0, 3), np.float32)
    params["double"] = np.ones((4, 3))
    params["half"] = np.ones((4, 3), ml_dtypes.bfloat16)  # under the same rule as float32
    one_by_one = [(name,) for name in ("number", "double", "half")]
    assert names(SIRFShampoo(params)) == [("a", "b", "c"), ("bias", "gain"), *one_by_one]
    alone = names(SIRFShampoo(params, stack=False))
    assert sorted(alone) == sorted((name,) for name in params if name != "empty")


def test_devices_do_not_mix():
    """Parameters of two devices are two buckets, and all stays where it is."""
    here, there = (array_api_strict.Device(name) for name in ("device1", "device2"))
    where = {"a": here, "b": there, "c": here}
    single = array_api_strict.float32  # the default dtype depends on the device
    ones = {n: array_api_strict.ones((4, 3), dtype=single, device=d) for n, d in where.items()}
    optimizer = SIRFShampoo(ones)
    assert names(optimizer) == [("a", "c"), ("b",)]
    optimizer.step({**ones, "a": None})
    assert {name: param.device for name, param in optimizer.params.items()} == where
    for name, roles in optimizer.state.items():
        assert all(array.device == where[name] for array in roles.values())


def test_grouping_changes_no_bit(make, normal, same_bits):
    """On NumPy, whose batched products call BLAS once for each matrix, a stack is a loop."""
    stacked, alone = make(), make(stack=False)
    assert len(names(stacked)) < len(names(alone))
    together((stacked, alone), *(normal(number, np.float32, EQUAL) for number in range(5)))
    assert same_bits(stacked.params, alone.params)
    assert same_bits(stacked.state, alone.state)


@pytest.mark.parametrize("structure", rootfree.structures.STRUCTURES)
def test_grouping_changes_no_bit_of_a_structure(structure, normal, same_bits):
    """The same for every structure, at a size where BLAS blocks its products."""
    shapes = dict.fromkeys("abc", (48, 33))
    params = normal(0, np.float32, shapes)
    runs = [
        SIRFShampoo(params, structure=structure, update_every=2, stack=stack)
        for stack in (True, False)
    ]
    together(runs, *(normal(number, np.float32, shapes) for number in range(3)))
    assert same_bits(runs[0].params, runs[1].params)
    assert same_bits(runs[0].state, runs[1].state)


def test_members_do_not_see_each_other(make, normal, same_bits):
    """A gradient of 1e6 in one of three equal parameters moves the other two by no bit.

    Under an inverse covariance the one overflows.
    """
    calm, wild = make(), make()
    for number in range(4):
        grads = normal(number, np.float32, EQUAL)
        calm.step(grads)
        with np.errstate(all="ignore"):
            wild.step({**grads, "b": np.float32(1e6) * grads["b"]})
    for name in EQUAL:
        assert same_bits(calm.params[name], wild.params[name]) == (name != "b")
        assert same_bits(calm.state[name], wild.state[name]) == (name != "b")


@pytest.mark.parametrize("stack", [True, False])
def test_core_calls_do_not_grow_with_equal_parameters(stack, make, normal, calls):
    """Two or nine equal parameters cost as many calls, of a step in which all observe."""
    found = []
    for count in (2, 9):
        shapes = {str(i): (4, 3) for i in range(count)}
        optimizer = make(shapes, stack=stack)
        calls.clear()
        optimizer.step(normal(1, np.float32, shapes))
        found.append(dict(calls))
    expected = {"observed": 1, "advanced": 1, "add_step": 1}
    if stack:
        assert found == [expected, expected]
    else:
        assert found == [dict.fromkeys(expected, count) for count in (2, 9)]


def test_a_bucket_has_a_size(monkeypatch, normal, same_bits):
    """More members than memory allows become several buckets, as equal in size as can be."""
    shapes = {str(i): (4, 3) for i in range(7)}
    whole = SIRFShampoo(normal(shapes=shapes))
    monkeypatch.setattr(_buckets, "_MOST", 50)
    cut = SIRFShampoo(normal(shapes=shapes))
    assert names(cut) == [("0", "1", "2"), ("3", "4"), ("5", "6")]
    together((whole, cut), *(normal(number, shapes=shapes) for number in range(2)))
    assert same_bits(whole.params, cut.params)
    long = SIRFShampoo(normal(shapes=dict.fromkeys("ab", (1, 6))))  # a factor of 36 numbers
    assert names(long) == [("a",), ("b",)]
    monkeypatch.setattr(_buckets, "_MOST", 2)
    assert len(names(SIRFShampoo(normal(shapes=shapes)))) == 7


def test_without_matrices_a_bucket_fits_the_cache():
    """2**18 numbers together; a parameter that has them alone is never copied to a stack."""
    half = {name: np.zeros(2**17, np.float32) for name in "abc"}
    assert names(SGD(half)) == [("a", "b"), ("c",)]  # without state
    assert names(RFRMSProp(half)) == [("a", "b"), ("c",)]
    low = {"state_dtype": "bfloat16", "rounding": "stochastic"}
    assert names(RFRMSProp(half, **low)) == [("a", "b"), ("c",)]
    more = {name: np.zeros(2**17 + 1, np.float32) for name in "ab"}
    assert names(RFRMSProp(more)) == [("a",), ("b",)]
    assert names(SIRFShampoo(more, structure="diagonal")) == [("a", "b")]
    strict = {n: array_api_strict.asarray(p) for n, p in more.items()}
    assert names(RFRMSProp(strict)) == [("a", "b")]


def test_missing_gradients(make, normal, same_bits):
    """Value, state and count stay to the bit; the others do as alone, whoever is missing."""
    stacked, alone = make(), make(stack=False)
    for number, missing in enumerate(["b", "ac", "bias", "", "abc", "abcbiasgainnumber"]):
        grads = normal(number, np.float32, EQUAL)
        grads = {name: None if name in missing else grad for name, grad in grads.items()}
        before = {name: (stacked.params[name], stacked.state[name]) for name in EQUAL}
        together((stacked, alone), grads)
        for name in EQUAL:
            assert same_bits(stacked.params[name], alone.params[name])
            assert same_bits(stacked.state[name], alone.state[name])
            if grads[name] is None:
                param, state = before[name]
                assert stacked.params[name] is param
                assert same_bits(stacked.state[name], state)


def test_in_place_a_missing_gradient_writes_nothing(make, normal):
    """The array of a parameter without a gradient is not even assigned to."""
    optimizer = make(in_place=True)
    optimizer.params["b"].flags.writeable = False
    optimizer.step({**normal(1, np.float32, EQUAL), "b": None})
    assert int(optimizer.state["a"]["step"]) == 1


def test_buckets_without_gradients_are_not_run(normal, calls):
    """Nor is anything computed for an empty step; no gradient is ever NaN."""
    optimizer = AdamW(normal(shapes=EQUAL))
    grads = normal(1, shapes=EQUAL)
    optimizer.step({"gain": grads["gain"]})
    assert calls == {"observed": 1, "advanced": 1, "add_step": 1}
    optimizer.step({})
    assert calls == {"observed": 1, "advanced": 1, "add_step": 1}


@pytest.mark.parametrize("cls", [AdamW, SIRFShampoo])
def test_a_missing_gradient_is_zeros(cls, normal, monkeypatch):
    """What the core sees in its place is finite: a product of it would spread."""
    optimizer, seen = cls(normal(shapes=EQUAL)), []
    through = rootfree.advanced

    def spy(rule, grad, *args, **kwargs):
        seen.append((grad, kwargs["active"]))
        return through(rule, grad, *args, **kwargs)

    monkeypatch.setattr(rootfree, "advanced", spy)
    grads = normal(1, shapes=EQUAL)
    optimizer.step({"a": grads["a"], "c": grads["c"]})
    ((grad, active),) = seen
    assert active.tolist() == [True, False, True]
    assert np.array_equal(grad, [grads["a"], np.zeros((4, 3)), grads["c"]])


def test_a_late_parameter_starts_at_its_own_first_step(make, normal, same_bits):
    """Bias correction, period and the key of rounding bits go by a parameter's own count."""
    shapes = dict.fromkeys("ab", (4, 3))
    late, fresh = make(shapes), make(shapes)
    for number in range(5):
        late.step({"a": normal(number, np.float32, shapes)["a"]})
    for number in range(3):
        grads = normal(10 + number, np.float32, shapes)
        late.step(grads)
        fresh.step(grads)
        assert same_bits(late.params["b"], fresh.params["b"])
        assert same_bits(late.state["b"], fresh.state["b"])
    assert int(late.state["a"]["step"]) == 8


def curvatures(normal):
    """Return curvatures of several kinds for neighbours."""
    h = {name: np.abs(x) for name, x in normal(7, shapes=EQUAL).items()}
    vectors = OuterProductCurvature(np.stack([h["c"], 0.5 * h["c"]]))
    return [
        {"b": h["b"]},
        {"a": h["a"], "b": DiagonalCurvature(h["b"]), "c": h["c"]},
        {"a": h["a"], "c": vectors},
        {"b": OuterProductCurvature(h["b"][None]), "c": vectors},
    ]


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("period", [1, 3])
def test_curvatures_of_some_members(case, period, normal, same_bits):
    """Kinds may differ between neighbours; each member's is its own."""
    given = curvatures(normal)[case]
    runs = [
        SIRFShampoo(normal(shapes=EQUAL), update_every=period, stack=stack)
        for stack in (True, False)
    ]
    bare = SIRFShampoo(normal(shapes=EQUAL), update_every=period)
    bare.step(normal(1, shapes=EQUAL))
    together(runs, normal(1, shapes=EQUAL), curvature=given)
    for run in runs:
        for name in EQUAL:
            assert same_bits(run.state[name], bare.state[name]) == (name not in given)
    together(runs, {"b": None, **normal(2, shapes=EQUAL)}, curvature=given)
    assert same_bits(runs[0].params, runs[1].params)
    assert same_bits(runs[0].state, runs[1].state)


def test_curvatures_of_one_kind_are_one_call(normal, calls):
    """Three diagonals of three equal parameters enter together."""
    optimizer = SIRFShampoo(normal(shapes=dict.fromkeys("abc", (4, 3))))
    grads = normal(1, shapes=dict.fromkeys("abc", (4, 3)))
    optimizer.step(grads, curvature={name: grad**2 for name, grad in grads.items()})
    assert calls == {"observed": 1, "advanced": 1, "add_step": 1}


def test_rounding_bits_do_not_depend_on_grouping(make, normal, same_bits):
    """Stochastic bits go by name, count and place in the parameter, whoever stands beside it."""
    low = {"state_dtype": "bfloat16", "rounding": "stochastic"}
    if make().method.matrix:
        low["stagger"] = False  # turns do depend on who else is there
    start = normal(0, np.float32, dict.fromkeys("cab", (4, 3)))
    runs = [make(dict.fromkeys(names, (4, 3)), **low) for names in ("cab", "ba")]
    runs.append(make(dict.fromkeys("cab", (4, 3)), stack=False, **low))
    for run in runs:
        run.params = {name: start[name] for name in run.params}
    for number in range(4):
        grads = normal(number, np.float32, dict.fromkeys("cab", (4, 3)))
        for run in runs:
            run.step({name: grads[name] for name in run.params})
    for run in runs:
        assert all(same_bits(run.params[name], runs[0].params[name]) for name in run.params)
        assert all(same_bits(run.state[name], runs[0].state[name]) for name in run.params)
    assert not same_bits(runs[0].state["a"]["salt"], runs[0].state["b"]["salt"])


def test_a_failing_bucket_leaves_all_as_it_was(normal, unchanged):
    """The last bucket's eigenvalues do not converge: the first has not moved either."""
    optimizer = Shampoo(normal(shapes=EQUAL), in_place=True)
    optimizer.step(normal(1, shapes=EQUAL))
    grads = normal(2, shapes=EQUAL)
    grads["gain"][0] = np.nan
    with unchanged(optimizer), pytest.raises(np.linalg.LinAlgError):
        optimizer.step(grads)


@pytest.mark.parametrize("period", [1, 2])
def test_nothing_is_read_on_the_host(period, cls, normal, monkeypatch):
    """A step asks no array for a number, with missing gradients neither: no device has to wait."""

    def put(seed):
        return {n: array_api_strict.asarray(x) for n, x in normal(seed, shapes=EQUAL).items()}

    every = {"update_every": period} if cls.method.matrix else {}
    scalars = {name: array_api_strict.asarray(HYPER[name]) for name in cls.method.hyper}
    optimizer = cls(put(0), **every, **scalars)
    steps = [put(1), {**put(2), "b": None}, put(3), {"c": put(4)["c"]}]
    kind = type(scalars["lr"])
    for read in ("bool", "int", "float", "complex", "index"):
        monkeypatch.setattr(kind, f"__{read}__", refused)
    for grads in steps:
        optimizer.step(grads)
    monkeypatch.undo()
    assert int(optimizer.state["b"]["step"]) == 2


def refused(array):
    """Stand in for what a device would have to be waited for."""
    raise AssertionError("an array is read on the host")
