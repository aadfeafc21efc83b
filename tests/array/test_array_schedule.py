"""Turns within a period: who observes when, how even the work is, and what is saved of it."""

from __future__ import annotations

import numpy as np
import pytest
import rootfree
import rootfree_array
from rootfree import METHODS, Hyper
from rootfree_array import RFRMSProp, SIRFShampoo

MATRIX = [getattr(rootfree_array, m.class_name) for m in METHODS.values() if m.matrix]
HYPER = {"lr": 0.25, "momentum": 0.5, "weight_decay": 0.125, "precond_lr": 0.125, "damping": 0.125}
HYPER |= {"precond_momentum": 0.25}
WHOLE = [cls for cls in MATRIX if "Full" in cls.__name__]
SHAPES = {"a": (4, 3), "bias": (5,), "b": (4, 3), "c": (4, 3), "gain": (5,), "wide": (2, 6)}
# gpt4x256 of the benchmarks, every length divided by 16; by 64 where a matrix has all of them
GPT = {
    f"{block}.{name}": shape
    for block in range(4)
    for name, shape in {
        "qkv": (48, 16),
        "out": (16, 16),
        "up": (64, 16),
        "down": (16, 64),
        **{f"bias{i}": (16,) for i in range(4)},
    }.items()
}


def settings(cls):
    """Return hyper-parameters at which every term shows."""
    return {name: HYPER[name] for name in cls.method.hyper}


@pytest.mark.parametrize("cls", MATRIX)
def test_first_step_and_then_by_turns(cls, normal, phases, turns):
    """All observe at their first step, and then once in every period, at their phase's step."""
    period = 4
    optimizer = cls(normal(shapes=SHAPES), update_every=period, **settings(cls))
    given = phases(optimizer)
    assert set(given) == set(SHAPES)
    assert len(set(given.values())) == period
    assert all(roles["phase"].dtype == np.int32 for roles in optimizer.state.values())
    assert all(roles["phase"].shape == () for roles in optimizer.state.values())
    first, *later = turns(optimizer, 1 + 2 * period)
    assert first == set(SHAPES)
    for number, observed in enumerate(later, 1):
        assert observed == {n for n, phase in given.items() if (number + phase) % period == 0}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("cls", MATRIX)
def test_a_plain_loop(cls, missing, normal, same_bits, phases):
    """One parameter at a time with the same phases: every bit, what is derived included.

    Both halves of a step are the core's, and what is derived lasts from turn to turn.
    """
    period = 3
    optimizer = cls(normal(shapes=SHAPES), update_every=period, **settings(cls))
    rule, given = optimizer._rules["a"], phases(optimizer)
    params = {name: param[None] for name, param in normal(shapes=SHAPES).items()}
    states = {name: rule.init(param) for name, param in params.items()}
    derived = {}
    hyper = Hyper(**settings(cls), curvature_scale=3.0)
    for number in range(8):
        grads = normal(number, shapes=SHAPES)
        if missing and number in (0, 4):
            grads["b"] = None
        optimizer.step(grads, batch_size=3)
        for name, grad in grads.items():
            if grad is None:
                continue
            state, count = states[name], int(states[name].step[0])
            if rootfree.observes(period, count, given[name]):
                state = rootfree.observed(rule, grad[None], state, hyper)
                derived[name] = rule.derive(state, SHAPES[name], period)
            step, states[name] = rootfree.advanced(
                rule, grad[None], state, params[name], hyper, derived=derived[name]
            )
            params[name] = rootfree.add_step(params[name], step)
    for name, param in params.items():
        assert same_bits(optimizer.params[name], param[0])
        roles = {role: array[0] for role, array in rootfree.roles(states[name]).items()}
        roles["phase"] = np.asarray(given[name], np.int32)
        shown = optimizer.state[name]
        assert set(shown) == set(roles)
        assert all(same_bits(shown[role], array) for role, array in roles.items())


@pytest.mark.parametrize("stack", [True, False])
@pytest.mark.parametrize("cls", MATRIX)
def test_every_step_does_as_much(cls, stack, normal, monkeypatch):
    """The busiest step of a period observes at most 4/3 of what it must (Graham 1969).

    It must take the largest parameter, and a tenth of all. Counted as the core is called.
    """
    period, shapes = 10, GPT
    if cls in WHOLE:
        shapes = {name: tuple(length // 4 for length in shape) for name, shape in GPT.items()}
    optimizer = cls(normal(shapes=shapes), update_every=period, stack=stack, **settings(cls))
    rule = optimizer._rules["0.qkv"]
    cost = {s: rootfree.plan(rule, [s]).rows[0].observe_flops for s in shapes.values()}
    spent, through = [], rootfree.observed

    def spy(rule, grad, *args, **given):
        spent[-1] += grad.shape[0] * cost[grad.shape[1:]]
        return through(rule, grad, *args, **given)

    monkeypatch.setattr(rootfree, "observed", spy)
    for number in range(1 + period):
        spent.append(0)
        optimizer.step(normal(number, shapes=shapes))
    total = sum(cost[shape] for shape in shapes.values())
    first, *later = spent
    assert first == total
    assert sum(later) == total
    assert max(later) <= 4 / 3 * max(total / period, *cost.values())


def test_neighbours_of_a_phase_observe_in_one_call(normal, monkeypatch):
    """A hundred equal parameters with a period of ten: ten at each step, in one call."""
    shapes = {str(i): (3, 2) for i in range(100)}
    optimizer = SIRFShampoo(normal(shapes=shapes), update_every=10)
    sizes, through = [], rootfree.observed

    def spy(rule, grad, *args, **given):
        sizes.append(grad.shape[0])
        return through(rule, grad, *args, **given)

    monkeypatch.setattr(rootfree, "observed", spy)
    for number in range(11):
        optimizer.step(normal(number, shapes=shapes))
    assert sizes == [100] + [10] * 10
    saved = optimizer.state_dict()
    for name, roles in saved["state"].items():  # as another adapter may have dealt them
        roles["phase"] = np.asarray(int(name) % 10 + 10 * (int(name) // 50), np.int32)
    optimizer.load_state_dict(saved)
    sizes.clear()
    for number in range(10):
        optimizer.step(normal(number, shapes=shapes))
    assert sizes == [10] * 10


def test_phases_are_the_cores(normal, phases):
    """Each kind is cut into neighbourhoods; the dearest goes first, to the emptiest turn."""
    period = 3
    optimizer = SIRFShampoo(normal(shapes=SHAPES), update_every=period)
    kinds = [("a", "b", "c"), ("bias", "gain"), ("wide",)]
    costs, pieces = [], []
    for names in kinds:
        row = rootfree.plan(optimizer._rules["a"], [SHAPES[names[0]]]).rows[0]
        for part in rootfree.slices(len(names), period):
            pieces.append([names[i] for i in part])
            costs.append(row.observe_flops * len(part))
    expected = {
        name: phase
        for names, phase in zip(pieces, rootfree.phases(costs, period), strict=True)
        for name in names
    }
    assert phases(optimizer) == expected
    alone = SIRFShampoo(normal(shapes=SHAPES), update_every=period, stack=False)
    assert phases(alone) == expected


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"update_every": 1},
        {"update_every": 3, "stagger": False},
        {"update_every": lambda count: count % 3 == 0},
    ],
    ids=range(4),
)
def test_nobody_takes_turns(given, normal, phases, turns):
    """Without a period, without turns, or by a function, all observe at the same steps."""
    optimizer = SIRFShampoo(normal(shapes=SHAPES), **given)
    assert phases(optimizer) == {}
    found = turns(optimizer, 7)
    every = 3 if len(given) else 1
    every = 1 if given.get("update_every") == 1 else every
    assert found == [set(SHAPES) if number % every == 0 else set() for number in range(7)]
    assert phases(optimizer) == {}
    assert phases(RFRMSProp(normal(shapes=SHAPES))) == {}


@pytest.mark.parametrize("update_every", [0, -1, 2.0, "2", True, None])
def test_a_wrong_period_changes_nothing(update_every, normal, unchanged):
    """Nor is the state less readable for it."""
    optimizer = SIRFShampoo(normal(shapes=SHAPES), update_every=3)
    optimizer.update_every = update_every
    with unchanged(optimizer), pytest.raises((TypeError, ValueError), match="update_every"):
        optimizer.step(normal(1, shapes=SHAPES))


def test_a_function_that_fails_changes_nothing(normal, unchanged):
    """It is asked before anything is made."""

    def fails(count):
        raise KeyError(count)

    optimizer = SIRFShampoo(normal(shapes=SHAPES), momentum=0.0, update_every=fails)
    optimizer.hyper["momentum"] = 0.5  # wants a buffer, which must not be made yet
    with unchanged(optimizer), pytest.raises(KeyError):
        optimizer.step(normal(1, shapes=SHAPES))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("float32", "float32")),
        ({"compute_dtype": "bfloat16"}, ("bfloat16", "float32")),
        ({"compute_dtype": "bfloat16", "product_dtype": "bfloat16"}, ("bfloat16", "bfloat16")),
        ({"compute_dtype": "float16", "product_dtype": np.float32}, ("float16", "float32")),
    ],
    ids=range(4),
)
@pytest.mark.parametrize("cls", MATRIX)
def test_product_dtype(cls, given, expected, normal):
    """In which products are taken, by name or by dtype object."""
    precision = cls(normal(0, np.float32, SHAPES), **given)._rules["a"].precision
    found = (precision.compute_dtype, precision.product_dtype)
    assert tuple(np.dtype(dtype).name for dtype in found) == expected


def test_a_wrong_product_dtype(normal):
    """Products are taken in the inputs' dtype, or in the one that the step is computed in."""
    with pytest.raises(ValueError, match="`product_dtype` must be 'bfloat16' or 'float32' for a"):
        SIRFShampoo(
            normal(0, np.float32, SHAPES), compute_dtype="bfloat16", product_dtype="float16"
        )
    with pytest.raises(TypeError, match="product_dtype"):
        RFRMSProp(normal(0, np.float32, SHAPES), product_dtype="float32")
