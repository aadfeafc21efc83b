"""What an optimizer remembers between steps: buckets and programs. All of it can be made again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from rootfree import Curvature, Hyper

from rootfree_torch._buckets import SQUAD, Arrangement, Bucket, States, participants
from rootfree_torch._checks import Work
from rootfree_torch._groups import Group, Member
from rootfree_torch._programs import Programs
from rootfree_torch._step import BucketStep, Period, hyper_of
from rootfree_torch._texts import Arrays, Kind, Text, alone, eagerly, unexported


class Stepper:
    """Steps the buckets of an optimizer."""

    def __init__(self) -> None:
        self.programs = Programs()
        self._arrangement: Arrangement | None = None
        self._squads: list[Squad] = []

    def arrange(self, groups: Sequence[Group], states: States, found: Sequence[Member]) -> None:
        """See to it that buckets, and the state they need, stand for groups and members.

        Args:
            groups: the optimizer's groups.
            states: its state, which is written.
            found: members that take part now, beside those that ever did.
        """
        arrangement = self._arrangement
        if arrangement is None or not arrangement.is_current(groups, states, found):
            if arrangement is not None:
                arrangement.void_phases(groups, states)
            taking = participants(groups, states, {member.param for member in found})
            self._arrangement = Arrangement(groups, states, taking)
            self._squads = list(_squads(self._arrangement.buckets))

    def step(
        self, groups: Sequence[Group], states: States, work: Work, period: Period | None
    ) -> None:
        """Update parameters and state in place.

        Args:
            groups: the optimizer's groups.
            states: its state.
            work: the gradients and curvatures of this step, checked.
            period: a function that groups without a number follow, asked once for each count.

        Raises:
            ValueError: if hyper-parameters do not go together. Nothing has been written.
        """
        self.arrange(groups, states, work.members)
        assert self._arrangement is not None  # `arrange` has made it
        hypers = {id(group): hyper_of(group) for group in groups if group["params"]}
        done: set[Bucket] = set()
        if not work.curvatures and not torch.compiler.is_compiling():
            done = {b for squad in self._squads if self._run(squad, hypers) for b in squad.buckets}
        left = [bucket for bucket in self._arrangement.buckets if bucket not in done]
        for part in _parts(left, work, hypers, _always if period is None else cache(period)):
            group, kind = part.bucket.group, part.bucket.kind
            eager = part.bucket.is_lone or part.bucket.repeats or torch.compiler.is_compiling()
            if group["compile"] and not eager:
                dtype = kind.rule.precision.working_dtype
                scalars = self.programs.scalars(part.hyper, dtype, part.bucket.device)
                part._replace(hyper=scalars).run(self._call)
            else:
                part.run(eagerly)

    def _run(self, squad: Squad, hypers: dict[int, Hyper]) -> bool:
        """Step a squad if all of its parameters have gradients, and return whether they have."""
        grads = [param.grad for param in squad.params]
        if any(grad is None for grad in grads):
            return False
        first = squad.buckets[0]
        dtype = first.kind.rule.precision.working_dtype
        hyper = self.programs.scalars(hypers[id(first.group)], dtype, first.device)
        squad.run(self.programs, grads, hyper)
        return True

    def _call(self, text: Text, kind: Kind, arrays: Arrays, place: Any) -> Any:
        """Run a text compiled."""
        assert self._arrangement is not None  # there is a bucket to call for
        return self.programs.run(text, [(kind, arrays)], self._arrangement.memo, place)


class Squad:
    """Lone parameters under one rule and the same scalars, which one program steps."""

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self.buckets = list(buckets)
        self.params = [bucket.params[0] for bucket in buckets]
        self._maximize = buckets[0].group["maximize"]
        self._mark: Any = None  # what the program and its arguments were made for
        self._program: Any = None
        self._arguments: list[torch.Tensor] = []

    def run(self, programs: Programs, grads: list[Any], hyper: Hyper) -> None:
        """Step with these gradients and scalars."""
        if self._maximize:
            grads = list(unexported._foreach_neg(grads))
        scalars: list[Any] = [x for x in hyper if isinstance(x, torch.Tensor)]
        mark = len(scalars), [grad.stride() for grad in grads]
        on_host = self.buckets[0].device.type == "cpu"
        if mark != self._mark or not on_host:
            jobs = [
                (bucket.kind, Arrays(grad, param, bucket.state(), hyper))
                for bucket, param, grad in zip(self.buckets, self.params, grads, strict=True)
            ]
            self._program, self._arguments = programs.find(alone, jobs)
            self._mark = mark
        arguments = self._arguments.copy()
        arguments[: len(scalars)] = scalars
        arguments[len(scalars) :: (len(arguments) - len(scalars)) // len(grads)] = grads
        self._program(*arguments)
        if not on_host:  # what the program has counted is a copy
            unexported._foreach_add_([bucket.steps for bucket in self.buckets], 1)
        for bucket in self.buckets:
            bucket.tick([True])


def _squads(buckets: Sequence[Bucket]) -> Iterator[Squad]:
    """Yield the lone parameters that are compiled, put together."""
    found: dict[Any, list[Bucket]] = {}
    for bucket in buckets:
        if bucket.group["compile"] and bucket.is_lone and not bucket.repeats:
            found.setdefault((id(bucket.group), bucket.kind.rule), []).append(bucket)
    for together in found.values():
        for start in range(0, len(together), SQUAD):
            yield Squad(together[start : start + SQUAD])


def _parts(
    buckets: Sequence[Bucket], work: Work, hypers: dict[int, Hyper], period: Period
) -> Iterator[BucketStep]:
    """Yield what each bucket that has a gradient has to do."""
    for bucket in buckets:
        here = [param.grad for param in bucket.params]
        if all(grad is None for grad in here):
            continue
        curvatures: list[Curvature | None] = []
        if work.curvatures:
            given = [work.curvatures.get(param) for param in bucket.params]
            curvatures = given if any(h is not None for h in given) else []
        yield BucketStep(bucket, here, hypers[id(bucket.group)], period, curvatures)


def _always(count: int) -> bool:
    del count
    return True
