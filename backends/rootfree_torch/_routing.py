"""Which parameter gets which method, and what that costs, before anything is allocated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import rootfree
import torch
from rootfree import Plan, PlanRow
from torch import nn

from rootfree_torch import _state
from rootfree_torch._groups import Group, members
from rootfree_torch._optimizer import RootFreeOptimizer

Selector: TypeAlias = str | type[nn.Module] | nn.Module | nn.Parameter
"""A regular expression for whole dotted names, a type of modules, a module, or a parameter."""

Chosen: TypeAlias = tuple[tuple[int, str], Mapping[str, Any] | None]
"""An override: its number and what a reader would call it, and its options."""

_ELEMENTWISE: Final = "rf_rmsprop"
_EMBEDDINGS: Final = (nn.Embedding, nn.EmbeddingBag)
_OWN, _VECTOR, _LEFT_OUT = "the optimizer's", "elementwise", "none"


class Routed(NamedTuple):
    """Where a parameter went.

    Attributes:
        name: dotted, in the model.
        shape: of the parameter.
        rule: the method's name; "the optimizer's" for the one that the groups are given to; "none"
            for a parameter that is left out.
        reason: in a few words.
    """

    name: str
    shape: tuple[int, ...]
    rule: str
    reason: str


class ParamGroups(list[Group]):
    """Groups for an optimizer's constructor; ``str`` of it is a table of who got what.

    Attributes:
        rows: one for each parameter of the model, in its order.
    """

    def __init__(self, groups: Iterable[Group], rows: Iterable[Routed]) -> None:
        super().__init__(groups)
        self.rows = tuple(rows)

    def __str__(self) -> str:
        cells: list[tuple[str, ...]] = [("name", "shape", "method", "because")]
        cells += [(row.name, str(row.shape), row.rule, row.reason) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        cells.insert(1, tuple("-" * width for width in widths))
        lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
        return "\n".join(lines)


def param_groups(
    model: nn.Module,
    *,
    overrides: Iterable[tuple[Selector, Mapping[str, Any] | None]] = (),
    max_dim: int | None = 4096,
    elementwise: Mapping[str, Any] | None = None,
    **own: Any,
) -> ParamGroups:
    """Return groups that give each parameter of a model a method that suits it.

    Matrices and kernels go to the optimizer's own method. RF-RMSProp gets what a matrix method
    would serve badly: vectors and scalars, for which a factor costs d^2 numbers for one row of
    statistics; embeddings, and what is tied to them; whatever has an axis longer than `max_dim`.
    Frozen parameters are left out.

    Args:
        model: whose parameters are wanted, with their names.
        overrides: pairs of a selector and a group's options, such as ``{"rule": "sgd"}``, which
            replace what is said above; ``None`` leaves the parameters out.
        max_dim: the longest axis of a matrix that the own method gets; ``None`` for no limit.
        elementwise: options of RF-RMSProp's group, such as ``{"lr": 1e-3}``; what is not there is
            as in the catalogue.
        **own: options of the own method's group.

    Raises:
        TypeError: if the model or a selector is none.
        ValueError: if an override selects nothing, two select one parameter, an expression is none,
            or a trainable parameter is not real; the message lists names and shapes.

    Example:
        >>> import torch
        >>> from rootfree_torch import SIRFShampoo, param_groups
        >>> model = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3))
        >>> groups = param_groups(model, elementwise={"lr": 1e-3})
        >>> print(groups)
        name      shape   method           because
        --------  ------  ---------------  ------------
        0.weight  (9, 4)  rf_rmsprop       an embedding
        1.weight  (3, 4)  the optimizer's
        1.bias    (3,)    rf_rmsprop       a vector
        >>> optimizer = SIRFShampoo(groups, lr=0.01)
        >>> [group["rule"] for group in optimizer.param_groups]
        ['sirf_shampoo', 'rf_rmsprop']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    named = dict(model.named_parameters())
    chosen = _chosen(model, named, list(overrides))
    embedded = {p for m in model.modules() if isinstance(m, _EMBEDDINGS) for p in m.parameters()}
    options: dict[Any, Mapping[str, Any] | None] = {
        _OWN: own,
        _VECTOR: {"rule": _ELEMENTWISE, **(elementwise or {})},
        _LEFT_OUT: None,
    }
    key: Any  # a name, or the number and name of an override
    found: dict[Any, list[tuple[str, nn.Parameter]]] = {key: [] for key in options}
    rows, refused = [], []
    for name, param in named.items():
        if name in chosen:
            key, given = chosen[name]
            options[key], reason = given, f"override {key[1]}"
        else:
            key, reason = _placed(param, param in embedded, max_dim)
        if options[key] is not None and not param.is_floating_point():
            refused.append(f"{name} {tuple(param.shape)} {param.dtype}")
        found.setdefault(key, []).append((name, param))
        rows.append(Routed(name, tuple(param.shape), _rule(options[key]), reason))
    if refused:
        raise ValueError(f"no method takes parameters that are not real: {', '.join(refused)}")
    groups = [
        {"params": params, **given}
        for key, params in found.items()
        if params and (given := options[key]) is not None
    ]
    return ParamGroups(groups, rows)


def plan(optimizer: torch.optim.Optimizer) -> Plan:
    """Return what an optimizer costs by parameter: bytes of its state, operations of its steps.

    Nothing is allocated: the optimizer, whose state comes with its first step, and its parameters
    may be on the meta device. The 4 bytes of a parameter's turn are not in it, see
    `rootfree.plan` for what is.

    Args:
        optimizer: one of this package.

    Raises:
        TypeError: if it is another one.

    Example:
        >>> import torch
        >>> from rootfree_torch import SIRFShampoo, plan
        >>> with torch.device("meta"):
        ...     model = torch.nn.Linear(4096, 1024)
        >>> plan(SIRFShampoo(model.parameters())).state_bytes
        167776264
    """
    if not isinstance(optimizer, RootFreeOptimizer):
        raise TypeError(f"`optimizer` must be one of rootfree's, got {type(optimizer).__name__}")
    rows: list[PlanRow] = []
    for member in members(optimizer.param_groups):
        if member.param.requires_grad:
            rule = _state.rule_of(member, {})
            damping = float(not rootfree.is_zero(member.group.get("damping", 0.0)))
            shapes = {member.name: tuple(member.param.shape)}
            made = rootfree.plan(rule, shapes, param_dtype=member.param.dtype, damping=damping)
            rows += made.rows
    return Plan(tuple(rows))


def _placed(param: nn.Parameter, is_embedding: bool, max_dim: int | None) -> tuple[str, str]:
    """Return the group of a parameter that no override selects, and why."""
    if not param.requires_grad:
        return _LEFT_OUT, "frozen"
    if is_embedding:
        return _VECTOR, "an embedding"
    if sum(length > 1 for length in param.shape) < 2:
        return _VECTOR, "a vector" if param.ndim else "a scalar"
    if max_dim is not None and max(param.shape) > max_dim:
        return _VECTOR, f"an axis of {max(param.shape)} > {max_dim}"
    return _OWN, ""


def _rule(given: Mapping[str, Any] | None) -> str:
    return _LEFT_OUT if given is None else str(given.get("rule", _OWN))


def _chosen(
    model: nn.Module,
    named: Mapping[str, nn.Parameter],
    overrides: list[tuple[Selector, Mapping[str, Any] | None]],
) -> dict[str, Chosen]:
    """Return the overrides of parameters by their names."""
    chosen: dict[str, Chosen] = {}
    twice = []
    for number, (selector, given) in enumerate(overrides):
        selected = _selected(model, named, selector)
        label = _label(model, named, selector)
        if not selected:
            every = ", ".join(f"{name} {tuple(p.shape)}" for name, p in named.items())
            raise ValueError(f"override {label} selects no parameter; there are: {every}")
        for name in selected:
            if name in chosen:
                (_, other), _ = chosen[name]
                twice.append(f"{name} {tuple(named[name].shape)} by {other} and {label}")
            chosen[name] = (number, label), given
    if twice:
        raise ValueError(f"two overrides select one parameter: {'; '.join(twice)}")
    return chosen


def _selected(model: nn.Module, named: Mapping[str, nn.Parameter], selector: Selector) -> list[str]:
    """Return the names of the parameters that a selector selects."""
    if isinstance(selector, str):
        try:
            pattern = re.compile(selector)
        except re.error as error:
            raise ValueError(f"override {selector!r} is no regular expression: {error}") from error
        return [name for name in named if pattern.fullmatch(name)]
    wanted: set[nn.Parameter]
    if isinstance(selector, nn.Parameter):
        wanted = {selector}
    elif isinstance(selector, nn.Module):
        wanted = set(selector.parameters())
    elif isinstance(selector, type) and issubclass(selector, nn.Module):
        wanted = {p for m in model.modules() if isinstance(m, selector) for p in m.parameters()}
    else:
        raise TypeError(
            "an override begins with a regular expression, a type of modules, a module or a "
            f"parameter, got {type(selector).__name__}"
        )
    return [name for name, param in named.items() if param in wanted]


def _label(model: nn.Module, named: Mapping[str, nn.Parameter], selector: Selector) -> str:
    """Return how a reader would call a selector."""
    if isinstance(selector, str):
        return repr(selector)
    if isinstance(selector, type):
        return selector.__name__
    where = named if isinstance(selector, nn.Parameter) else dict(model.named_modules())
    found = [name for name, each in where.items() if each is selector]
    return repr(found[0]) if found else "of something that is not in the model"
