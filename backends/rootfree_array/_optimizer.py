"""The optimizers: a plain loop over a dict of arrays, and its functional form."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Final

import rootfree
from rootfree import CURVATURES, Array, Curvature, Hyper, Method, Rule
from rootfree.validation import check_period

from rootfree_array._checks import (
    Arrays,
    Curvatures,
    check_names,
    checked_curvatures,
    checked_grads,
    checked_params,
    has_elements,
)
from rootfree_array._platform import Platform
from rootfree_array._precision import resolve, warn_if_stalled
from rootfree_array._state import Roles, fresh, restored, roles, stack, unstack

_EXTRA: Final = {
    "platform": "the array library and device; by default the one of `params`.",
    "in_place": (
        "write into the parameters given (needs assignment by index); else `opt.params` gets "
        "new arrays and those given stay as they are."
    ),
}


class Optimizer:
    """Base of the optimizers; use a subclass, one per method.

    Args:
        params: arrays by name.
        *args: the method's hyper-parameters, see its signature.
        **kwargs: the method's hyper-parameters and options.

    Attributes:
        params: the parameters after the last step, by name.
        hyper: the hyper-parameters; change an entry to change the following steps.
        batch_size: the number of terms averaged in the gradient, used where a step gives none.
        update_every: the period of the preconditioner's update, or a function of the count.
    """

    method: ClassVar[Method]

    def __init_subclass__(cls, method: str, **kwargs: Any) -> None:
        """Take signature and documentation from the catalogue."""
        super().__init_subclass__(**kwargs)
        cls.method = rootfree.method(method)
        cls.__signature__ = rootfree.signature(  # type: ignore[attr-defined]  # read by inspect
            cls.method, leading=("params",), trailing={"platform": None, "in_place": False}
        )
        cls.__doc__ = rootfree.docstring(
            cls.method, f"{cls.method.title} for arrays of any array-API namespace.", extra=_EXTRA
        )

    def __init__(self, params: Arrays, *args: Any, **kwargs: Any) -> None:
        given = inspect.signature(type(self)).bind(params, *args, **kwargs)
        given.apply_defaults()
        checked = rootfree.arguments(self.method, given.arguments)
        self.params = checked_params(params)
        self.hyper = dict(checked.hyper)
        self.batch_size = checked.batch_size
        self.update_every = checked.update_every
        self._loss_reduction = checked.loss_reduction
        self._options = checked.options
        self._in_place = bool(given.arguments["in_place"])
        self._platform = given.arguments["platform"] or Platform.of(self.params.values())
        self._policies = {
            name: resolve(
                self._platform.dtype_name(param.dtype),
                state=self._platform.dtype_name(checked.state_dtype),
                compute=self._platform.dtype_name(checked.compute_dtype),
                rounding=checked.rounding,
                native=self._platform.native,
                name=f"parameter {name!r}",
            )
            for name, param in self.params.items()
        }
        self._rules: dict[str, Rule[Any]] = {}
        self._states: dict[str, Any] = {}
        self._counts: dict[str, int] = {}  # updates applied: what `update_every` is asked with
        self._make_state()
        for policy in set(self._policies.values()):
            names = [name for name in self._rules if self._policies[name] == policy]
            for name in names[:1]:
                shapes = [tuple(self.params[name].shape) for name in names]
                rate = checked.hyper.get("precond_lr")
                warn_if_stalled(policy, self.method, self._rules[name], shapes, rate)
        if self._in_place:
            for param in self.params.values():
                param[...] = param  # an array that cannot be written says so now

    @property
    def state(self) -> dict[str, Roles]:
        """Copies of the state: parameter name to role name to array."""
        return {name: roles(state) for name, state in self._states.items()}

    def step(
        self,
        grads: Mapping[str, Array | None],
        *,
        batch_size: Any = None,
        curvature: Curvatures = MappingProxyType({}),
    ) -> None:
        """Update the parameters; all of them, or none if an argument is wrong.

        Args:
            grads: gradients by name. A parameter whose gradient is missing or ``None`` keeps its
                value and its state.
            batch_size: number of averaged terms for this step; by default the optimizer's.
            curvature: curvatures by name, which replace the gradient outer product where a step
                updates the preconditioner; a bare array is a diagonal, shaped like its parameter.

        Raises:
            ValueError: for an unknown name, or a shape, dtype or device that is not the
                parameter's; for a curvature that the method does not take; for a hyper-parameter
                out of its range.
        """
        check_names(self.params, [*grads, *curvature])
        active = checked_grads(self.params, grads)
        method = self.method
        replaced = checked_curvatures(
            self.params,
            curvature,
            self._rules,
            kinds=method.takes(self._options),
            title=method.title,
        )
        hyper = self._hyper(self.batch_size if batch_size is None else batch_size)
        check_period("update_every", self.update_every)
        observes = cache(lambda count: rootfree.observes(self.update_every, count))
        self._make_state()
        new = {
            name: _member_step(
                self._rules[name],
                self.params[name],
                grad,
                self._states[name],
                hyper,
                observes(self._counts[name]),
                replaced.get(name),
            )
            for name, grad in active.items()
        }
        for name, (param, state) in new.items():
            self._states[name] = state
            self._counts[name] += 1
            if self._in_place:
                self.params[name][...] = param
            else:
                self.params[name] = param

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything a run needs to go on: hyper-parameters, state, method."""
        return {
            "method": self.method.name,
            "hyper": dict(self.hyper),
            "batch_size": None if callable(self.batch_size) else self.batch_size,
            "update_every": None if callable(self.update_every) else self.update_every,
            "options": {**self._options, "loss_reduction": self._loss_reduction},
            "state": self.state,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take the state and the hyper-parameters of `state_dict`; all of it, or nothing.

        Raises:
            ValueError: if method, names, roles, shapes or dtypes do not fit.
        """
        if saved["method"] != self.method.name:
            raise ValueError(f"state of {saved['method']!r} does not fit {self.method.name!r}")
        if set(saved["state"]) != set(self._states):
            raise ValueError(
                f"state has parameters {sorted(saved['state'])}, expected {sorted(self._states)}"
            )
        self._check(saved["hyper"])
        if saved["batch_size"] is not None:
            rootfree.check_hyper("batch_size", saved["batch_size"])
        if saved["update_every"] is not None:
            check_period("update_every", saved["update_every"])
        options = {**self._options, "loss_reduction": self._loss_reduction}
        if saved["options"] != options:
            raise ValueError(f"state was saved with {saved['options']}, expected {options}")
        rules = {
            name: self._rule(name, _unused(self.method, saved["hyper"], arrays))
            for name, arrays in saved["state"].items()
        }
        states = {
            name: restored(fresh(rules[name], name, self.params[name]), arrays, name)
            for name, arrays in saved["state"].items()
        }
        counts = {name: int(arrays["step"]) for name, arrays in saved["state"].items()}
        self._rules.update(rules)
        self._states, self._counts, self.hyper = states, counts, dict(saved["hyper"])
        if saved["batch_size"] is not None:
            self.batch_size = saved["batch_size"]
        if saved["update_every"] is not None:
            self.update_every = saved["update_every"]

    def _make_state(self) -> None:
        """Create what is missing: all state at first, a buffer when a momentum of 0 has changed."""
        for name, param in self.params.items():
            if not has_elements(param):
                continue
            old = self._states.get(name)
            kept = {} if old is None else {k: v for k, v in old._asdict().items() if v is not None}
            without = _unused(self.method, self.hyper, kept)
            lacking = {field for b, field in self.method.buffers.items() if b not in without}
            if old is None or not lacking <= set(kept):
                rule = self._rule(name, without)
                self._states[name] = _named(name, fresh, rule, name, param)._replace(**kept)
                self._rules[name] = rule
                self._counts.setdefault(name, 0)

    def _rule(self, name: str, without: Collection[str]) -> Rule[Any]:
        precision = self._policies[name].precision(self._platform.dtypes)
        return self.method.rule(precision, without=without, **self._options)

    def _check(self, hyper: Mapping[str, Any]) -> None:
        rootfree.check_hypers(self.method, hyper, self._options)

    def _hyper(self, batch_size: Any) -> Hyper:
        terms: Any = batch_size() if callable(batch_size) else batch_size
        self._check(self.hyper)
        rootfree.check_hyper("batch_size", terms)
        scale = rootfree.curvature_scale(terms, self._loss_reduction)
        hyper: dict[str, Any] = {**self.hyper, "curvature_scale": scale}
        return Hyper(**hyper)


class SGD(Optimizer, method="sgd"):
    """SGD."""


class AdaGrad(Optimizer, method="adagrad"):
    """AdaGrad."""


class RMSProp(Optimizer, method="rmsprop"):
    """RMSProp."""


class AdamW(Optimizer, method="adamw"):
    """AdamW."""


class RFAdaGrad(Optimizer, method="rf_adagrad"):
    """RF-AdaGrad."""


class RFRMSProp(Optimizer, method="rf_rmsprop"):
    """RF-RMSProp."""


class RFAdamW(Optimizer, method="rf_adamw"):
    """RF-AdamW."""


class FullAdaGrad(Optimizer, method="full_adagrad"):
    """Full-matrix AdaGrad."""


class RFFullMatrix(Optimizer, method="rf_full_matrix"):
    """Root-free full-matrix, inverse covariance."""


class RFFullMatrixInverse(Optimizer, method="rf_full_matrix_inverse"):
    """Root-free full-matrix, covariance."""


class RFFullMatrixFactor(Optimizer, method="rf_full_matrix_factor"):
    """Root-free full-matrix, factor of the covariance."""


class Shampoo(Optimizer, method="shampoo"):
    """Shampoo."""


class RFShampoo(Optimizer, method="rf_shampoo"):
    """Root-free Shampoo."""


class SIRFShampoo(Optimizer, method="sirf_shampoo"):
    """SIRF-Shampoo."""


def init(rule: Rule[Any], params: Arrays) -> dict[str, Any]:
    """Return the state of every parameter that has elements, by name, for `update`.

    Raises:
        ValueError: if the rule's configuration does not go with a parameter's shape.
    """
    return {
        name: _named(name, fresh, rule, name, p) for name, p in params.items() if has_elements(p)
    }


def update(
    rule: Rule[Any],
    params: Arrays,
    grads: Mapping[str, Array | None],
    state: Mapping[str, Any],
    hyper: Hyper,
    observe: bool = True,
    *,
    curvature: Curvatures = MappingProxyType({}),
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return parameters and state after one step; the ones given stay valid.

    Args:
        rule: any rule, also one of your own.
        params: arrays by name.
        grads: gradients by name; a missing one leaves its parameter and state as they are.
        state: from `init`, or from the last call.
        hyper: the scalars of this step.
        observe: whether the curvature enters the preconditioner in this step.
        curvature: curvatures by name, which replace the gradient outer product; a bare array is a
            diagonal.

    Raises:
        ValueError: as `Optimizer.step`.
    """
    check_names(params, [*grads, *curvature])
    active = checked_grads(params, grads)
    rules, title = dict.fromkeys(state, rule), type(rule).__name__
    replaced = checked_curvatures(params, curvature, rules, kinds=CURVATURES, title=title)
    new_params, new_state = dict(params), dict(state)
    for name, grad in active.items():
        new_params[name], new_state[name] = _member_step(
            rule, params[name], grad, state[name], hyper, observe, replaced.get(name)
        )
    return new_params, new_state


def _member_step(
    rule: Rule[Any],
    param: Array,
    grad: Array,
    state: Any,
    hyper: Hyper,
    observe: bool,
    curvature: Curvature | None,
) -> tuple[Array, Any]:
    stacked = stack(param)
    h = None if curvature is None else rootfree.mapped(curvature, stack)
    step, state = rootfree.update(rule, stack(grad), state, stacked, hyper, observe, curvature=h)
    return unstack(rootfree.add_step(stacked, step)), state


def _named(name: str, function: Any, *args: Any) -> Any:
    """Return what a function returns; its error names the parameter."""
    try:
        return function(*args)
    except ValueError as error:
        raise ValueError(f"parameter {name!r}: {error}") from None


def _unused(method: Method, hyper: Mapping[str, Any], roles: Collection[str]) -> list[str]:
    """Return the hyper-parameters that are 0 and have no array among the roles."""
    return [name for name in method.absent(roles) if rootfree.is_zero(hyper[name])]
