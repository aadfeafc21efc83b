"""Buckets: parameters of one kind, whose state is stacked so that the core runs once for all.

Parameters are of one kind if rule, shape, dtype and device agree. They are put into as few buckets
as memory, or the cache, allows; with a period they have phases, and those that observe at the same
step are neighbours. A bucket says who stands where; the state is the optimizer's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import array_api_compat
import rootfree
from rootfree import Rule

from rootfree_array._checks import Arrays
from rootfree_array._platform import cached

_MOST: Final = 2**24  # numbers in the largest array of a bucket: what bounds its temporaries


@dataclass(frozen=True)
class Bucket:
    """Parameters that step together.

    Attributes:
        names: of the parameters, in the order of the stack.
        rule: theirs.
        shape: theirs.
    """

    names: tuple[str, ...]
    rule: Rule[Any]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The first parameter's name, by which the bucket is called."""
        return self.names[0]


class Arrangement(NamedTuple):
    """All buckets, with what decided them.

    Attributes:
        buckets: by name.
        period: the one that the phases belong to; ``None`` where nobody takes turns.
        phases: by parameter; empty without a period.
    """

    buckets: dict[str, Bucket]
    period: int | None
    phases: dict[str, int]


NOTHING: Final = Arrangement({}, None, {})


def arranged(
    params: Arrays,
    rules: Mapping[str, Rule[Any]],
    states: Mapping[str, Any],
    *,
    matrix: bool,
    stack: bool,
    period: int | None = None,
    phases: Mapping[str, int] = {},
) -> Arrangement:
    """Return the buckets of parameters.

    A bucket must fit, and be worth the copy to a stack. Without matrices a step costs the way to
    memory: where one parameter fills the cache, it steps as fast alone.

    Args:
        params: arrays by name.
        rules: those of the parameters that have state, in the order of the parameters.
        states: of each of these parameters, a stack of one.
        matrix: whether the rules keep matrices, and do not walk over the numbers alone.
        stack: whether a bucket may have more than one parameter.
        period: within which parameters take turns; ``None`` if they do not.
        phases: that some parameters have already; the others get the turns with the least work.
    """
    kinds = _kinds(params, rules)
    given = {} if period is None else _dealt(kinds, period, phases)
    buckets = {}
    for kind in kinds:
        names = sorted(kind.names, key=lambda name: given.get(name, 0) % (period or 1))
        limit = _MOST if matrix else (cached(params[kind.name]) or _MOST)
        most = max(1, limit // _largest(kind, states[kind.name])) if stack else 1
        for part in rootfree.slices(len(names), math.ceil(len(names) / most)):
            bucket = Bucket(tuple(names[i] for i in part), kind.rule, kind.shape)
            buckets[bucket.name] = bucket
    return Arrangement(buckets, period, given)


def _kinds(params: Arrays, rules: Mapping[str, Rule[Any]]) -> list[Bucket]:
    """Return all parameters of each kind, kinds and names in the order of the parameters."""
    found: dict[Any, list[str]] = {}
    for name, rule in rules.items():
        param: Any = params[name]
        where = str(array_api_compat.device(param))  # not every library's devices can be keys
        found.setdefault((rule, tuple(param.shape), str(param.dtype), where), []).append(name)
    return [Bucket(tuple(names), key[0], key[1]) for key, names in found.items()]


def _largest(kind: Bucket, state: Any) -> int:
    """Return how many numbers a member has in its largest array, parameter and state."""
    arrays = rootfree.roles(state).values()
    return max(math.prod(kind.shape), *(math.prod(array.shape) for array in arrays))


def _dealt(kinds: Iterable[Bucket], period: int, phases: Mapping[str, int]) -> dict[str, int]:
    """Return a phase for every parameter, so that all steps of a period cost about the same.

    Neighbours of one kind share a phase, so that they observe in one call.
    """
    taken = [0.0] * period
    pieces: list[tuple[float, Sequence[str]]] = []
    for kind in kinds:
        (row,) = rootfree.plan(kind.rule, [kind.shape]).rows
        without = [name for name in kind.names if name not in phases]
        for name in kind.names:
            if name in phases:
                taken[phases[name] % period] += row.observe_flops
        parts = rootfree.slices(len(without), period)
        pieces += [(row.observe_flops * len(part), [without[i] for i in part]) for part in parts]
    turns = rootfree.phases([cost for cost, _ in pieces], period, taken)
    new = {name: turn for turn, (_, names) in zip(turns, pieces, strict=True) for name in names}
    return {**phases, **new}
