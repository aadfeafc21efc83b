"""Leaves as the stacks that the rules take: one by one, or equal ones together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from rootfree import Rule


@dataclass(frozen=True)
class Bucket:
    """Leaves that one call of the core serves.

    Attributes:
        rule: of all its members.
        members: their places among the leaves.
        size: how many parameters the rule sees.
        cut: whether the rule sees the only member itself, cut along its first axis.
    """

    rule: Rule[Any]
    members: tuple[int, ...]
    size: int
    cut: bool

    def stacked(self, inputs: Mapping[int, Any]) -> Any:
        """Return the members' inputs, trees of arrays of one structure, as a tree of stacks."""
        trees = [inputs[i] for i in self.members]
        if self.cut:
            return trees[0]
        if len(trees) == 1:
            return jax.tree.map(stack, trees[0])
        return jax.tree.map(lambda *arrays: jnp.stack(arrays), *trees)

    def split(self, results: Any) -> Sequence[Any]:
        """Return a tree of stacks as one tree for each member."""
        if self.cut:
            return [results]
        if len(self.members) == 1:
            return [jax.tree.map(unstack, results)]
        arrays, treedef = jax.tree.flatten(results)
        apart = zip(*map(jnp.unstack, arrays), strict=True)
        return [jax.tree.unflatten(treedef, each) for each in apart]


def buckets(
    rules: Mapping[int, Rule[Any]],
    inputs: Mapping[int, Any],
    *,
    together: bool,
    turns: Mapping[int, int],
) -> list[Bucket]:
    """Return what the core is called for.

    Args:
        rules: of each leaf, by its place.
        inputs: what a rule takes of each leaf, a tree of arrays; the first one is the gradient.
        together: whether equal leaves are stacked. They are equal if nothing that a program depends
            on tells them apart: rule, structure, shapes, dtypes, layout. On explicit axes of a mesh
            a stack has no layout that all would agree with, so leaves stay alone there.
        turns: leaves with other numbers here are not equal.
    """
    found: dict[Any, list[int]] = {}
    for i, rule in rules.items():
        alone = not together or any(map(_on_explicit_axes, jax.tree.leaves(inputs[i])))
        key = i if alone else (rule, turns.get(i), *_type_of(inputs[i]))
        found.setdefault(key, []).append(i)
    return [_bucket(rules[members[0]], members, inputs) for members in found.values()]


def stack(leaf: Any) -> Any:
    """Return an array as a stack of one, ``(1, *shape)``."""
    return jnp.expand_dims(leaf, 0)


def unstack(array: Any) -> Any:
    """Return the only member of a stack of one."""
    return jnp.squeeze(array, 0)


def explicit_mesh(array: Any) -> Any:
    """Return the mesh whose explicit axes an array's type tells the layout on, if there is one."""
    mesh = getattr(getattr(array.aval, "sharding", None), "mesh", None)
    return mesh if getattr(mesh, "explicit_axes", ()) else None  # since JAX 0.7


def _bucket(rule: Rule[Any], members: list[int], inputs: Mapping[int, Any]) -> Bucket:
    shape = jax.tree.leaves(inputs[members[0]])[0].shape
    # A reshape between the state and its use would make XLA compute the state twice, and copy it.
    cut = len(members) == 1 and rule.elementwise and len(shape) > 0
    return Bucket(rule, tuple(members), shape[0] if cut else len(members), cut)


def _on_explicit_axes(array: Any) -> bool:
    return explicit_mesh(array) is not None


def _type_of(tree: Any) -> tuple[Any, ...]:
    """Return what of a tree a program depends on; of arrays that are there, the devices too."""
    arrays, treedef = jax.tree.flatten(tree)
    where = [None if isinstance(x, Tracer) else x.sharding for x in arrays]
    return treedef, *(x.aval for x in arrays), *where
