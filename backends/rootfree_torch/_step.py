"""A step of a bucket, and the scalars that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import rootfree
import torch
from rootfree import Curvature, Hyper

from rootfree_torch import _state
from rootfree_torch._buckets import Bucket
from rootfree_torch._groups import Group
from rootfree_torch._texts import Arrays, Call, advanced, eagerly, observed, stepped, unexported

Period = Callable[[int], bool]
"""Says whether the step after so many updates the preconditioner."""


def hyper_of(group: Group) -> Hyper:
    """Return the scalars of this step, as they stand in the group now.

    Raises:
        ValueError: if they do not go with the method; a schedule may lead anywhere else.
    """
    method = rootfree.method(group["rule"])
    values = {name: group[name] for name in method.hyper}
    rootfree.check_together(method, values, group)
    if method.scaled:
        scale = rootfree.curvature_scale(group["batch_size"], group["loss_reduction"])
        values["curvature_scale"] = scale
    return Hyper(**values)


class BucketStep(NamedTuple):
    """One bucket's part in a step.

    Attributes:
        bucket: what is stepped; at least one of its members has a gradient.
        grads: by member, ``None`` where there is none.
        hyper: the scalars.
        period: the function that groups without a number follow.
        curvatures: the caller's, by member; empty for none.
    """

    bucket: Bucket
    grads: list[torch.Tensor | None]
    hyper: Hyper
    period: Period
    curvatures: list[Curvature | None]

    @property
    def present(self) -> list[bool]:
        """Which members have a gradient."""
        return [grad is not None for grad in self.grads]

    def run(self, call: Call) -> None:
        """Update parameters and state in place.

        Args:
            call: runs a text on arrays; a caller's curvature is taken in eagerly.
        """
        bucket, present = self.bucket, self.present
        runs = bucket.turns(present, self.period)
        if self.curvatures:
            for i in range(len(bucket)):
                if present[i]:
                    self._run(range(i, i + 1), runs, eagerly, self.curvatures[i])
        else:
            self._run(range(len(bucket)), runs, call, None)
        bucket.count(present)

    def _run(
        self, part: range, runs: Iterable[range], call: Call, curvature: Curvature | None
    ) -> None:
        """Update neighbours: first the preconditioners whose turn it is, then all parameters."""
        bucket, params = self.bucket, self.bucket.params[part.start : part.stop]
        grad, active = self._gathered(part)
        state, param = bucket.state(part.start, part.stop), stacked(params)
        arrays = Arrays(grad, param, state, self.hyper, active)
        place = id(bucket)  # buckets live as long as what is remembered of their places
        h = None if curvature is None else rootfree.mapped(curvature, _state.stack)
        if bucket.kind.period == 1:
            moved = call(stepped, bucket.kind, arrays._replace(curvature=h), place)
        else:
            bucket.derive()
            for run in runs:
                if run.start in part or part.start in run:
                    a, b = max(run.start, part.start), min(run.stop, part.stop)
                    within = grad[a - part.start : b - part.start]
                    due = Arrays(within, None, bucket.state(a, b), self.hyper)
                    due = due._replace(kept=bucket.kept(a, b), curvature=h)
                    call(observed, bucket.kind, due, (place, a, b))
            kept = bucket.kept(part.start, part.stop)
            moved = call(advanced, bucket.kind, arrays._replace(kept=kept), place)
        if len(params) > 1:
            unexported._foreach_copy_(params, list(moved.unbind(0)))
        bucket.settle()

    def _gathered(self, part: range) -> tuple[Any, torch.Tensor | None]:
        """Return the gradients of neighbours as a stack, and which are there unless all are."""
        pairs = [(self.bucket.params[i], self.grads[i]) for i in part]
        if all(grad is not None for _, grad in pairs):
            return self._descended(stacked([grad for _, grad in pairs])), None
        filled = [torch.zeros_like(param) if grad is None else grad for param, grad in pairs]
        present = [grad is not None for _, grad in pairs]
        active = torch.tensor(present, device=self.bucket.device)
        return self._descended(stacked(filled)), active

    def _descended(self, stack: torch.Tensor) -> Any:
        """Return the gradients that are descended; those of the parameters never change."""
        return torch.neg(stack) if self.bucket.group["maximize"] else stack


def stacked(tensors: Sequence[Any]) -> Any:
    """Return tensors as a stack; that of one is a view."""
    if len(tensors) == 1:
        return _state.stack(tensors[0])
    return torch.stack(list(tensors))
