"""Bare work as a contestant: the matrix products alone, or a copy of the parameters.

Each product goes into an array that is there already (torch), or is a result of one jitted function
(JAX). Nothing else is done, so an optimizer that takes these products cannot be much faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

import rootfree
import torch

from benchmarks.contestants import Contestant, Racer
from benchmarks.products import Axis, Product, all_products, taken_products
from benchmarks.shape_sets import GRADIENT_SCALE, PARAMETER_SCALE, Shapes, normal

if TYPE_CHECKING:
    import jax

Choose = Callable[[Shapes], list[Axis]]


def floor_12() -> Contestant:
    """Return the products of a step that takes every one of them."""
    return Contestant(
        "floor12", "floor: 12 products", partial(_torch_products, all_products, 1), bound=True
    )


def floor_taken(*, damping: float, update_every: int = 1) -> Contestant:
    """Return the products that rootfree really takes; see `benchmarks.products`."""
    choose = partial(taken_products, damping=damping, update_every=update_every)
    period = f", every {update_every} steps" if update_every > 1 else ""
    return Contestant(
        f"floor_taken_{damping:g}_{update_every}",
        f"floor: products taken, damping {damping:g}{period}",
        partial(_torch_products, choose, update_every),
        warm_up=update_every,
        bound=True,
    )


def floor_merged(merge_dims: int | None) -> Contestant:
    """Return the products that rootfree really takes where neighbouring axes are merged."""
    choose = partial(taken_products, damping=1e-3, merge_dims=merge_dims)
    return Contestant(
        f"floor_merged_{merge_dims}",
        f"floor: products taken, merge_dims={merge_dims}",
        partial(_torch_products, choose, 1),
        bound=True,
    )


def floor_12_jax() -> Contestant:
    """Return the products of a step that takes every one of them, jitted."""
    return Contestant(
        "floor12_jax",
        "floor: 12 products, JAX",
        _jax_products,
        mode="jitted",
        needs=("jax",),
        bound=True,
    )


def copy() -> Contestant:
    """Return one copy of all parameters: one read and one write of each."""
    return Contestant("copy", "floor: one copy of the parameters", _copy, bound=True)


class _Operands:
    """The factors and results of the products of some neighbours in an axis's stack."""

    def __init__(self, axis: Axis, generator: torch.Generator) -> None:
        names = {
            name.rstrip("'") for product in (*axis.observation, *axis.direction) for name in product
        }
        self.axis = axis
        self.arrays = {
            name: torch.randn(axis.shape(name), generator=generator) * PARAMETER_SCALE
            for name in sorted(names)
        }

    def calls(self, products: Iterable[Product], part: slice) -> list[Callable[[], object]]:
        """Return functions that take products of neighbours."""

        def factor(name: str) -> torch.Tensor:
            array = self.arrays[name.rstrip("'")][part]
            return array.mT if name.endswith("'") else array

        return [
            partial(torch.bmm, factor(left), factor(right), out=self.arrays[out][part])
            for left, right, out in products
        ]


def _torch_products(choose: Choose, update_every: int, shapes: Shapes, seed: int) -> Racer:
    """Return what takes the products; those of the observation in turns, as rootfree does."""
    generator = torch.Generator().manual_seed(seed)
    stacks = [_Operands(axis, generator) for axis in choose(shapes)]
    always = [c for s in stacks for c in s.calls(s.axis.direction, slice(None))]
    parts = [(s, part) for s in stacks for part in rootfree.slices(s.axis.members, update_every)]
    costs = [s.axis.flops(s.axis.observation) / s.axis.members * len(part) for s, part in parts]
    turns: list[list[Callable[[], object]]] = [[] for _ in range(update_every)]
    for (s, part), phase in zip(parts, rootfree.phases(costs, update_every), strict=True):
        turns[phase] += s.calls(s.axis.observation, slice(part.start, part.stop))
    turn = cycle(turns)

    def step() -> None:
        for call in (*next(turn), *always):
            call()

    return Racer(step, lambda: 0)


def _jax_products(shapes: Shapes, seed: int) -> Racer:
    """Return what takes all products in one jitted function."""
    import jax
    import jax.numpy as jnp

    axes = all_products(shapes)
    generator = torch.Generator().manual_seed(seed)
    given = [
        {
            name: jnp.asarray(array.numpy())
            for name, array in _Operands(axis, generator).arrays.items()
        }
        for axis in axes
    ]

    def products(operands: list[dict[str, jax.Array]]) -> list[jax.Array]:
        results = []
        for axis, arrays in zip(axes, operands, strict=True):
            made = dict(arrays)
            for left, right, out in (*axis.observation, *axis.direction):
                made[out] = jnp.matmul(_factor(made, left), _factor(made, right))
                results.append(made[out])
        return results

    compiled = jax.jit(products).lower(given).compile()
    return Racer(lambda: jax.block_until_ready(compiled(given)), lambda: 0)  # type: ignore[no-untyped-call]


def _factor(arrays: dict[str, jax.Array], name: str) -> jax.Array:
    array = arrays[name.rstrip("'")]
    return array.mT if name.endswith("'") else array


def _copy(shapes: Shapes, seed: int) -> Racer:
    sources = [torch.tensor(x) for x in normal(shapes, seed, GRADIENT_SCALE)]
    targets: Sequence[torch.Tensor] = [torch.empty_like(x) for x in sources]

    def step() -> None:
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)

    return Racer(step, lambda: 0)
