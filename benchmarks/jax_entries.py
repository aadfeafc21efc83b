"""Contestants on JAX: whole steps in one jitted function that gives its arguments' memory away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.contestants import Contestant, Racer
from benchmarks.shape_sets import GRADIENT_SCALE, PARAMETER_SCALE, Shapes, normal
from benchmarks.torch_entries import BATCH, LR, MOMENTUM, SIRF

if TYPE_CHECKING:
    import optax

Make: TypeAlias = "Callable[[], optax.GradientTransformationExtraArgs]"


def rf_rmsprop() -> Contestant:
    """Return RF-RMSProp."""

    def make() -> optax.GradientTransformationExtraArgs:
        import rootfree_jax

        return rootfree_jax.rf_rmsprop(LR, momentum=MOMENTUM, batch_size=BATCH)

    return _contestant("rf_rmsprop_jax", "RF-RMSProp, JAX", make)


def rmsprop() -> Contestant:
    """Return optax's RMSProp with momentum."""

    def make() -> optax.GradientTransformationExtraArgs:
        import optax

        return optax.with_extra_args_support(optax.rmsprop(LR, decay=0.98, momentum=MOMENTUM))

    return _contestant("rmsprop_optax", "optax RMSProp", make)


def sirf_shampoo() -> Contestant:
    """Return SIRF-Shampoo, dense, every step."""

    def make() -> optax.GradientTransformationExtraArgs:
        import rootfree_jax

        given = {name: value for name, value in SIRF.items() if name != "lr"}
        return rootfree_jax.sirf_shampoo(LR, **given, stack=True)

    return _contestant("sirf_jax", "SIRF-Shampoo, JAX", make)


def _contestant(key: str, title: str, make: Make) -> Contestant:
    return Contestant(key, title, _entered(make), mode="jitted", needs=("jax", "optax"))


def _entered(make: Make) -> Callable[[Shapes, int], Racer]:
    """Return how a transformation becomes a racer."""

    def enter(shapes: Shapes, seed: int) -> Racer:
        import jax
        import jax.numpy as jnp
        import optax

        transformation = make()
        grads = [jnp.asarray(x) for x in normal(shapes, seed + 1, GRADIENT_SCALE)]

        def update(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
            updates, state = transformation.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        jitted = jax.jit(update, donate_argnums=(0, 1))
        params: Any = [jnp.asarray(x) for x in normal(shapes, seed, PARAMETER_SCALE)]
        held: Any = (params, transformation.init(params))
        compiled: Any = None

        def step() -> None:
            nonlocal held, compiled
            if compiled is None:
                compiled = jitted.lower(*held, grads).compile()
            held = jax.block_until_ready(compiled(*held, grads))  # type: ignore[no-untyped-call]

        def state_bytes() -> int:
            return sum(leaf.nbytes for leaf in jax.tree.leaves(held[1]))

        def temporary_bytes() -> int | None:
            analysis = compiled.memory_analysis()
            return None if analysis is None else int(analysis.temp_size_in_bytes)

        return Racer(step, state_bytes, temporary_bytes)

    return enter
