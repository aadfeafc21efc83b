"""A step: all parameters or none, in place or not, whatever shapes they have."""

from __future__ import annotations

import re
from zlib import crc32

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import rootfree
import rootfree_textbook
from rootfree_array import SGD, AdamW, RFRMSProp, init, update

HYPER = {"lr": 0.25, "momentum": 0.5, "weight_decay": 0.125}
FULL = {**HYPER, "precond_lr": 0.25, "damping": 0.125, "precond_momentum": 0.25}


def settings(cls):
    """Return hyper-parameters at which every term shows."""
    return {name: FULL[name] for name in cls.method.hyper}


def test_steps_are_the_textbooks(cls, normal, take_steps):
    """Four steps in float64, parameter and state, against the independent derivation."""
    optimizer = cls(normal(), **settings(cls))
    name = cls.method.name
    params = normal()
    state = {n: rootfree_textbook.init(name, p, with_momentum=True) for n, p in params.items()}
    for number in range(4):
        optimizer.step(normal(number), batch_size=3)
        for n, grad in normal(number).items():
            params[n], state[n] = rootfree_textbook.step(
                name, params[n], grad, state[n], **settings(cls), batch_size=3
            )
    for n, param in params.items():
        for ours, theirs in ((optimizer.params[n], param), *paired(optimizer.state[n], state[n])):
            within = 1e-12 * np.max(np.abs(theirs))
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=within)


def paired(ours, theirs):
    """Return pairs of arrays of two states that must have the same roles."""
    assert set(ours) == set(theirs)
    return [(ours[role], theirs[role]) for role in ours]


WRONG = {
    "shape": (np.ones((2, 2)), ValueError, r"gradient of 'weight' has shape \(2, 2\), its param"),
    "transposed": (np.ones((5, 3)), ValueError, r"has shape \(5, 3\), its parameter has \(3, 5\)"),
    "number": (np.ones(()), ValueError, r"gradient of 'weight' has shape \(\)"),
    "dtype": (np.ones((3, 5), np.float32), ValueError, "'weight' has dtype float32, its parameter"),
    "complex": (np.ones((3, 5), complex), ValueError, "gradient of 'weight' has dtype complex128"),
    "integer": (np.ones((3, 5), int), ValueError, "gradient of 'weight' has dtype int64"),
    "list": ([1.0, 2.0], TypeError, "gradient of 'weight' must be an array, got list"),
    "float": (1.0, TypeError, "gradient of 'weight' must be an array, got float"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("in_place", [False, True])
def test_a_refused_gradient_changes_nothing(cls, kind, in_place, normal, take_steps, unchanged):
    """The second of several gradients is wrong: the first parameter keeps value and state too."""
    optimizer = cls(normal(), in_place=in_place, **settings(cls))
    take_steps(optimizer, 0)
    grad, error, words = WRONG[kind]
    with unchanged(optimizer), pytest.raises(error, match=words):
        optimizer.step({**normal(1), "weight": grad})


def test_an_unknown_name_changes_nothing(normal, unchanged):
    """A gradient without a parameter is a mistake, not extra data; so is a curvature."""
    optimizer = RFRMSProp(normal())
    with unchanged(optimizer), pytest.raises(ValueError, match="no parameter is called 'wieght'"):
        optimizer.step({**normal(1), "wieght": np.ones(2)})
    with unchanged(optimizer), pytest.raises(ValueError, match="no parameter is called 'a', 'b'"):
        optimizer.step({"a": np.ones(2)}, curvature={"b": np.ones(2)})


@pytest.mark.parametrize("shape", [(5, 3), (), (3, 5, 1)])
def test_a_refused_curvature_changes_nothing(shape, normal, unchanged):
    """A curvature of the wrong shape is refused like a gradient."""
    optimizer = RFRMSProp(normal())
    with unchanged(optimizer), pytest.raises(ValueError, match="curvature of 'weight' has shape"):
        optimizer.step(normal(1), curvature={"weight": np.ones(shape)})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lr", -1.0, "`lr` must be >= 0, got -1.0"),
        ("lr", "fast", "`lr` must be a number or a 0-d array, got str"),
        ("momentum", 1.0, r"`momentum` must be in \[0, 1\), got 1.0"),
        ("precond_lr", 1.5, r"`precond_lr` must be in \[0, 1\), got 1.5"),
        ("learning_rate", 0.1, "learning_rate"),
    ],
)
def test_a_wrong_hyper_parameter_changes_nothing(name, value, words, normal, unchanged):
    """Hyper-parameters are checked at each step, before anything is made or written."""
    optimizer = RFRMSProp(normal(), momentum=0.0)
    optimizer.hyper["momentum"] = 0.5  # wants a buffer, which must not be made yet
    optimizer.hyper[name] = value
    with unchanged(optimizer), pytest.raises((TypeError, ValueError), match=words):
        optimizer.step(normal(1))


def test_a_missing_gradient_leaves_its_parameter(cls, normal, same_bits):
    """``None`` or no entry: value, state and count stay; the others move."""
    optimizer = cls(normal(), **settings(cls))
    before, state = optimizer.params["weight"], optimizer.state["weight"]
    grads = normal(1)
    optimizer.step({**grads, "weight": None})
    del grads["weight"]
    optimizer.step(grads)
    optimizer.step({})
    assert optimizer.params["weight"] is before
    assert same_bits(optimizer.state["weight"], state)
    assert int(optimizer.state["bias"]["step"]) == 2
    assert not same_bits(optimizer.params["bias"], normal()["bias"])


def test_in_place_keeps_the_arrays(cls, normal, take_steps, same_bits):
    """`in_place=True` writes into the arrays given, views of them included; numbers are equal."""
    arrays = normal()
    buffer = np.zeros((5, 3))
    arrays["weight"] = buffer.T
    arrays["weight"][...] = normal()["weight"]
    mine = cls(arrays, in_place=True, **settings(cls))
    other = cls(normal(), **settings(cls))
    for optimizer in (mine, other):
        take_steps(optimizer, 0, 1)
    assert all(mine.params[name] is array for name, array in arrays.items())
    assert same_bits(buffer.T, other.params["weight"])
    assert same_bits(arrays, other.params)


def test_not_in_place_leaves_the_arrays(cls, normal, take_steps, same_bits):
    """By default the arrays given, read-only ones too, stay as they are; so do the gradients."""
    arrays, grads = normal(), normal(1)
    for array in (*arrays.values(), *grads.values()):
        array.flags.writeable = False
    optimizer = cls(arrays, **settings(cls))
    optimizer.step(grads)
    optimizer.step(grads)
    assert same_bits(arrays, normal())
    assert same_bits(grads, normal(1))
    assert not any(np.shares_memory(optimizer.params[n], arrays[n]) for n in arrays)


@pytest.mark.parametrize(
    "frozen", [lambda: jnp.ones(2), lambda: np.broadcast_to(np.ones(1), (2,))], ids=["jax", "view"]
)
def test_in_place_needs_arrays_that_can_be_written(frozen):
    """An array that takes no assignment is refused at construction, not after half a step."""
    with pytest.raises((TypeError, ValueError)):
        SGD({"w": frozen()}, in_place=True)


def test_the_results_share_no_memory(cls, normal):
    """Overwriting a gradient, or what `state` returned, changes nothing inside."""
    optimizer = cls(normal(), **settings(cls))
    twin = cls(normal(), **settings(cls))
    for number in range(3):
        grads = normal(number)
        optimizer.step(grads)
        twin.step(normal(number))
        for array in grads.values():
            array[...] = np.nan
        for arrays in optimizer.state.values():
            for array in arrays.values():
                array[...] = 77
    for name in twin.params:
        assert np.array_equal(optimizer.params[name], twin.params[name])


def test_a_momentum_that_is_switched_on_gets_its_buffer(normal, same_bits):
    """From 0 to non-zero: the buffer starts at zero, statistic and count stay."""
    optimizer = RFRMSProp(normal(), momentum=0.0)
    optimizer.step(normal(1))
    assert set(optimizer.state["weight"]) == {"step", "statistic"}
    before = optimizer.state["weight"]
    optimizer.hyper["momentum"] = 0.5
    assert same_bits(optimizer.state["weight"], before)
    optimizer.step({"bias": normal(2)["bias"]})
    after = optimizer.state["weight"]
    assert set(after) == {"step", "statistic", "momentum"}
    assert same_bits(after["statistic"], before["statistic"])
    assert int(after["step"]) == 1
    assert not np.any(after["momentum"])
    assert np.any(optimizer.state["bias"]["momentum"])


def test_a_momentum_that_is_switched_off_keeps_its_buffer(cls, normal, take_steps):
    """To 0 and back: the buffer exists on, as 0 times itself plus the direction."""
    role = "first_moment" if cls.method.momentum == "average" else "momentum"
    optimizer = cls(normal(), **settings(cls))
    take_steps(optimizer, 0)
    optimizer.hyper["momentum"] = 0.0
    take_steps(optimizer, 1)
    assert role in optimizer.state["weight"]
    optimizer.hyper["momentum"] = 0.5
    take_steps(optimizer, 2)
    assert int(optimizer.state["weight"]["step"]) == 3


def test_a_momentum_of_zero_needs_no_buffer(cls, normal):
    """A Python 0 leaves the buffer out; an array is not read, so it gets one."""
    role = "first_moment" if cls.method.momentum == "average" else "momentum"
    zero = {**settings(cls), "momentum": 0}
    assert role not in cls(normal(), **zero).state["weight"]
    assert role in cls(normal(), **{**zero, "momentum": np.asarray(0.0)}).state["weight"]


def test_hyper_parameters_may_change(cls, normal, same_bits):
    """An entry of `hyper` counts from the next step on; 0-d arrays are as good as numbers."""
    one = cls(normal(), **settings(cls))
    other = cls(normal(), **{name: np.asarray(value) for name, value in settings(cls).items()})
    for number, lr in enumerate((0.5, 0.25, 0.0)):
        one.hyper["lr"] = lr
        other.hyper["lr"] = np.asarray(lr)
        before = one.params
        one.step(normal(number))
        other.step(normal(number))
        assert same_bits(one.params, other.params)
    assert same_bits(before, one.params)  # lr 0


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.asarray])
def test_scalars_of_other_kinds_widen_nothing(kind, cls, normal, same_bits):
    """NumPy's numbers and 0-d arrays as hyper-parameters: float32 stays, in value and in dtype."""
    scalars = {name: kind(value) for name, value in settings(cls).items()}
    one, other = (cls(normal(0, np.float32), **given) for given in (settings(cls), scalars))
    for number in range(2):
        one.step(normal(number, np.float32), batch_size=3)
        other.step(normal(number, np.float32), batch_size=np.float64(3))
    assert same_bits(one.params, other.params)
    assert same_bits(one.state, other.state)


def test_shapes(cls, take_steps, normal):
    """0-d parameters step like any other; parameters without elements stay, without state."""
    shapes = {"number": (), "one": (1,), "empty": (0, 4), "also": (3, 0, 2)}
    optimizer = cls(normal(shapes=shapes), **settings(cls))
    take_steps(optimizer, 0, 1)
    assert list(optimizer.state) == ["number", "one"]
    assert {name: param.shape for name, param in optimizer.params.items()} == shapes
    assert optimizer.state["number"]["step"].shape == ()
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    alone = cls({"x": normal(shapes=shapes)["number"].reshape(1)}, **settings(cls))
    for number in (0, 1):
        grads = normal(1000 + number, shapes=shapes)
        alone.step({"x": grads["number"].reshape(1)})
    assert float(alone.params["x"][0]) == float(optimizer.params["number"])


def test_parameters_do_not_see_each_other(cls, normal, same_bits):
    """Many parameters in one optimizer are as many optimizers, in any order."""
    together = cls(normal(), **settings(cls))
    backwards = cls(dict(reversed(normal().items())), **settings(cls))
    alone = {n: cls({n: p}, **settings(cls)) for n, p in normal().items()}
    for number in range(2):
        grads = normal(number)
        together.step(grads)
        backwards.step(grads)
        for name, optimizer in alone.items():
            optimizer.step({name: grads[name]})
    for name, optimizer in alone.items():
        assert same_bits(optimizer.params[name], together.params[name])
        assert same_bits(optimizer.state[name], together.state[name])
        assert same_bits(optimizer.params[name], backwards.params[name])


def test_mixed_dtypes(normal, same_bits):
    """Each parameter has the arithmetic of its own dtype."""
    dtypes = {"a": np.float64, "b": np.float32, "c": ml_dtypes.bfloat16, "d": np.float16}
    params = {name: np.ones(3, dtype) for name, dtype in dtypes.items()}
    optimizer = RFRMSProp(params, lr=0.3)
    optimizer.step(params)
    for name, dtype in dtypes.items():
        alone = RFRMSProp({name: params[name]}, lr=0.3)
        alone.step({name: params[name]})
        assert optimizer.params[name].dtype == dtype
        assert same_bits(optimizer.params[name], alone.params[name])


def test_curvature_replaces_the_squared_gradient(normal):
    """A caller's diagonal enters as it is: neither squared nor scaled by the batch size."""
    optimizer = RFRMSProp(normal(), lr=0.5, momentum=0.0, precond_lr=0.5, damping=0.0)
    grads, h = normal(1), np.full((3, 5), 4.0)
    optimizer.step(grads, batch_size=8, curvature={"weight": h})
    expected = 0.5 * np.ones((3, 5)) + 0.5 * h
    np.testing.assert_array_equal(optimizer.state["weight"]["statistic"], expected)
    np.testing.assert_allclose(
        optimizer.params["weight"], normal()["weight"] - 0.5 * grads["weight"] / expected
    )
    expected = 0.5 + 0.5 * 8 * grads["bias"] ** 2
    np.testing.assert_allclose(optimizer.state["bias"]["statistic"], expected, rtol=1e-15)


def test_a_curvature_that_nobody_reads_changes_nothing(normal, unchanged):
    """SGD keeps no statistic that a curvature could enter."""
    optimizer = SGD(normal(), momentum=0.5)
    with unchanged(optimizer), pytest.raises(ValueError, match=r"SGD, .*'bias', has no use"):
        optimizer.step(normal(1), curvature={"bias": np.ones(7)})


def test_salts_come_from_names():
    """The key of a parameter's rounding bits is the CRC-32 of its name, as int32."""
    names = ["weight", "layers.0.bias", "größe", ""]
    params = {name: np.ones(4, dtype=np.float32) for name in names}
    optimizer = RFRMSProp(params, state_dtype="bfloat16", rounding="stochastic")
    for name in names:
        salt = optimizer.state[name]["salt"]
        assert salt.dtype == np.int32
        assert int(salt) % 2**32 == crc32(name.encode())
    assert "salt" not in RFRMSProp(params).state["weight"]


def test_equal_parameters_of_other_names_round_otherwise():
    """Two parameters with equal numbers get bits of their own, and a run repeats itself."""
    params = {name: np.ones(64, dtype=np.float32) for name in ("a", "b")}
    runs = []
    for _ in range(2):
        optimizer = RFRMSProp(
            params, precond_lr=0.01, state_dtype="bfloat16", rounding="stochastic"
        )
        for _ in range(3):
            optimizer.step({name: 0.5 * param for name, param in params.items()})
        runs.append({name: roles["statistic"] for name, roles in optimizer.state.items()})
    assert np.array_equal(runs[0]["a"], runs[1]["a"])
    assert not np.array_equal(runs[0]["a"], runs[0]["b"])


def test_functional_form_is_the_class(cls, normal, same_bits):
    """`init` and `update` are what the class does, and what they are given stays valid."""
    from rootfree import Hyper

    optimizer = cls(normal(), **settings(cls))
    (rule,) = set(optimizer._rules.values())
    params, state = normal(), init(rule, normal())
    kept, first = params, state
    for number in range(3):
        hyper = Hyper(**settings(cls), curvature_scale=2.0)
        params, state = update(rule, params, {**normal(number), "bias": None}, state, hyper)
        optimizer.step({**normal(number), "bias": None}, batch_size=2)
    assert same_bits(params, optimizer.params)
    for name, roles in optimizer.state.items():
        for role, array in roles.items():
            assert same_bits(rootfree.roles(state[name])[role][0], array)
    assert same_bits(kept, normal())
    assert all(int(one.step[0]) == 0 for one in first.values())


def test_functional_form_checks_too(normal):
    """The same refusals, with the same words."""
    from rootfree import Hyper

    params = normal()
    (rule,) = set(AdamW(params)._rules.values())
    state = init(rule, params)
    with pytest.raises(ValueError, match="no parameter is called 'other'"):
        update(rule, params, {"other": np.ones(2)}, state, Hyper(0.1))
    with pytest.raises(ValueError, match=re.escape("gradient of 'bias' has shape (2,)")):
        update(rule, params, {"bias": np.ones(2)}, state, Hyper(0.1))
