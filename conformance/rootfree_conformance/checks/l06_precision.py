"""L6, precision policy: dtypes as declared, by name and by value; stochastic rounding by bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rootfree import METHODS
from rootfree.precision import ROLES
from rootfree_array._precision import salt
from rootfree_textbook import round_stochastically

from rootfree_conformance.cases.expand import PARAM, STEPS_BEFORE, Case, balanced
from rootfree_conformance.cases.families import EXACT_DECAY, POLICIES
from rootfree_conformance.checks.contract import Check, Result
from rootfree_conformance.checks.l03_step import step_by_step, steps
from rootfree_conformance.checks.l05_state import counted
from rootfree_conformance.judges.ratio import differing
from rootfree_conformance.numeric import FORMATS, NumericModel, quantise
from rootfree_conformance.port import Snapshot
from rootfree_conformance.script import Answer, Call, Load, Read, Script, Start
from rootfree_conformance.truth import Truth

_SALT = 20240217
_DECAY_STEPS = 30


def _declared(case: Case, answers: Sequence[Answer], _model: NumericModel, _truth: Truth) -> Result:
    """Compare stored dtypes with the policy, by name and by value.

    What is stored must be numbers of its dtype, and wide state must hold some that bf16 cannot.
    """
    (after,) = answers
    assert isinstance(after, Snapshot)
    kept = {role: after.state.get(PARAM, {}).get(role) for role in case.roles}
    wrong = {}
    for role, array in {**kept, "param": after.params.get(PARAM)}.items():
        dtype = case.policy.dtype if role == "param" else case.policy.state_dtype
        fits = array is not None and not differing(array, quantise(array, FORMATS[dtype]))
        coarse = fits and not differing(array, quantise(array, FORMATS["bfloat16"]))
        narrow = coarse and dtype != "bfloat16"
        wrong[role] = float(after.dtypes.get(role) != dtype or narrow or not fits)
    return counted(case, wrong, f"stored as {after.dtypes}, not as the policy says")


def _stochastic(check: str) -> Iterator[Case]:
    policy = POLICIES["bfloat16-stochastic"]
    for method in METHODS.values():
        yield Case(check, method, EXACT_DECAY, (3, 5), policy, _DECAY_STEPS)


def _decaying(case: Case) -> Script:
    start: list[Call] = [Start(case.spec, {PARAM: case.param}), Read()]
    run = [call for step in steps(case) for call in (step, Read())]
    return [*start, Load(case.snapshot(_SALT)), *run]


def _published_bits(
    case: Case, answers: Sequence[Answer], _model: NumericModel, _truth: Truth
) -> Result:
    """Replay the decay with the published hash.

    The key of a fresh parameter comes from its name. Before rounding, a bfloat16 number times
    1 - 2^-10 or 3/4 is exact in float32, so every port rounds the same numbers and must store the
    same bits.
    """
    hyper, decay = case.hypers[0], case.method.options.get("decay", 1)
    factor = {"statistic": 1 - decay * hyper["precond_lr"]}
    fresh, *answers = answers
    assert isinstance(fresh, Snapshot)
    key = np.asarray(float(salt(PARAM)))
    wrong = {"salt": float(differing(fresh.state.get(PARAM, {}).get("salt"), key))}
    wrong |= dict.fromkeys(case.roles, 0.0)
    current = {role: case.state[role] for role in case.roles}
    for index, answer in enumerate(answers):
        assert isinstance(answer, Snapshot)
        for role in case.roles:
            current[role] = round_stochastically(
                current[role] * factor.get(role, hyper["momentum"]),
                role=ROLES[role],
                count=STEPS_BEFORE + index,
                salt=_SALT,
            )
            wrong[role] += differing(
                answer.state.get(PARAM, {}).get(role), np.asarray(current[role])
            )
    return counted(case, wrong, "stored bits are not the published hash's")


DTYPES = Check(
    "L6.1",
    "parameters and state are stored in the dtypes that were asked for",
    balanced,
    step_by_step,
    _declared,
)
ROUNDING = Check(
    "L6.4",
    "stochastic rounding gives the published bits, and bfloat16 state decays",
    _stochastic,
    _decaying,
    _published_bits,
)
