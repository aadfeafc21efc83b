"""The methods by name: their first states, and one step of each.

Which arguments a method reads, and what its state keeps, stand at the head of `diagonal`,
`full_matrix` and `kronecker`.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from rootfree_textbook.descent import Array, State
from rootfree_textbook.diagonal import (
    adagrad,
    adamw,
    rf_adagrad,
    rf_adamw,
    rf_rmsprop,
    rmsprop,
    sgd,
)
from rootfree_textbook.full_matrix import (
    first_matrices,
    full_adagrad,
    rf_full_matrix,
    rf_full_matrix_factor,
    rf_full_matrix_inverse,
)
from rootfree_textbook.kronecker import first_factors, rf_shampoo, shampoo, sirf_shampoo
from rootfree_textbook.structures import Structure

STEPS: Final[Mapping[str, Callable[..., tuple[Array, State]]]] = MappingProxyType(
    {
        "sgd": sgd,
        "adagrad": adagrad,
        "rmsprop": rmsprop,
        "adamw": adamw,
        "rf_adagrad": rf_adagrad,
        "rf_rmsprop": rf_rmsprop,
        "rf_adamw": rf_adamw,
        "full_adagrad": full_adagrad,
        "rf_full_matrix": rf_full_matrix,
        "rf_full_matrix_inverse": rf_full_matrix_inverse,
        "rf_full_matrix_factor": rf_full_matrix_factor,
        "shampoo": shampoo,
        "rf_shampoo": rf_shampoo,
        "sirf_shampoo": sirf_shampoo,
    }
)
"""Name of a method -> the function that takes one step of it."""

ROOT: Final = ("adagrad", "rmsprop", "adamw", "full_adagrad", "shampoo")
FULL_MATRIX: Final = (
    "full_adagrad",
    "rf_full_matrix",
    "rf_full_matrix_inverse",
    "rf_full_matrix_factor",
)
KRONECKER: Final = ("shampoo", "rf_shampoo", "sirf_shampoo")


def init(
    name: str,
    param: Array,
    *,
    init_scale: float | None = None,
    with_momentum: bool = True,
    with_factor_momentum: bool = True,
    structure: Structure = "dense",
    max_dim: int | None = 4096,
    merge_dims: int | None = None,
) -> State:
    """State of a method before its first step.

    Args:
        name: a key of `STEPS`.
        param: the parameter, any shape; only its shape is read.
        init_scale: s_0, the scale of the first preconditioner, S_0 = s_0 I: in units of G^2 with
            the root, of alpha G^2 without. >= 0, and > 0 in the matrix methods without a root. None
            is the method's own: 0 with the root, 1 without. SGD does not read it.
        with_momentum: keep the heavy ball's buffer, or the average of gradients in AdamW and
            RF-AdamW. It starts from 0.
        with_factor_momentum: keep m of the factors of rf_full_matrix_factor and sirf_shampoo. It
            starts from 0.
        structure: as in `sirf_shampoo`; other methods do not read it.
        max_dim: as in `sirf_shampoo`; other methods do not read it.
        merge_dims: as in the Kronecker methods; others do not read it.

    Returns:
        A state with step 0.

    Raises:
        ValueError: `name` is no key of `STEPS`, or `init_scale` or `structure` cannot be.
    """
    _check_name(name)
    if init_scale is not None and init_scale < 0:
        msg = f"`init_scale` must be >= 0, got {init_scale}"
        raise ValueError(msg)
    scale = init_scale if init_scale is not None else 0.0 if name in ROOT else 1.0
    if scale == 0 and name in FULL_MATRIX + KRONECKER and name not in ROOT:
        msg = f"`init_scale` must be > 0 in {name}, got {scale}"
        raise ValueError(msg)
    state: State = {"step": 0}
    if name in FULL_MATRIX:
        state |= first_matrices(name, param, scale, with_factor_momentum=with_factor_momentum)
    elif name in KRONECKER:
        state |= first_factors(
            name,
            param,
            scale,
            with_factor_momentum=with_factor_momentum,
            structure=structure if name == "sirf_shampoo" else "dense",
            max_dim=max_dim,
            merge_dims=merge_dims,
        )
    elif name != "sgd":
        state["statistic"] = np.full(param.shape, scale, dtype=np.float64)
    if with_momentum and name in ("adamw", "rf_adamw"):
        state["first_moment"] = np.zeros(param.shape)
    elif with_momentum:
        state["momentum"] = np.zeros(param.shape)
    return state


def step(name: str, param: Array, grad: Array, state: State, **hyper: Any) -> tuple[Array, State]:
    """One step of the method called `name`.

    Args:
        name: a key of `STEPS`.
        param: W, any shape.
        grad: G, shape of `param`.
        state: what `init` or the step before returned.
        **hyper: the arguments of the method, listed at the head of its module. Those that the
            method does not read are dropped, so that one record of hyper-parameters serves all.
            `structure`, `max_dim` and `merge_dims` must be those of `init`.

    Returns:
        The new parameter and the new state.

    Raises:
        ValueError: `name` is no key of `STEPS`.
        TypeError: a hyper-parameter that the method needs is missing.

    Example:
        >>> param, grad = np.array([1.0, -2.0]), np.array([1.0, 3.0])
        >>> hyper = dict(lr=0.5, precond_lr=0.5, momentum=0.0, damping=0.0, weight_decay=0.0)
        >>> param, state = step("rf_rmsprop", param, grad, init("rf_rmsprop", param), **hyper)
        >>> state["statistic"], param
        (array([1., 5.]), array([ 0.5, -2.3]))
    """
    _check_name(name)
    method = STEPS[name]
    read = inspect.signature(method).parameters
    return method(param, grad, state, **{key: hyper[key] for key in hyper if key in read})


def _check_name(name: str) -> None:
    if name not in STEPS:
        msg = f"unknown method {name!r}; the methods are {', '.join(STEPS)}"
        raise ValueError(msg)
