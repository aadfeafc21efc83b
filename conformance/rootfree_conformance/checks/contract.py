"""What a check is, and what comes out of a case of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rootfree_conformance.cases.case import Case
from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.script import Answer, Script
from rootfree_conformance.thresholds import RATIO
from rootfree_conformance.truth import Truth


@dataclass(frozen=True)
class Result:
    """The result of one case.

    Attributes:
        id: the case.
        executed: whether the port finished the case; one that did not has not passed either.
        statistic: ``"R"`` (error over bound) or ``"differing"`` (a count).
        value: what was measured; infinite if there was nothing to measure.
        limit: what it must not exceed.
        per_output: value for each role, in order of computation.
        worst: where the value is largest: step, role, index, port's number, truth and bound.
        first_bad: the first quantity, in order of computation, that exceeds the limit.
        message: why it failed, in words.
    """

    id: str
    executed: bool
    statistic: str
    value: float
    limit: float
    per_output: Mapping[str, float] = field(default_factory=dict)
    worst: Mapping[str, Any] = field(default_factory=dict)
    first_bad: str = ""
    message: str = ""

    @property
    def passed(self) -> bool:
        """Whether the case ran and its value is within the limit."""
        return self.executed and self.value <= self.limit


Judge = Callable[[Case, Sequence[Answer], NumericModel, Truth], Result]


class Cases(Protocol):
    """Yields the cases of a check."""

    def __call__(self, check: str) -> Iterator[Case]:
        """Yield them, given the check's id."""
        ...


@dataclass(frozen=True)
class Check:
    """A check: its cases, what each asks of a port, and how the answers are judged.

    Attributes:
        id: level and number.
        title: what it says of a port that passes.
        cases: the cases, given the id.
        script: the calls of a case.
        judge: the result of a case, from the answers to all its `Read` and `Refuse` calls.
    """

    id: str
    title: str
    cases: Cases
    script: Callable[[Case], Script]
    judge: Judge


def failed_to_run(case: Case, error: str) -> Result:
    """Return the result of a case that the port could not finish."""
    return Result(case.id, True, "R", math.inf, RATIO, first_bad="exception", message=error)
