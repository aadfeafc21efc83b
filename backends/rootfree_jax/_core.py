"""One leaf's call of the core: its period, the accuracy of its products, the mesh it runs on."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from rootfree import Curvature, Hyper, Rule

Numbers = tuple[tuple[str, float], ...]
"""Hyper-parameters that are Python numbers, by name: part of the program, as in the core."""


def due(update_every: Any, count: Any) -> Any:
    """Return whether the curvature enters at a step, as a 0-d array; ``None`` for always.

    Args:
        update_every: a period, or a function of the count.
        count: updates applied so far, () int32, possibly traced.
    """
    if callable(update_every):
        return jnp.asarray(update_every(count), bool)
    return None if update_every == 1 else count % update_every == 0


def preconditioned(
    rule: Rule[Any], grad: Any, state: Any, hyper: Hyper, curvature: Curvature | None, observes: Any
) -> tuple[Any, Any]:
    """Return the preconditioned gradient of a stack and the new state.

    Products are taken in the precision of their inputs on every device: float32 means float32.

    Args:
        rule: the leaf's rule.
        grad: ``(1, *shape)``.
        state: the rule's.
        hyper: the scalars of this step, in the rule's working dtype.
        curvature: replaces the gradient outer product.
        observes: from `due`. Where it is false nothing of the observation is computed, unless
            `jax.vmap` maps over it: then both branches are.
    """
    values = hyper._asdict()
    numbers = tuple((name, value) for name, value in values.items() if isinstance(value, float))
    arrays = {name: value for name, value in values.items() if not isinstance(value, float)}
    static: Any = rule  # a frozen dataclass, and so hashable, which no protocol can say
    observe = _observing(static, numbers)

    def core(grad: Any, state: Any, arrays: Any, curvature: Any, observes: Any) -> tuple[Any, Any]:
        if observes is None:
            state = observe(grad, state, arrays, curvature)
        else:
            state = jax.lax.cond(observes, observe, _unchanged, grad, state, arrays, curvature)
        return rule.direction(grad, state, Hyper(**dict(numbers), **arrays)), state

    with jax.default_matmul_precision("highest"):
        direction, state = _meshed(core, grad, state)(grad, state, arrays, curvature, observes)
    return direction, state


@lru_cache(maxsize=1024)
def _observing(rule: Rule[Any], numbers: Numbers) -> Callable[..., Any]:
    """Return a branch of `jax.lax.cond`: the same one each time, so that JAX traces it once."""

    def observe(grad: Any, state: Any, arrays: Any, curvature: Any) -> Any:
        return rule.observe(grad, state, Hyper(**dict(numbers), **arrays), curvature)

    return observe


def _unchanged(grad: Any, state: Any, arrays: Any, curvature: Any) -> Any:
    del grad, arrays, curvature
    return state


def _meshed(core: Callable[..., Any], grad: Any, state: Any) -> Callable[..., Any]:
    """Return ``core`` as it runs on the gradient's mesh.

    On explicit axes JAX wants the layout of every product and reshape, which the core cannot say.
    There it runs with these axes automatic; directions are laid out as their gradients, and the new
    state as the old one.
    """
    mesh = getattr(getattr(grad.aval, "sharding", None), "mesh", None)
    axes = getattr(mesh, "explicit_axes", ())  # since JAX 0.7
    if not axes:
        return core

    def layout(array: Any) -> Any:
        return NamedSharding(mesh, jax.typeof(array).sharding.spec)  # type: ignore[arg-type]  # abstract

    layouts = (layout(grad), jax.tree.map(layout, state))
    meshed: Callable[..., Any] = jax.sharding.auto_axes(core, axes=axes, out_sharding=layouts)
    return meshed
