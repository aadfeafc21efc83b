"""L8, misuse: what does not fit is refused before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootfree_conformance.cases.expand import PARAM, Case, balanced
from rootfree_conformance.checks.contract import Check, Result
from rootfree_conformance.checks.l05_state import compare, counted
from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.script import Answer, Load, Read, Refusal, Refuse, Script, Start
from rootfree_conformance.truth import Truth


def _misshapen(case: Case) -> Script:
    longer = np.ones((*case.shape[:-1], case.shape[-1] + 1))
    broadcasting = np.ones((1, *case.shape[1:]))
    return [
        Start(case.spec, {PARAM: case.param}),
        Load(case.snapshot()),
        Read(),
        Refuse({PARAM: longer}, case.hypers[0]),
        Refuse({PARAM: broadcasting}, case.hypers[0]),
        Read(),
    ]


def _refused(case: Case, answers: Sequence[Answer], _model: NumericModel, _truth: Truth) -> Result:
    before, *refusals, after = answers
    error = {"error": float(sum(not _typed(refusal) for refusal in refusals))}
    came = [refusal for refusal in refusals if not _typed(refusal)]
    return counted(
        case,
        {**error, **compare(before, after)},
        f"a gradient of the wrong shape must raise ValueError or TypeError naming {PARAM!r} and "
        f"change nothing; got {came}; wrong",
    )


def _typed(refusal: Answer) -> bool:
    """Return whether an error is of the documented kind and names the parameter."""
    assert isinstance(refusal, Refusal)
    known = {"ValueError", "TypeError"} & set(refusal.classes)
    return bool(known) and PARAM in refusal.message


REJECTION = Check(
    "L8.3",
    "a gradient of another shape is refused, and nothing has changed",
    balanced,
    _misshapen,
    _refused,
)
