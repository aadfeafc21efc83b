"""Checks of gradients and curvatures, all of them before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import rootfree
import torch
from rootfree import Curvature
from rootfree.curvature import arrays_of

from rootfree_torch import _state
from rootfree_torch._groups import Group, Member, members

Curvatures = Mapping[torch.Tensor, "torch.Tensor | Curvature"]
"""A curvature for each of some parameters; a bare tensor is a diagonal."""


class Work(NamedTuple):
    """What a step was given, checked."""

    members: list[Member]  # with a gradient and elements
    curvatures: dict[torch.Tensor, Curvature]  # the caller's


def checked(groups: Iterable[Group], curvature: Curvatures | None) -> Work:
    """Return the members that a step updates, in the groups' order.

    Raises:
        TypeError, ValueError: if a gradient or a curvature does not fit its parameter, or a
            curvature no parameter. Nothing has been written.
    """
    walk = list(members(groups))
    curvatures = _checked_curvatures(walk, curvature)
    found = []
    for member in walk:
        grad = member.param.grad
        if grad is not None:
            _check_gradient(member, grad)
            if grad.numel():
                found.append(member)
    return Work(found, curvatures)


def _check_gradient(member: Member, grad: torch.Tensor) -> None:
    if grad.layout != torch.strided:
        raise TypeError(
            f"gradient of {member.name!r} is sparse ({grad.layout}); rootfree needs a dense one: "
            "make the layer with `sparse=False`, or convert it with `to_dense()` before the step"
        )
    param = member.param
    same = grad.dtype == param.dtype and grad.shape == param.shape and grad.device == param.device
    if not same:
        rootfree.check_gradient(member.name, grad, param)


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
