"""Phases are state: shown, saved, loaded and checked, and dealt anew for another period."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import rootfree_array
from rootfree import METHODS
from rootfree_array import SIRFShampoo

MATRIX = [getattr(rootfree_array, m.class_name) for m in METHODS.values() if m.matrix]
HYPER = {"lr": 0.25, "momentum": 0.5, "weight_decay": 0.125, "precond_lr": 0.125, "damping": 0.125}
HYPER |= {"precond_momentum": 0.25}
SHAPES = {"a": (4, 3), "bias": (5,), "b": (4, 3), "c": (4, 3), "gain": (5,), "wide": (2, 6)}


def settings(cls):
    """Return hyper-parameters at which every term shows."""
    return {name: HYPER[name] for name in cls.method.hyper}


@pytest.mark.parametrize("cls", MATRIX)
@pytest.mark.parametrize("taken", [1, 2, 3])
def test_a_run_is_resumed_within_its_period(cls, taken, normal, same_bits, phases, turns):
    """The same turns and bits, into an optimizer that has stepped and names them otherwise."""
    whole = cls(normal(0, np.float32, SHAPES), update_every=3, **settings(cls))
    turns(whole, taken)
    saved = pickle.loads(pickle.dumps({"params": whole.params, "optimizer": whole.state_dict()}))
    backwards = dict(reversed(saved["params"].items()))
    resumed = cls(backwards, update_every=3, **settings(cls))
    shapes = dict(reversed(SHAPES.items()))
    resumed.step(normal(9, np.float32, shapes))  # something derived, which must not stay
    resumed.params = backwards
    resumed.load_state_dict(saved["optimizer"])
    assert phases(resumed) == phases(whole)
    for number in range(5):
        grads = normal(200 + number, np.float32, SHAPES)
        for run in (whole, resumed):
            run.step(grads)
        assert all(same_bits(whole.params[name], resumed.params[name]) for name in SHAPES)
        assert all(same_bits(whole.state[name], resumed.state[name]) for name in SHAPES)


def test_state_without_phases_gets_them(normal, phases, turns):
    """As a fresh optimizer would; a parameter that lacks one gets the turn with least to do."""
    optimizer = SIRFShampoo(normal(shapes=SHAPES), update_every=3)
    turns(optimizer, 2)
    expected, saved = phases(optimizer), optimizer.state_dict()
    for name in SHAPES:
        del saved["state"][name]["phase"]
    other = SIRFShampoo(normal(shapes=SHAPES))
    other.load_state_dict(saved)
    assert phases(other) == expected
    for name in SHAPES:
        saved["state"][name]["phase"] = np.asarray(0, np.int32)
    del saved["state"]["wide"]["phase"]
    other.load_state_dict(saved)
    assert phases(other) == {**dict.fromkeys(SHAPES, 0), "wide": 1}
    assert turns(other, 3) == [{"wide"}, set(SHAPES) - {"wide"}, set()]  # counts 2, 3, 4


def test_phases_that_nobody_takes_are_dropped(normal, same_bits, phases, turns):
    """State saved with turns goes on without them where the optimizer, or the period, has none."""
    whole = SIRFShampoo(normal(shapes=SHAPES), update_every=3)
    turns(whole, 1)
    for given in ({"stagger": False}, {"update_every": lambda count: True}):
        other = SIRFShampoo(normal(shapes=SHAPES), **given)
        saved = whole.state_dict()
        if "update_every" in given:
            saved["update_every"] = None
        other.load_state_dict(saved)
        assert phases(other) == {}
        assert same_bits(other.state["a"]["factor.0"], whole.state["a"]["factor.0"])


@pytest.mark.parametrize(
    "phase",
    [np.zeros(1, np.int32), np.asarray(0), np.asarray(0.0), np.asarray(-1, np.int32)],
    ids=["shape", "int64", "float", "negative"],
)
def test_a_wrong_phase_changes_nothing(phase, normal, unchanged, turns):
    """Refused by the parameter's name, like any other array of the state."""
    optimizer = SIRFShampoo(normal(shapes=SHAPES), update_every=3)
    saved = optimizer.state_dict()
    turns(optimizer, 1)
    saved["state"]["b"]["phase"] = phase
    with unchanged(optimizer), pytest.raises(ValueError, match=re.escape("'phase' of 'b' is")):
        optimizer.load_state_dict(saved)


def test_another_period_deals_turns_anew(normal, phases, turns):
    """`optimizer.update_every = n` counts from the next step on, evenly spread again."""
    optimizer = SIRFShampoo(normal(shapes=SHAPES))
    turns(optimizer, 2)
    for period in (2, 5, 1, 5):
        optimizer.update_every = period
        assert phases(optimizer) == {}  # those of another period are void
        optimizer.step({})
        fresh = SIRFShampoo(normal(shapes=SHAPES), update_every=period)
        assert phases(optimizer) == phases(fresh)
        found = turns(optimizer, 2 * period)
        assert all(sum(name in names for names in found) == 2 for name in SHAPES)


def test_a_period_is_saved_before_its_first_step(normal, same_bits, turns):
    """Between a change and the next step there are no phases: both runs deal the same ones."""
    whole = SIRFShampoo(normal(shapes=SHAPES), update_every=4)
    turns(whole, 2)
    whole.update_every = 3
    resumed = SIRFShampoo(whole.params)
    resumed.load_state_dict(whole.state_dict())
    for run in (whole, resumed):
        turns(run, 4)
    assert same_bits(whole.params, resumed.params)
    assert same_bits(whole.state, resumed.state)


def test_a_buffer_changes_no_turns(normal, same_bits, phases, turns):
    """A momentum that is switched on in mid-period: phases, counts and factors go on."""
    runs = [SIRFShampoo(normal(shapes=SHAPES), update_every=3, momentum=m) for m in (0.0, 1e-300)]
    for run in runs:
        turns(run, 2)
        run.hyper["momentum"] = 0.5
    before, saved = phases(runs[0]), runs[0].state
    runs[0].step({})
    assert phases(runs[0]) == before
    assert all(same_bits(runs[0].state["a"][role], array) for role, array in saved["a"].items())
    found = [turns(run, 3) for run in runs]
    assert found[0] == found[1]


def test_what_is_derived_is_not_state(normal, turns):
    """Nothing of it is shown or saved, and a state that is put in place is not mistaken."""
    optimizer = SIRFShampoo(normal(shapes=SHAPES), update_every=4)
    turns(optimizer, 1)
    roles = {role.split(".")[0] for role in optimizer.state["a"]}
    assert roles == {"step", "phase", "factor", "factor_momentum", "momentum"}
    (bucket,) = (b for b in optimizer._store.arrangement.buckets.values() if "a" in b.names)
    assert optimizer._store.work(bucket, optimizer.params, {}, (), {}, 4).derived is not None
    state = optimizer._states[bucket.name]
    optimizer._states[bucket.name] = state._replace(factor=state.factor)
    assert optimizer._store.work(bucket, optimizer.params, {}, (), {}, 4).derived is None
