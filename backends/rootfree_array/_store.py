"""What an optimizer remembers of its parameters: the stacks of the buckets, and counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import rootfree
from rootfree import Array, Curvature, Rule

from rootfree_array._buckets import Arrangement, Bucket
from rootfree_array._checks import Arrays
from rootfree_array._state import joined, of_members
from rootfree_array._step import Done, Work


class Store:
    """The state of all parameters that have any, stacked.

    Attributes:
        rules: by parameter, in their order.
        counts: of the steps that a parameter took, by parameter: what a period is asked with.
        arrangement: who is in which bucket, and has which phase.
        states: of the stacks, by bucket.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule[Any]],
        counts: Mapping[str, int],
        states: Mapping[str, Any],
        arrangement: Arrangement,
    ) -> None:
        """Stack the states of parameters, each a stack of one; single ones are not copied."""
        self.rules, self.counts, self.arrangement = dict(rules), dict(counts), arrangement
        self.states = {
            name: joined([states[member] for member in bucket.names])
            for name, bucket in arrangement.buckets.items()
        }
        self._derived: dict[str, tuple[Any, Any]] = {}  # by bucket: a state, and what it gave

    def apart(self) -> dict[str, Any]:
        """Return every parameter's state, a stack of one."""
        return {
            name: of_members(self.states[bucket.name], range(place, place + 1))
            for bucket in self.arrangement.buckets.values()
            for place, name in enumerate(bucket.names)
        }

    def observing(
        self, active: Collection[str], update_every: int | Callable[[int], bool]
    ) -> set[str]:
        """Return the active parameters whose curvature enters at this step."""
        counts, phases = self.counts, self.arrangement.phases
        return {
            name
            for name in active
            if rootfree.observes(update_every, counts[name], phases.get(name, 0))
        }

    def work(
        self,
        bucket: Bucket,
        params: Arrays,
        grads: Mapping[str, Array],
        observing: Collection[str],
        curvatures: Mapping[str, Curvature],
        period: int,
    ) -> Work:
        """Return what a bucket is given in a step; see `Work`."""
        state, names = self.states[bucket.name], bucket.names
        source, derived = self._derived.get(bucket.name, (None, None))
        return Work(
            rule=bucket.rule,
            params=[params[name] for name in names],
            grads=[grads.get(name) for name in names],
            observes=[name in observing for name in names],
            curvatures=[curvatures.get(name) for name in names],
            state=state,
            derived=derived if source is state else None,
            period=period,
        )

    def take(self, bucket: Bucket, done: Done, active: Collection[str]) -> None:
        """Take the state after a step, and count it for the active members."""
        self.states[bucket.name] = done.state
        self._derived[bucket.name] = (done.state, done.derived)
        for name in bucket.names:
            self.counts[name] += name in active
