"""L5, state: a run that is saved and loaded goes on bit for bit, in a new optimizer or an old one.

An old one, which has gone on meanwhile, must forget what it made of the state that it had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rootfree_conformance.cases.case import Case
from rootfree_conformance.cases.expand import balanced
from rootfree_conformance.checks.contract import Check, Result
from rootfree_conformance.checks.l03_step import start, steps
from rootfree_conformance.judges.ratio import differing
from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import Snapshot
from rootfree_conformance.script import Answer, Call, Load, Read, Reload, Script
from rootfree_conformance.thresholds import EXACT
from rootfree_conformance.truth import Truth

_BEFORE, _AFTER = 4, 3


def _cases(check: str) -> Iterator[Case]:
    return balanced(check, steps=_BEFORE + _AFTER)


def _interrupted(case: Case) -> Script:
    before, after = steps(case)[:_BEFORE], steps(case)[_BEFORE:]
    whole: list[Call] = [start(case), Load(case.snapshot(salt=7)), *before, Read(), *after, Read()]
    resumed: list[Call] = [start(case), Reload(0), *after, Read()]
    return [*whole, *resumed, Reload(0), *after, Read()]


def _resumed(case: Case, answers: Sequence[Answer], _model: NumericModel, _truth: Truth) -> Result:
    _, whole, resumed, again = answers
    per_output = compare(case, whole, resumed)
    for role, count in compare(case, whole, again).items():
        per_output[role] = per_output.get(role, 0.0) + count
    return counted(case, per_output, "the resumed run differs from the uninterrupted one")


def compare(case: Case, one: Answer, other: Answer) -> dict[str, float]:
    """Return the number of differing elements for each role of two snapshots, all parameters."""
    assert isinstance(one, Snapshot)
    assert isinstance(other, Snapshot)
    counts: dict[str, float] = {}
    for member in case.members:
        for role, number in differing_roles(one, other, member.name).items():
            counts[role] = counts.get(role, 0.0) + number
    return {**counts, "count": float(one.step != other.step)}


def differing_roles(one: Snapshot, other: Snapshot, name: str) -> dict[str, float]:
    """Return the number of differing elements for each role of a parameter, itself among them."""
    state, second = one.state.get(name, {}), other.state.get(name, {})
    counts = {
        role: float(differing(state.get(role), second.get(role)))
        for role in dict.fromkeys([*state, *second])
    }
    return {**counts, "param": float(differing(one.params[name], other.params[name]))}


def counted(case: Case, per_output: dict[str, float], complaint: str) -> Result:
    """Return the result of a count by role that must be 0."""
    first_bad = next((role for role, count in per_output.items() if count > EXACT), "")
    message = f"{complaint}: {first_bad}" if first_bad else ""
    total = sum(per_output.values())
    return Result(
        case.id, True, "differing", total, EXACT, per_output, first_bad=first_bad, message=message
    )


RESUME = Check(
    "L5.1",
    "a run that is saved, started anew and loaded goes on bit for bit",
    _cases,
    _interrupted,
    _resumed,
)
