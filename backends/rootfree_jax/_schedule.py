"""When a leaf's curvature enters: the core's periods and turns, for leaves and traced counts.

A product that a rule could keep between two observations (`rootfree.Rule.derive`) is formed anew in
each step: between steps it would have to live in the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import optax
import rootfree
from rootfree import Arguments, Rule

from rootfree_jax._leaves import Leaves, is_absent


def due(update_every: Any, count: Any, phase: Any = None) -> Any:
    """Return whether the curvature enters at a step, as bool arrays; ``None`` for always.

    Args:
        update_every: a period, or a function of the count.
        count: updates applied so far, () int32, possibly traced.
        phase: of one leaf, () int32, or of several, (n,); ``None`` where they take no turns.
    """
    if callable(update_every):
        return jnp.asarray(update_every(count), bool)
    if update_every == 1:
        return None
    if phase is None:
        return count % update_every == 0
    return (count == 0) | ((count + phase) % update_every == 0)


def takes_turns(checked: Arguments) -> bool:
    """Return whether leaves have phases."""
    every = checked.update_every
    return bool(checked.stagger) and not callable(every) and every > 1


def turns(rules: Mapping[int, Rule[Any]], leaves: Leaves, period: int) -> list[list[int]]:
    """Return the leaves that observe at the same steps, neighbours of one rule and shape.

    Args:
        rules: of each leaf, by its place.
        leaves: the parameters, or anything of their shapes.
        period: of the observation, > 1.
    """
    equal: dict[Any, list[int]] = {}
    for i, rule in rules.items():
        equal.setdefault((rule, leaves.arrays[i].shape), []).append(i)
    return [
        members[part.start : part.stop]
        for members in equal.values()
        for part in rootfree.slices(len(members), period)
    ]


def phases(rules: Mapping[int, Rule[Any]], leaves: Leaves, period: int) -> Any:
    """Return the tree of phases, () int32 for each leaf that has a rule.

    Args:
        rules: of each parameter, by its place.
        leaves: the parameters.
        period: of the observation, > 1.
    """
    parts = turns(rules, leaves, period)
    costs = []
    for part in parts:
        rule: Any = rules[part[0]]  # a frozen dataclass, and so hashable, which no protocol can say
        costs.append(len(part) * _cost(rule, leaves.arrays[part[0]].shape))
    entries = [x if is_absent(x) else optax.MaskedNode() for x in leaves.arrays]
    for part, phase in zip(parts, rootfree.phases(costs, period), strict=True):
        for i in part:
            entries[i] = jnp.asarray(phase, jnp.int32)
    return leaves.tree(entries)


@lru_cache(maxsize=4096)
def _cost(rule: Rule[Any], shape: tuple[int, ...]) -> int:
    return rootfree.plan(rule, [shape]).rows[0].observe_flops
