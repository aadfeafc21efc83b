"""Checks of parameters, gradients and curvatures given by name: all before anything is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import array_api_compat
import rootfree
from rootfree import Array, Curvature, Rule
from rootfree.curvature import arrays_of

Arrays = Mapping[str, Array]
Curvatures = Mapping[str, "Array | Curvature"]


def checked_params(params: Arrays) -> dict[str, Any]:
    """Return a copy of the parameters, after every check that they need.

    Raises:
        TypeError, ValueError: if they are not arrays by name, or there is none.
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"`params` must be arrays by name, got {type(params).__name__}")
    if not params:
        raise ValueError("`params` must hold at least one array")
    for name, param in params.items():
        check_array(f"parameter {name!r}", param)
    return dict(params)


def check_array(what: str, value: object) -> None:
    """Raise `TypeError` if ``value`` is no array."""
    if not array_api_compat.is_array_api_obj(value):
        raise TypeError(f"{what} must be an array, got {type(value).__name__}")


def checked_grads(params: Arrays, grads: Mapping[str, Array | None]) -> dict[str, Array]:
    """Return the gradients that move something, after every check that they need."""
    active = {}
    for name, grad in grads.items():
        if grad is None:
            continue
        check_array(f"gradient of {name!r}", grad)
        rootfree.check_gradient(name, grad, params[name])
        if has_elements(params[name]):
            active[name] = grad
    return active


def checked_curvatures(
    params: Arrays,
    curvature: Curvatures,
    rules: Mapping[str, Rule[Any]],
    *,
    kinds: Collection[str],
    title: str,
) -> dict[str, Curvature]:
    """Return the caller's curvatures, after every check that they need."""
    replaced = {}
    for name, value in curvature.items():
        replaced[name] = rootfree.as_curvature(value)
        expected = array_api_compat.device(params[name])
        for array in arrays_of(replaced[name]):
            check_array(f"curvature of {name!r}", array)
            if (came := array_api_compat.device(array)) != expected:
                raise ValueError(
                    f"curvature of {name!r} has device {came}, its parameter has {expected}; "
                    "convert the curvature before the step"
                )
        if name in rules:
            shape = tuple(params[name].shape)
            rootfree.check_curvature(
                name,
                replaced[name],
                shape=shape,
                dims=rules[name].dims(shape),
                kinds=kinds,
                title=title,
            )
    return replaced


def check_names(params: Arrays, given: Collection[str]) -> None:
    """Raise `ValueError` if a name is no parameter's."""
    if unknown := sorted(set(given) - set(params)):
        raise ValueError(f"no parameter is called {', '.join(map(repr, unknown))}")


def has_elements(array: Array) -> bool:
    """Return whether an array has elements; one that has none gets no state."""
    return 0 not in array.shape
