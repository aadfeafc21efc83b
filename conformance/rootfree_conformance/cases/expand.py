"""From tables to cases: which of them a check has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rootfree import METHODS, Method

from rootfree_conformance.cases.case import RUN_LENGTH, Case
from rootfree_conformance.cases.families import (
    ABSENT,
    CORNERS,
    FEW,
    MATRIX_RUNS,
    MATRIX_SHAPES,
    MIXED,
    POLICIES,
    RUN_SHAPES,
    RUNS,
    SHAPES,
    STRUCTURED,
    THOROUGH,
    TINY,
    Corner,
    Policy,
)
from rootfree_conformance.cases.left_out import UNJUDGED

SHORT_RUN: Final = 6
MATRIX_RUN: Final = {"float64": 8, "float32": 4}
"""Lengths of the trajectories of methods that keep matrices; 3 otherwise, 2 with 8-bit state."""
_COARSE: Final = 2  # steps of single-step checks where products round their inputs to 8 bits


Shapes = tuple[tuple[int, ...], ...]


def single_steps(check: str) -> Iterator[Case]:
    """Yield every rule, corner, shape and policy."""
    for policy, method in _pairs():
        for corner in (*CORNERS, *STRUCTURED):
            wanted = corner.applies(method) and policy.meets(method, corner)
            if wanted and not _unjudged(method, corner, policy, run=False):
                steps = corner.steps if policy.products is None else min(corner.steps, _COARSE)
                for shape in _shapes(corner, policy, method):
                    yield Case(check, method, corner, shape, policy, steps)


def runs(check: str) -> Iterator[Case]:
    """Yield trajectories of every rule and policy.

    They are short where the state is bfloat16: a slow average of eight bits adds up its roundings,
    and the worst case of twenty steps would bound nothing. So they are for rules with matrices,
    whose errors are multiplied from step to step.
    """
    for policy, method in _pairs():
        length = SHORT_RUN if policy.state_dtype == "bfloat16" else RUN_LENGTH
        corners = [corner for corner in CORNERS if corner.name in RUNS]
        if method.matrix:
            length = MATRIX_RUN.get(policy.label, 2 if policy.state_dtype == "bfloat16" else 3)
            corners = [corner for corner in CORNERS if corner.name in MATRIX_RUNS] + [MIXED]
        for corner in corners:
            if corner.applies(method) and not _unjudged(method, corner, policy, run=True):
                shapes: Shapes = RUN_SHAPES if policy.label in THOROUGH else RUN_SHAPES[:1]
                if method.matrix:
                    shapes = _matrix_shapes(method, policy)[:1]
                for shape in shapes:
                    yield Case(check, method, corner, shape, policy, length)


def balanced(check: str, shape: tuple[int, ...] = (3, 5), steps: int = 1) -> Iterator[Case]:
    """Yield one balanced case for every rule and policy, and one of factors of several arrays."""
    for policy, method in _pairs():
        for corner in (CORNERS[0], MIXED):
            if corner.applies(method):
                yield Case(check, method, corner, shape, policy, max(steps, corner.steps))


def absences(check: str) -> Iterator[Case]:
    """Yield cases of several parameters, some of which lack a gradient at some steps."""
    for policy, method in _pairs():
        for corner in ABSENT:
            wanted = corner.applies(method) and policy.products is None
            if wanted and not _unjudged(method, corner, policy, run=False):
                shape = _matrix_shapes(method, policy)[0] if method.matrix else FEW[0]
                yield Case(check, method, corner, shape, policy, corner.steps)


def _pairs() -> Iterator[tuple[Policy, Method]]:
    for policy in POLICIES.values():
        for method in METHODS.values():
            if policy.applies(method):
                yield policy, method


def _unjudged(method: Method, corner: Corner, policy: Policy, *, run: bool) -> bool:
    return any(entry.run == run and entry.holds(method, corner, policy) for entry in UNJUDGED)


def _shapes(corner: Corner, policy: Policy, method: Method) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a corner: options are code, which every shape would meet alike."""
    thorough = policy.label in THOROUGH
    if method.matrix:
        shapes = _matrix_shapes(method, policy)
        if corner.name == "balanced" and thorough:
            return shapes
        every = corner.name in ("balanced", "merged") and policy.products is None
        return shapes[: 2 if every else 1]
    if corner.name == "balanced" and thorough:
        return SHAPES
    if corner.members > 1:
        return FEW[:1]
    if not corner.options and not corner.without:
        return FEW
    return FEW[::2] if thorough else FEW[:1]


def _matrix_shapes(method: Method, policy: Policy) -> tuple[tuple[int, ...], ...]:
    """Return the shapes for a method that keeps matrices, the one for all corners first."""
    solves = method.name == "rf_full_matrix"
    return TINY if solves and policy.state_dtype == "bfloat16" else MATRIX_SHAPES
