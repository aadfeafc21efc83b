"""The two transformations that an optimizer is chained of: preconditioning, then descent.

Each walks the leaves, hands them to the core as stacks and puts the results back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
import optax
import rootfree
from rootfree import Arguments, Hyper, Method, Precision, Rule
from rootfree_array._precision import warn_if_stalled

from rootfree_jax._buckets import Bucket, buckets
from rootfree_jax._core import preconditioned
from rootfree_jax._leaves import Leaves, check_gradients, curvatures, is_absent, takes_part
from rootfree_jax._precision import DTYPES, policy_of, widest_policy
from rootfree_jax._schedule import due, phases, takes_turns, turns
from rootfree_jax._state import (
    DescendState,
    Row,
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
BucketStep = Callable[[Bucket, Any, Any], tuple[Any, Any]]

_BUFFERED: Final = ("momentum", "precond_momentum")


def precondition(
    method: Method, checked: Arguments, *, together: bool
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of gradients into preconditioned directions.

    Args:
        method: a method that has a statistic, without the hyper-parameters of the descent.
        checked: the arguments of this method, or of the one it was taken from.
        together: whether equal leaves are stacked.
    """
    rule_of, probe = _rules(method, checked)
    present = roles_of(probe)
    in_turn, period = takes_turns(checked), checked.update_every

    def init(params: Any) -> ScaleState:
        leaves = Leaves.of(params, "parameter")
        state = fresh(ScaleState, leaves, rule_of, present=present)
        if in_turn:
            rules = _rules_of(leaves, leaves.arrays, rule_of)
            state = state._replace(phase=phases(rules, leaves, period))
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
        rules = _rules_of(grads, grads.arrays, rule_of)
        replaced = curvatures(grads, curvature)
        for i, rule in rules.items():
            if not is_absent(replaced[i]):
                shape = grads.arrays[i].shape
                rootfree.check_curvature(
                    grads.names[i],
                    replaced[i],
                    shape=shape,
                    dims=rule.dims(shape),
                    kinds=method.takes(checked.options),
                    title=method.title,
                )
        terms = checked.batch_size if batch_size is None else batch_size
        hyper = _hyper(checked, lr=0.0, curvature_scale=_alpha(terms, checked.loss_reduction))
        rows = rows_of(state, grads)
        for_all = due(period, state.count)
        parts = turns(rules, grads, period) if in_turn and together else [list(rules)]

        def step(bucket: Bucket, inputs: Any, old: Any) -> tuple[Any, Any]:
            grad, h = inputs
            own = [rows[i].get("phase") for i in bucket.members] if in_turn else []
            own = jax.tree.leaves(own)  # none in a state that was made without turns
            observes = for_all
            if own:
                observes = due(period, state.count, own[0] if len(own) == 1 else jnp.stack(own))
            scalars = rootfree.scalars(hyper, bucket.rule.precision.working_dtype)
            return preconditioned(bucket.rule, grad, old, scalars, h, observes)

        inputs = {
            i: (grads.arrays[i], None if is_absent(replaced[i]) else replaced[i]) for i in rules
        }
        return _stepped(grads, state, rows, rules, inputs, step, together=together, parts=parts)

    return optax.GradientTransformationExtraArgs(init, update)


def descent(
    method: Method, checked: Arguments, *, same_dtype: bool, together: bool
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of directions into what is added to the parameters.

    Args:
        method: SGD, which is nothing but this stage.
        checked: its arguments.
        same_dtype: whether a direction must have its parameter's dtype, as a gradient must.
        together: whether equal leaves are stacked.
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
        rules = _rules_of(grads, targets, rule_of)
        hyper = _hyper(checked, lr=rate(state.count) if callable(rate) else rate)

        def step(bucket: Bucket, inputs: Any, old: Any) -> tuple[Any, Any]:
            grad, param = inputs
            step, new = rootfree.update(bucket.rule, grad, old, param, hyper)
            return rootfree.as_update(step, targets[bucket.members[0]].dtype), new

        inputs = {i: (grads.arrays[i], targets[i] if decays else grads.arrays[i]) for i in rules}
        rows = rows_of(state, grads)
        return _stepped(grads, state, rows, rules, inputs, step, together=together)

    return optax.GradientTransformationExtraArgs(init, update)


def _stepped(
    grads: Leaves,
    state: S,
    rows: list[Row],
    rules: Mapping[int, Rule[Any]],
    inputs: Mapping[int, Any],
    step: BucketStep,
    *,
    together: bool,
    parts: Sequence[Sequence[int]] = (),
) -> tuple[Any, S]:
    """Return results and new state; a leaf that takes no part keeps what it has.

    Args:
        grads: the gradients.
        state: of all leaves.
        rows: their parts of it.
        rules: of each leaf that takes part, by its place.
        inputs: what ``step`` takes of it beside its state, the gradient first.
        step: gives results and new states of a bucket from inputs and states, both as stacks.
        together: whether equal leaves are stacked.
        parts: leaves of different ones are not.
    """
    results = list(grads.arrays)
    whole = {
        i: (
            inputs[i],
            member(rule, rows[i], grads.arrays[i].shape, grads.names[i]),
        )
        for i, rule in rules.items()
    }
    of_part = {i: number for number, part in enumerate(parts) for i in part}
    for bucket in buckets(rules, whole, together=together, turns=of_part):
        stacked, old = bucket.stacked(whole)
        count = jnp.broadcast_to(state.count, (bucket.size,))
        result, new = step(bucket, stacked, old._replace(step=count))
        split = bucket.split((result, new._replace(step=None)))
        for i, (each, member_state) in zip(bucket.members, split, strict=True):
            results[i], rows[i] = each, row_of(rows[i], member_state)
    return grads.tree(results), advanced(state, grads, rows)


def _rules_of(leaves: Leaves, targets: Sequence[Any], rule_of: RuleOf) -> dict[int, Rule[Any]]:
    """Return the rule of each leaf that takes part, by its place."""
    return {
        i: rule_of(targets[i], f"{leaves.kind} {name!r}")
        for i, (name, leaf) in enumerate(leaves)
        if takes_part(leaf)
    }


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
