"""State by parameter and role: `Optimizer.state[p]`, the core's stacks, and a loaded dict.

Each parameter's state is a flat dict of tensors under the core's role names: ``step`` (calls with a
gradient, 0-d float32 on the CPU, as torch has it), ``salt`` (0-d int32), and arrays shaped as the
rule has them. ``phase`` (0-d int32 on the CPU) says when the parameter's turns come, where a period
has turns. A step writes into these tensors, which may be views of a bucket's stacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain
from numbers import Real
from typing import Any

import rootfree
import torch
from rootfree import Rule
from rootfree_array._precision import Policy, salt

from rootfree_torch._groups import Group, Member, members
from rootfree_torch._precision import DTYPES, policy_of

Roles = dict[str, torch.Tensor]
"""One parameter's state."""


def check_parameter(member: Member) -> None:
    """Refuse a parameter that its group's rule cannot serve.

    Raises:
        TypeError: if it is sparse, complex or integer.
        ValueError: if the group's dtypes, `rounding` or `structure` do not go with it.
    """
    if member.param.layout != torch.strided:
        raise TypeError(
            f"parameter {member.name!r} is sparse ({member.param.layout}); rootfree optimizes "
            "dense parameters: convert it with `to_dense()`, or leave it out"
        )
    try:
        rule = rule_of(member, {})
        if member.param.numel():
            layout(rule, member.param.shape)
    except (TypeError, ValueError) as error:
        raise type(error)(f"parameter {member.name!r}: {error}") from None


def rule_of(member: Member, state: Mapping[str, Any]) -> Rule[Any]:
    """Return the rule of a parameter as its group stands now.

    A momentum needs no arrays while it is Python's 0; those that exist stay. A 0-d tensor is not
    read, and counts as non-zero.
    """
    zero = [name for name in member.method.buffers if rootfree.is_zero(member.group[name])]
    absent = member.method.absent(state) if zero else ()
    return _configured(member, without=tuple(name for name in zero if name in absent))


def prepare(state: Roles, rule: Rule[Any], member: Member) -> None:
    """Create the roles that ``rule`` keeps and ``state`` lacks."""
    missing = [
        role for role in rootfree.roles(layout(rule, member.param.shape)) if role not in state
    ]
    if not missing:
        return
    fresh: Any = rootfree.roles(rule.init(stack(member.param)))
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


def by_policy(group: Group) -> dict[Policy, list[Member]]:
    """Return a group's parameters that have elements, by the dtypes of their numbers."""
    found: dict[Policy, list[Member]] = {}
    for member in members([group]):
        if member.param.numel():
            found.setdefault(policy_of(member.param, group), []).append(member)
    return found


def limited(found: Iterable[Member]) -> dict[str, str]:
    """Return the lengths of axes that `max_dim` makes diagonal, by their parameters' names."""
    axes: dict[str, str] = {}
    for member in found:
        if "max_dim" in member.method.options and member.param.numel():
            rule: Any = rule_of(member, {})
            if lengths := rule.limited(tuple(member.param.shape)):
                axes[member.name] = ", ".join(map(str, lengths))
    return axes


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
    like = _roles(member, without=member.method.absent(saved))
    if "phase" in saved and member.method.matrix:
        like["phase"] = torch.zeros((1,), dtype=torch.int32, device="cpu")
    if saved.keys() != like.keys():
        raise ValueError(
            f"loaded state of {member.name!r} has roles {sorted(saved)}, "
            f"{member.group['rule']} keeps {sorted(_roles(member, without=()))}; it was saved by "
            "another rule, or another configuration of it"
        )
    return {role: _placed(member, role, value, like[role]) for role, value in saved.items()}


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
    if role == "phase":
        return value.detach().to("cpu", copy=True)
    return value.detach().to(member.param.device, copy=True)


def _roles(member: Member, *, without: tuple[str, ...]) -> Roles:
    """Return the roles that a parameter's rule keeps, as empty stacks."""
    roles: Any = rootfree.roles(layout(_configured(member, without=without), member.param.shape))
    return dict(roles)


def _configured(member: Member, *, without: tuple[str, ...]) -> Rule[Any]:
    """Return a parameter's rule, without the arrays of some momenta."""
    options = tuple((name, member.group[name]) for name in member.method.options)
    return _rule(member.method.name, policy_of(member.param, member.group), without, options)


@lru_cache(maxsize=256)
def _rule(
    method: str, policy: Policy, without: tuple[str, ...], options: tuple[tuple[str, Any], ...]
) -> Rule[Any]:
    precision = policy.precision(DTYPES)
    return rootfree.method(method).rule(precision, without=without, **dict(options))


def layout(rule: Rule[Any], shape: torch.Size) -> Any:
    """Return the rule's state for a stack of one, without memory: roles, shapes and dtypes."""
    return _made_layout(rule, shape)  # type: ignore[arg-type]  # a frozen dataclass is hashable


@lru_cache(maxsize=1024)
def _made_layout(rule: Rule[Any], shape: torch.Size) -> Any:
    return rule.init(stack(torch.empty(shape, device="meta")))
