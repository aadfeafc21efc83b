"""Buckets: equal parameters, whose state is held stacked so that the core runs once for all.

The truth is what the user sees, ``optimizer.state[p]``: a bucket is made from it, its stacks are
what the entries there are views of, and it is made anew when an entry is no longer the object that
the bucket put there, or the parameters that take part have changed. Nothing here is saved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import is_
from typing import Any, Final

import rootfree
import torch
from rootfree import Rule

from rootfree_torch import _state
from rootfree_torch._groups import Group, Member, members
from rootfree_torch._texts import CHUNK, Kind, Memo

SQUAD: Final = 32
"""Most parameters that one program steps one by one: few calls, and compilation within bounds."""

_MOST: Final = 2**24  # elements of a bucket's largest array: what bounds its temporaries

States = MutableMapping[torch.Tensor, _state.Roles]


class Bucket:
    """Equally shaped parameters of one group under one rule.

    Attributes:
        group: the parameters' group.
        params: the parameters, those with equal phases side by side.
        kind: rule, shape and period.
        repeats: whether the parameters are listed twice, and have a bucket already.
    """

    def __init__(
        self, found: Sequence[Member], rule: Rule[Any], states: States, *, repeats: bool = False
    ) -> None:
        """Stack the state of members, which have it, and put views of it in its place."""
        self.group = found[0].group
        self.repeats = repeats
        self.params = [member.param for member in found]
        self.device = self.params[0].device
        period = self.group["update_every"] if found[0].method.matrix else 1
        self.kind = Kind(rule, tuple(self.params[0].shape), period)
        self._layout = _state.layout(rule, self.params[0].shape)
        roles = list(rootfree.roles(self._layout))
        self._stacks, views = _stacked([states[p] for p in self.params], roles)
        for param, own in zip(self.params, views, strict=True):
            states[param].update(own)
        self._marks = [
            (param, _form(param), states[param], own)
            for param, own in zip(self.params, views, strict=True)
        ]
        self._counts = [int(count) for count in self._stacks["step"].tolist()]
        self._phases = [_phase_of(member, states[member.param]) for member in found]
        self._kept: tuple[torch.Tensor | None, ...] | None = None  # of `derive`
        self._versions = self._seen()

    def __len__(self) -> int:
        return len(self.params)

    @property
    def is_lone(self) -> bool:
        """Whether this is one parameter under a rule that may cut it anywhere."""
        return len(self.params) == 1 and self.kind.rule.elementwise

    def is_current(self) -> bool:
        """Return whether parameters and entries of the state are still what the bucket works on."""
        for param, form, entries, own in self._marks:
            if _form(param) != form or not all(map(is_, map(entries.get, own), own.values())):
                return False
        return True

    def state(self, start: int = 0, stop: int | None = None) -> Any:
        """Return the state of neighbours as a text takes it; its arrays are views.

        The counter is copied to the parameters' device, never read from it.
        """
        whole = start == 0 and stop in (None, len(self))
        arrays = {r: x if whole else x[start:stop] for r, x in self._stacks.items()}
        arrays["step"] = arrays["step"].to(self.device, non_blocking=True)
        return rootfree.with_roles(self._layout, arrays)

    def derive(self) -> None:
        """Make what the rule keeps between observations, unless it is there and right."""
        if self._kept is not None and self._versions != self._seen():
            self._kept = None  # somebody else has written into the state
        if self._kept is None and self.kind.period is not None and self.kind.period > 1:
            self._kept = self.kind.rule.derive(self.state(), self.kind.shape, self.kind.period)
        self.settle()

    def kept(self, start: int, stop: int) -> tuple[torch.Tensor | None, ...] | None:
        """Return the share of neighbours in what `derive` made; views."""
        if self._kept is None:
            return None
        return tuple(x if x is None else x[start:stop] for x in self._kept)

    def turns(self, present: Sequence[bool], period: Any) -> list[range]:
        """Return the neighbours whose curvature enters at this step.

        Args:
            present: which members have a gradient.
            period: a function of the count, for groups that have no number.
        """
        every = period if self.kind.period is None else self.kind.period
        due = [
            here and rootfree.observes(every, count, phase)
            for here, count, phase in zip(present, self._counts, self._phases, strict=True)
        ]
        places = groupby(range(len(due)), key=due.__getitem__)
        runs = [list(run) for observes, run in places if observes]
        return [range(run[0], run[-1] + 1) for run in runs]

    def count(self, present: Sequence[bool]) -> None:
        """Count the step of the members that took part, on the host alone."""
        if all(present):
            self.steps.add_(1)
        else:
            self.steps.add_(torch.tensor(present).to(self.steps.dtype))
        self.tick(present)

    def tick(self, present: Sequence[bool]) -> None:
        """Note a step that the counters in the state have counted."""
        if self.kind.period == 1:
            return  # nothing depends on it
        self._counts = [count + here for count, here in zip(self._counts, present, strict=True)]

    @property
    def steps(self) -> torch.Tensor:
        """The counters of the state, ``(n,)`` on the CPU."""
        return self._stacks["step"]

    def settle(self) -> None:
        """Take the state as it is for the one that `derive` saw."""
        self._versions = self._seen()

    def _seen(self) -> list[int]:
        """Return how often each stack but the counters has been written into, as torch counts."""
        if self.kind.period == 1:
            return []  # nothing is kept that could be out of date
        stacks = [stack for role, stack in self._stacks.items() if role != "step"]
        return [0 if x.is_inference() else x._version for x in stacks]


class Arrangement:
    """The buckets of an optimizer, as its groups, parameters and state stood when it was made."""

    def __init__(self, groups: Sequence[Group], states: States, found: Iterable[Member]) -> None:
        """Make buckets, and the state that they need and lack.

        Args:
            groups: the optimizer's groups.
            states: its state, which is written.
            found: the members that take part.
        """
        self._marks = [_mark(group) for group in groups]
        self._groups, self._params = list(groups), [list(group["params"]) for group in groups]
        self._periods = [group.get("update_every") for group in groups]
        together: dict[Any, list[Member]] = {}
        seen: Counter[torch.Tensor] = Counter()
        for member in found:
            state = states.get(member.param, {})
            rule = _state.rule_of(member, state)
            _state.prepare(states[member.param], rule, member)
            key = (id(member.group), rule, member.param.shape, member.param.device)
            full = (*key, _is_plain(member.param), seen[member.param])
            together.setdefault(full, []).append(member)
            seen[member.param] += 1
        _assign_phases([(key[1], whole) for key, whole in together.items()], states)
        self.buckets = [
            Bucket(part, key[1], states, repeats=key[-1] > 0)
            for key, whole in together.items()
            for part in _cut(key, sorted(whole, key=lambda m: _phase_of(m, states[m.param])))
        ]
        self._entries = list(states.values())
        self.memo: Memo = {}
        self._placed = {param for bucket in self.buckets for param in bucket.params}

    def is_current(
        self,
        groups: Sequence[Group],
        states: Mapping[torch.Tensor, _state.Roles],
        active: Iterable[Member],
    ) -> bool:
        """Return whether the buckets still stand for groups, parameters and state."""
        return (
            len(groups) == len(self._groups)
            and all(a is b for a, b in zip(groups, self._groups, strict=True))
            and all(_same(g["params"], p) for g, p in zip(groups, self._params, strict=True))
            and all(_mark(g) == mark for g, mark in zip(groups, self._marks, strict=True))
            and all(member.param in self._placed for member in active)
            and len(states) == len(self._entries)
            and all(map(is_, states.values(), self._entries))
            and all(bucket.is_current() for bucket in self.buckets)
        )

    def void_phases(self, groups: Sequence[Group], states: States) -> None:
        """Take away the phases of groups whose period is another one now; they get new ones."""
        changed = [
            group
            for group, period in zip(self._groups, self._periods, strict=True)
            if any(group is each for each in groups) and group.get("update_every") != period
        ]
        for member in members(changed):
            if member.param in states:
                states[member.param].pop("phase", None)


def participants(
    groups: Iterable[Group], states: Mapping[torch.Tensor, _state.Roles], active: set[torch.Tensor]
) -> Iterator[Member]:
    """Yield the parameters that have a gradient now, or have had one."""
    for member in members(groups):
        if member.param.numel() and (member.param in active or states.get(member.param)):
            yield member


def _stacked(
    states: Sequence[_state.Roles], roles: Sequence[str]
) -> tuple[_state.Roles, list[_state.Roles]]:
    """Return the stack of each role, and its members as entries of a state."""
    if len(states) == 1:
        own = {role: states[0][role] for role in roles}
        return {role: _state.stack(array) for role, array in own.items()}, [own]
    stacks = {role: torch.stack([state[role].detach() for state in states]) for role in roles}
    split = {role: stack.unbind(0) for role, stack in stacks.items()}
    return stacks, [{role: split[role][i] for role in roles} for i in range(len(states))]


def _form(param: torch.Tensor) -> tuple[Any, ...]:
    """Return what an assignment to ``param.data`` can change of a parameter."""
    return param.shape, param.dtype, param.device, param.stride()


def _mark(group: Group) -> list[Any]:
    """Return what decides how a group's parameters are put together."""
    method = rootfree.method(group["rule"])
    zero = [rootfree.is_zero(group[name]) for name in method.buffers]
    matrix = ["update_every", "stagger", "compute_dtype", "product_dtype"] if method.matrix else []
    names = ["rule", *method.options, "state_dtype", "rounding", "foreach", "compile", *matrix]
    return [*(group[name] for name in names), zero]


def _same(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    return len(some) == len(others) and all(map(is_, some, others))


def _is_plain(param: torch.Tensor) -> bool:
    return type(param) in (torch.Tensor, torch.nn.Parameter)


def _cut(key: Any, found: Sequence[Member]) -> list[Sequence[Member]]:
    """Return the members of each bucket: a stack must fit, and be worth its copies.

    On a CPU it is worth them while calls cost more than memory: where a parameter, or what a method
    keeps for it, fills a good part of the cache alone, one after the other is faster. Other devices
    want few calls.
    """
    *_, rule, _, device, plain, repeats = key
    foreach, param = found[0].group["foreach"], found[0].param
    arrays: Any = rootfree.roles(_state.layout(rule, param.shape)).values()
    largest = max(param.numel(), *(array.numel() for array in arrays))
    most = _MOST // largest
    if device.type == "cpu" and foreach is None and rule.elementwise:
        most = CHUNK // largest if largest <= CHUNK // 4 else 1
        if found[0].group["compile"] and len(found) <= SQUAD:
            most = 1  # one program steps several parameters without copies
    elif device.type == "cpu" and foreach is None:
        most = 2 * CHUNK // largest
    most = max(1, most) if plain and not repeats and foreach is not False else 1
    return [found[start : start + most] for start in range(0, len(found), most)]


def _phase_of(member: Member, state: Mapping[str, torch.Tensor]) -> int:
    return int(state["phase"]) if _takes_turns(member) and "phase" in state else 0


def _takes_turns(member: Member) -> bool:
    every = member.group["update_every"] if member.method.matrix else 1
    return every is not None and every > 1 and member.group["stagger"]


def _assign_phases(together: Iterable[tuple[Rule[Any], Sequence[Member]]], states: States) -> None:
    """Give a phase to every member that takes turns and has none, so that steps cost alike."""
    taken: dict[int, list[float]] = {}
    pieces: dict[int, list[tuple[float, Sequence[Member]]]] = {}
    for rule, found in together:
        if not _takes_turns(found[0]):
            continue
        period, cost = found[0].group["update_every"], _cost(rule, found[0].param.shape)
        load = taken.setdefault(period, [0.0] * period)
        new = []
        for member in found:
            phase = states[member.param].get("phase")
            if phase is None:
                new.append(member)
            else:
                load[int(phase) % period] += cost
        for part in rootfree.slices(len(new), period) if new else []:
            piece = new[part.start : part.stop]
            pieces.setdefault(period, []).append((cost * len(piece), piece))
    for period, work in pieces.items():
        phases = rootfree.phases([cost for cost, _ in work], period, taken[period])
        for turn, (_, turning) in zip(phases, work, strict=True):
            for member in turning:
                states[member.param]["phase"] = torch.tensor(turn, dtype=torch.int32, device="cpu")


def _cost(rule: Rule[Any], shape: torch.Size) -> int:
    return _planned(rule, shape)  # type: ignore[arg-type]  # a frozen dataclass is hashable


@lru_cache(maxsize=1024)
def _planned(rule: Rule[Any], shape: torch.Size) -> int:
    return rootfree.plan(rule, [shape]).observe_flops
