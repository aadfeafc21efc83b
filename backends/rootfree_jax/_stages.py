"""The two transformations that an optimizer is chained of: preconditioning, then descent.

Each walks the leaves, hands them to the core as stacks of one and puts the results back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import jax.numpy as jnp
import optax
import rootfree
from rootfree import Arguments, DiagonalCurvature, DiagonalState, Hyper, Method, Rule

from rootfree_jax._leaves import (
    Leaves,
    check_curvature,
    check_gradients,
    is_absent,
    stack,
    takes_part,
    unstack,
)
from rootfree_jax._precision import precision
from rootfree_jax._state import (
    DescendState,
    S,
    ScaleState,
    advanced,
    fresh,
    member,
    row_of,
    rows_of,
)

RuleOf = Callable[[Any, str], Rule[Any]]
LeafStep = Callable[[int, Any, DiagonalState], tuple[Any, DiagonalState]]


def precondition(method: Method, checked: Arguments) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of gradients into preconditioned directions.

    Args:
        method: a method that has a statistic, without the hyper-parameters of the descent.
        checked: the arguments of this method, or of the one it was taken from.
    """
    averages = method.momentum == "average" and not is_zero(checked.hyper["momentum"])
    options = {name: checked.options[name] for name in method.options}
    rule_of = _rules(method, checked, momentum=averages, options=options)
    present = ["statistic", *_present(checked, "first_moment", averages, salted=True)]

    def init(params: Any) -> ScaleState:
        return fresh(ScaleState, params, rule_of, present=present)

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        batch_size: Any = None,
        curvature: Any = None,
        **extra: Any,
    ) -> tuple[Any, Any]:
        del extra
        grads = Leaves.of(updates, "gradient")
        if params is not None:
            check_gradients(grads, grads.parallel(params, "parameter"), same_dtype=True)
        diagonals: Sequence[Any] = [None] * len(grads.names)
        if curvature is not None:
            diagonals = check_curvature(grads, grads.parallel(curvature, "curvature"))
        terms = checked.batch_size if batch_size is None else batch_size
        hyper = _hyper(checked, lr=0.0, curvature_scale=_alpha(terms, checked.loss_reduction))

        def leaf_step(i: int, grad: Any, state: DiagonalState) -> tuple[Any, DiagonalState]:
            rule = rule_of(grad, f"gradient {grads.names[i]!r}")
            h = None if is_absent(diagonals[i]) else DiagonalCurvature(stack(diagonals[i]))
            scalars = rootfree.scalars(hyper, rule.precision.working_dtype)
            state = rule.observe(grad, state, scalars, h)
            return rule.direction(grad, state, scalars), state

        return _walk(grads, state, leaf_step)

    return optax.GradientTransformationExtraArgs(init, update)


def descent(
    method: Method, checked: Arguments, *, same_dtype: bool
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of directions into what is added to the parameters.

    Args:
        method: SGD, which is nothing but this stage.
        checked: its arguments.
        same_dtype: whether a direction must have its parameter's dtype, as a gradient must.
    """
    rate = checked.hyper["lr"]
    heavy_ball = not is_zero(checked.hyper["momentum"])
    decays = not is_zero(checked.hyper["weight_decay"])
    rule_of = _rules(method, checked, momentum=heavy_ball, options=checked.options)
    present = _present(checked, "momentum", heavy_ball, salted=heavy_ball)

    def init(params: Any) -> DescendState:
        return fresh(DescendState, params, rule_of, present=present)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del extra
        if params is None and decays:
            raise ValueError(
                "`params` is needed for `weight_decay`: call update(grads, state, params), or make "
                "the optimizer with weight_decay=0.0"
            )
        grads = Leaves.of(updates, "gradient")
        targets = grads.arrays  # stand for the parameters where a step does not depend on them
        if params is not None:
            targets = grads.parallel(params, "parameter")
            check_gradients(grads, targets, same_dtype=same_dtype)
        hyper = _hyper(checked, lr=rate(state.count) if callable(rate) else rate)

        def leaf_step(i: int, grad: Any, state: DiagonalState) -> tuple[Any, DiagonalState]:
            rule = rule_of(targets[i], f"gradient {grads.names[i]!r}")
            param: Any = jnp.zeros_like(grad) if params is None else stack(targets[i])
            step, state = rootfree.update(rule, grad, state, param, hyper)
            return rootfree.as_update(step, targets[i].dtype), state

        return _walk(grads, state, leaf_step)

    return optax.GradientTransformationExtraArgs(init, update)


def is_zero(value: Any) -> bool:
    """Return whether a hyper-parameter is 0 for good: a traced one may be anything, unread."""
    return isinstance(value, Real) and value == 0


def _walk(grads: Leaves, state: S, leaf_step: LeafStep) -> tuple[Any, S]:
    """Return results and new state; a leaf that takes no part keeps what it has."""
    results, rows = list(grads.arrays), rows_of(state, grads)
    for i, (grad, row) in enumerate(zip(grads.arrays, rows, strict=True)):
        if takes_part(grad):
            result, new = leaf_step(i, stack(grad), member(row, state.count))
            results[i], rows[i] = unstack(result), row_of(row, new)
    return grads.tree(results), advanced(state, grads, rows)


def _rules(
    method: Method, checked: Arguments, *, momentum: bool, options: dict[str, Any]
) -> RuleOf:
    """Return the function that gives the rule for a leaf and what to call the leaf in errors."""

    def rule_of(leaf: Any, name: str) -> Rule[Any]:
        policy = precision(
            leaf, state_dtype=checked.state_dtype, rounding=checked.rounding, name=name
        )
        return method.rule(policy, momentum=momentum, **options)

    return rule_of


def _present(checked: Arguments, buffer: str, buffered: bool, *, salted: bool) -> list[str]:
    """Return the roles that a momentum, and the rounding of what is stored, bring with them."""
    salted = salted and checked.rounding == "stochastic"
    return [buffer] * buffered + ["salt"] * salted


def _alpha(batch_size: Any, loss_reduction: Any) -> rootfree.Scalar:
    rootfree.check_hyper("batch_size", batch_size)
    return rootfree.curvature_scale(batch_size, loss_reduction)


def _hyper(checked: Arguments, **changed: Any) -> Hyper:
    return Hyper(**{**checked.hyper, **changed})
