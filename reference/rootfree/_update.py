"""One step of any rule: observe, direction, descent. This is the function an adapter compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rootfree._typing import Array, Hyper, Rule, S
from rootfree.curvature import Curvature
from rootfree.descent import descend
from rootfree.precision import cast, scalars, store


def observes(update_every: int | Callable[[int], bool], count: int) -> bool:
    """Return whether the curvature enters the preconditioner at a step.

    Args:
        update_every: period, >= 1, or a function that is given ``count``.
        count: steps taken before this one; at 0 a period always answers yes.
    """
    return bool(update_every(count)) if callable(update_every) else count % update_every == 0


def update(
    rule: Rule[S],
    grad: Array,
    state: S,
    param: Array,
    hyper: Hyper,
    observe: bool = True,
    *,
    curvature: Curvature | None = None,
) -> tuple[Array, S]:
    """Compute one step for a stack of n equally shaped parameters.

    Args:
        rule: the rule with its static configuration.
        grad: gradients ``(n, *shape)``.
        state: from ``rule.init`` or the last call.
        param: parameters ``(n, *shape)``.
        hyper: the scalars of this step.
        observe: whether the curvature enters the preconditioner in this step.
        curvature: replaces the gradient outer product.

    Returns:
        The step, ``(n, *shape)`` in the working dtype, to be added to the parameters by
        `rootfree.add_step`, and the new state. No argument is changed.
    """
    dtype = rule.precision.working_dtype
    hyper = scalars(hyper, dtype)
    if observe:
        state = rule.observe(grad, state, hyper, curvature)
    momentum = None if state.momentum is None else cast(state.momentum, dtype)
    step, momentum = descend(
        rule.direction(grad, state, hyper),
        cast(param, dtype),
        momentum,
        hyper,
        weight_decay_mode=rule.weight_decay_mode,
    )
    if momentum is not None:
        momentum = store(
            momentum, rule.precision, role="momentum", step=state.step, salt=state.salt
        )
    new: Any = state  # a NamedTuple, see State
    return step, new._replace(step=state.step + 1, momentum=momentum)
