"""The truth of a case, derived twice: the textbook's value, and the core's value with its bound.

The two derivations share no line. The core runs over `namespaces.bound`; once textbook and core
agree (audit A0), a port is compared with the core's value, and the bound is the tolerance.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import rootfree
import rootfree_textbook
from rootfree import Hyper, Precision

from rootfree_conformance.cases.case import Case
from rootfree_conformance.namespaces.bound import BOOL, INT32, BoundArray, BoundNamespace
from rootfree_conformance.numeric import FORMATS, Format, NumericModel
from rootfree_conformance.port import HostArray


class Bounded(NamedTuple):
    """A value and the error that the declared arithmetic may add to it."""

    value: HostArray
    error: HostArray


Step = dict[str, Bounded]
"""One step's results: ``param`` and the state's roles, in order of computation, param last."""


class Truth:
    """Truths that have been computed, so that all ports with one arithmetic share them."""

    def __init__(self) -> None:
        self._bounds: dict[tuple[Any, ...], tuple[list[Step], float]] = {}
        self._turn = Lock()  # ports that are judged at once ask for the same

    def __call__(self, case: Case, model: NumericModel) -> list[Step]:
        """Return the values and bounds of a case's parameter, computed once."""
        return self._computed(case, model)[0]

    def condition(self, case: Case, model: NumericModel) -> float:
        """Return the largest condition number of what a case solves with or decomposes, or 1."""
        return self._computed(case, model)[1]

    def _computed(self, case: Case, model: NumericModel) -> tuple[list[Step], float]:
        which = (case.label, case.member, case.phase)
        key = (*which, case.policy.label, case.steps, model)
        with self._turn:
            if key not in self._bounds:
                self._bounds[key] = bounds(case, model)
            return self._bounds[key]


def bounds(case: Case, model: NumericModel) -> tuple[list[Step], float]:
    """Return the core's values and bounds after each step of a case, and its condition number.

    For float64 the bound is doubled: value and port both carry that rounding.
    """
    xp = BoundNamespace(model)
    with np.errstate(all="ignore"):  # a rule that is wrong may compute anything; it is judged later
        return _bounds(case, xp), xp.condition


def _bounds(case: Case, xp: BoundNamespace) -> list[Step]:
    policy = case.policy
    stored = _format(policy.state_dtype, stochastic=policy.rounding == "stochastic")
    working = xp.model.working(policy.working_dtype)
    products = working if policy.products is None else FORMATS[policy.products]
    native = xp.model.native_products and policy.products is not None
    rule = case.rule(
        Precision(working, stored, products, product_dtype=products if native else working)
    )
    param = _given(case.param, FORMATS[policy.dtype], xp)
    if not case.param.size:
        return [{"param": Bounded(case.param, np.zeros(case.shape))} for _ in case.grads]
    state = rule.init(param)
    if case.state:
        arrays = {role: _given(case.state[role], stored, xp) for role in case.roles}
        count = BoundArray(np.asarray([case.state["step"]]), 0.0, INT32, xp)
        state = rootfree.with_roles(state, {**arrays, "step": count})
    factor = 2.0 if policy.dtype == "float64" else 1.0
    steps: list[Step] = []
    for number, (grad, values) in enumerate(zip(case.grads, case.hypers, strict=True)):
        # A 0 is a Python number: some rules leave a term out for it, which costs nothing to skip.
        hyper = Hyper(**{k: xp.scalar(v, working) if v else 0.0 for k, v in values.items()})
        if case.takes_part(number):
            g = _given(grad, FORMATS[policy.dtype], xp)
            if case.observes(number, shared=xp.model.count == "shared"):
                state = rootfree.observed(rule, g, state, hyper)
            move, state = _advanced(case, rule, g, state, param, hyper, xp)
            param = _written(param, move, xp.model)
        elif xp.model.count == "shared":
            state = state._replace(step=state.step + 1)
        kept: Any = rootfree.roles(state)  # bounded arrays
        arrays = {role: kept[role] for role in case.roles} | {"param": param}
        steps.append({name: Bounded(a.value[0], a.error[0] * factor) for name, a in arrays.items()})
    return steps


def _advanced(
    case: Case, rule: Any, grad: Any, state: Any, param: Any, hyper: Hyper, xp: BoundNamespace
) -> tuple[Any, Any]:
    """Return the step and the state after it, within bounds of every order of products.

    ``K (K^T x)`` and ``(K K^T) x`` are equal, and a port may take either: a single step pays for
    one, a product that is kept until the next observation for the other. Neither bound is above
    the other everywhere, since one has roundings of ``K^T x`` and the other of ``K K^T``, both of
    which may cancel. So with a period both are computed, from the same state, and the result
    covers the two, at every step anew: whichever a port takes there.
    """
    both: list[tuple[Any, Any]] = [  # of this namespace's arrays
        rootfree.advanced(
            rule, grad, state, param, hyper, derived=rule.derive(state, case.shape, period)
        )
        for period in dict.fromkeys((1, case.period))
    ]
    (step, new), (other, beside) = both[0], both[-1]
    if case.period == 1:
        return step, new
    either = BoundArray(np.asarray(True), 1.0, BOOL, xp)  # a choice that is not certain
    one: dict[str, Any] = rootfree.roles(new)
    two: dict[str, Any] = rootfree.roles(beside)
    arrays: Any = {role: xp.where(either, one[role], two[role]) for role in one}
    return xp.where(either, step, other), rootfree.with_roles(new, arrays)


def textbook(case: Case) -> list[dict[str, Any]]:
    """Return the textbook's values of a case's parameter after each step."""
    settings = case.settings
    scale = settings.pop("init_scale", None)
    without = case.corner.unbuffered(case.method)
    name, param = case.method.name, case.param
    layout = {k: settings[k] for k in ("structure", "max_dim", "merge_dims") if k in settings}
    state = dict(case.state) or rootfree_textbook.init(
        name,
        param,
        init_scale=scale,
        with_momentum="momentum" not in without,
        with_factor_momentum="precond_momentum" not in without,
        **layout,
    )
    if not param.size:
        return [{"param": param} for _ in case.grads]
    steps = []
    for number, (grad, values) in enumerate(zip(case.grads, case.hypers, strict=True)):
        if not case.takes_part(number):
            steps.append({**{role: state[role] for role in case.roles}, "param": param})
            continue
        hyper = {k: v for k, v in values.items() if k != "curvature_scale"}
        hyper |= {"batch_size": values["curvature_scale"], "update_now": case.observes(number)}
        param, state = rootfree_textbook.step(name, param, grad, state, **hyper, **settings)
        steps.append({**{role: state[role] for role in case.roles}, "param": param})
    return steps


def _written(param: Any, move: Any, model: NumericModel) -> Any:
    if model.write == "fused":
        return rootfree.add_step(param, move)
    return param + rootfree.as_update(move, param.dtype)


def _given(host: HostArray, form: Format, xp: BoundNamespace) -> Any:
    return BoundArray(host[np.newaxis], 0.0, form, xp)


def _format(name: str, *, stochastic: bool) -> Format:
    form = FORMATS[name]
    return Format(form.name, form.bits, form.min_exponent, form.max_exponent, stochastic)
