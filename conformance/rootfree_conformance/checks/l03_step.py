"""L3, one step: every rule, corner, shape and policy, against the running bound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from rootfree_conformance.cases.case import Case
from rootfree_conformance.cases.expand import single_steps
from rootfree_conformance.cases.turns import uneven
from rootfree_conformance.checks.contract import Check, Result
from rootfree_conformance.judges.ratio import Worst, ratio
from rootfree_conformance.numeric import UNDERFLOW, NumericModel
from rootfree_conformance.port import HostArray, Snapshot
from rootfree_conformance.script import Answer, Load, Read, Script, Start, Step
from rootfree_conformance.thresholds import RATIO, VACUITY
from rootfree_conformance.truth import Bounded, Truth

_NOTHING: Final = Worst(math.inf, (), math.nan, math.nan, math.nan, 0)


def start(case: Case) -> Start:
    """Start with the parameters of a case."""
    return Start(case.spec, {one.name: one.param for one in case.members})


def steps(case: Case) -> list[Step]:
    """Return the steps of a case."""
    return [
        Step({one.name: one.grads[i] for one in case.members if one.takes_part(i)}, hyper)
        for i, hyper in enumerate(case.hypers)
    ]


def step_by_step(case: Case) -> Script:
    """Take the case's steps and read after each; and before, to see phases that a port deals."""
    begin = [Load(case.snapshot())] if case.state else []
    look = [Read()] if case.is_dealt else []
    return [start(case), *begin, *look, *(call for step in steps(case) for call in (step, Read()))]


class Finding(NamedTuple):
    """A quantity after a step, compared with what it must be."""

    step: int
    member: str
    role: str
    found: Worst
    words: str


def within_bound(
    case: Case, answers: Sequence[Answer], model: NumericModel, truth: Truth
) -> Result:
    """Judge every parameter and state array after every step by error over bound.

    Counts of steps and phases must be right as well. A bound that would let a significant digit go
    fails: under it everything passes.
    """
    members, complaint = case.members, ""
    if case.is_dealt:
        first, *answers = answers
        members, complaint = dealt(case, first)
    findings = [] if complaint else list(_findings(members, answers, model, truth))
    per_output: dict[str, float] = {}
    for _, _, role, found, _ in findings:
        per_output[role] = max(per_output.get(role, 0.0), found.ratio)
    bad = [finding for finding in findings if finding.found.ratio > RATIO]
    worst, first_bad, message = {}, "phase" if complaint else "", complaint
    if findings:
        most = max(findings, key=lambda finding: finding.found.ratio)
        worst = {"step": most.step, "parameter": most.member, "role": most.role}
        worst |= most.found._asdict()
        message = most.words if bad else ""
    if bad:
        whose = "" if len(members) == 1 else f" of {bad[0].member}"
        first_bad = bad[0].role + whose + ("" if case.steps == 1 else f" after step {bad[0].step}")
    value = math.inf if complaint else max(per_output.values(), default=0.0)
    return Result(case.id, True, "R", value, RATIO, per_output, worst, first_bad, message)


def dealt(case: Case, first: Answer) -> tuple[tuple[Case, ...], str]:
    """Return the members at the phases of a port's first snapshot, and what is wrong with these."""
    assert isinstance(first, Snapshot)
    missing = np.asarray(math.nan)
    found = [first.state.get(one.name, {}).get("phase", missing) for one in case.members]
    phases = [float(phase) if np.ndim(phase) == 0 else math.nan for phase in found]
    wrong = uneven(phases, case.period)
    pairs = () if wrong else zip(case.members, phases, strict=True)
    return tuple(replace(one, phase=int(phase)) for one, phase in pairs), wrong


def _findings(
    members: Sequence[Case], answers: Sequence[Answer], model: NumericModel, truth: Truth
) -> Iterator[Finding]:
    """Yield what is compared, in order of computation."""
    expected = [truth(one, model) for one in members]
    for number, (answer, *numbers) in enumerate(zip(answers, *expected, strict=True), 1):
        assert isinstance(answer, Snapshot)
        counts = []
        for one, arrays in zip(members, numbers, strict=True):
            state = answer.state.get(one.name, {})
            wanted = {
                **arrays,
                **_counters(one, one.updates(number, shared=model.count == "shared")),
            }
            given = {**state, "param": answer.params.get(one.name)}
            whose = "" if len(members) == 1 else f"{one.name}: "
            for role, (v, e) in wanted.items():
                if role == "param" or v.size:  # a parameter without elements may have no state
                    found = _vacuous(v, e) or ratio(given.get(role), v, e)
                    yield Finding(number, one.name, role, found, whose + _words(role, found, v))
            if unknown := sorted(set(state) - {*wanted, "step", "salt"}):
                words = f"{whose}there is state that the rule does not keep: {unknown}"
                yield Finding(number, one.name, "roles", _NOTHING, words)
            counts += [v for role, (v, _) in wanted.items() if role == "step"]
        if counts:
            found = ratio(np.asarray(float(answer.step)), max(counts), 0.0)
            yield Finding(
                number, "", "step", found, _words("the snapshot's step", found, max(counts))
            )


def _counters(case: Case, count: int) -> dict[str, Bounded]:
    """Return the counters that a parameter keeps, which are as they must be or wrong."""
    if not case.param.size:
        return {}
    numbers = {"step": count, **({"phase": case.phase} if case.takes_turns else {})}
    return {role: Bounded(np.asarray(float(n)), np.zeros(())) for role, n in numbers.items()}


def _vacuous(v: HostArray, e: HostArray) -> Worst | None:
    """Return a failure if the bound is so wide that it says nothing of numbers of this size."""
    scale = float(np.max(np.abs(v), initial=UNDERFLOW))
    largest = float(np.max(e, initial=0.0))
    if largest <= VACUITY * scale:
        return None
    return Worst(math.inf, (), math.nan, scale, largest, int(v.size))


def _words(role: str, found: Worst, v: HostArray) -> str:
    if found.ratio == math.inf and not found.at and v.ndim:
        return f"{role}: missing, of another shape, or its bound {found.e:.3g} says nothing"
    return (
        f"R = {found.ratio:.3g} at {role}{list(found.at)}: got {found.x!r}, expected "
        f"{found.v!r} +- {found.e:.3g}; {found.above} of {v.size} elements above 1"
    )


BOUND = Check(
    "L3.2",
    "one step is within the error that the declared arithmetic allows",
    single_steps,
    step_by_step,
    within_bound,
)
