"""One step of any rule: observe, direction, descent. This is the function an adapter compiles."""

from __future__ import annotations

from typing import Any

from rootfree._typing import Array, Hyper, Rule, S, namespace
from rootfree.curvature import Curvature
from rootfree.descent import descend
from rootfree.precision import cast, per_member, scalars, store
from rootfree.state import roles, with_roles


def update(
    rule: Rule[S],
    grad: Array,
    state: S,
    param: Array,
    hyper: Hyper,
    observe: bool = True,
    *,
    curvature: Curvature | None = None,
    active: Array | None = None,
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
        active: which members take part, ``(n,)`` bool; all by default. The others have the step 0
            and keep their state to the bit; their gradients must be finite.

    Returns:
        The step, ``(n, *shape)`` in the working dtype, to be added to the parameters by
        `rootfree.add_step`, and the new state. No argument is changed.
    """
    if observe:
        state = observed(rule, grad, state, hyper, curvature=curvature, active=active)
    return advanced(rule, grad, state, param, hyper, active=active)


def observed(
    rule: Rule[S],
    grad: Array,
    state: S,
    hyper: Hyper,
    *,
    curvature: Curvature | None = None,
    active: Array | None = None,
) -> S:
    """Return the state after the curvature has entered the preconditioner: `update`'s first half.

    Args:
        rule: as in `update`, with all other arguments.
        grad: gradients ``(n, *shape)``.
        state: of the stack.
        hyper: the scalars of this step.
        curvature: replaces the gradient outer product.
        active: which members take part.
    """
    new = rule.observe(grad, state, scalars(hyper, rule.precision.working_dtype), curvature)
    return _selected(active, new, state)


def advanced(
    rule: Rule[S],
    grad: Array,
    state: S,
    param: Array,
    hyper: Hyper,
    *,
    derived: Any = None,
    active: Array | None = None,
) -> tuple[Array, S]:
    """Return the step and the state after it, for a state that observes no more: the second half.

    Args:
        rule: as in `update`, with all other arguments.
        grad: gradients ``(n, *shape)``.
        state: of the stack.
        param: parameters ``(n, *shape)``.
        hyper: the scalars of this step.
        derived: from ``rule.derive`` of this state, if it was kept.
        active: which members take part.
    """
    dtype = rule.precision.working_dtype
    hyper = scalars(hyper, dtype)
    momentum = None if state.momentum is None else cast(state.momentum, dtype)
    step, momentum = descend(
        rule.direction(grad, state, hyper, derived),
        cast(param, dtype),
        momentum,
        hyper,
        weight_decay_mode=rule.weight_decay_mode,
    )
    if momentum is not None:
        momentum = store(
            momentum, rule.precision, role="momentum", step=state.step, salt=state.salt
        )
    old: Any = state  # a NamedTuple, see State
    new = _selected(active, old._replace(step=state.step + 1, momentum=momentum), old)
    if active is not None:
        xp = namespace(step)
        step = xp.where(per_member(active, step), step, xp.zeros_like(step))
    return step, new


def _selected(active: Array | None, new: S, old: S) -> S:
    """Return the new state of active members and the old one of the others."""
    if active is None:
        return new
    before: Any = roles(old)
    arrays = {
        role: array
        if array is before[role]
        else namespace(array).where(per_member(active, array), array, before[role])
        for role, array in roles(new).items()
    }
    chosen: S = with_roles(new, arrays)
    return chosen
