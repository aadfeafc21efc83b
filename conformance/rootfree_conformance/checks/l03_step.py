"""L3, one step: every rule, corner, shape and policy, against the running bound."""

from __future__ import annotations

from collections.abc import Sequence

from rootfree_conformance.cases.expand import PARAM, Case, single_steps
from rootfree_conformance.checks.contract import Check, Result
from rootfree_conformance.judges.ratio import Worst, ratio
from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import Snapshot
from rootfree_conformance.script import Answer, Load, Read, Script, Start, Step
from rootfree_conformance.thresholds import RATIO
from rootfree_conformance.truth import Truth


def step_by_step(case: Case) -> Script:
    """Take the case's steps and read after each."""
    begin = [Start(case.spec, {PARAM: case.param})]
    load = [Load(case.snapshot())] if case.state else []
    steps = [
        call
        for grad, hyper in zip(case.grads, case.hypers, strict=True)
        for call in (Step({PARAM: grad}, hyper), Read())
    ]
    return [*begin, *load, *steps]


def within_bound(
    case: Case, answers: Sequence[Answer], model: NumericModel, truth: Truth
) -> Result:
    """Judge every parameter and state array after every step by error over bound."""
    per_output: dict[str, float] = {}
    largest: tuple[int, str, Worst, int] | None = None
    first_bad = ""
    for number, (answer, expected) in enumerate(zip(answers, truth(case, model), strict=True), 1):
        assert isinstance(answer, Snapshot)
        state = answer.state.get(PARAM, {})
        for role, (v, e) in expected.items():
            if role != "param" and not v.size:
                continue  # nothing to keep for a parameter without elements
            found = ratio(answer.params[PARAM] if role == "param" else state.get(role), v, e)
            per_output[role] = max(per_output.get(role, 0.0), found.ratio)
            if found.ratio > RATIO and not first_bad:
                first_bad = role if case.steps == 1 else f"{role} after step {number}"
            if largest is None or found.ratio > largest[2].ratio:
                largest = (number, role, found, v.size)
    assert largest is not None
    number, role, found, size = largest
    message = (
        f"R = {found.ratio:.3g} at {role}{list(found.at)}: got {found.x!r}, expected "
        f"{found.v!r} +- {found.e:.3g}; {found.above} of {size} elements "
        "above 1"
        if first_bad
        else ""
    )
    worst = {"step": number, "role": role, **found._asdict()}
    return Result(case.id, True, "R", found.ratio, RATIO, per_output, worst, first_bad, message)


BOUND = Check(
    "L3.2",
    "one step is within the error that the declared arithmetic allows",
    single_steps,
    step_by_step,
    within_bound,
)
