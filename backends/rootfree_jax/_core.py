"""One bucket's call of the core: its turn, the accuracy of its products, the mesh it runs on."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import rootfree
from jax.sharding import NamedSharding
from rootfree import Curvature, Hyper, Rule

from rootfree_jax._buckets import explicit_mesh

Numbers = tuple[tuple[str, float], ...]
"""Hyper-parameters that are Python numbers, by name: part of the program, as in the core."""


def preconditioned(
    rule: Rule[Any], grad: Any, state: Any, hyper: Hyper, curvature: Curvature | None, due: Any
) -> tuple[Any, Any]:
    """Return the preconditioned gradient of a stack and the new state.

    Products are taken in the precision of their inputs on every device: float32 means float32.

    Args:
        rule: of the stack.
        grad: ``(n, *shape)``.
        state: the rule's.
        hyper: the scalars of this step, in the rule's working dtype.
        curvature: replaces the gradient outer product.
        due: from `rootfree_jax._schedule.due`, () for the stack or (n,) for its members. Where
            nobody is due nothing of the observation is computed, unless `jax.vmap` maps over it:
            then both branches are.
    """
    values = hyper._asdict()
    numbers = tuple((name, value) for name, value in values.items() if isinstance(value, float))
    arrays = {name: value for name, value in values.items() if not isinstance(value, float)}
    static: Any = rule  # a frozen dataclass, and so hashable, which no protocol can say
    observe = _observing(static, numbers)

    def core(grad: Any, state: Any, arrays: Any, curvature: Any, due: Any) -> tuple[Any, Any]:
        if due is None:
            state = observe(grad, state, arrays, curvature, None)
        else:
            some, active = (due, None) if due.ndim == 0 else (jnp.any(due), due)
            operands = (grad, state, arrays, curvature, active)
            state = jax.lax.cond(some, observe, _unchanged, *operands)
        return rule.direction(grad, state, Hyper(**dict(numbers), **arrays)), state

    with jax.default_matmul_precision("highest"):
        direction, state = _meshed(core, grad, state)(grad, state, arrays, curvature, due)
    return direction, state


@lru_cache(maxsize=1024)
def _observing(rule: Rule[Any], numbers: Numbers) -> Callable[..., Any]:
    """Return a branch of `jax.lax.cond`: the same one each time, so that JAX traces it once."""

    def observe(grad: Any, state: Any, arrays: Any, curvature: Any, active: Any) -> Any:
        hyper = Hyper(**dict(numbers), **arrays)
        return rootfree.observed(rule, grad, state, hyper, curvature=curvature, active=active)

    return observe


def _unchanged(grad: Any, state: Any, arrays: Any, curvature: Any, active: Any) -> Any:
    del grad, arrays, curvature, active
    return state


def _meshed(core: Callable[..., Any], grad: Any, state: Any) -> Callable[..., Any]:
    """Return ``core`` as it runs on the gradient's mesh.

    On explicit axes JAX wants the layout of every product and reshape, which the core cannot say.
    There it runs with these axes automatic; directions are laid out as their gradients, and the new
    state as the old one.
    """
    mesh = explicit_mesh(grad)
    if mesh is None:
        return core

    def layout(array: Any) -> Any:
        return NamedSharding(mesh, jax.typeof(array).sharding.spec)

    layouts = (layout(grad), jax.tree.map(layout, state))
    axes = mesh.explicit_axes
    meshed: Callable[..., Any] = jax.sharding.auto_axes(core, axes=axes, out_sharding=layouts)
    return meshed
