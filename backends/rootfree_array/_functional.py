"""The functional form: parameters and state in, parameters and state out, one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import rootfree
from rootfree import CURVATURES, Array, Curvature, Hyper, Rule

from rootfree_array._checks import (
    Arrays,
    Curvatures,
    check_names,
    checked_curvatures,
    checked_grads,
    has_elements,
)
from rootfree_array._state import fresh, stack, unstack


def init(rule: Rule[Any], params: Arrays) -> dict[str, Any]:
    """Return the state of every parameter that has elements, by name, for `update`.

    Raises:
        ValueError: if the rule's configuration does not go with a parameter's shape.
    """
    return {name: fresh(rule, name, p) for name, p in params.items() if has_elements(p)}


def update(
    rule: Rule[Any],
    params: Arrays,
    grads: Mapping[str, Array | None],
    state: Mapping[str, Any],
    hyper: Hyper,
    observe: bool = True,
    *,
    curvature: Curvatures = MappingProxyType({}),
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return parameters and state after one step; the ones given stay valid.

    Args:
        rule: any rule, also one of your own.
        params: arrays by name.
        grads: gradients by name; a missing one leaves its parameter and state as they are.
        state: from `init`, or from the last call.
        hyper: the scalars of this step.
        observe: whether the curvature enters the preconditioner in this step.
        curvature: curvatures by name, which replace the gradient outer product; a bare array is a
            diagonal.

    Raises:
        ValueError: as `Optimizer.step`.
    """
    check_names(params, [*grads, *curvature])
    active = checked_grads(params, grads)
    rules, title = dict.fromkeys(state, rule), type(rule).__name__
    replaced = checked_curvatures(params, curvature, rules, kinds=CURVATURES, title=title)
    new_params, new_state = dict(params), dict(state)
    for name, grad in active.items():
        new_params[name], new_state[name] = _stepped(
            rule, params[name], grad, state[name], hyper, observe, replaced.get(name)
        )
    return new_params, new_state


def _stepped(
    rule: Rule[Any],
    param: Array,
    grad: Array,
    state: Any,
    hyper: Hyper,
    observe: bool,
    curvature: Curvature | None,
) -> tuple[Array, Any]:
    stacked = stack(param)
    h = None if curvature is None else rootfree.mapped(curvature, stack)
    step, state = rootfree.update(rule, stack(grad), state, stacked, hyper, observe, curvature=h)
    return unstack(rootfree.add_step(stacked, step)), state
