"""The suite examines itself before it judges anyone: derivations, comparator, lists.

A0 judges the core, which is the first subject of the suite: where it differs from the textbook in
float64, the core is NON-CONFORMANT, and ports are not judged on the cases of that rule. A4 and A5
concern the suite alone; if one of them fails, nobody is judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from rootfree_conformance.cases.case import Case
from rootfree_conformance.checks import CHECKS
from rootfree_conformance.checks.contract import Result
from rootfree_conformance.judges.ratio import Worst, differing, ratio
from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.thresholds import AGREEMENT, EXACT, RATIO
from rootfree_conformance.truth import Truth, textbook

CORE_CHECKS = ("L3.2", "L4.0", "L8.2")
"""Checks whose numbers the core and the textbook must agree on."""


@dataclass(frozen=True)
class Audit:
    """An audit of the suite itself: how many of its probes went wrong."""

    id: str
    title: str
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing went wrong."""
        return not self.wrong


def agreement(cases: Iterable[Case], truth: Truth) -> Iterator[Result]:
    """A0: yield how far core and textbook are apart, relative to the textbook's largest number.

    The limit is multiplied by the condition number of what a case solves with or decomposes.
    """
    model = NumericModel()
    for case in cases:
        limit = AGREEMENT * max(truth.condition(one, model) for one in case.members)
        rows = list(_compared(case, truth, model))
        bad = [row for row in rows if row.found.ratio > limit]
        per_output: dict[str, float] = {}
        for row in rows:
            per_output[row.role] = max(per_output.get(row.role, 0.0), row.found.ratio)
        worst: dict[str, object] = {}
        first_bad = message = ""
        if bad:
            step, name, role, found = bad[0]
            whose = "" if len(case.members) == 1 else f" of {name}"
            first_bad = role + whose + ("" if case.steps == 1 else f" after step {step}")
            worst = {"step": step, "parameter": name, "role": role, "index": found.at}
            worst |= {"x": found.x, "v": found.v}
            message = (
                f"{first_bad}: the core computes {found.x!r} where the textbook has {found.v!r}"
            )
        name = "A0" + case.id[len(case.check) :] + f"#{case.check}"
        value = max(per_output.values())
        yield Result(name, True, "relative", value, limit, per_output, worst, first_bad, message)


class _Row(NamedTuple):
    """A quantity after a step, relative to the textbook's largest number."""

    step: int
    member: str
    role: str
    found: Worst


def _compared(case: Case, truth: Truth, model: NumericModel) -> Iterator[_Row]:
    """Yield what core and textbook both compute, in order of computation."""
    for one in case.members:
        both = zip(truth(one, model), textbook(one), strict=True)
        for number, (mine, theirs) in enumerate(both, 1):
            for role, t in theirs.items():
                scale = float(np.max(np.abs(t), initial=0.0))
                found = ratio(mine[role].value, t, scale if scale else 1.0)
                yield _Row(number, one.name, role, found)


def comparator() -> Audit:
    """A4: feed the statistics known-right and known-wrong data."""
    v = np.arange(1.0, 7.0).reshape(2, 3)
    e = np.full(v.shape, 1e-3)
    above = v.copy()
    above[1, 2] += 2e-3
    spoiled = v.copy()
    spoiled[0, 0] = math.nan
    bit = np.nextafter(v, math.inf)
    right = {"equal": (v, e), "within": (v + 5e-4, e), "no bound": (v, 0 * e)}
    wrong = {
        "one element": (above, e),
        "not a number": (spoiled, e),
        "infinite": (np.full_like(v, math.inf), e),
        "transposed": (np.ascontiguousarray(v.T).reshape(2, 3), e),
        "another shape": (v.T, e),
        "empty": (v[:0], e),
        "missing": (None, e),
        "one bit": (bit, 0 * e),
        "infinite bound": (v, np.full_like(v, math.inf)),
        "unknown bound": (v, np.full_like(v, math.nan)),
    }
    bad = [f"{name} fails" for name, (x, b) in right.items() if not ratio(x, v, b).ratio <= RATIO]
    bad += [f"{name} passes" for name, (x, b) in wrong.items() if ratio(x, v, b).ratio <= RATIO]
    if differing(v, v.copy()) > EXACT:
        bad.append("equal arrays differ")
    pairs = {"one element": above, "not a number": spoiled, "one bit": bit, "missing": None}
    bad += [f"{name} is equal" for name, x in pairs.items() if differing(x, v) <= EXACT]
    return Audit("A4", "the comparator passes what is right and fails what is wrong", tuple(bad))


def collected(*, quick: bool = False) -> list[str]:
    """Return the ids of all cases, in order."""
    return [
        case.id
        for check in CHECKS.values()
        for case in check.cases(check.id)
        if not quick or case.quick
    ]


def listed() -> list[str]:
    """Return the ids that the committed list says must pass."""
    text = files("rootfree_conformance").joinpath("mustpass.txt").read_text()
    return text.split()


def lists() -> Audit:
    """A5: the committed list of cases is the list that is collected."""
    expected, found = listed(), collected()
    bad = [f"{name} is listed and not collected" for name in sorted(set(expected) - set(found))]
    bad += [f"{name} is collected and not listed" for name in sorted(set(found) - set(expected))]
    return Audit("A5", "the must-pass list holds every case, and no other", tuple(bad))
