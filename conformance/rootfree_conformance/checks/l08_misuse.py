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
    wrong = np.ones((*case.shape[:-1], case.shape[-1] + 1))
    return [
        Start(case.spec, {PARAM: case.param}),
        Load(case.snapshot()),
        Read(),
        Refuse({PARAM: wrong}, case.hypers[0]),
        Read(),
    ]


def _refused(case: Case, answers: Sequence[Answer], _model: NumericModel, _truth: Truth) -> Result:
    before, refusal, after = answers
    assert isinstance(refusal, Refusal)
    typed = bool({"ValueError", "TypeError"} & set(refusal.classes))
    error = {"error": 0.0 if typed and PARAM in refusal.message else 1.0}
    came = f"{refusal.classes[:1]} {refusal.message!r}" if refusal.classes else "no error"
    return counted(
        case,
        {**error, **compare(before, after)},
        f"a gradient of the wrong shape must raise ValueError or TypeError naming {PARAM!r} and "
        f"change nothing; got {came}; wrong",
    )


REJECTION = Check(
    "L8.3",
    "a gradient of another shape is refused, and nothing has changed",
    balanced,
    _misshapen,
    _refused,
)
