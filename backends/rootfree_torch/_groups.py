"""Parameter groups: what each holds, checked, and the walk over their parameters.

A group is the optimizer's configuration: its rule by name and a value for each of the rule's
arguments, as plain data that `torch.load` reads with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import rootfree
import torch
from rootfree import Method, Precision

from rootfree_torch._precision import policy_of, state_dtype_name

Group = dict[str, Any]


class Member(NamedTuple):
    """A parameter in its group, as found now: nothing of it is remembered between calls."""

    group: Group
    param: torch.Tensor
    name: str  # for a reader: the given name, else "group 0, parameter 3"
    key: str  # for the rounding bits: the given name, else the position over all groups


def members(groups: Iterable[Group]) -> Iterator[Member]:
    """Yield every parameter, in the groups' order."""
    position = 0
    for index, group in enumerate(groups):
        names = group.get("param_names")
        for within, param in enumerate(group["params"]):
            if names:
                yield Member(group, param, names[within], names[within])
            else:
                yield Member(group, param, f"group {index}, parameter {within}", str(position))
            position += 1


def defaults_of(method: Method, given: Mapping[str, Any], *, own: Iterable[str]) -> Group:
    """Return what every group has unless it says otherwise, checked.

    Args:
        method: the optimizer's method.
        given: the constructor's arguments by name, defaults applied.
        own: names of the arguments that are torch's and not the method's.

    Raises:
        TypeError, ValueError: as `rootfree.arguments`.
    """
    names = [*_arguments(method), "state_dtype", "rounding", *own]
    # The base class adds `differentiable` by itself when it is unpickled or loaded.
    return _checked(
        method,
        {"rule": method.name, **{name: given[name] for name in names}, "differentiable": False},
    )


def filled(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> Group:
    """Return a copy of ``group`` with every key that its rule and the optimizer need.

    Args:
        group: as the user or a state dict gave it; unknown keys are the user's and stay.
        defaults: the optimizer's arguments. A group of another rule takes that rule's own
            hyper-parameters and options from the catalogue, and the rest (batch size, dtypes,
            rounding, sign) from here.

    Raises:
        ValueError: for an unknown rule.
    """
    method = rootfree.method(group.get("rule", defaults["rule"]))
    own = {} if method.name == defaults["rule"] else {**method.hyper, **method.options}
    scale = {"batch_size": 1, "loss_reduction": "mean"} if method.scaled else {}
    return {**scale, **defaults, **own, **group}


def completed(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> Group:
    """Return `filled`, checked, with numbers and names in place of other libraries' objects.

    Raises:
        TypeError, ValueError: as `rootfree.arguments`; ValueError for an unknown rule.
    """
    full = filled(group, defaults)
    if callable(full.get("batch_size")):
        raise TypeError(
            "`batch_size` of a group must be a number or a 0-d tensor; a callable goes to the "
            "constructor, for all groups"
        )
    return _checked(rootfree.method(full["rule"]), full)


def _checked(method: Method, group: Group) -> Group:
    """Return ``group`` checked, with plain values."""
    rootfree.arguments(method, group)
    method.rule(Precision.uniform(torch.float32), **{name: group[name] for name in method.options})
    numbers = {name: plain(name, group[name]) for name in _arguments(method)}
    return {**group, **numbers, "state_dtype": state_dtype_name(group["state_dtype"])}


def _arguments(method: Method) -> list[str]:
    """Return the names of the arguments that depend on the method."""
    scale = ["batch_size", "loss_reduction"] if method.scaled else []
    return [*method.hyper, *scale, *method.options]


def plain(name: str, value: Any) -> Any:
    """Return a number of another library as Python's, which every file format knows.

    Raises:
        TypeError: for a 0-d array that is no tensor.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if hasattr(value, "dtype") and not isinstance(value, torch.Tensor):
        raise TypeError(
            f"`{name}` must be a number or a 0-d tensor, got {type(value).__name__}: {value!r}"
        )
    return value


def check_parameter(member: Member) -> None:
    """Refuse a parameter that no rule can serve, and dtypes that do not go with it.

    Raises:
        TypeError: if it is sparse, complex or integer.
        ValueError: if the group's `state_dtype` or `rounding` do not go with its dtype.
    """
    if member.param.layout != torch.strided:
        raise TypeError(
            f"parameter {member.name!r} is sparse ({member.param.layout}); rootfree optimizes "
            "dense parameters: convert it with `to_dense()`, or leave it out"
        )
    policy_of(member.param, member.group, member.name)
