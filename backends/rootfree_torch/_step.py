"""A step as a list of tasks, one per parameter with a gradient: all are checked, then each runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import rootfree
import torch
from rootfree import Curvature, Hyper, Rule
from rootfree.curvature import arrays_of

from rootfree_torch import _state
from rootfree_torch._groups import Group, Member, members

Curvatures = Mapping[torch.Tensor, "torch.Tensor | Curvature"]
"""A curvature for each of some parameters; a bare tensor is a diagonal."""

Period = Callable[[int], bool]
"""Says whether the step after so many updates the preconditioner."""


class Task(NamedTuple):
    """One parameter's part in a step, checked."""

    member: Member
    grad: torch.Tensor
    rule: Rule[Any]
    hyper: Hyper
    observe: bool
    curvature: Curvature | None  # the caller's

    def run(self, state: _state.Roles) -> None:
        """Update the parameter in place, and ``state`` with it."""
        group, param = self.member.group, self.member.param
        _state.prepare(state, self.rule, self.member)
        stack = _state.stack(param)
        given = self.curvature
        step, new = rootfree.update(
            self.rule,
            _descent_gradient(self.grad, maximize=group["maximize"]),
            _state.stacked(state, self.rule, param),
            stack,
            self.hyper,
            self.observe,
            curvature=None if given is None else rootfree.mapped(given, _state.stack),
        )
        moved: Any = rootfree.add_step(stack, step)
        param.copy_(moved.squeeze(0))
        _state.keep(state, new)


def tasks(
    groups: Iterable[Group],
    states: Mapping[torch.Tensor, _state.Roles],
    curvature: Curvatures | None,
    period: Period | None,
) -> list[Task]:
    """Return the work of a step, in the groups' order.

    A parameter without a gradient or without elements has none.

    Args:
        groups: the optimizer's groups.
        states: the state so far.
        curvature: the caller's curvatures.
        period: that of groups which have no number for it.

    Raises:
        TypeError, ValueError: if a gradient or a curvature does not fit its parameter, or a
            curvature no parameter. Nothing has been written.
    """
    walk = list(members(groups))
    curvatures = _checked_curvatures(walk, curvature)
    asked: int | Period = 1 if period is None else cache(period)  # once for each count
    work = []
    for member in walk:
        grad = member.param.grad
        if grad is not None:
            _check_gradient(member, grad)
            state = states.get(member.param, {})
            work.append(
                Task(
                    member,
                    grad,
                    _state.rule_of(member, state),
                    _hyper(member),
                    _observes(member, state, asked),
                    curvatures.get(member.param),
                )
            )
    return [task for task in work if task.grad.numel()]


def _check_gradient(member: Member, grad: torch.Tensor) -> None:
    if grad.layout != torch.strided:
        raise TypeError(
            f"gradient of {member.name!r} is sparse ({grad.layout}); rootfree needs a dense one: "
            "make the layer with `sparse=False`, or convert it with `to_dense()` before the step"
        )
    rootfree.check_gradient(member.name, grad, member.param)


def _checked_curvatures(
    walk: Iterable[Member], curvature: Curvatures | None
) -> dict[torch.Tensor, Curvature]:
    """Return the caller's curvatures, each of them one of a parameter here."""
    if curvature is None:
        return {}
    if not isinstance(curvature, Mapping):
        raise TypeError(
            f"`curvature` must map parameters to curvatures, got {type(curvature).__name__}"
        )
    found = [member for member in walk if member.param in curvature]
    if len({member.param for member in found}) != len(curvature):
        raise ValueError(
            "`curvature` has a key that is no parameter of this optimizer; use the parameters "
            "themselves as keys"
        )
    return {member.param: _checked_curvature(member, curvature[member.param]) for member in found}


def _checked_curvature(member: Member, given: object) -> Curvature:
    name, param, method = member.name, member.param, member.method
    curvature = rootfree.as_curvature(given)
    for array in arrays_of(curvature):
        if not isinstance(array, torch.Tensor):
            raise TypeError(f"curvature of {name!r} must be a tensor, got {type(array).__name__}")
        if array.layout != torch.strided or not array.is_floating_point():
            raise TypeError(
                f"curvature of {name!r} must be dense, of a real floating dtype; got "
                f"{array.layout}, {array.dtype}"
            )
        if array.device != param.device:
            raise ValueError(
                f"curvature of {name!r} is on {array.device}, its parameter on {param.device}; "
                "move it there before the step"
            )
    shape = tuple(param.shape)
    rootfree.check_curvature(
        name,
        curvature,
        shape=shape,
        dims=_state.rule_of(member, {}).dims(shape),
        kinds=method.takes(member.group),
        title=method.title,
    )
    return curvature


def _descent_gradient(grad: torch.Tensor, *, maximize: bool) -> Any:
    """Return the gradient that is descended, as a stack of one; ``grad`` itself never changes."""
    return torch.neg(_state.stack(grad)) if maximize else _state.stack(grad)


def _hyper(member: Member) -> Hyper:
    """Return the scalars of this step, as they stand in the group now.

    Raises:
        ValueError: if they do not go with the method; a schedule may lead anywhere else.
    """
    group, method = member.group, member.method
    values = {name: group[name] for name in method.hyper}
    rootfree.check_together(method, values, group)
    if method.scaled:
        scale = rootfree.curvature_scale(group["batch_size"], group["loss_reduction"])
        values["curvature_scale"] = scale
    return Hyper(**values)


def _observes(member: Member, state: Mapping[str, Any], period: int | Period) -> bool:
    """Return whether the preconditioner is updated; the counter is on the CPU, so nobody waits."""
    if not member.method.matrix:
        return True
    given: int | None = member.group["update_every"]
    every = period if given is None else given
    if every == 1:
        return True
    return rootfree.observes(every, int(state["step"]) if "step" in state else 0)
