"""The optimizers: one class per method, all of it from the catalogue, over one shared base.

The base does what every rule needs and no arithmetic: it walks the groups, keeps the state where
torch looks for it, asks `rootfree.update` for the step, and writes the result in place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from inspect import Parameter, Signature, cleandoc
from typing import Any, ClassVar, Final, overload

import rootfree
import torch
from rootfree import Method
from rootfree_array._precision import warn_if_stalled
from torch.optim.optimizer import ParamsT, StateDict

from rootfree_torch import _state
from rootfree_torch._checks import Curvatures, checked
from rootfree_torch._groups import (
    Group,
    completed,
    defaults_of,
    filled,
    members,
    plain,
)
from rootfree_torch._precision import without_autocast
from rootfree_torch._step import Period
from rootfree_torch._stepper import Stepper

_LOGGER: Final = logging.getLogger("rootfree_torch")
_TRAILING: Final = {"maximize": False, "foreach": None, "compile": False}
_EXTRA: Final = {
    "params": (
        "parameters, (name, parameter) pairs, or dicts of them, one per group. A group's dict may "
        "give any argument a value of its own, or choose another method, `rule='sgd'`: then "
        "hyper-parameters and options that the dict does not give are that method's defaults. A "
        "function goes to the constructor alone."
    ),
    "maximize": "ascend instead of descend. Default False.",
    "foreach": (
        "whether equal parameters are stacked and stepped together; results are equal but for the "
        "rounding of products. True for all that are plain tensors, False for none, None for those "
        "where it saves time: on a CPU the small ones. Default None."
    ),
    "compile": (
        "compile each step by `torch.compile`, once for every kind of bucket; needs a compiler. "
        "A curvature of the caller's is taken in eagerly. Default False."
    ),
}


def _constructor(signature: Signature) -> Callable[..., None]:
    """Return the base's constructor under a signature, for those who inspect it."""

    def __init__(self: RootFreeOptimizer, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # it is one
        RootFreeOptimizer.__init__(self, *args, **kwargs)

    instance = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = signature.replace(  # type: ignore[attr-defined]  # read by inspect
        parameters=[instance, *signature.parameters.values()]
    )
    return __init__


class RootFreeOptimizer(torch.optim.Optimizer):
    """Base of the optimizers; use a subclass, one per method.

    A subclass names its method, ``class RFRMSProp(RootFreeOptimizer, method="rf_rmsprop")``, and
    gets its signature and documentation from the catalogue.

    Args:
        params: see a subclass.
        *args: the method's hyper-parameters.
        **kwargs: the method's hyper-parameters and options.
    """

    _method: ClassVar[Method]
    _signature: ClassVar[Signature]
    _batch_size: Callable[[], Any] | None = None  # a callable has no place in a group
    _update_every: Period | None = None  # nor has this one: groups that follow it have None
    _loading: dict[torch.Tensor, _state.Roles] | None = None  # set while a dict is being loaded
    _stepper: Stepper | None = None  # remembers nothing that it could not make again

    def __init_subclass__(cls, method: str | None = None, **kwargs: Any) -> None:
        """Make the class of a method; a subclass of one, without ``method``, inherits it."""
        super().__init_subclass__(**kwargs)
        if method is None:
            return
        cls._method = rootfree.method(method)
        cls._signature = rootfree.signature(cls._method, leading=("params",), trailing=_TRAILING)
        cls.__init__ = _constructor(cls._signature)  # type: ignore[method-assign]  # same call
        cls.__doc__ = rootfree.docstring(
            cls._method, cleandoc(cls.__doc__ or f"{cls._method.title}."), extra=_EXTRA
        )

    def __init__(self, params: ParamsT, *args: Any, **kwargs: Any) -> None:
        bound = self._signature.bind(params, *args, **kwargs)
        bound.apply_defaults()
        defaults = defaults_of(self._method, bound.arguments, own=_TRAILING)
        if callable(defaults.get("batch_size")):
            self._batch_size = defaults["batch_size"]
            defaults["batch_size"] = 1  # until the first step asks
        if callable(defaults.get("update_every")):
            self._update_every = defaults["update_every"]
            defaults["update_every"] = None
        super().__init__(params, defaults)
        for group in self.param_groups:
            method, precond_lr = rootfree.method(group["rule"]), group.get("precond_lr")
            for policy, found in _state.by_policy(group).items():
                shapes = [tuple(member.param.shape) for member in found]
                rule = _state.rule_of(found[0], {})
                warn_if_stalled(policy, method, rule, shapes, precond_lr, stacklevel=4)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; it is checked first, and not added if it is refused.

        Raises:
            TypeError, ValueError: as the constructor; a note names the group.
        """
        index = len(self.param_groups)
        try:
            super().add_param_group(self._completed(param_group))
            added = [m for m in members(self.param_groups) if m.group is self.param_groups[index]]
            for member in added:
                _state.check_parameter(member)
        except (TypeError, ValueError) as error:
            del self.param_groups[index:]
            error.add_note(f"in parameter group {index}")
            raise
        for name, lengths in _state.limited(added).items():
            _LOGGER.info("max_dim made axes of %r diagonal, of length %s", name, lengths)

    def set_batch_size(self, batch_size: int | float | torch.Tensor) -> None:
        """Say how many terms the gradients of the following steps are averaged over, globally.

        It holds for every group, until it is called again, and replaces a callable. Rules with a
        root do not read it.

        Args:
            batch_size: > 0; a 0-d tensor is not read by the host.

        Raises:
            TypeError, ValueError: if it is no number or 0-d tensor, or not > 0.
        """
        self._write_batch_size(batch_size)
        self._batch_size = None

    def init_state(self) -> None:
        """Create the state of every trainable parameter, as its first step would, without a step.

        For graph capture, for distributed checkpoints and to measure memory.
        """
        found = [m for m in members(self.param_groups) if m.param.requires_grad and m.param.numel()]
        with torch.no_grad():
            self._steps().arrange(self.param_groups, self.state, found)

    @overload
    def step(self, closure: None = None, *, curvature: Curvatures | None = None) -> None: ...

    @overload
    def step(
        self, closure: Callable[[], float], *, curvature: Curvatures | None = None
    ) -> float: ...

    def step(
        self, closure: Callable[[], float] | None = None, *, curvature: Curvatures | None = None
    ) -> float | None:
        """Update every parameter that has a gradient; all of them, or none if one is refused.

        Args:
            closure: computes the loss and the gradients; called once, with gradients enabled.
            curvature: curvatures by parameter, which replace the gradient outer product in steps
                that update the preconditioner; a parameter without one keeps that. A bare tensor is
                a diagonal of its parameter's shape; other kinds are in `rootfree`.

        Returns:
            The closure's loss, or ``None`` without one.

        Raises:
            TypeError, ValueError: for a gradient or a curvature that does not fit its parameter.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._batch_size is not None:
            self._write_batch_size(self._batch_size())
        work = checked(self.param_groups, curvature)
        with torch.no_grad(), without_autocast(m.param.device for m in work.members):
            self._steps().step(self.param_groups, self.state, work, self._update_every)
        return loss

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load what `state_dict` returned: copied, dtypes kept; all of it, or nothing.

        As with every torch optimizer, make a learning-rate scheduler before this call, not after.
        A function given as `update_every` is not in the dict: where one was in use, this
        optimizer's own `update_every` stays.

        Args:
            state_dict: is not changed, and shares no tensor with the optimizer afterwards.

        Raises:
            TypeError, ValueError: if a group, rule, role, shape or dtype does not fit.
        """
        # The base casts every array to its parameter's dtype. This hook, after all others, keeps
        # what came; `__setstate__`, which the base calls, puts it in place of what was cast.
        handle = self.register_load_state_dict_pre_hook(lambda _, loaded: self._keep_loaded(loaded))
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
            self._loading = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what copying and pickling keep."""
        callables = {"_batch_size": self._batch_size, "_update_every": self._update_every}
        return {**super().__getstate__(), **callables}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a copy, a pickle or `load_state_dict` hands over; fill what is missing."""
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in filled(group, self.defaults).items():
                group.setdefault(name, value)
        if self._loading is not None:
            self.state.update(self._loading)

    def _steps(self) -> Stepper:
        if self._stepper is None:
            self._stepper = Stepper()
        return self._stepper

    def _keep_loaded(self, loaded: StateDict) -> StateDict | None:
        """Check a dict that is about to be loaded, before anything is written; keep its state."""
        ours, theirs = self.param_groups, loaded["param_groups"]
        if [len(group["params"]) for group in ours] != [len(group["params"]) for group in theirs]:
            return None  # the base refuses it, with its own words
        theirs = [
            filled({"rule": own["rule"], **group}, self.defaults)
            for own, group in zip(ours, theirs, strict=True)
        ]
        for own, group in zip(ours, theirs, strict=True):
            if "update_every" in group and group["update_every"] is None:
                group["update_every"] = own["update_every"]
        self._loading = _state.fitting(ours, theirs, loaded["state"])
        return {**loaded, "param_groups": theirs}

    def _completed(self, group: Group) -> Group:
        if not isinstance(group, dict):
            return group  # for the base to refuse
        if self._batch_size is not None and "batch_size" in group:
            raise ValueError(
                "`batch_size` is given twice: by the group, and by the optimizer's callable, which "
                "sets it for every group; leave one out"
            )
        return completed(group, self.defaults)

    def _write_batch_size(self, batch_size: Any) -> None:
        rootfree.check_hyper("batch_size", batch_size)
        for group in self.param_groups:
            if rootfree.method(group["rule"]).scaled:
                group["batch_size"] = plain("batch_size", batch_size)


class SGD(RootFreeOptimizer, method="sgd"):
    """SGD."""


class AdaGrad(RootFreeOptimizer, method="adagrad"):
    """AdaGrad."""


class RMSProp(RootFreeOptimizer, method="rmsprop"):
    """RMSProp."""


class AdamW(RootFreeOptimizer, method="adamw"):
    """AdamW."""


class RFAdaGrad(RootFreeOptimizer, method="rf_adagrad"):
    """RF-AdaGrad."""


class RFRMSProp(RootFreeOptimizer, method="rf_rmsprop"):
    """RF-RMSProp."""


class RFAdamW(RootFreeOptimizer, method="rf_adamw"):
    """RF-AdamW."""


class FullAdaGrad(RootFreeOptimizer, method="full_adagrad"):
    """Full-matrix AdaGrad."""


class RFFullMatrix(RootFreeOptimizer, method="rf_full_matrix"):
    """Root-free full-matrix, inverse covariance."""


class RFFullMatrixInverse(RootFreeOptimizer, method="rf_full_matrix_inverse"):
    """Root-free full-matrix, covariance."""


class RFFullMatrixFactor(RootFreeOptimizer, method="rf_full_matrix_factor"):
    """Root-free full-matrix, factor of the covariance."""


class Shampoo(RootFreeOptimizer, method="shampoo"):
    """Shampoo."""


class RFShampoo(RootFreeOptimizer, method="rf_shampoo"):
    """Root-free Shampoo."""


class SIRFShampoo(RootFreeOptimizer, method="sirf_shampoo"):
    """SIRF-Shampoo.

    Which axes `max_dim` made diagonal is logged at construction, ``logging.getLogger(
    "rootfree_torch")``, level INFO.
    """
