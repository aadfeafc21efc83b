"""A rule's state by role name: what every adapter keeps, shows and saves.

A rule's state is a ``NamedTuple``; a field is an array, ``None``, or a tuple with an entry for each
axis, itself an array or the stored arrays of a structured factor. The role of an array is its
field's name with indices: ``momentum``, ``statistic.0``, ``factor.1``, ``factor.1.0``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rootfree._typing import Array, device, namespace
from rootfree.precision import Precision


def roles(state: Any) -> dict[str, Array]:
    """Return the arrays of a rule's state by role, in the order of its fields."""
    return {
        name: array
        for field, value in state._asdict().items()
        for name, array in _leaves(field, value)
    }


def with_roles(state: Any, arrays: Mapping[str, Any]) -> Any:
    """Return a state like ``state`` with arrays, of any kind, put in by role.

    Args:
        state: gives the roles.
        arrays: by role; a role that is missing here keeps what ``state`` has.
    """
    return state._replace(
        **{field: _placed(field, value, arrays) for field, value in state._asdict().items()}
    )


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Array]]:
    """Yield the arrays under a name; a factor that is one array has no index of its own."""
    if value is None:
        return
    if not isinstance(value, tuple):
        yield name, value
        return
    for axis, entry in enumerate(value):
        parts = entry if isinstance(entry, tuple) else (entry,)
        for part, array in enumerate(parts):
            yield (f"{name}.{axis}.{part}" if len(parts) > 1 else f"{name}.{axis}"), array


def _placed(name: str, value: Any, arrays: Mapping[str, Any]) -> Any:
    if value is None:
        return None
    if not isinstance(value, tuple):
        return arrays.get(name, value)
    return tuple(_placed_entry(f"{name}.{axis}", entry, arrays) for axis, entry in enumerate(value))


def _placed_entry(name: str, entry: Any, arrays: Mapping[str, Any]) -> Any:
    if not isinstance(entry, tuple):
        return arrays.get(name, entry)
    if len(entry) == 1:
        return (arrays.get(name, entry[0]),)
    return tuple(arrays.get(f"{name}.{part}", array) for part, array in enumerate(entry))


def counter(param: Array) -> Array:
    """Return a zero for every member of a stack of parameters, ``(n,)`` int32."""
    xp = namespace(param)
    return xp.zeros((param.shape[0],), dtype=xp.int32, device=device(param))


def salt(param: Array, precision: Precision) -> Array | None:
    """Return the place of the keys of the rounding bits, ``(n,)`` int32, if bits are needed."""
    return counter(param) if precision.rounding == "stochastic" else None


def buffer(param: Array, precision: Precision, *, kept: bool) -> Array | None:
    """Return zeros shaped like a stack of parameters in the state's dtype, if ``kept``."""
    return namespace(param).zeros_like(param, dtype=precision.state_dtype) if kept else None
