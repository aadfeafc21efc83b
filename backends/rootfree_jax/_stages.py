"""The two transformations that an optimizer is chained of: preconditioning, then descent.

Each walks the leaves, hands them to the core as stacks of one and puts the results back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jax.numpy as jnp
import optax
import rootfree
from rootfree import Arguments, Hyper, Method, Precision, Rule
from rootfree_array._precision import warn_if_stalled

from rootfree_jax._core import due, preconditioned
from rootfree_jax._leaves import (
    Leaves,
    check_gradients,
    curvatures,
    is_absent,
    stack,
    takes_part,
    unstack,
)
from rootfree_jax._precision import DTYPES, policy_of, widest_policy
from rootfree_jax._state import (
    DescendState,
    S,
    ScaleState,
    advanced,
    fresh,
    member,
    roles_of,
    row_of,
    rows_of,
)

RuleOf = Callable[[Any, str], Rule[Any]]
LeafStep = Callable[[int, Any, Rule[Any], Any], tuple[Any, Any]]

_BUFFERED: Final = ("momentum", "precond_momentum")


def precondition(method: Method, checked: Arguments) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of gradients into preconditioned directions.

    Args:
        method: a method that has a statistic, without the hyper-parameters of the descent.
        checked: the arguments of this method, or of the one it was taken from.
    """
    rule_of, probe = _rules(method, checked)
    present = roles_of(probe)

    def init(params: Any) -> ScaleState:
        leaves = Leaves.of(params, "parameter")
        state = fresh(ScaleState, leaves, rule_of, present=present)
        _warn_of_shapes(method, checked, probe, leaves)
        return state

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
            given = grads.parallel(Leaves.of(params, "parameter"))
            check_gradients(grads, given, same_dtype=True)
        replaced = curvatures(grads, curvature)
        terms = checked.batch_size if batch_size is None else batch_size
        hyper = _hyper(checked, lr=0.0, curvature_scale=_alpha(terms, checked.loss_reduction))
        observes = due(checked.update_every, state.count)

        def leaf_step(i: int, grad: Any, rule: Rule[Any], state: Any) -> tuple[Any, Any]:
            h = None if is_absent(replaced[i]) else replaced[i]
            if h is not None:
                shape = grads.arrays[i].shape
                rootfree.check_curvature(
                    grads.names[i],
                    h,
                    shape=shape,
                    dims=rule.dims(shape),
                    kinds=method.takes(checked.options),
                    title=method.title,
                )
                h = rootfree.mapped(h, stack)
            scalars = rootfree.scalars(hyper, rule.precision.working_dtype)
            return preconditioned(rule, grad, state, scalars, h, observes)

        return _walk(grads, state, rule_of, grads.arrays, leaf_step)

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
    decays = not rootfree.is_zero(checked.hyper["weight_decay"])
    rule_of, probe = _rules(method, checked)
    present = roles_of(probe)

    def init(params: Any) -> DescendState:
        return fresh(DescendState, Leaves.of(params, "parameter"), rule_of, present=present)

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
            targets = grads.parallel(Leaves.of(params, "parameter"))
            check_gradients(grads, targets, same_dtype=same_dtype)
        hyper = _hyper(checked, lr=rate(state.count) if callable(rate) else rate)

        def leaf_step(i: int, grad: Any, rule: Rule[Any], state: Any) -> tuple[Any, Any]:
            param: Any = jnp.zeros_like(grad) if params is None else stack(targets[i])
            step, state = rootfree.update(rule, grad, state, param, hyper)
            return rootfree.as_update(step, targets[i].dtype), state

        return _walk(grads, state, rule_of, targets, leaf_step)

    return optax.GradientTransformationExtraArgs(init, update)


def _walk(
    grads: Leaves, state: S, rule_of: RuleOf, targets: Any, leaf_step: LeafStep
) -> tuple[Any, S]:
    """Return results and new state; a leaf that takes no part keeps what it has."""
    results, rows = list(grads.arrays), rows_of(state, grads)
    for i, ((name, grad), row) in enumerate(zip(grads, rows, strict=True)):
        if takes_part(grad):
            rule = rule_of(targets[i], f"gradient {name!r}")
            old = member(rule, row, grad.shape, name, state.count)
            result, new = leaf_step(i, stack(grad), rule, old)
            results[i], rows[i] = unstack(result), row_of(row, new)
    return grads.tree(results), advanced(state, grads, rows)


def _rules(method: Method, checked: Arguments) -> tuple[RuleOf, Rule[Any]]:
    """Return what gives the rule for a leaf and its name in errors, and a rule for any of them.

    The latter says what state there is, and what that needs to move: neither depends on structures,
    which no scalar may fit, nor on dtypes, which a leaf decides.
    """
    kept = {name for name in method.buffers if not rootfree.is_zero(checked.hyper[name])}
    without = [name for name in _BUFFERED if name not in kept]
    options = {name: checked.options[name] for name in method.options}

    def rule_of(leaf: Any, name: str) -> Rule[Any]:
        policy = policy_of(str(leaf.dtype), checked, name)
        return method.rule(policy.precision(DTYPES), without=without, **options)

    single = DTYPES["float32"]
    anywhere = {name: method.options[name] for name in options if name == "structure"}
    probe = method.rule(
        Precision(single, single, single, checked.rounding),
        without=without,
        **{**options, **anywhere},
    )
    return rule_of, probe


def _warn_of_shapes(method: Method, checked: Arguments, rule: Rule[Any], leaves: Leaves) -> None:
    """Warn if state stands still for a shape, where that was not known when this was made."""
    shapes = {param.shape for _, param in leaves if takes_part(param)}
    known = rule.least_rate((), 1.0)
    worse = [shape for shape in shapes if rule.least_rate(shape, 1.0) > known]
    rate = checked.hyper["precond_lr"]
    warn_if_stalled(widest_policy(checked), method, rule, worse, rate, stacklevel=4)


def _alpha(batch_size: Any, loss_reduction: Any) -> rootfree.Scalar:
    rootfree.check_hyper("batch_size", batch_size)
    return rootfree.curvature_scale(batch_size, loss_reduction)


def _hyper(checked: Arguments, **changed: Any) -> Hyper:
    return Hyper(**{**checked.hyper, **changed})
