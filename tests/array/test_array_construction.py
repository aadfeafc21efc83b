"""Construction: arguments, parameters and precision, refused with words before anything is made."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from types import MappingProxyType

import array_api_strict
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import rootfree
import rootfree_array
import torch
from rootfree import METHODS
from rootfree_array import (
    SGD,
    AdaGrad,
    AdamW,
    Platform,
    RFAdaGrad,
    RFRMSProp,
    StalledStateWarning,
    capabilities,
)

SINGLE = {"weight": np.ones((2, 3), dtype=np.float32)}


def test_names():
    """Public names are the catalogue's classes, in its order, then the rest."""
    classes = [method.class_name for method in METHODS.values()]
    rest = ["Optimizer", "Platform", "StalledStateWarning", "capabilities", "init", "update"]
    assert rootfree_array.__all__ == [*classes, *rest]


def test_signature(cls):
    """Parameters first, then the catalogue's arguments, then this adapter's three."""
    trailing = {"platform": None, "in_place": False, "stack": True}
    expected = rootfree.signature(cls.method, leading=("params",), trailing=trailing)
    assert inspect.signature(cls) == expected
    assert cls(SINGLE, 0.25).hyper == cls(SINGLE, lr=0.25).hyper
    assert cls(SINGLE, 0.25).hyper == {**cls.method.hyper, "lr": 0.25}


def test_documentation(cls):
    """Every argument is explained, and the first line is the method's name."""
    first, *rest = inspect.getdoc(cls).splitlines()
    assert first == f"{cls.method.title} for arrays of any array-API namespace."
    for name in inspect.signature(cls).parameters:
        if name != "params":
            assert any(text.strip().startswith(f"{name}: ") for text in rest), name


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"lr": -1.0}, ValueError, "`lr` must be >= 0, got -1.0"),
        ({"lr": math.nan}, ValueError, "`lr` must be >= 0, got nan"),
        ({"lr": math.inf}, ValueError, "`lr` must be >= 0, got inf"),
        ({"lr": "0.1"}, TypeError, "`lr` must be a number or a 0-d array, got str: '0.1'"),
        ({"lr": None}, TypeError, "`lr` must be a number or a 0-d array, got NoneType"),
        ({"lr": True}, TypeError, "`lr` must be a number or a 0-d array, got bool"),
        ({"lr": 1j}, TypeError, "`lr` must be a number or a 0-d array, got complex"),
        ({"lr": np.ones(1)}, TypeError, "`lr` must be a number or a 0-d array, got ndarray"),
        ({"momentum": 1.0}, ValueError, "`momentum` must be in [0, 1), got 1.0"),
        ({"momentum": -0.1}, ValueError, "`momentum` must be in [0, 1), got -0.1"),
        ({"precond_lr": 1.0}, ValueError, "`precond_lr` must be in [0, 1), got 1.0"),
        ({"damping": -1e-8}, ValueError, "`damping` must be >= 0, got -1e-08"),
        ({"weight_decay": -1}, ValueError, "`weight_decay` must be >= 0, got -1"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be > 0, got 0"),
        ({"batch_size": -8}, ValueError, "`batch_size` must be > 0, got -8"),
        ({"batch_size": "8"}, TypeError, "`batch_size` must be a number or a 0-d array"),
        ({"loss_reduction": "max"}, ValueError, "`loss_reduction` must be one of 'mean', 'sum'"),
        ({"decay": 0.5}, ValueError, "`decay` must be one of 0, 1; got 0.5"),
        ({"decay": True}, ValueError, "`decay` must be one of 0, 1; got True"),
        ({"init_scale": -1}, ValueError, "`init_scale` must be >= 0, got -1"),
        ({"init_scale": np.ones(())}, TypeError, "`init_scale` must be a number, got ndarray"),
        ({"weight_decay_mode": "l2"}, ValueError, "`weight_decay_mode` must be one of 'coupled'"),
        ({"rounding": "up"}, ValueError, "`rounding` must be one of 'nearest', 'stochastic'"),
        ({"state_dtype": "int8"}, ValueError, "`state_dtype` of a float32 parameter must be one"),
        ({"state_dtype": "float64"}, ValueError, "must be one of 'float32', 'bfloat16'; got"),
        ({"state_dtype": np.float64}, ValueError, "got 'float64'"),
        ({"rounding": "stochastic"}, ValueError, "needs `state_dtype='bfloat16'`, got 'float32'"),
        ({"betas": (0.9, 0.999)}, TypeError, "unexpected keyword argument 'betas'"),
        ({"maximize": True}, TypeError, "unexpected keyword argument 'maximize'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments(given, error, words):
    """Style 23: what was expected, what came, under the argument's own name."""
    with pytest.raises(error, match=re.escape(words)):
        RFRMSProp(SINGLE, **given)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        (SGD, {"batch_size": 8}),
        (SGD, {"precond_lr": 0.1}),
        (SGD, {"decay": 1}),
        (AdamW, {"init_scale": 1.0}),
        (AdamW, {"loss_reduction": "sum"}),
    ],
)
def test_a_method_has_no_argument_that_it_does_not_read(method, given):
    """An argument without effect is an error, not a silent surprise."""
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(given))}'"):
        method(SINGLE, **given)


def test_limits_depend_on_the_method():
    """A sum takes any weight of the new curvature; bias correction needs one above 0."""
    assert AdaGrad(SINGLE, precond_lr=3.0).hyper["precond_lr"] == 3.0
    assert RFAdaGrad(SINGLE, precond_lr=3.0).hyper["precond_lr"] == 3.0
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        RFAdaGrad(SINGLE, precond_lr=3.0, decay=1)
    with pytest.raises(ValueError, match="`precond_lr` of AdamW must be > 0, got 0"):
        AdamW(SINGLE, precond_lr=0)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([np.ones(2)], "`params` must be arrays by name, got list"),
        (np.ones(2), "`params` must be arrays by name, got ndarray"),
        ({"w": [1.0, 2.0]}, "parameter 'w' must be an array, got list"),
        ({"w": 1.0}, "parameter 'w' must be an array, got float"),
        ({"w": None}, "parameter 'w' must be an array, got NoneType"),
        ({"w": np.ones(2, dtype=np.int32)}, "parameter 'w' has dtype int32"),
        ({"w": np.ones(2, dtype=bool)}, "parameter 'w' has dtype bool"),
        ({"w": np.ones(2, dtype=np.complex64)}, "parameter 'w' has dtype complex64"),
        ({"w": np.asarray(["a"])}, "parameter 'w' has dtype <U1"),
        ({"w": np.ones(2, dtype=object)}, "parameter 'w' has dtype object"),
        ({"a": np.ones(2), "w": np.ones(2, dtype=np.int64)}, "parameter 'w' has dtype int64"),
        ({"a": np.ones(2), "w": torch.ones(2)}, "Multiple namespaces"),
        ({"a": array_api_strict.ones(2), "w": np.ones(2)}, "Multiple namespaces"),
    ],
    ids=range(13),
)
def test_wrong_parameters(params, words):
    """What is no real floating-point array of one library is refused, by name where it has one."""
    with pytest.raises(TypeError, match=words):
        RFRMSProp(params)


def test_no_parameters():
    """As in torch, an optimizer of nothing is a mistake."""
    with pytest.raises(ValueError, match="`params` must hold at least one array"):
        RFRMSProp({})


def test_parameters_are_arrays_by_name():
    """Any mapping will do, and the optimizer does not write into it."""
    given = MappingProxyType({"weight": np.ones(2)})
    optimizer = SGD(given, lr=0.5)
    optimizer.step({"weight": np.ones(2)})
    assert given["weight"].tolist() == [1.0, 1.0]
    assert optimizer.params["weight"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("param", "given", "state"),
    [
        (np.float64, {}, np.float64),
        (np.float32, {}, np.float32),
        (np.float16, {}, np.float32),
        (ml_dtypes.bfloat16, {}, np.float32),
        (np.float32, {"state_dtype": "float32"}, np.float32),
        (np.float32, {"state_dtype": "bfloat16"}, ml_dtypes.bfloat16),
        (np.float32, {"state_dtype": np.dtype(ml_dtypes.bfloat16)}, ml_dtypes.bfloat16),
        (ml_dtypes.bfloat16, {"state_dtype": ml_dtypes.bfloat16}, ml_dtypes.bfloat16),
        (np.float64, {"state_dtype": np.float64}, np.float64),
    ],
    ids=range(9),
)
def test_state_dtype(param, given, state):
    """16-bit parameters have float32 state unless asked otherwise; names and objects are alike."""
    optimizer = RFRMSProp({"w": np.ones(3, dtype=param)}, precond_lr=0.5, **given)
    arrays = optimizer.state["w"]
    assert {role: arrays[role].dtype for role in ("statistic", "momentum")} == {
        "statistic": state,
        "momentum": state,
    }
    optimizer.step({"w": np.ones(3, dtype=param)})
    assert optimizer.state["w"]["statistic"].dtype == state
    assert optimizer.params["w"].dtype == param


def test_stalled_state_is_warned_of():
    """bfloat16 statistics stand still below 2**-8 to nearest; the warning names the remedies."""
    words = r"rounding='nearest' stands still at precond_lr=0\.002.*stochastic.*float32"
    with pytest.warns(StalledStateWarning, match=words) as caught:
        RFRMSProp(SINGLE, precond_lr=0.002, state_dtype="bfloat16")
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the caller's line


@pytest.mark.parametrize(
    "given",
    [
        {"precond_lr": 0.002, "state_dtype": "bfloat16", "rounding": "stochastic"},
        {"precond_lr": 2.0**-8, "state_dtype": "bfloat16"},
        {"precond_lr": 0.0, "state_dtype": "bfloat16"},
        {"precond_lr": 0.002},
        {"precond_lr": np.asarray(0.002), "state_dtype": "bfloat16"},
    ],
    ids=range(5),
)
def test_nothing_else_is_warned_of(given):
    """Neither rounding that keeps the mean nor a rate that moves; an array is not read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RFRMSProp(SINGLE, **given)


def test_methods_without_a_statistic_never_stall():
    """SGD keeps no statistic."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SGD(SINGLE, momentum=0.5, state_dtype="bfloat16")


@pytest.mark.parametrize(
    ("array", "namespace", "dtypes"),
    [
        (np.ones(1), "array_api_compat.numpy", {"float64", "float32", "float16", "bfloat16"}),
        (array_api_strict.ones(1), "array_api_strict", {"float64", "float32"}),
        (torch.ones(1), "array_api_compat.torch", {"float64", "float32", "float16", "bfloat16"}),
        (jnp.ones(1), "jax.numpy", {"float64", "float32", "float16", "bfloat16"}),
    ],
    ids=["numpy", "strict", "torch", "jax"],
)
def test_capabilities(array, namespace, dtypes):
    """What a platform offers, as plain data."""
    said = capabilities(Platform.of([array]))
    keys = {"namespace", "device", "dtypes", "native_products", "stochastic_rounding"}
    assert set(said) == keys
    assert said["native_products"] == []
    assert said["namespace"] == namespace
    assert set(said["dtypes"]) == dtypes
    assert isinstance(said["device"], str)
    assert isinstance(said["stochastic_rounding"], bool)


def test_a_platform_may_be_given():
    """A library whose dtypes have other names is described by its platform."""
    import array_api_compat.numpy as xp

    platform = Platform(xp, {"float32": np.dtype(np.float32)})
    optimizer = SGD(SINGLE, momentum=0.5, platform=platform)
    assert optimizer.state["weight"]["momentum"].dtype == np.float32


@pytest.mark.parametrize("given", [{}, {"rounding": "stochastic"}])
def test_a_dtype_that_the_library_lacks(given):
    """array_api_strict has no bfloat16: an error in words, not a missing key."""
    params = {"w": array_api_strict.ones(2, dtype=array_api_strict.float32)}
    with pytest.raises(ValueError, match="no bfloat16; it has float64, float32"):
        RFRMSProp(params, precond_lr=0.5, state_dtype="bfloat16", **given)
