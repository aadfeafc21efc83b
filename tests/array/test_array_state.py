"""Saving and loading: a copy, all of it or nothing, and the run goes on bit for bit."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from rootfree_array import AdamW, RFAdamW, RFRMSProp, init

LOW = {"state_dtype": "bfloat16", "rounding": "stochastic", "precond_lr": 0.01}


def make(cls, normal, seed=0, **given):
    """Return an optimizer that keeps a buffer."""
    return cls(normal(seed, np.float32), momentum=0.5, lr=0.1, **given)


@pytest.mark.parametrize("given", [{}, LOW], ids=["float32", "bfloat16"])
def test_a_loaded_run_goes_on(cls, given, normal, take_steps, same_bits):
    """Steps 3 and 4 after loading are steps 3 and 4 without it, bit for bit, pickled too."""
    given = {k: v for k, v in given.items() if k != "precond_lr" or k in cls.method.hyper}
    whole = make(cls, normal, **given)
    take_steps(whole, 0, 1)
    whole.hyper["lr"] = 0.05
    saved = pickle.loads(pickle.dumps({"params": whole.params, "optimizer": whole.state_dict()}))
    take_steps(whole, 2, 3)
    resumed = cls(saved["params"], momentum=0.5, **given)
    resumed.load_state_dict(saved["optimizer"])
    assert resumed.hyper["lr"] == 0.05
    take_steps(resumed, 2, 3)
    assert same_bits(resumed.params, whole.params)
    assert same_bits(resumed.state, whole.state)


def test_state_by_role(cls, normal):
    """Parameter-shaped arrays by role, counters 0-d; nothing that the method does not keep."""
    arrays = make(cls, normal).state["weight"]
    buffer = "first_moment" if cls.method.momentum == "average" else "momentum"
    square = {"statistic": (15, 15), "root": (15, 15)}
    by_axis = {"statistic.0": (3, 3), "statistic.1": (5, 5)}
    factors = {"factor.0": (3, 3), "factor.1": (5, 5)}
    shapes = {
        "sgd": {},
        "full_adagrad": square,
        "rf_full_matrix": {"statistic": (15, 15)},
        "rf_full_matrix_inverse": {"statistic": (15, 15)},
        "rf_full_matrix_factor": {"factor.0": (15, 15), "factor_momentum.0": (15, 15)},
        "shampoo": {**by_axis, "root.0": (3, 3), "root.1": (5, 5)},
        "rf_shampoo": by_axis,
        "sirf_shampoo": {
            **factors,
            **{role.replace("factor", "factor_momentum"): s for role, s in factors.items()},
        },
    }.get(cls.method.name, {"statistic": (3, 5)})
    assert {role: array.shape for role, array in arrays.items()} == {
        "step": (),
        **shapes,
        buffer: (3, 5),
    }
    assert arrays["step"].dtype == np.int32


def test_state_dict_is_a_copy(normal, take_steps, same_bits):
    """What was saved does not change as the run goes on, nor the run as it is changed."""
    optimizer, twin = make(RFRMSProp, normal), make(RFRMSProp, normal)
    saved = optimizer.state_dict()
    frozen = pickle.dumps(saved)
    take_steps(optimizer, 0)
    assert same_bits(saved["state"], pickle.loads(frozen)["state"])
    assert saved["hyper"] == pickle.loads(frozen)["hyper"]
    saved = optimizer.state_dict()
    saved["hyper"]["lr"] = 9.0
    for arrays in saved["state"].values():
        for array in arrays.values():
            array[...] = 99
    take_steps(twin, 0)
    assert same_bits(optimizer.state, twin.state)
    assert optimizer.hyper == twin.hyper


def test_loading_copies(normal, take_steps, same_bits):
    """One saved state serves two runs; steps and later changes of it reach neither."""
    first = make(AdamW, normal)
    take_steps(first, 0)
    saved = first.state_dict()
    frozen = pickle.dumps(saved)
    runs = [make(AdamW, normal) for _ in range(2)]
    for run in runs:
        run.load_state_dict(saved)
    take_steps(runs[0], 1)
    assert same_bits(runs[1].state, pickle.loads(frozen)["state"])
    assert same_bits(saved["state"], pickle.loads(frozen)["state"])
    for arrays in saved["state"].values():
        for array in arrays.values():
            array[...] = 99
    saved["hyper"]["lr"] = 9.0
    assert same_bits(runs[1].state, pickle.loads(frozen)["state"])
    assert runs[1].hyper["lr"] == 0.1


def without(mapping, key):
    """Return a mapping without one key."""
    return {name: value for name, value in mapping.items() if name != key}


def at(saved, **changes):
    """Return a saved state with other arrays for the parameter "weight"."""
    weight = {**saved["state"]["weight"], **changes}
    weight = {role: array for role, array in weight.items() if array is not None}
    return {**saved, "state": {**saved["state"], "weight": weight}}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda s: {**s, "method": "adamw"}, ValueError, "state of 'adamw' does not fit 'rf_rms"),
        (
            lambda s: {**s, "state": without(s["state"], "bias")},
            ValueError,
            "state has parameters ['kernel', 'temperature', 'weight'], expected ['bias', 'kernel'",
        ),
        (
            lambda s: {**s, "state": {**s["state"], "more": s["state"]["bias"]}},
            ValueError,
            "state has parameters ['bias', 'kernel', 'more'",
        ),
        (lambda s: at(s, momentum=None), ValueError, "state of 'weight' has roles ['statistic',"),
        (lambda s: at(s, salt=np.ones(())), ValueError, "'salt'"),
        (
            lambda s: at(s, statistic=np.ones((5, 3), np.float32)),
            ValueError,
            "state 'statistic' of 'weight' has shape (5, 3) and dtype float32, expected (3, 5)",
        ),
        (lambda s: at(s, statistic=np.ones((3, 5))), ValueError, "and dtype float64, expected"),
        (lambda s: at(s, step=np.ones(1, np.int32)), ValueError, "state 'step' of 'weight' has"),
        (lambda s: at(s, step=np.ones((), np.int64)), ValueError, "dtype int64, expected"),
        (lambda s: {**s, "hyper": {**s["hyper"], "lr": -1.0}}, ValueError, "`lr` must be >= 0"),
        (lambda s: {**s, "hyper": without(s["hyper"], "lr")}, ValueError, "lr"),
        (lambda s: {**s, "hyper": {**s["hyper"], "betas": 0.9}}, ValueError, "betas"),
        (lambda s: {**s, "batch_size": -1}, ValueError, "`batch_size` must be > 0, got -1"),
        (lambda s: {**s, "update_every": 0}, ValueError, "`update_every` must be >= 1, got 0"),
        (lambda s: without(s, "state"), KeyError, "state"),
    ],
    ids=range(15),
)
def test_a_wrong_state_changes_nothing(change, error, words, normal, take_steps, unchanged):
    """All of it or nothing, with what came and what was expected."""
    optimizer = make(RFRMSProp, normal)
    take_steps(optimizer, 0)
    saved = optimizer.state_dict()
    take_steps(optimizer, 1)
    with unchanged(optimizer), pytest.raises(error, match=re.escape(words)):
        optimizer.load_state_dict(change(saved))


def test_configurations_do_not_mix(normal):
    """State of another rounding or dtype is refused."""
    saved = make(RFAdamW, normal, **LOW).state_dict()
    with pytest.raises(ValueError, match="another configuration"):
        make(RFAdamW, normal).load_state_dict(saved)


def test_options_do_not_mix(normal, unchanged):
    """A sum is not continued as an average."""
    saved = make(RFRMSProp, normal, decay=0).state_dict()
    optimizer = make(RFRMSProp, normal)
    with unchanged(optimizer), pytest.raises(ValueError, match=r"saved with .*'decay': 0"):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("made", ["as it was", "as it is"])
@pytest.mark.parametrize(("first", "then"), [(0.0, 0.5), (0.5, 0.0)])
def test_a_buffer_follows_what_was_saved(first, then, made, normal, take_steps, same_bits):
    """A run whose momentum changed goes on, however the optimizer that loads it was made."""
    whole = RFRMSProp(normal(0, np.float32), momentum=first)
    take_steps(whole, 0)
    whole.hyper["momentum"] = then
    take_steps(whole, 1)
    resumed = RFRMSProp(whole.params, momentum=first if made == "as it was" else then)
    resumed.load_state_dict(whole.state_dict())
    assert resumed.hyper == whole.hyper
    for run in (whole, resumed):
        take_steps(run, 2, 3)
    assert same_bits(whole.params, resumed.params)
    assert same_bits(whole.state, resumed.state)


def test_batch_size_is_saved_where_it_is_a_number(normal):
    """A callable is the program's, not the file's: it stays."""
    optimizer = make(RFRMSProp, normal, batch_size=8)
    other = make(RFRMSProp, normal)
    other.load_state_dict(optimizer.state_dict())
    assert other.batch_size == 8
    asked = make(RFRMSProp, normal, batch_size=lambda: 5)
    assert asked.state_dict()["batch_size"] is None
    other.load_state_dict(asked.state_dict())
    assert other.batch_size == 8


def test_salts_are_part_of_the_state(normal, take_steps, same_bits):
    """A renamed parameter goes on with the bits of its old name."""
    shapes = {"old": (64,)}
    whole = RFRMSProp(normal(0, np.float32, shapes), **LOW)
    renamed = RFRMSProp({"new": normal(0, np.float32, shapes)["old"]}, **LOW)
    saved = whole.state_dict()
    renamed.load_state_dict({**saved, "state": {"new": saved["state"]["old"]}})
    grads = normal(5, np.float32, shapes)
    whole.step(grads)
    renamed.step({"new": grads["old"]})
    assert same_bits(whole.params["old"], renamed.params["new"])
    assert same_bits(whole.state["old"], renamed.state["new"])


def test_functional_state_has_the_same_roles(normal):
    """`init` gives the rule's own stacks, one per parameter with elements."""
    params = {**normal(), "empty": np.ones((0, 3))}
    optimizer = AdamW(params)
    rule = optimizer._rules["weight"]
    state = init(rule, params)
    assert list(state) == list(normal())
    for name, one in state.items():
        held = {role for role, array in one._asdict().items() if array is not None}
        assert held == set(optimizer.state[name])
