"""L8, misuse: gradients that are missing, and such that do not fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from rootfree_conformance.cases.case import Case
from rootfree_conformance.cases.expand import absences, balanced
from rootfree_conformance.checks.contract import Check, Result
from rootfree_conformance.checks.l03_step import start, steps, within_bound
from rootfree_conformance.checks.l05_state import compare, counted, differing_roles
from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import HostArray, Snapshot
from rootfree_conformance.script import Answer, Load, Read, Refusal, Refuse, Script
from rootfree_conformance.thresholds import EXACT
from rootfree_conformance.truth import Truth


def _with_gaps(case: Case) -> Script:
    taken = [call for step in steps(case) for call in (step, Read())]
    return [start(case), Load(case.snapshot()), Read(), *taken]


def _kept(case: Case, answers: Sequence[Answer], model: NumericModel, truth: Truth) -> Result:
    """Judge all steps by the bound, and what had no gradient by its bits.

    A parameter without a gradient keeps itself and its state, its count as well unless one count
    serves all; the others' step is as it would be without that parameter.
    """
    moved = _moved(case, answers, shared=model.count == "shared")
    if any(number > EXACT for number in moved.values()):
        return counted(case, moved, "it changes in a step without its gradient")
    result = within_bound(case, answers[1:], model, truth)
    return replace(result, per_output={**moved, **result.per_output})


def _moved(case: Case, answers: Sequence[Answer], *, shared: bool) -> dict[str, float]:
    """Return how many elements change of parameters that have no gradient."""
    moved: dict[str, float] = {}
    for step, (before, after) in enumerate(pairwise(answers)):
        assert isinstance(before, Snapshot)
        assert isinstance(after, Snapshot)
        for one in case.members:
            if not one.takes_part(step):
                for role, number in differing_roles(before, after, one.name).items():
                    if not (shared and role == "step"):
                        name = f"{one.name}.{role} without a gradient"
                        moved[name] = moved.get(name, 0.0) + number
    return moved


def _misshapen(case: Case) -> Script:
    longer = np.ones((*case.shape[:-1], case.shape[-1] + 1))
    broadcasting = np.ones((1, *case.shape[1:]))
    return [
        start(case),
        Load(case.snapshot()),
        Read(),
        _spoiled(case, longer),
        _spoiled(case, broadcasting),
        Read(),
    ]


def _spoiled(case: Case, grad: HostArray) -> Refuse:
    """Return a step whose last gradient is replaced."""
    good = {one.name: one.grads[0] for one in case.members}
    return Refuse({**good, case.members[-1].name: grad}, case.hypers[0])


def _refused(case: Case, answers: Sequence[Answer], _model: NumericModel, _truth: Truth) -> Result:
    before, *refusals, after = answers
    name = case.members[-1].name
    came = [refusal for refusal in refusals if not _typed(refusal, name)]
    return counted(
        case,
        {"error": float(len(came)), **compare(case, before, after)},
        f"a gradient of the wrong shape must raise ValueError or TypeError naming {name!r} and "
        f"change nothing; got {came}; wrong",
    )


def _typed(refusal: Answer, name: str) -> bool:
    """Return whether an error is of the documented kind and names the parameter."""
    assert isinstance(refusal, Refusal)
    known = {"ValueError", "TypeError"} & set(refusal.classes)
    return bool(known) and re.search(rf"\b{name}\b", refusal.message) is not None


ABSENCE = Check(
    "L8.2",
    "a parameter without a gradient keeps itself and its state, and the others step as ever",
    absences,
    _with_gaps,
    _kept,
)
REJECTION = Check(
    "L8.3",
    "a gradient of another shape is refused, and nothing has changed",
    balanced,
    _misshapen,
    _refused,
)
