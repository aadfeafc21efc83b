"""The optimizer state: one tree per role, parallel to the parameters.

A role's entry for a parameter is an array; where the rule has one for each axis, a tuple of them;
and where the structure of an axis keeps several arrays, a tuple of these in its place. So key paths
read ``statistic.layer.w`` and ``factor.layer.w.0``, and `optax.tree.map_params` finds the trees. It
wants ``is_leaf=lambda x: isinstance(x, tuple)`` to map tuples along with trees that have one leaf
per parameter, such as shardings. What is absent is `optax.MaskedNode()`, a node without leaves: not
every checkpointer saves zero-size placeholders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from rootfree import Rule
from rootfree_array._precision import salt

from rootfree_jax._buckets import stack, unstack
from rootfree_jax._leaves import Leaves, is_absent, takes_part
from rootfree_jax._precision import as_array


class ScaleState(NamedTuple):
    """State of the ``scale_by_*`` transformations."""

    count: Any  # updates applied, () int32
    statistic: Any  # s per parameter, of its shape; a matrix, or one for each axis
    factor: Any  # K_j per parameter and axis, as its structure stores it
    factor_momentum: Any  # m_j per parameter and axis, as the factor
    root: Any  # inverse root of the statistic
    first_moment: Any  # average of gradients per parameter, of its shape
    salt: Any  # key of the stochastic-rounding bits per parameter, () int32
    phase: Any  # by how many steps its turns come early, per parameter, () int32


class DescendState(NamedTuple):
    """State of `descend`."""

    count: Any  # updates applied, () int32
    momentum: Any  # heavy-ball buffer per parameter, of its shape
    salt: Any  # key of the stochastic-rounding bits per parameter, () int32


S = TypeVar("S", ScaleState, DescendState)

Row = dict[str, Any]
"""One leaf's entries by role; what is absent is ``None`` or `optax.MaskedNode()`."""


def roles_of(rule: Any) -> list[str]:
    """Return the roles that a rule's state has; no salt if there is nothing to round."""
    fields = _template(rule, ())._asdict()
    found = [role for role, value in fields.items() if value is not None and role != "step"]
    return [] if found == ["salt"] else found


def fresh(
    kind: type[S],
    leaves: Leaves,
    rule_of: Callable[[Any, str], Rule[Any]],
    *,
    present: Collection[str],
) -> S:
    """Return the state before the first step.

    Args:
        kind: the transformation's state.
        leaves: the parameters.
        rule_of: gives the rule for a parameter, and what to call it in errors.
        present: the roles that the configuration needs. They are there whatever the parameters are,
            so that the state of no parameters has the structure of any other.

    Raises:
        TypeError: if a parameter is not a real floating-point array; the message names it.
        ValueError: if the state dtype, or the structures, do not go with a parameter.
    """
    rows: list[Row] = []
    for name, param in leaves:
        absent = param if is_absent(param) else optax.MaskedNode()
        row: Row = dict.fromkeys(present, absent)
        if not is_absent(param):
            rule = rule_of(param, f"parameter {name!r}")
            if takes_part(param):
                initial = _salted(_initial(rule, param, name), name)
                row = row_of(row, jax.tree.map(unstack, initial))
        rows.append(row)
    trees = {
        role: leaves.tree([row[role] for row in rows]) if role in present else optax.MaskedNode()
        for role in _roles(kind)
    }
    return kind(count=jnp.zeros((), jnp.int32), **trees)


def rows_of(state: Any, grads: Leaves) -> list[Row]:
    """Return each gradient's part of the state.

    Raises:
        ValueError: if the state was not made for such a tree; the message names the leaf.
    """
    rows: list[Row] = [{} for _ in grads.names]
    for role in _roles(type(state)):
        tree = getattr(state, role)
        if not is_absent(tree):
            entries = grads.subtrees(tree, role)
            for name, row, entry in zip(grads.names, rows, entries, strict=True):
                row[role] = entry
                if role == "phase":  # nobody but the schedule reads it
                    what = f"phase of {name!r}"
                    row[role] = jax.tree.map(lambda x, what=what: as_array(x, what), entry)
    return rows


def advanced(state: S, grads: Leaves, rows: Sequence[Row]) -> S:
    """Return the state with new arrays, one update further."""
    trees = {
        role: grads.tree([row[role] for row in rows])
        for role in _roles(type(state))
        if not is_absent(getattr(state, role))
    }
    return state._replace(count=optax.safe_increment(state.count), **trees)


def member(rule: Any, row: Row, shape: tuple[int, ...], name: str) -> Any:
    """Return one leaf's entries as its rule's state, not stacked, without the step.

    Args:
        rule: the leaf's.
        row: its entries.
        shape: of its gradient.
        name: of the leaf.

    Raises:
        ValueError: if the entries are not of the shapes that the rule needs for this gradient; the
            message names the leaf.
    """
    like = _template(rule, shape)
    fields: Row = dict.fromkeys(like._fields)
    for role, entry in row.items():
        if role == "phase":  # the schedule's, no rule has it
            continue
        wanted: list[Any] = jax.tree.leaves(getattr(like, role))
        # Containers other than ours are taken as well: flax's nnx makes its own of tuples.
        arrays = [as_array(array, f"{role} of {name!r}") for array in jax.tree.leaves(entry)]
        shapes, needed = [x.shape for x in arrays], [x.shape[1:] for x in wanted]
        if shapes != needed:
            raise ValueError(
                f"state {role!r} of {name!r} has shape {_words(shapes)}, this gradient needs "
                f"{_words(needed)}; make the state with init from the parameters of these gradients"
            )
        fields[role] = jax.tree.unflatten(jax.tree.structure(getattr(like, role)), arrays)
    return like._replace(**fields)


def row_of(row: Row, state: Any) -> Row:
    """Return a row with the entries of a rule's state, not stacked, in place of its own."""
    return row | {role: _kept(getattr(state, role)) for role in row if role != "phase"}


@lru_cache(maxsize=4096)
def _template(rule: Any, shape: tuple[int, ...]) -> Any:
    """Return the rule's state for a stack of one parameter, shapes in place of arrays."""
    like: Any = jax.ShapeDtypeStruct
    return jax.eval_shape(rule.init, like((1, *shape), jnp.float32))


def _initial(rule: Rule[Any], param: Any, name: str) -> Any:
    # An array that is made on a device stays there, "committed"; steps would be compiled twice,
    # for parameters that are free at first and follow such state afterwards.
    free = not isinstance(param, Tracer) and not getattr(param, "committed", True)
    static: Any = rule  # a frozen dataclass, and so hashable, which no protocol can say
    try:
        return _free(static, stack(param)) if free else rule.init(stack(param))
    except ValueError as error:
        raise ValueError(f"parameter {name!r}, shaped {param.shape}: {error}") from error


@partial(jax.jit, static_argnums=0)
def _free(rule: Any, params: Any) -> Any:
    return rule.init(params)


def _kept(value: Any) -> Any:
    """Return a field of a rule's state as it is kept here; a factor of one array is that array."""
    if not isinstance(value, tuple):
        return value
    single = [isinstance(entry, tuple) and len(entry) == 1 for entry in value]
    return tuple(_kept(e[0] if alone else e) for e, alone in zip(value, single, strict=True))


def _words(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes)) or "None"


def _roles(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field for field in kind._fields if field != "count")


def _salted(state: Any, name: str) -> Any:
    """Return the state with the key of its rounding bits: CRC-32 of the leaf's name."""
    if state.salt is None:
        return state
    return state._replace(salt=jnp.full_like(state.salt, salt(name)))
