"""The truth of a case, derived twice: the textbook's value, and the core's value with its bound.

The two derivations share no line. The core runs over `namespaces.bound`; once textbook and core
agree (audit A0), a port is compared with the core's value, and the bound is the tolerance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import rootfree
import rootfree_textbook
from rootfree import Hyper, Precision

from rootfree_conformance.cases.expand import Case
from rootfree_conformance.namespaces.bound import INT32, BoundArray, BoundNamespace
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
        self._bounds: dict[tuple[str, str, int, NumericModel], list[Step]] = {}

    def __call__(self, case: Case, model: NumericModel) -> list[Step]:
        """Return `bounds` of a case, computed once."""
        key = (case.label, case.policy.label, case.steps, model)
        if key not in self._bounds:
            self._bounds[key] = bounds(case, model)
        return self._bounds[key]


def bounds(case: Case, model: NumericModel) -> list[Step]:
    """Return the core's values and bounds after each step of a case.

    For float64 the bound is doubled: value and port both carry that rounding.
    """
    with np.errstate(all="ignore"):  # a rule that is wrong may compute anything; it is judged later
        return _bounds(case, BoundNamespace(model))


def _bounds(case: Case, xp: BoundNamespace) -> list[Step]:
    policy = case.policy
    stored = _format(policy.state_dtype, stochastic=policy.rounding == "stochastic")
    working = xp.model.working(policy.working_dtype)
    settings = case.corner.settings(case.method)
    rule = case.method.rule(
        Precision(working, stored, working),
        momentum=settings.pop("momentum", True),
        **settings,
    )
    param = _given(case.param, FORMATS[policy.dtype], xp)
    state = rule.init(param)
    if case.state:
        arrays = {role: _given(case.state[role], stored, xp) for role in case.roles}
        count = BoundArray(np.asarray([case.state["step"]]), 0.0, INT32, xp)
        state = state._replace(step=count, **arrays)
    factor = 2.0 if policy.dtype == "float64" else 1.0
    steps = []
    for grad, values in zip(case.grads, case.hypers, strict=True):
        hyper = Hyper(**{name: xp.scalar(value, working) for name, value in values.items()})
        g = _given(grad, FORMATS[policy.dtype], xp)
        move, state = rootfree.update(rule, g, state, param, hyper)
        param = _written(param, move, xp.model)
        arrays = {role: getattr(state, role) for role in case.roles} | {"param": param}
        steps.append({name: Bounded(a.value[0], a.error[0] * factor) for name, a in arrays.items()})
    return steps


def textbook(case: Case) -> list[dict[str, Any]]:
    """Return the textbook's values after each step of a case."""
    settings = case.corner.settings(case.method)
    momentum = settings.pop("momentum", True)
    scale = settings.pop("init_scale", None)
    name, param = case.method.name, case.param
    state = dict(case.state) or rootfree_textbook.init(
        name, param, init_scale=scale, with_momentum=momentum
    )
    steps = []
    for grad, values in zip(case.grads, case.hypers, strict=True):
        hyper = {k: v for k, v in values.items() if k != "curvature_scale"}
        hyper["batch_size"] = values["curvature_scale"]
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
