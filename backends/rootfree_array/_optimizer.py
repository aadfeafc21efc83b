"""The optimizers: a plain loop over the buckets of a dict of arrays."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

import rootfree
from rootfree import Array, Hyper, Method, Rule
from rootfree.validation import check_period

from rootfree_array._buckets import NOTHING, arranged
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
from rootfree_array._state import Roles, fresh, phase_of, restored, roles
from rootfree_array._step import step
from rootfree_array._store import Store

_TRAILING: Final = {"platform": None, "in_place": False, "stack": True}
_EXTRA: Final = {
    "platform": "the array library and device; by default the one of `params`.",
    "in_place": (
        "write into the parameters given (needs assignment by index); else `opt.params` gets "
        "new arrays and those given stay as they are."
    ),
    "stack": (
        "parameters of equal shape and dtype step together, as one stack; with False each alone, "
        "which on NumPy gives the same bits."
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
        update_every: the period of the preconditioner's update, or a function of the count;
            another period deals out the turns anew.
    """

    method: ClassVar[Method]

    def __init_subclass__(cls, method: str, **kwargs: Any) -> None:
        """Take signature and documentation from the catalogue."""
        super().__init_subclass__(**kwargs)
        cls.method = rootfree.method(method)
        cls.__signature__ = rootfree.signature(  # type: ignore[attr-defined]  # read by inspect
            cls.method, leading=("params",), trailing=_TRAILING
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
        self._stagger = checked.stagger
        self._in_place = bool(given.arguments["in_place"])
        self._stack = bool(given.arguments["stack"])
        self._platform = given.arguments["platform"] or Platform.of(self.params.values())
        self._policies = {
            name: resolve(
                self._platform.dtype_name(param.dtype),
                state=self._platform.dtype_name(checked.state_dtype),
                compute=self._platform.dtype_name(checked.compute_dtype),
                product=self._platform.dtype_name(checked.product_dtype),
                rounding=checked.rounding,
                native=self._platform.native,
                name=f"parameter {name!r}",
            )
            for name, param in self.params.items()
        }
        self._store = Store({}, {}, {}, NOTHING)
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
        states, (_, period, phases) = self._store.apart(), self._store.arrangement
        turns = phases if period == self._period(self.update_every) else {}  # else they are void
        return {name: roles(states[name], turns.get(name)) for name in self._rules}

    def step(
        self,
        grads: Mapping[str, Array | None],
        *,
        batch_size: Any = None,
        curvature: Curvatures = MappingProxyType({}),
    ) -> None:
        """Update the parameters; all of them, or none if an argument is wrong.

        Everything is computed before anything is written: a step needs room for parameters and
        state once more.

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
        every, period = self.update_every, 1
        if callable(every):  # asked once for each count, before anything is made
            counts = dict.fromkeys(self._store.counts[name] for name in active)
            every = {count: bool(every(count)) for count in counts}.__getitem__
        else:
            period = every
        self._make_state()
        store = self._store
        observing = store.observing(active, every)
        done = []
        for bucket in store.arrangement.buckets.values():
            if not active.keys().isdisjoint(bucket.names):
                work = store.work(bucket, self.params, active, observing, replaced, period)
                done.append((bucket, step(work, hyper)))
        for bucket, result in done:
            store.take(bucket, result, active)
            for name, param in zip(bucket.names, result.params, strict=True):
                if name not in active:
                    continue
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
        if set(saved["state"]) != set(self._rules):
            raise ValueError(
                f"state has parameters {sorted(saved['state'])}, expected {sorted(self._rules)}"
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
            name: self._rule(name, _unused(self.method, saved["hyper"], saved["state"][name]))
            for name in self._rules
        }
        states = {
            name: restored(fresh(rule, name, self.params[name]), saved["state"][name], name)
            for name, rule in rules.items()
        }
        counts = {name: int(arrays["step"]) for name, arrays in saved["state"].items()}
        found = {name: phase_of(arrays, name) for name, arrays in saved["state"].items()}
        phases = {name: phase for name, phase in found.items() if phase is not None}
        every = self.update_every if saved["update_every"] is None else saved["update_every"]
        self._store = self._stored(rules, counts, states, every, phases)
        self.hyper, self.update_every = dict(saved["hyper"]), every
        if saved["batch_size"] is not None:
            self.batch_size = saved["batch_size"]

    @property
    def _rules(self) -> Mapping[str, Rule[Any]]:
        return self._store.rules

    @property
    def _states(self) -> dict[str, Any]:
        """The stacked state of every bucket, by the name of its first parameter."""
        return self._store.states

    def _make_state(self) -> None:
        """Create what is missing: all state at first, a momentum's buffer, turns in a period."""
        store, now = self._store, self._period(self.update_every)
        same = now == store.arrangement.period
        if store.rules and same and not any(map(self._lacks, store.states.values())):
            return
        rules, states = dict(store.rules), store.apart()
        for name, param in self.params.items():
            if has_elements(param) and (name not in states or self._lacks(states[name])):
                held = _held(states[name]) if name in states else {}
                rules[name] = self._rule(name, _unused(self.method, self.hyper, held))
                states[name] = fresh(rules[name], name, param)._replace(**held)
        counts = {name: store.counts.get(name, 0) for name in rules}
        phases = store.arrangement.phases if same else {}
        self._store = self._stored(rules, counts, states, self.update_every, phases)

    def _stored(
        self,
        rules: Mapping[str, Rule[Any]],
        counts: Mapping[str, int],
        states: Mapping[str, Any],
        update_every: Any,
        phases: Mapping[str, int],
    ) -> Store:
        arrangement = arranged(
            self.params,
            rules,
            states,
            matrix=self.method.matrix,
            stack=self._stack,
            period=self._period(update_every),
            phases=phases,
        )
        return Store(rules, counts, states, arrangement)

    def _period(self, update_every: Any) -> int | None:
        """Return the period within which parameters take turns, ``None`` if they do not."""
        turns = self._stagger and isinstance(update_every, int) and update_every > 1
        return update_every if turns else None

    def _lacks(self, state: Any) -> bool:
        """Return whether a momentum that is not 0 has no buffer."""
        held = _held(state)
        without = _unused(self.method, self.hyper, held)
        return any(
            field not in held for name, field in self.method.buffers.items() if name not in without
        )

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


def _held(state: Any) -> dict[str, Any]:
    """Return the fields of a state that hold arrays."""
    return {field: value for field, value in state._asdict().items() if value is not None}


def _unused(method: Method, hyper: Mapping[str, Any], roles: Collection[str]) -> list[str]:
    """Return the hyper-parameters that are 0 and have no array among the roles."""
    return [name for name in method.absent(roles) if rootfree.is_zero(hyper[name])]
