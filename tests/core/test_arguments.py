"""The arguments that every adapter gives a method: names, defaults, checks, documentation."""

from __future__ import annotations

import re
from inspect import Parameter

import numpy as np
import pytest
from rootfree import METHODS, arguments, check_gradient, docstring, signature


def given(name, changes=(), *, word="lr"):
    """Return a method's arguments with their defaults, some of them changed."""
    parameters = signature(METHODS[name], lr=word).parameters.values()
    return {**{p.name: p.default for p in parameters}, **dict(changes)}


@pytest.mark.parametrize("name", METHODS)
def test_signature(name):
    """Hyper-parameters may be positional and come first; everything static is by keyword."""
    entry = METHODS[name]
    made = signature(entry, lr="learning_rate", leading=("params",), trailing={"compile": False})
    names = list(made.parameters)
    hyper = ["learning_rate" if n == "lr" else n for n in entry.hyper]
    assert names[: 1 + len(hyper)] == ["params", *hyper]
    assert names[-1] == "compile"
    scale = ["batch_size", "loss_reduction"] if entry.scaled else []
    period = ["update_every", "stagger"] if entry.matrix else []
    dtypes = ["state_dtype"] + (["compute_dtype", "product_dtype"] if entry.matrix else [])
    static = [*scale, *period, *entry.options, *dtypes, "rounding", "compile"]
    assert names[1 + len(hyper) :] == static
    assert made.parameters["params"].default is Parameter.empty
    for key in hyper:
        assert made.parameters[key].kind is Parameter.POSITIONAL_OR_KEYWORD
    for key in static:
        assert made.parameters[key].kind is Parameter.KEYWORD_ONLY
    assert all(made.parameters[k].default == v for k, v in entry.options.items())


@pytest.mark.parametrize("name", METHODS)
def test_arguments_are_sorted(name):
    """Defaults pass, and go where they belong; the core's word for the rate is `lr`."""
    entry = METHODS[name]
    sorted_ = arguments(entry, given(name, word="learning_rate"), lr="learning_rate")
    assert sorted_.hyper == entry.hyper
    assert sorted_.options == entry.options
    assert sorted_.batch_size == 1
    assert sorted_.loss_reduction == "mean"
    assert sorted_.state_dtype is None
    assert sorted_.rounding == "nearest"


@pytest.mark.parametrize("name", METHODS)
def test_docstrings(name):
    """Each argument is explained once, with its default; scaled methods say what scale does."""
    entry = METHODS[name]
    text = docstring(entry, "Summary.", lr="learning_rate", extra={"compile": "whether to."})
    lines = text.splitlines()
    assert lines[0] == "Summary."
    for key, parameter in signature(entry, lr="learning_rate").parameters.items():
        (line,) = (line for line in lines if line.startswith(f"    {key}: "))
        assert line.endswith(f"Default {parameter.default!r}.")
    assert "    compile: whether to." in lines
    assert entry.source in text
    assert ("multiplies the long-run step by 1/rho" in text) == entry.scaled
    assert ("Adam's beta1" in text) == (entry.momentum == "average")
    assert lines.index("Args:") < lines.index("Raises:") < lines.index("References:")


@pytest.mark.parametrize(
    ("name", "argument", "value", "error", "words"),
    [
        ("sgd", "lr", -1e-3, ValueError, "`lr` must be >= 0, got -0.001"),
        ("sgd", "lr", float("inf"), ValueError, "`lr` must be >= 0, got inf"),
        ("sgd", "lr", float("nan"), ValueError, "`lr` must be >= 0, got nan"),
        ("sgd", "lr", "0.1", TypeError, "`lr` must be a number or a 0-d array, got str: '0.1'"),
        ("sgd", "lr", None, TypeError, "got NoneType: None"),
        ("sgd", "lr", True, TypeError, "got bool: True"),
        ("sgd", "lr", 1 + 0j, TypeError, "got complex: (1+0j)"),
        ("sgd", "lr", np.ones(1), TypeError, "got ndarray: array([1.])"),
        ("sgd", "momentum", 1.0, ValueError, "`momentum` must be in [0, 1), got 1.0"),
        ("sgd", "momentum", -0.1, ValueError, "`momentum` must be in [0, 1), got -0.1"),
        ("sgd", "weight_decay", -1.0, ValueError, "`weight_decay` must be >= 0, got -1.0"),
        ("sgd", "weight_decay_mode", "l2", ValueError, "must be one of 'coupled', 'decoupled'"),
        ("sgd", "rounding", "up", ValueError, "must be one of 'nearest', 'stochastic'; got 'up'"),
        ("rf_rmsprop", "precond_lr", 1.0, ValueError, "`precond_lr` must be in [0, 1), got 1.0"),
        ("rf_rmsprop", "precond_lr", -0.1, ValueError, "`precond_lr` must be in [0, 1)"),
        ("rf_adagrad", "precond_lr", -1.0, ValueError, "`precond_lr` must be >= 0, got -1.0"),
        ("adamw", "precond_lr", 1.0, ValueError, "`precond_lr` must be in [0, 1), got 1.0"),
        ("rf_rmsprop", "damping", -1e-4, ValueError, "`damping` must be >= 0, got -0.0001"),
        ("rf_rmsprop", "batch_size", 0, ValueError, "`batch_size` must be > 0, got 0"),
        ("rf_rmsprop", "batch_size", -8, ValueError, "`batch_size` must be > 0, got -8"),
        (
            "rf_rmsprop",
            "batch_size",
            "8",
            TypeError,
            "`batch_size` must be a number or a 0-d array",
        ),
        ("rf_rmsprop", "loss_reduction", "none", ValueError, "must be one of 'mean', 'sum'; got"),
        ("rf_rmsprop", "decay", 0.5, ValueError, "`decay` must be one of 0, 1; got 0.5"),
        ("rf_rmsprop", "decay", True, ValueError, "`decay` must be one of 0, 1; got True"),
    ],
)
def test_bad_values(name, argument, value, error, words):
    """A bad value is refused with its name, its range, what came and its kind."""
    with pytest.raises(error) as caught:
        arguments(METHODS[name], given(name, {argument: value}))
    assert words in str(caught.value)
    assert f"`{argument}`" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("rf_adagrad", {"precond_lr": 5.0}),
        ("rf_rmsprop", {"precond_lr": 5.0, "decay": 0}),
        ("rf_rmsprop", {"batch_size": lambda: 32}),
        ("rf_rmsprop", {"batch_size": np.asarray(0.0)}),
        ("rf_rmsprop", {"lr": np.asarray(-1.0), "momentum": np.float32(0.5), "damping": 0}),
    ],
)
def test_good_values(name, changes):
    """A sum takes any weight; callables and 0-d arrays are accepted unread."""
    checked = arguments(METHODS[name], given(name, changes))
    for key, value in changes.items():
        where = checked.hyper if key in checked.hyper else {**checked.options, **checked._asdict()}
        assert where[key] is value


@pytest.mark.parametrize(
    ("grad", "words"),
    [
        (np.ones((3, 2)), "'w' has shape (3, 2), its parameter has (2, 3); pass the gradient"),
        (np.ones((2, 3), np.float32), "'w' has dtype float32, its parameter has float64; convert"),
    ],
)
def test_gradients(grad, words):
    """A gradient that does not fit is refused with the parameter's name and both values."""
    param = np.ones((2, 3))
    check_gradient("w", param, param)
    with pytest.raises(ValueError, match=re.escape(words)):
        check_gradient("w", grad, param)
