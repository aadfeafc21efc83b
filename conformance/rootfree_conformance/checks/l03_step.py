"""L3, one step: every rule, corner, shape and policy, against the running bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rootfree_conformance.cases.expand import PARAM, Case, single_steps
from rootfree_conformance.checks.contract import Check, Result
from rootfree_conformance.judges.ratio import Worst, differing, ratio
from rootfree_conformance.numeric import UNDERFLOW, NumericModel
from rootfree_conformance.port import HostArray, Snapshot
from rootfree_conformance.script import Answer, Load, Read, Script, Start, Step
from rootfree_conformance.thresholds import RATIO, VACUITY
from rootfree_conformance.truth import Step as Expected
from rootfree_conformance.truth import Truth


def steps(case: Case) -> list[Step]:
    """Return the steps of a case."""
    return [Step({PARAM: grad}, hyper) for grad, hyper in zip(case.grads, case.hypers, strict=True)]


def step_by_step(case: Case) -> Script:
    """Take the case's steps and read after each."""
    begin = [Start(case.spec, {PARAM: case.param})]
    load = [Load(case.snapshot())] if case.state else []
    return [*begin, *load, *(call for step in steps(case) for call in (step, Read()))]


def within_bound(
    case: Case, answers: Sequence[Answer], model: NumericModel, truth: Truth
) -> Result:
    """Judge every parameter and state array after every step by error over bound.

    The count of steps must be right as well. A bound that would let a significant digit go fails:
    under it everything passes.
    """
    per_output: dict[str, float] = {}
    largest = Worst(0.0, (), 0.0, 0.0, 0.0, 0)
    worst: dict[str, Any] = {}
    first_bad = message = ""
    for number, (answer, expected) in enumerate(zip(answers, truth(case, model), strict=True), 1):
        assert isinstance(answer, Snapshot)
        arrays = {**answer.state.get(PARAM, {}), "param": answer.params.get(PARAM)}
        for role, (v, e) in expected.items():
            if role != "param" and not v.size:
                continue  # a parameter without elements may have no state
            found = _vacuous(v, e) or ratio(arrays.get(role), v, e)
            per_output[role] = max(per_output.get(role, 0.0), found.ratio)
            if found.ratio > RATIO and not first_bad:
                first_bad = role if case.steps == 1 else f"{role} after step {number}"
            if not worst or found.ratio > largest.ratio:
                largest, worst = found, {"step": number, "role": role, **found._asdict()}
                message = _words(role, found, v)
        if case.param.size and (wrong := _miscounted(answer, case.updates(number), expected)):
            per_output["step"] = math.inf
            first_bad, message = first_bad or "step", message if first_bad else wrong
    value = max(per_output.values(), default=0.0)
    message = message if first_bad else ""
    return Result(case.id, True, "R", value, RATIO, per_output, worst, first_bad, message)


def _miscounted(answer: Snapshot, count: int, expected: Expected) -> str:
    """Return what is wrong with the count, or with the set of roles; nothing if they are right."""
    state = answer.state.get(PARAM, {})
    if answer.step != count or differing(state.get("step"), np.asarray(float(count))):
        return f"the count is {answer.step} and {state.get('step')}, expected {count}"
    unknown = set(state) - {*expected, "step", "salt"}
    return f"there is state that the rule does not keep: {sorted(unknown)}" if unknown else ""


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
