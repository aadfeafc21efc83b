"""State by parameter and role: from the core's stacks to plain arrays and back, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import array_api_compat
import rootfree
from rootfree import Array, Rule, State

from rootfree_array._precision import salt

Roles = dict[str, Array]
"""One parameter's state: role name to array without the stack axis; counters are 0-d."""


def stack(array: Array) -> Any:
    """Return ``array`` as a stack of one, ``(1, *shape)``."""
    return array_api_compat.array_namespace(array).reshape(array, (1, *array.shape))


def unstack(array: Array) -> Any:
    """Return the only member of a stack of one."""
    return array_api_compat.array_namespace(array).reshape(array, array.shape[1:])


def fresh(rule: Rule[Any], name: str, param: Array) -> Any:
    """Return a parameter's state before its first step; its rounding key comes from its name."""
    state = rule.init(stack(param))
    if state.salt is None:
        return state
    xp = array_api_compat.array_namespace(param)
    return state._replace(salt=xp.full_like(state.salt, salt(name)))


def roles(state: State) -> Roles:
    """Return copies of the arrays that a state holds, by role."""
    return {
        role: array_api_compat.array_namespace(array).asarray(unstack(array), copy=True)
        for role, array in rootfree.roles(state).items()
    }


def restored(template: State, saved: Mapping[str, Any], name: str) -> Any:
    """Return a state with the arrays of ``saved``, copied.

    Args:
        template: a fresh state of the same parameter under the same rule.
        saved: role name to array, as `roles` gave it.
        name: the parameter's name, for errors.

    Raises:
        ValueError: if roles, shapes or dtypes are not the template's; nothing has been written.
    """
    expected = rootfree.roles(template)
    if set(saved) != set(expected):
        raise ValueError(
            f"state of {name!r} has roles {sorted(saved)}, expected {sorted(expected)}: it was "
            "saved by another method or another configuration of it"
        )
    new = {}
    for role, like in expected.items():
        came = saved[role]
        if tuple(came.shape) != tuple(like.shape[1:]) or came.dtype != like.dtype:
            raise ValueError(
                f"state {role!r} of {name!r} has shape {tuple(came.shape)} and dtype "
                f"{came.dtype}, expected {tuple(like.shape[1:])} and {like.dtype}"
            )
        xp = array_api_compat.array_namespace(like)
        new[role] = stack(xp.asarray(came, copy=True))
    return rootfree.with_roles(template, new)
