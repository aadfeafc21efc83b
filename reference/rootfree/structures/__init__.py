"""The structures of a factor, by name: each is one file, and all checks come from this table.

A structure is named as ``"dense"``, or with what it takes as ``"block_diagonal(30)"`` or
``"arrowhead(last_row)"``. What a rule takes for its axes is one name for all of them, a tuple with
a name for each axis, or a mapping from the number of axes to either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from rootfree.precision import Precision
from rootfree.structures._base import Factor, Structure, add, identity, scale, transposed
from rootfree.structures.arrowhead import Arrowhead
from rootfree.structures.block_diagonal import BlockDiagonal
from rootfree.structures.dense import Dense
from rootfree.structures.diagonal import Diagonal
from rootfree.structures.hierarchical import Hierarchical
from rootfree.structures.toeplitz import TrilToeplitz, TriuToeplitz
from rootfree.structures.triangular import Tril, Triu

Layout: TypeAlias = "str | tuple[Any, ...]"
"""Structures of a rule's axes in their one written form: a name, a name for each axis, or pairs of
a number of axes with either."""

STRUCTURES: Final[Mapping[str, type[Structure]]] = MappingProxyType(
    {
        "dense": Dense,
        "diagonal": Diagonal,
        "block_diagonal": BlockDiagonal,
        "tril": Tril,
        "triu": Triu,
        "tril_toeplitz": TrilToeplitz,
        "triu_toeplitz": TriuToeplitz,
        "hierarchical": Hierarchical,
        "arrowhead": Arrowhead,
    }
)
"""Every structure by the first word of its name."""


def structure(name: str, size: int, precision: Precision) -> Structure:
    """Return the structure called ``name`` for an axis of length ``size``.

    Raises:
        ValueError: if there is none, or its numbers are not right; the message lists the names.
    """
    kind, arguments = named(name)
    return kind(size, precision, *arguments)


def named(name: str) -> tuple[type[Structure], tuple[Any, ...]]:
    """Return the class that a name stands for, and what it is called with after size and precision.

    Raises:
        ValueError: as `structure`.
    """
    word, arguments = _parsed(name)
    return STRUCTURES[word], arguments


def names(layout: Layout) -> frozenset[str]:
    """Return every name that occurs in the structures of a rule's axes, from `canonical`."""
    if isinstance(layout, str):
        return frozenset((layout,))
    return frozenset().union(
        *(names(entry if isinstance(entry, str) else entry[1]) for entry in layout)
    )


def canonical(layout: Any) -> Layout:
    """Return the structures of a rule's axes as hashable plain data, checked.

    Args:
        layout: a name; a list or tuple with a name for each axis; or a mapping from the number of
            axes to either. What this function returned is taken as well.

    Raises:
        TypeError: if it is of another kind.
        ValueError: for an unknown name; the message lists the known ones.

    Example:
        >>> canonical({2: ["dense", "diagonal"], 1: "diagonal"})
        ((1, 'diagonal'), (2, ('dense', 'diagonal')))
    """
    if isinstance(layout, Mapping):
        layout = tuple(layout.items())
    if isinstance(layout, str):
        _parsed(layout)
        return layout
    if not isinstance(layout, list | tuple) or not layout:
        raise TypeError(
            "`structure` must be a name, a tuple of names by axis, or a mapping from the number "
            f"of axes to either; got {type(layout).__name__}: {layout!r}"
        )
    if all(isinstance(entry, str) for entry in layout):
        for name in layout:
            _parsed(name)
        return tuple(layout)
    pairs = dict(_pair(entry) for entry in layout)
    if len(pairs) < len(layout):
        raise ValueError(f"`structure` names a number of axes twice: {layout!r}")
    return tuple(sorted(pairs.items(), key=itemgetter(0)))


def by_axis(layout: Layout, axes: int) -> tuple[str, ...]:
    """Return the name of every axis's structure.

    Args:
        layout: from `canonical`.
        axes: how many axes there are.

    Raises:
        ValueError: if it names another number of axes.
    """
    if isinstance(layout, str):
        return (layout,) * axes
    if isinstance(layout[0], str):
        if len(layout) != axes:
            raise ValueError(
                f"`structure` names {len(layout)} axes, {layout!r}, but a parameter has {axes} "
                "(axes of length 1 do not count); give one name, or a mapping from the number of "
                "axes"
            )
        return layout
    for count, entry in layout:
        if count == axes:
            return by_axis(entry, axes)
    raise ValueError(
        f"`structure` has no entry for {axes} axes, it has {', '.join(str(c) for c, _ in layout)}"
    )


def _pair(entry: Any) -> tuple[int, Layout]:
    if isinstance(entry, list | tuple) and len(entry) == 2:
        axes, layout = entry
        if isinstance(axes, int) and not isinstance(axes, bool) and axes >= 1:
            checked = canonical(layout)
            by_axis(checked, axes)
            return axes, checked
    raise TypeError(
        f"`structure` by number of axes must map integers >= 1 to structures, got {entry!r}"
    )


def _parsed(name: str) -> tuple[str, tuple[Any, ...]]:
    """Return the first word of a name, and what its parentheses stand for."""
    found = re.fullmatch(r"(\w+)(?:\(([\w, ]*)\))?", name)
    if found is None or found[1] not in STRUCTURES:
        raise ValueError(f"unknown structure {name!r}; known: {', '.join(STRUCTURES)}")
    words = [] if found[2] is None else [word.strip() for word in found[2].split(",")]
    return found[1], STRUCTURES[found[1]].parsed(name, words)


__all__ = [
    "STRUCTURES",
    "Arrowhead",
    "BlockDiagonal",
    "Dense",
    "Diagonal",
    "Factor",
    "Hierarchical",
    "Layout",
    "Structure",
    "Tril",
    "TrilToeplitz",
    "Triu",
    "TriuToeplitz",
    "add",
    "by_axis",
    "canonical",
    "identity",
    "named",
    "names",
    "scale",
    "structure",
    "transposed",
]
