"""Parameter groups: what each holds, checked, and the walk over their parameters.

A group is the optimizer's configuration: its rule by name and a value for each of the rule's
arguments, as plain data that `torch.load` reads with ``weights_only=True``. An argument of the
optimizer's method that a group's own rule does not read is ``None`` there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import rootfree
import torch
from rootfree import Method, Precision

from rootfree_torch._precision import named_dtype

Group = dict[str, Any]


class Member(NamedTuple):
    """A parameter in its group, as found now: nothing of it is remembered between calls."""

    group: Group
    param: torch.Tensor
    given: str | None  # by the user
    place: tuple[int, int]  # of its group, and in it
    position: int  # over all groups

    @property
    def name(self) -> str:
        """What to call it before a reader: the given name, else "group 0, parameter 3"."""
        if self.given is None:
            return "group {}, parameter {}".format(*self.place)
        return self.given

    @property
    def key(self) -> str:
        """What the rounding bits depend on: the given name, else the position."""
        return str(self.position) if self.given is None else self.given

    @property
    def method(self) -> Method:
        """The group's method."""
        return rootfree.method(self.group["rule"])


def members(groups: Iterable[Group]) -> Iterator[Member]:
    """Yield every parameter, in the groups' order."""
    position = 0
    for index, group in enumerate(groups):
        names = group.get("param_names")
        for within, param in enumerate(group["params"]):
            yield Member(group, param, names[within] if names else None, (index, within), position)
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
            hyper-parameters and options from the catalogue, and the rest (batch size, period,
            dtypes, rounding, sign) from here.

    Raises:
        ValueError: for an unknown rule.
    """
    method = rootfree.method(group.get("rule", defaults["rule"]))
    if method.name == defaults["rule"]:
        return {**defaults, **group}
    read = _arguments(method)
    unread = {name for name in _arguments(rootfree.method(defaults["rule"])) if name not in read}
    own = {**dict.fromkeys(sorted(unread)), **method.hyper, **method.options}
    return {**method.shared, **defaults, **own, **group}


def completed(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> Group:
    """Return `filled`, checked, with numbers and names in place of other libraries' objects.

    Raises:
        TypeError, ValueError: as `rootfree.arguments`; ValueError for an unknown rule.
    """
    full = filled(group, defaults)
    method = rootfree.method(full["rule"])
    for name in method.shared:
        if callable(full[name]):
            raise TypeError(
                f"`{name}` of a group must be a number; a callable goes to the constructor, for "
                "all groups"
            )
    follows = method.matrix and full["update_every"] is None  # the optimizer's function, if any
    if follows and defaults.get("update_every", 1) is None:
        return {**_checked(method, {**full, "update_every": 1}), "update_every": None}
    return _checked(method, full)


def _checked(method: Method, group: Group) -> Group:
    """Return ``group`` checked, with plain values."""
    read = (*_arguments(method), "state_dtype", "rounding")
    options = rootfree.arguments(method, {name: group[name] for name in read}).options
    method.rule(Precision.uniform(torch.float32), **options)
    full = {**group, **options}
    dtypes = [name for name in ("state_dtype", "compute_dtype", "product_dtype") if name in full]
    return (
        full
        | {name: plain(name, full[name]) for name in _arguments(method)}
        | {name: named_dtype(name, full[name]) for name in dtypes}
    )


def _arguments(method: Method) -> list[str]:
    """Return the names of the arguments that depend on the method."""
    return [*method.hyper, *method.shared, *method.options]


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
