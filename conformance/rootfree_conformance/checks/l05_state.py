"""L5, state: a run that is saved, started anew and loaded goes on bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rootfree_conformance.cases.expand import PARAM, Case, balanced
from rootfree_conformance.checks.contract import Check, Result
from rootfree_conformance.checks.l03_step import steps
from rootfree_conformance.judges.ratio import differing
from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import Snapshot
from rootfree_conformance.script import Answer, Call, Load, Read, Reload, Script, Start
from rootfree_conformance.thresholds import EXACT
from rootfree_conformance.truth import Truth

_BEFORE, _AFTER = 4, 3


def _cases(check: str) -> Iterator[Case]:
    return balanced(check, steps=_BEFORE + _AFTER)


def _interrupted(case: Case) -> Script:
    start = Start(case.spec, {PARAM: case.param})
    before, after = steps(case)[:_BEFORE], steps(case)[_BEFORE:]
    whole: list[Call] = [start, Load(case.snapshot(salt=7)), *before, Read(), *after, Read()]
    return [*whole, start, Reload(0), *after, Read()]


def _resumed(case: Case, answers: Sequence[Answer], _model: NumericModel, _truth: Truth) -> Result:
    _, whole, resumed = answers
    per_output = compare(whole, resumed)
    return counted(case, per_output, "the resumed run differs from the uninterrupted one")


def compare(one: Answer, other: Answer) -> dict[str, float]:
    """Return the number of differing elements for each role of two snapshots."""
    assert isinstance(one, Snapshot)
    assert isinstance(other, Snapshot)
    state, second = one.state.get(PARAM, {}), other.state.get(PARAM, {})
    counts = {
        role: float(differing(state.get(role), second.get(role)))
        for role in dict.fromkeys([*state, *second])
    }
    counts["count"] = float(one.step != other.step)
    return {**counts, "param": float(differing(one.params[PARAM], other.params[PARAM]))}


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
