"""L6, precision policy: dtypes as declared, by name and by value; stochastic rounding by bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rootfree import METHODS
from rootfree_array._precision import salt
from rootfree_textbook import round_stochastically

from rootfree_conformance.cases.case import STEPS_BEFORE, Case
from rootfree_conformance.cases.expand import balanced
from rootfree_conformance.cases.families import (
    EXACT_DECAY,
    EXACT_GROWTH,
    EXACT_MIXED,
    POLICIES,
)
from rootfree_conformance.checks.contract import Check, Result
from rootfree_conformance.checks.l03_step import start, step_by_step, steps
from rootfree_conformance.checks.l05_state import counted
from rootfree_conformance.judges.ratio import differing
from rootfree_conformance.numeric import FORMATS, NumericModel, quantise
from rootfree_conformance.port import Snapshot
from rootfree_conformance.script import Answer, Call, Load, Read, Script
from rootfree_conformance.truth import Truth

_SALT = 20240217
_DECAY_STEPS = 30


def _declared(case: Case, answers: Sequence[Answer], model: NumericModel, _truth: Truth) -> Result:
    """Compare stored dtypes with the policy, by name and by value.

    What is stored must be numbers of its dtype, and wide state must hold some that bf16 cannot:
    but for roots, which are products, where products have 16 bits.
    """
    coarse_products = model.native_products and case.policy.products is not None
    *_, after = answers
    assert isinstance(after, Snapshot)
    wrong: dict[str, float] = {}
    for name in [one.name for one in case.members]:
        kept = {role: after.state.get(name, {}).get(role) for role in case.roles}
        for role, array in {**kept, "param": after.params.get(name)}.items():
            dtype = case.policy.dtype if role == "param" else case.policy.state_dtype
            fits = array is not None and not differing(array, quantise(array, FORMATS[dtype]))
            coarse = fits and not differing(array, quantise(array, FORMATS["bfloat16"]))
            product = coarse_products and role.startswith("root")
            narrow = coarse and dtype != "bfloat16" and not product
            bad = after.dtypes.get(role) != dtype or narrow or not fits
            wrong[role] = wrong.get(role, 0.0) + bad
    return counted(case, wrong, f"stored as {after.dtypes}, not as the policy says")


def _stochastic(check: str) -> Iterator[Case]:
    policy = POLICIES["bfloat16-stochastic"]
    for method in METHODS.values():
        for corner in (EXACT_DECAY, EXACT_GROWTH, EXACT_MIXED):
            if corner.applies(method):
                yield Case(check, method, corner, (3, 5), policy, _DECAY_STEPS)


def _decaying(case: Case) -> Script:
    run: list[Call] = [call for step in steps(case) for call in (step, Read())]
    return [start(case), Read(), Load(case.snapshot(_SALT)), *run]


def _published_bits(
    case: Case, answers: Sequence[Answer], _model: NumericModel, _truth: Truth
) -> Result:
    """Replay the decay with the published hash.

    The key of a fresh parameter comes from its name. Before rounding, a bfloat16 number times
    1 - 2^-10, 1 + 2^-11 or 3/4 is exact in float32, so every port rounds the same numbers and must
    store the same bits. Roots by eigenvalues, and factors that move along an average, are not
    exact: their bits are not foretold.
    """
    wrong: dict[str, float] = {}
    for one in case.members:
        for role, number in _unforetold(one, answers).items():
            wrong[role] = wrong.get(role, 0.0) + number
    return counted(case, wrong, "stored bits are not the published hash's")


def _unforetold(case: Case, answers: Sequence[Answer]) -> dict[str, float]:
    """Return how many elements of a parameter's state differ from the foretold, by role."""
    fresh, *answers = answers
    assert isinstance(fresh, Snapshot)
    key = np.asarray(float(salt(case.name)))
    wrong = {"salt": float(differing(fresh.state.get(case.name, {}).get("salt"), key))}
    current = {role: case.state[role] for role in case.roles if _decay(case, role)}
    wrong |= dict.fromkeys(current, 0.0)
    for index, answer in enumerate(answers):
        assert isinstance(answer, Snapshot)
        state = answer.state.get(case.name, {})
        for role in current:
            factor, shift = _decay(case, role) or (1.0, 0.0)
            current[role] = round_stochastically(
                current[role] * factor + shift,
                role=_number(role),
                count=STEPS_BEFORE + index,
                salt=_SALT + case.member,
            )
            wrong[role] += differing(state.get(role), np.asarray(current[role]))
    return wrong


def _decay(case: Case, role: str) -> tuple[float, Any] | None:
    """Return what a state array is multiplied by in a step without gradient, and what is added.

    ``None`` if it is not exact before it is rounded.
    """
    name, *indices = role.split(".")
    hyper, decay = case.hypers[0], case.method.options.get("decay", 1)
    rate = decay * hyper["precond_lr"]
    averaged = any(other.startswith("factor_momentum") for other in case.roles)
    if name in ("momentum", "first_moment"):
        return hyper["momentum"], 0.0
    if name == "statistic":
        covariance = case.method.fixed.get("form") == "inverse"
        return (1 + rate if covariance else 1 - rate), 0.0
    if name == "factor" and not averaged:
        return 1 + rate / 2, 0.0
    if name == "factor_momentum":
        axis, part = int(indices[0]), int(indices[1]) if len(indices) > 1 else 0
        eye = case.structures[axis].eye(np.zeros((1, 1)))[part][0]
        return hyper["precond_momentum"], -(1 - hyper["precond_momentum"]) / 2 * decay * eye
    return None


def _number(role: str) -> int:
    """Return the number of a state array in the published hash."""
    name, *indices = role.split(".")
    if not indices:
        return {"momentum": 1, "statistic": 2, "first_moment": 3, "root": 3}[name]
    axis, part = int(indices[0]), int(indices[1]) if len(indices) > 1 else 0
    first = 5 if name in ("factor_momentum", "root") else 4
    return first + 2 * axis + 1024 * part


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
