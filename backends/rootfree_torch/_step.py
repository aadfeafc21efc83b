"""A step as a list of tasks, one per parameter with a gradient: all are checked, then each runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import rootfree
import torch
from rootfree import DiagonalCurvature, Hyper, Method, Rule

from rootfree_torch import _state
from rootfree_torch._groups import Group, Member, members

Curvature = Mapping[torch.Tensor, torch.Tensor]
"""A diagonal curvature for each of some parameters."""


class Task(NamedTuple):
    """One parameter's part in a step, checked."""

    member: Member
    grad: torch.Tensor
    rule: Rule[Any]
    hyper: Hyper
    diagonal: torch.Tensor | None  # the caller's curvature

    def run(self, state: _state.Roles) -> None:
        """Update the parameter in place, and ``state`` with it."""
        group, param = self.member.group, self.member.param
        _state.prepare(state, self.rule, self.member)
        stack = _state.stack(param)
        step, new = rootfree.update(
            self.rule,
            _descent_gradient(self.grad, maximize=group["maximize"]),
            _state.stacked(state, self.rule, param),
            stack,
            self.hyper,
            curvature=_curvature(self.diagonal),
        )
        moved: Any = rootfree.add_step(stack, step)
        param.copy_(moved.squeeze(0))
        _state.keep(state, new)


def tasks(
    groups: Iterable[Group],
    states: Mapping[torch.Tensor, _state.Roles],
    curvature: Curvature | None,
) -> list[Task]:
    """Return the work of a step, in the groups' order.

    A parameter without a gradient or without elements has none.

    Raises:
        TypeError, ValueError: if a gradient or a curvature does not fit its parameter, or a
            curvature no parameter. Nothing has been written.
    """
    walk = list(members(groups))
    diagonals = _checked_curvature(walk, curvature)
    work = []
    for member in walk:
        grad = member.param.grad
        if grad is not None:
            _check_gradient(member, grad)
            rule = _state.rule_of(member, states.get(member.param, {}))
            hyper = _hyper(member.group)
            work.append(Task(member, grad, rule, hyper, diagonals.get(member.param)))
    return [task for task in work if task.grad.numel()]


def _check_gradient(member: Member, grad: torch.Tensor) -> None:
    if grad.layout != torch.strided:
        raise TypeError(
            f"gradient of {member.name!r} is sparse ({grad.layout}); rootfree needs a dense one: "
            "make the layer with `sparse=False`, or convert it with `to_dense()` before the step"
        )
    rootfree.check_gradient(member.name, grad, member.param)


def _checked_curvature(walk: Iterable[Member], curvature: Curvature | None) -> Curvature:
    """Return the caller's curvatures, each of them one of a parameter here."""
    if curvature is None:
        return {}
    if not isinstance(curvature, Mapping):
        raise TypeError(
            f"`curvature` must map parameters to tensors, got {type(curvature).__name__}"
        )
    found = [member for member in walk if member.param in curvature]
    if len({member.param for member in found}) != len(curvature):
        raise ValueError(
            "`curvature` has a key that is no parameter of this optimizer; use the parameters "
            "themselves as keys"
        )
    for member in found:
        method = rootfree.method(member.group["rule"])
        _check_diagonal(member, method, curvature[member.param])
    return curvature


def _check_diagonal(member: Member, method: Method, diagonal: object) -> None:
    name, param = member.name, member.param
    if "precond_lr" not in method.hyper:
        raise ValueError(f"{method.title}, the rule of {name!r}, has no use for a curvature")
    if not isinstance(diagonal, torch.Tensor):
        raise TypeError(f"curvature of {name!r} must be a tensor, got {type(diagonal).__name__}")
    if diagonal.layout != torch.strided or not diagonal.is_floating_point():
        raise TypeError(
            f"curvature of {name!r} must be dense, of a real floating dtype; got "
            f"{diagonal.layout}, {diagonal.dtype}"
        )
    if diagonal.shape != param.shape or diagonal.device != param.device:
        raise ValueError(
            f"curvature of {name!r} has shape {tuple(diagonal.shape)} on {diagonal.device}, its "
            f"parameter has {tuple(param.shape)} on {param.device}"
        )


def _descent_gradient(grad: torch.Tensor, *, maximize: bool) -> Any:
    """Return the gradient that is descended, as a stack of one; ``grad`` itself never changes."""
    return torch.neg(_state.stack(grad)) if maximize else _state.stack(grad)


def _curvature(diagonal: torch.Tensor | None) -> DiagonalCurvature | None:
    return None if diagonal is None else DiagonalCurvature(_state.stack(diagonal))


def _hyper(group: Group) -> Hyper:
    """Return the scalars of this step, as they stand in the group now."""
    method = rootfree.method(group["rule"])
    values = {name: group[name] for name in method.hyper}
    if method.scaled:
        scale = rootfree.curvature_scale(group["batch_size"], group["loss_reduction"])
        values["curvature_scale"] = scale
    return Hyper(**values)
