"""The catalogue: every method by name, with what it reads and what it is."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from rootfree import METHODS, Diagonal, Hyper, Precision, method, update

# lr, precond_lr, momentum, damping, weight_decay, s_0: mathematics 2.4; decay, power, mode: 2.1.
TABLE = {
    "sgd": (1e-3, None, 0, None, 0, None, None, 0, "coupled"),
    "adagrad": (1e-2, 1, 0, 1e-10, 0, 0, 0, 0.5, "coupled"),
    "rmsprop": (1e-2, 1e-2, 0, 1e-8, 0, 0, 1, 0.5, "coupled"),
    "adamw": (1e-3, 1e-3, 0.9, 1e-8, 1e-2, 0, 1, 0.5, "decoupled"),
    "rf_adagrad": (1e-1, 1, 0.9, 1e-4, 0, 1, 0, 1, "coupled"),
    "rf_rmsprop": (1e-3, 2e-2, 0.9, 1e-4, 0, 1, 1, 1, "coupled"),
    "rf_adamw": (1e-2, 2e-2, 0.9, 1e-4, 0, 1, 1, 1, "decoupled"),
}
# The same, precond_momentum, decompositions, options besides decay, init_scale and mode.
MATRIX = {
    "full_adagrad": (1e-2, 1, 0, None, 1e-8, 0, 0, ("eigh",), ()),
    "rf_full_matrix": (1e-3, 5e-2, 0.9, None, 1e-4, 1, 1, ("solve",), ("improved",)),
    "rf_full_matrix_inverse": (1e-3, 5e-2, 0.9, None, 1e-4, 1, 1, (), ("exact",)),
    "rf_full_matrix_factor": (1e-3, 5e-2, 0.9, 0.5, 1e-4, 1, 1, (), ("trust_clip",)),
    "shampoo": (5e-3, 1e-2, 0.9, None, 1e-8, 0, 1, ("eigh",), ("merge_dims",)),
    "rf_shampoo": (1e-3, 5e-2, 0.9, None, 1e-4, 1, 1, ("solve",), ("merge_dims",)),
    "sirf_shampoo": (
        *(3e-3, 0.1, 0.9, 0.5, 1e-3, 1, 1, ()),  # not 2.4's, which do not train the character GPT
        ("structure", "max_dim", "merge_dims", "trust_clip"),
    ),
}


def test_names_and_order():
    """The names of the table, in its order: simple before complex, root before root-free."""
    assert list(METHODS) == [*TABLE, *MATRIX]
    assert all(entry.name == name for name, entry in METHODS.items())
    assert len({entry.class_name for entry in METHODS.values()}) == len(METHODS)
    assert all(entry.class_name.lower() == name.replace("_", "") for name, entry in METHODS.items())


@pytest.mark.parametrize("name", MATRIX)
def test_defaults_of_matrix_methods(name, float64):
    """2.4: defaults, decompositions, and whether alpha is read: not by those with a root."""
    lr, precond_lr, momentum, average, damping, start, decay, decompositions, more = MATRIX[name]
    entry = METHODS[name]
    row = {"lr": lr, "precond_lr": precond_lr, "momentum": momentum, "precond_momentum": average}
    row |= {"damping": damping, "weight_decay": 0}
    assert entry.hyper == {key: value for key, value in row.items() if value is not None}
    rule = entry.rule(float64)
    assert (rule.init_scale, rule.decay, rule.weight_decay_mode) == (start, decay, "coupled")
    assert entry.decompositions == decompositions
    assert set(entry.options) == {"decay", "init_scale", "weight_decay_mode", *more}
    assert entry.scaled == ("eigh" not in decompositions)
    assert entry.matrix


@pytest.mark.parametrize("name", TABLE)
def test_defaults(name, float64):
    """2.4: defaults are those of the table, and the rule has the row's power, decay and mode."""
    lr, precond_lr, momentum, damping, weight_decay, start, decay, power, mode = TABLE[name]
    row = {"lr": lr, "precond_lr": precond_lr, "momentum": momentum}
    row |= {"damping": damping, "weight_decay": weight_decay}
    assert METHODS[name].hyper == {key: value for key, value in row.items() if value is not None}
    rule = METHODS[name].rule(float64)
    assert (rule.power, rule.weight_decay_mode) == (power, mode)
    if power:
        assert (rule.init_scale, rule.decay) == (start, decay)
    assert METHODS[name].scaled == (power == 1)
    assert rule.bias_correction == (name == "adamw")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_builds_and_steps(name, float64):
    """The defaults make a rule; its state's first fields are the counters; a step is finite."""
    rule = METHODS[name].rule(float64)
    param = np.ones((2, 3))
    state = rule.init(param)
    assert state._fields[:2] == ("step", "salt")
    assert state.step.tolist() == [0, 0]
    assert state.salt is None
    for expected in (1, 2):
        step, state = update(rule, param, state, param, Hyper(**METHODS[name].hyper))
        assert np.all(step < 0)
        assert np.all(np.isfinite(step))
        assert state.step.tolist() == [expected, expected]


@pytest.mark.parametrize("name", METHODS)
def test_no_buffer_for_a_momentum_that_stays_zero(name, float64):
    """What `without` names has no state, and steps as with the hyper-parameter at 0."""
    param, hyper = np.ones((1, 3)), Hyper(0.1, 0.1, 0.0, damping=1e-3)
    whole = METHODS[name].rule(float64)
    expected, _ = update(whole, param, whole.init(param), param, hyper)
    for buffer, field in METHODS[name].buffers.items():
        rule = METHODS[name].rule(float64, without=[buffer])
        assert getattr(whole.init(param), field) is not None
        assert getattr(rule.init(param), field) is None
        step, state = update(rule, param, rule.init(param), param, hyper)
        np.testing.assert_array_equal(step, expected)
        assert getattr(state, field) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "rf_rmsprob",
            "unknown method 'rf_rmsprob'; did you mean 'rf_rmsprop'? known: sgd, adagrad",
        ),
        ("adam", "did you mean 'adamw'?"),
        ("RFRMSProp", "unknown method 'RFRMSProp'"),
        ("xyz", "unknown method 'xyz'; known: "),
    ],
)
def test_unknown_names(name, words):
    """A name that is none lists the names, and the nearest one if there is a near one."""
    with pytest.raises(ValueError, match=re.escape(words)):
        method(name)


def test_known_names():
    """`method` is the table's look-up."""
    assert all(method(name) is entry for name, entry in METHODS.items())
    with pytest.raises(TypeError):
        METHODS["new"] = METHODS["sgd"]  # type: ignore[index]  # the table is read-only


@pytest.mark.parametrize("name", METHODS)
def test_options_are_the_rules_fields(name, float64):
    """Options and fixed configuration are fields of the rule, and do not overlap."""
    entry = METHODS[name]
    fields = {field.name for field in dataclasses.fields(entry.rule(float64))}
    assert {*entry.options, *entry.fixed} <= fields
    assert not {*entry.options} & {*entry.fixed}


def test_unknown_options(float64):
    """An option that the method does not have is named, with those it has."""
    with pytest.raises(
        TypeError, match="SGD has no option 'init_scale'; it has 'weight_decay_mode'"
    ):
        METHODS["sgd"].rule(float64, init_scale=1.0)
    with pytest.raises(TypeError, match="AdamW has no option 'bias_correction'"):
        METHODS["adamw"].rule(float64, bias_correction=False)


@pytest.mark.parametrize(
    ("field", "value", "error", "words"),
    [
        ("power", 0.25, ValueError, "`power` must be one of 0, 0.5, 1; got 0.25"),
        ("power", True, ValueError, "`power` must be one of 0, 0.5, 1; got True"),
        ("decay", 0.5, ValueError, "`decay` must be one of 0, 1; got 0.5"),
        ("init_scale", -1.0, ValueError, "`init_scale` must be >= 0, got -1.0"),
        ("init_scale", float("nan"), ValueError, "`init_scale` must be >= 0, got nan"),
        (
            "init_scale",
            "1",
            TypeError,
            "`init_scale` must be a number, got str: '1'",
        ),
        ("momentum", "nesterov", ValueError, "'none', 'heavy_ball', 'average'; got 'nesterov'"),
        ("weight_decay_mode", "l2", ValueError, "'coupled', 'decoupled'; got 'l2'"),
        ("bias_correction", True, ValueError, "got power=1.0, decay=1, init_scale=1.0; set"),
    ],
)
def test_bad_configurations(float64, field, value, error, words):
    """A rule that cannot be is refused when it is made, with the value that came."""
    with pytest.raises(error) as caught:
        Diagonal(float64, **{field: value})
    assert words in str(caught.value)


def test_bad_rounding():
    """A rounding that is none is refused."""
    dtype = np.dtype("float32")
    with pytest.raises(ValueError, match="`rounding` must be 'nearest' or 'stochastic', got 'up'"):
        Precision(dtype, dtype, dtype, "up")  # type: ignore[arg-type]  # what the check is for


def test_rules_are_values(float64):
    """A rule is frozen and hashable, equal to another with its fields: compilers cache by it."""
    rule = METHODS["rf_rmsprop"].rule(float64)
    assert rule == METHODS["rf_rmsprop"].rule(float64)
    assert hash(rule) == hash(METHODS["rf_rmsprop"].rule(float64))
    assert rule != METHODS["rf_rmsprop"].rule(float64, init_scale=2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.power = 0.5
