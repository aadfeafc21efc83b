"""When a parameter's curvature enters its preconditioner: periods, and turns within a period.

With a period of T, every parameter observes at its first step and at every T-th afterwards. If all
did so at the same steps, each of these would be a spike; so parameters get phases that spread the
work evenly over the period.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from itertools import pairwise


def observes(update_every: int | Callable[[int], bool], count: int, phase: int = 0) -> bool:
    """Return whether the curvature enters the preconditioner at a step.

    Args:
        update_every: period, >= 1, or a function that is given ``count``.
        count: steps taken before this one; at 0 a period always answers yes.
        phase: how many steps early a period's turns come, after the first; no function reads it.
    """
    if callable(update_every):
        return bool(update_every(count))
    return count == 0 or (count + phase) % update_every == 0


def phases(costs: Sequence[float], period: int, taken: Sequence[float] = ()) -> list[int]:
    """Return a phase for each piece of work, so that all steps of a period cost about the same.

    The largest piece goes first, always to the phase with the least work so far, the lowest of
    them at a tie: the busiest step costs at most 4/3 of what it must, and the result depends on
    nothing but the arguments.

    Args:
        costs: of the pieces, >= 0, in any unit.
        period: number of phases, >= 1.
        taken: the work that each phase has already; empty for none.

    Returns:
        Phases in [0, period), in the order of ``costs``.

    Example:
        >>> phases([5.0, 1.0, 4.0], 2)
        [0, 1, 1]

    References:
        Graham, Bounds on Multiprocessing Timing Anomalies, 1969 (longest processing time first).
    """
    loads = [(taken[phase] if taken else 0.0, phase) for phase in range(period)]
    heapify(loads)
    given = []
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, phase = loads[0]
        given.append((i, phase))
        heapreplace(loads, (load + costs[i], phase))
    return [phase for _, phase in sorted(given)]


def slices(count: int, parts: int) -> list[range]:
    """Return ``count`` members cut into at most ``parts`` neighbourhoods of almost equal size.

    Example:
        >>> slices(5, 3)
        [range(0, 2), range(2, 4), range(4, 5)]
    """
    parts = max(1, min(count, parts))
    small, larger = divmod(count, parts)
    ends = [0]
    for part in range(parts):
        ends.append(ends[-1] + small + (part < larger))
    return [range(start, stop) for start, stop in pairwise(ends)]
