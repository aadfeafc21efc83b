"""State by parameter and role: `Optimizer.state[p]`, the core's stacks, and a loaded dict.

Each parameter's state is a flat dict of tensors under the core's role names: ``step`` (calls with a
gradient, 0-d float32 on the CPU, as torch has it), ``salt`` (0-d int32) and parameter-shaped
arrays. A step puts new arrays in the place of old ones, and changes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from numbers import Real
from typing import Any, Final

import rootfree
import torch
from rootfree import Rule
from rootfree_array._precision import Policy, salt

from rootfree_torch._groups import Group, Member, members
from rootfree_torch._precision import DTYPES, policy_of

Roles = dict[str, torch.Tensor]
"""One parameter's state."""

_BUFFER: Final = {"heavy_ball": "momentum", "average": "first_moment"}
"""Role of the array that a method's momentum needs."""


def rule_of(member: Member, state: Mapping[str, Any]) -> Rule[Any]:
    """Return the rule of a parameter as its group stands now.

    Momentum needs no array while it is Python's 0; one that exists stays. A 0-d tensor is not read,
    and counts as non-zero.
    """
    momentum = member.group["momentum"]
    is_zero = isinstance(momentum, Real) and momentum == 0
    method = rootfree.method(member.group["rule"])
    return _configured(member, buffered=not is_zero or _BUFFER[method.momentum] in state)


def prepare(state: Roles, rule: Rule[Any], member: Member) -> None:
    """Create the roles that ``rule`` keeps and ``state`` lacks."""
    missing = [role for role in _flat(_layout(rule, member.param.shape)) if role not in state]
    if not missing:
        return
    fresh = _flat(rule.init(stack(member.param)))
    for role in missing:
        if role == "step":
            state[role] = torch.zeros((), dtype=torch.float32, device="cpu")
        elif role == "salt":
            state[role] = torch.full_like(fresh[role][0], salt(member.key))
        else:
            state[role] = fresh[role][0]


def stack(tensor: torch.Tensor) -> Any:
    """Return ``tensor`` as a stack of one, ``(1, *shape)``: a view without autograd."""
    return tensor.detach().unsqueeze(0)


def stacked(state: Roles, rule: Rule[Any], param: torch.Tensor) -> Any:
    """Return the state as the rule sees it: a stack of one, the counter on the parameter's device.

    The arrays are views. The counter is copied to the device, never read from it.
    """
    layout = _layout(rule, param.shape)
    arrays = {role: state[role].unsqueeze(0) for role in _flat(layout)}
    arrays["step"] = arrays["step"].to(param.device, torch.int32, non_blocking=True)
    return _assembled(layout, arrays)


def keep(state: Roles, new: Any) -> None:
    """Put a rule's new state into ``state``, and count the call."""
    arrays = {role: array.squeeze(0) for role, array in _flat(new).items()}
    # The rule's own counter may be on another device; reading it back would wait for that device.
    state.update({**arrays, "step": state["step"] + 1})


def fitting(
    groups: list[Group], saved_groups: list[Group], saved: Mapping[Any, Any]
) -> dict[torch.Tensor, Roles]:
    """Return the state of a loaded dict by parameter, copied to where it belongs, dtypes kept.

    Args:
        groups: the optimizer's groups.
        saved_groups: the loaded groups, completed, with integers for parameters; as many, and as
            long, as ``groups``.
        saved: the loaded state, by these integers.

    Raises:
        ValueError: if a rule, a parameter, a role, a shape or a dtype does not fit.
        TypeError: if a value is no tensor. Nothing has been written in either case.
    """
    for index, (group, new) in enumerate(zip(groups, saved_groups, strict=True)):
        if new["rule"] != group["rule"]:
            raise ValueError(
                f"loaded group {index} has rule {new['rule']!r}, the optimizer's has "
                f"{group['rule']!r}; make the optimizer with the rule that was saved"
            )
    numbers = list(chain.from_iterable(new["params"] for new in saved_groups))
    if unknown := sorted(map(repr, saved.keys() - set(numbers))):
        raise ValueError(f"loaded state has entries {', '.join(unknown)} that no group lists")
    configured = [
        {**group, **new, "params": group["params"]}
        for group, new in zip(groups, saved_groups, strict=True)
    ]
    return {
        member.param: _fitting(member, saved[number])
        for number, member in zip(numbers, members(configured), strict=True)
        if number in saved
    }


def _fitting(member: Member, saved: Mapping[str, Any]) -> Roles:
    """Return one parameter's loaded state, checked and copied; an empty one stays empty."""
    if not saved:
        return {}
    least, most = _roles(member, buffered=False), _roles(member, buffered=True)
    if not least.keys() <= saved.keys() <= most.keys():
        raise ValueError(
            f"loaded state of {member.name!r} has roles {sorted(saved)}, "
            f"{member.group['rule']} keeps {sorted(most)}; it was saved by another rule, "
            "or another configuration of it"
        )
    return {role: _placed(member, role, value, most[role]) for role, value in saved.items()}


def _placed(member: Member, role: str, value: Any, like: torch.Tensor) -> torch.Tensor:
    """Return a copy of one loaded value, the counter on the CPU, the rest beside the parameter."""
    if role == "step" and isinstance(value, Real):
        return torch.tensor(value, dtype=torch.float32, device="cpu")
    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"loaded state {role!r} of {member.name!r} must be a tensor, got {type(value).__name__}"
        )
    dtype = value.dtype if role == "step" else like.dtype
    if value.shape != like.shape[1:] or value.dtype != dtype:
        raise ValueError(
            f"loaded state {role!r} of {member.name!r} has shape {tuple(value.shape)} and dtype "
            f"{value.dtype}, expected {tuple(like.shape[1:])} and {dtype}"
        )
    if role == "step":
        return value.detach().to("cpu", torch.float32, copy=True)
    return value.detach().to(member.param.device, copy=True)


def _roles(member: Member, *, buffered: bool) -> Roles:
    """Return the roles that a parameter's rule keeps, as empty stacks."""
    return _flat(_layout(_configured(member, buffered=buffered), member.param.shape))


def _configured(member: Member, *, buffered: bool) -> Rule[Any]:
    """Return a parameter's rule, with or without the array that a momentum needs."""
    method = rootfree.method(member.group["rule"])
    policy = policy_of(member.param, member.group, member.name)
    options = tuple((name, member.group[name]) for name in method.options)
    return _rule(method.name, policy, buffered, options)


@lru_cache(maxsize=256)
def _rule(
    method: str, policy: Policy, buffered: bool, options: tuple[tuple[str, Any], ...]
) -> Rule[Any]:
    return rootfree.method(method).rule(
        policy.precision(DTYPES), momentum=buffered, **dict(options)
    )


def _layout(rule: Rule[Any], shape: torch.Size) -> Any:
    """Return the rule's state for a stack of one, without memory: roles, shapes and dtypes."""
    return _made_layout(rule, shape)  # type: ignore[arg-type]  # a frozen dataclass is hashable


@lru_cache(maxsize=1024)
def _made_layout(rule: Rule[Any], shape: torch.Size) -> Any:
    return rule.init(stack(torch.empty(shape, device="meta")))


def _flat(state: Any) -> Roles:
    """Return the arrays of a rule's state by role; a tuple's get an index, ``factor.0``."""
    flat: Roles = {}
    for field, value in state._asdict().items():
        if isinstance(value, tuple):
            flat.update({f"{field}.{axis}": array for axis, array in enumerate(value)})
        elif value is not None:
            flat[field] = value
    return flat


def _assembled(layout: Any, arrays: Roles) -> Any:
    """Return the state of ``layout``'s kind that `_flat` turns into ``arrays``."""
    fields = {
        field: tuple(arrays[f"{field}.{axis}"] for axis in range(len(value)))
        if isinstance(value, tuple)
        else arrays[field]
        for field, value in layout._asdict().items()
        if value is not None
    }
    return layout._replace(**fields)
