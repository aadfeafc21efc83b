"""State by parameter and role: from the core's stacks to plain arrays and back, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def stacked(arrays: Sequence[Array]) -> Any:
    """Return arrays of one kind as a stack; a single one is not copied."""
    if len(arrays) == 1:
        return stack(arrays[0])
    return array_api_compat.array_namespace(*arrays).stack(arrays, axis=0)


def joined(states: Sequence[State]) -> Any:
    """Return the states of several stacks as that of one."""
    if len(states) == 1:
        return states[0]
    found = [rootfree.roles(state) for state in states]
    return rootfree.with_roles(
        states[0],
        {
            role: array_api_compat.array_namespace(array).concat([s[role] for s in found], axis=0)
            for role, array in found[0].items()
        },
    )


def of_members(state: State, members: range) -> Any:
    """Return the state of neighbours in a stack."""
    arrays = {role: part(array, members) for role, array in rootfree.roles(state).items()}
    return rootfree.with_roles(state, arrays)


def part(array: Array, members: range) -> Any:
    """Return neighbours in a stack; all of them are the stack itself."""
    if len(members) == array.shape[0]:
        return array
    return array[members.start : members.stop, ...]


def overwritten(array: Array, parts: Sequence[tuple[range, Array]]) -> Any:
    """Return a stack with other members at some places, which must be in order."""
    if len(parts) == 1 and len(parts[0][0]) == array.shape[0]:
        return parts[0][1]
    pieces, end = [], 0
    for members, new in parts:
        pieces += [array[end : members.start, ...], new]
        end = members.stop
    pieces.append(array[end:, ...])
    xp = array_api_compat.array_namespace(array)
    return xp.concat([piece for piece in pieces if piece.shape[0]], axis=0)


def fresh(rule: Rule[Any], name: str, param: Array) -> Any:
    """Return a parameter's state before its first step; its rounding key comes from its name.

    Raises:
        ValueError: if the rule's configuration does not go with the parameter's shape.
    """
    try:
        state = rule.init(stack(param))
    except ValueError as error:
        raise ValueError(f"parameter {name!r}: {error}") from None
    if state.salt is None:
        return state
    xp = array_api_compat.array_namespace(param)
    return state._replace(salt=xp.full_like(state.salt, salt(name)))


def roles(state: State, phase: int | None = None) -> Roles:
    """Return copies of the arrays that a stack of one holds, by role, with its phase if any."""
    copies = {
        role: array_api_compat.array_namespace(array).asarray(unstack(array), copy=True)
        for role, array in rootfree.roles(state).items()
    }
    if phase is None:
        return copies
    step: Any = copies.pop("step")
    xp = array_api_compat.array_namespace(step)
    return {"step": step, "phase": xp.full_like(step, phase), **copies}


def phase_of(saved: Mapping[str, Any], name: str) -> int | None:
    """Return the phase in a parameter's saved roles, ``None`` if there is none.

    Raises:
        ValueError: if it is no phase.
    """
    phase = saved.get("phase")
    if phase is None:
        return None
    if tuple(phase.shape) or phase.dtype != saved["step"].dtype or int(phase) < 0:
        raise ValueError(
            f"state 'phase' of {name!r} is {phase!r}, of {phase.dtype}; expected a 0-d array "
            "like that of 'step', >= 0"
        )
    return int(phase)


def restored(template: State, saved: Mapping[str, Any], name: str) -> Any:
    """Return a state with the arrays of ``saved``, copied.

    Args:
        template: a fresh state of the same parameter under the same rule.
        saved: role name to array, as `roles` gave it; a phase is `phase_of`'s.
        name: the parameter's name, for errors.

    Raises:
        ValueError: if roles, shapes or dtypes are not the template's; nothing has been written.
    """
    expected = rootfree.roles(template)
    saved = {role: array for role, array in saved.items() if role != "phase"}
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
