"""The step of a bucket: computed from what it is given, which stays as it is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from itertools import groupby, product
from typing import Any, Final, NamedTuple

import array_api_compat
import rootfree
from rootfree import Array, Curvature, Hyper, Rule
from rootfree.curvature import arrays_of

from rootfree_array._platform import cached
from rootfree_array._state import of_members, overwritten, part, stack, stacked, unstack

_WORTH_CUTTING: Final = 4  # pieces: fewer of them find room in the last cache together


class Work(NamedTuple):
    """What a bucket is given; lists are in the order of its stack, arrays in them without its axis.

    Attributes:
        rule: of its parameters.
        params: before the step.
        grads: ``None`` for a parameter that keeps value and state.
        observes: whose curvature enters at this step, none without a gradient.
        curvatures: the caller's.
        state: of the stack.
        derived: what `rootfree.Rule.derive` made of this state, if that is still there.
        period: for how many steps it would serve; 1 where it is not known.
    """

    rule: Rule[Any]
    params: list[Any]
    grads: list[Any]
    observes: list[bool]
    curvatures: list[Curvature | None]
    state: Any
    derived: Any
    period: int


class Done(NamedTuple):
    """What came of it: new parameters, in the order of the stack, and the rest as in `Work`."""

    params: list[Any]
    state: Any
    derived: Any


def step(work: Work, hyper: Hyper) -> Done:
    """Compute a step; nothing is written."""
    if work.rule.elementwise and len(work.params) == 1 and work.curvatures[0] is None:
        most = cached(work.params[0])
        if most is not None and math.prod(work.params[0].shape) > _WORTH_CUTTING * most:
            return _in_pieces(work, hyper, most)
    param, grad, active = stacked(work.params), _gradients(work), _active(work)
    state, derived = work.state, work.derived
    turns = _turns(work)
    if turns:
        state = _observed(work, grad, hyper, turns, active)
    if work.period > 1 and (turns or derived is None):
        derived = _derived(work, state, turns)
    moved, state = rootfree.advanced(
        work.rule, grad, state, param, hyper, derived=derived, active=active
    )
    new = rootfree.add_step(param, moved)
    return Done([new[i, ...] for i in range(len(work.params))], state, derived)


def _in_pieces(work: Work, hyper: Hyper, most: int) -> Done:
    """Compute the elementwise step of a large parameter, a piece that stays in cache at a time.

    The results go into new arrays: gradients may share memory with parameters, and an error in the
    midst must leave the state whole.
    """
    (param,), (grad,), old = work.params, work.grads, rootfree.roles(work.state)
    xp = array_api_compat.array_namespace(param)
    new = xp.empty_like(param)
    arrays = {role: xp.empty_like(x) for role, x in old.items() if x.ndim > 1}
    counters: dict[str, Any] = {}
    for piece in _pieces(tuple(param.shape), most):
        inside = (slice(None), *piece)
        before = rootfree.with_roles(work.state, {role: old[role][inside] for role in arrays})
        here = stack(param[piece])
        moved, after = rootfree.update(
            work.rule, stack(grad[piece]), before, here, hyper, work.observes[0]
        )
        new[piece] = unstack(rootfree.add_step(here, moved))
        for role, x in rootfree.roles(after).items():
            if role in arrays:
                arrays[role][inside] = x
            else:
                counters[role] = x
    return Done([new], rootfree.with_roles(work.state, {**arrays, **counters}), None)


def _pieces(shape: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Yield indices that cut an array into blocks of rows, of at most so many numbers."""
    behind = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    axis = next(axis for axis, size in enumerate(behind) if size <= most)
    parts = math.ceil(shape[axis] / (most // behind[axis]))
    for place in product(*map(range, shape[:axis])):
        for rows in rootfree.slices(shape[axis], parts):
            yield (*(slice(i, i + 1) for i in place), slice(rows.start, rows.stop))


def _gradients(work: Work) -> Any:
    """Return the stack of gradients, with zeros for those that are missing."""
    xp = array_api_compat.array_namespace(work.params[0])
    pairs = zip(work.params, work.grads, strict=True)
    return stacked([xp.zeros_like(param) if grad is None else grad for param, grad in pairs])


def _active(work: Work) -> Any:
    """Return which members take part, ``(n,)`` bool, or ``None`` for all."""
    present = [grad is not None for grad in work.grads]
    if all(present):
        return None
    param = work.params[0]
    xp = array_api_compat.array_namespace(param)
    return xp.asarray(present, dtype=xp.bool, device=array_api_compat.device(param))


def _turns(work: Work) -> list[range]:
    """Return the members that observe, neighbours of a kind together: one call for each range.

    Members without a gradient are among them only if all others observe.
    """
    members = zip(work.grads, work.observes, work.curvatures, strict=True)
    if all(h is None and (observes or grad is None) for grad, observes, h in members):
        return [range(len(work.params))]
    kinds = [_kind(*pair) for pair in zip(work.observes, work.curvatures, strict=True)]
    places = groupby(range(len(kinds)), key=kinds.__getitem__)
    runs = [list(run) for kind, run in places if kind is not None]
    return [range(run[0], run[-1] + 1) for run in runs]


def _kind(observes: bool, curvature: Curvature | None) -> Hashable:
    """Return what members that observe in one call have in common, ``None`` for no turn."""
    if not observes:
        return None
    arrays = () if curvature is None else arrays_of(curvature)
    return type(curvature), *((tuple(array.shape), str(array.dtype)) for array in arrays)


def _observed(work: Work, grad: Array, hyper: Hyper, turns: Sequence[range], active: Any) -> Any:
    """Return the state of the stack after the curvature of some neighbours has entered."""
    old, seen = rootfree.roles(work.state), []
    for members in turns:
        before = of_members(work.state, members)
        after = rootfree.observed(
            work.rule,
            part(grad, members),
            before,
            hyper,
            curvature=_curvature(work.curvatures[members.start : members.stop]),
            active=active if len(members) == len(work.params) else None,
        )
        kept = rootfree.roles(before)
        new = {role: x for role, x in rootfree.roles(after).items() if x is not kept[role]}
        seen.append((members, new))
    arrays = {
        role: overwritten(old[role], [(members, new[role]) for members, new in seen])
        for role in seen[0][1]
    }
    return rootfree.with_roles(work.state, arrays)


def _curvature(curvatures: Sequence[Curvature | None]) -> Curvature | None:
    """Return the stack of the caller's curvatures, which are of one kind."""
    given = [curvature for curvature in curvatures if curvature is not None]
    if not given:
        return None
    columns = iter([stacked(column) for column in zip(*map(arrays_of, given), strict=True)])
    return rootfree.mapped(given[0], lambda _: next(columns))


def _derived(work: Work, state: Any, turns: Sequence[range]) -> Any:
    """Return what serves until the next turn, made anew for those who have just observed."""
    if work.derived is None:
        return work.rule.derive(state, tuple(work.params[0].shape), work.period)
    made = [
        work.rule.derive(of_members(state, members), tuple(work.params[0].shape), work.period)
        for members in turns
    ]
    return tuple(
        None if old is None else overwritten(old, list(zip(turns, new, strict=True)))
        for old, *new in zip(work.derived, *made, strict=True)
    )
