"""The optimizer state: one tree per role, parallel to the parameters.

So `optax.tree.map_params` finds the trees, and key paths read ``statistic.layer.w``. What is absent
is `optax.MaskedNode()`, a node without leaves: not every checkpointer saves zero-size placeholders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import optax
from rootfree import DiagonalState, Rule
from rootfree_array._precision import salt

from rootfree_jax._leaves import Leaves, is_absent, stack, takes_part, unstack


class ScaleState(NamedTuple):
    """State of the ``scale_by_*`` transformations."""

    count: Any  # updates applied, () int32
    statistic: Any  # s per parameter, of its shape
    first_moment: Any  # average of gradients per parameter, of its shape
    salt: Any  # key of the stochastic-rounding bits per parameter, () int32


class DescendState(NamedTuple):
    """State of `descend`."""

    count: Any  # updates applied, () int32
    momentum: Any  # heavy-ball buffer per parameter, of its shape
    salt: Any  # key of the stochastic-rounding bits per parameter, () int32


S = TypeVar("S", ScaleState, DescendState)

Row = dict[str, Any]
"""One leaf's arrays by role; what is absent is ``None`` or `optax.MaskedNode()`."""


def fresh(
    kind: type[S],
    params: Any,
    rule_of: Callable[[Any, str], Rule[Any]],
    *,
    present: Collection[str],
) -> S:
    """Return the state before the first step.

    Args:
        kind: the transformation's state.
        params: pytree of parameters.
        rule_of: gives the rule for a parameter, and what to call it in errors.
        present: the roles that the configuration needs. They are there whatever the parameters are,
            so that the state of no parameters has the structure of any other.

    Raises:
        TypeError: if a parameter is not a real floating-point array; the message names it.
        ValueError: if the state dtype does not go with a parameter's.
    """
    leaves = Leaves.of(params, "parameter")
    rows: list[Row] = []
    for name, param in leaves:
        absent = param if is_absent(param) else optax.MaskedNode()
        row: Row = dict.fromkeys(present, absent)
        if not is_absent(param):
            rule = rule_of(param, f"parameter {name!r}")
            if takes_part(param):
                row = row_of(row, _salted(rule.init(stack(param)), name))
        rows.append(row)
    trees = {
        role: leaves.tree([row[role] for row in rows]) if role in present else optax.MaskedNode()
        for role in _roles(kind)
    }
    return kind(count=jnp.zeros((), jnp.int32), **trees)


def rows_of(state: Any, grads: Leaves) -> list[Row]:
    """Return each gradient's part of the state.

    Raises:
        ValueError: if the state was not made for such gradients; the message names the leaf.
    """
    rows: list[Row] = [{} for _ in grads.names]
    for role in _roles(type(state)):
        tree = getattr(state, role)
        if is_absent(tree):
            continue
        for row, array, (name, grad) in zip(rows, grads.parallel(tree, role), grads, strict=True):
            if takes_part(grad):
                _check_fits(role, array, () if role == "salt" else grad.shape, name)
            row[role] = array
    return rows


def advanced(state: S, grads: Leaves, rows: Sequence[Row]) -> S:
    """Return the state with new arrays, one update further."""
    trees = {
        role: grads.tree([row[role] for row in rows])
        for role in _roles(type(state))
        if not is_absent(getattr(state, role))
    }
    return state._replace(count=optax.safe_increment(state.count), **trees)


def member(row: Row, count: Any) -> DiagonalState:
    """Return one leaf's arrays as its rule's state, a stack of one."""
    fields: Row = {**dict.fromkeys(DiagonalState._fields), **row, "step": count}
    return DiagonalState(**{role: stack(array) for role, array in fields.items()})


def row_of(row: Row, state: DiagonalState) -> Row:
    """Return the arrays that a rule's state has for the roles of ``row``."""
    return {role: unstack(getattr(state, role)) for role in row}


def _roles(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field for field in kind._fields if field != "count")


def _check_fits(role: str, array: Any, shape: tuple[int, ...], name: str) -> None:
    found = None if is_absent(array) else array.shape
    if found != shape:
        raise ValueError(
            f"state {role!r} of {name!r} has shape {found}, this gradient needs {shape}; make the "
            "state with init from the parameters of these gradients"
        )


def _salted(state: DiagonalState, name: str) -> DiagonalState:
    """Return the state with the key of its rounding bits: CRC-32 of the leaf's name."""
    if state.salt is None:
        return state
    keys: Any = jnp.full_like(state.salt, salt(name))
    return state._replace(salt=keys)
