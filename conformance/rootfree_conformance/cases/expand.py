"""From tables to cases: what is computed, on which numbers, under which id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import rootfree
from rootfree import METHODS, Method, Precision, Rule

from rootfree_conformance.cases.draws import normal
from rootfree_conformance.cases.families import (
    CORNERS,
    FEW,
    MATRIX_SHAPES,
    MIXED,
    POLICIES,
    QUICK_CORNERS,
    RUN_SHAPES,
    RUNS,
    SHAPES,
    STRUCTURED,
    THOROUGH,
    TINY,
    UNJUDGED,
    Corner,
    Policy,
)
from rootfree_conformance.numeric import FORMATS, quantise
from rootfree_conformance.port import HostArray, Snapshot, Spec

PARAM: Final = "weight"
STEPS_BEFORE: Final = 5
RUN_LENGTH: Final = 20
SHORT_RUN: Final = 6
MATRIX_RUN: Final = {"float64": 8, "float32": 4}
"""Lengths of the trajectories of methods that keep matrices; 3 otherwise, 2 with 8-bit state."""
RUN_DECAY: Final = 2.0**-6
_COMPUTED_FIRST: Final = ("factor_momentum", "factor")
_CALM: Final = 2.0**-4
_NARROW: Final = 0.5
_STABLE: Final = 2.0**-5


Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Case:
    """One case of a check. Inputs are expanded from the id's parts when they are asked for.

    Attributes:
        check: id of the check.
        method: the catalogue's entry.
        corner: hyper-parameters, options and state.
        shape: of the parameter.
        policy: the precision policy.
        steps: how many steps are taken, on a new gradient each.
    """

    check: str
    method: Method
    corner: Corner
    shape: tuple[int, ...]
    policy: Policy
    steps: int = 1

    @property
    def label(self) -> str:
        """Name the numbers: equal for every check that uses them."""
        shape = "x".join(map(str, self.shape)) or "scalar"
        return f"{self.method.name}/{self.corner.name}/{shape}"

    @property
    def id(self) -> str:
        """Name the case."""
        return f"{self.check}/{self.label}@{self.policy.label}"

    @property
    def quick(self) -> bool:
        """Whether the case belongs to the quick profile."""
        return self.corner.name in QUICK_CORNERS and self.shape in FEW[:2]

    def updates(self, steps: int) -> int:
        """Return the count of updates after some steps of this case."""
        return steps + (STEPS_BEFORE if self.state else 0)

    @property
    def spec(self) -> Spec:
        """What the port is to start."""
        return Spec(
            self.method.name,
            self.corner.settings(self.method),
            self.policy.dtype,
            self.policy.state_dtype,
            self.policy.compute_dtype,
            self.policy.rounding,
            self.corner.unbuffered(self.method),
        )

    def rule(self, precision: Precision) -> Rule[Any]:
        """Return the core's rule in this configuration."""
        settings = self.corner.settings(self.method)
        settings.pop("update_every", None)
        return self.method.rule(precision, without=self.corner.unbuffered(self.method), **settings)

    def observes(self, step: int) -> bool:
        """Return whether the curvature enters at a step, counted from 0."""
        period = self.corner.options.get("update_every", 1)
        return rootfree.observes(period, self.updates(step))

    @cached_property
    def structures(self) -> tuple[Any, ...]:
        """Structures of the factors, empty for rules without factors."""
        made: Any = self.rule(Precision.uniform(np.dtype("float64")))
        return tuple(made.structures(self.shape)) if hasattr(made, "structures") else ()

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the state arrays by role, in order of computation.

        A parameter without elements may have no state.
        """
        if 0 in self.shape:
            return {}
        rule = self.rule(Precision.uniform(np.dtype("float64")))
        param: Any = np.zeros((1, *self.shape))  # NDArray against a protocol takes long
        fresh = rootfree.roles(rule.init(param))
        kept = {role: tuple(array.shape[1:]) for role, array in fresh.items()}
        names = sorted(kept, key=_order)
        return {role: kept[role] for role in names if role not in ("step", "salt")}

    @property
    def roles(self) -> tuple[str, ...]:
        """State arrays that the method keeps in this configuration, in order of computation."""
        return tuple(self.shapes)

    @cached_property
    def param(self) -> HostArray:
        """W, values of the parameter's dtype."""
        return quantise(normal(f"{self.label}/param", self.shape), FORMATS[self.policy.dtype])

    @cached_property
    def grads(self) -> list[HostArray]:
        """G of each step, values of the parameter's dtype."""
        return [self._grad(i) for i in range(self.steps)]

    @cached_property
    def hypers(self) -> list[dict[str, float]]:
        """Hyper-parameters of each step: in a run all of them change.

        Where products round their inputs to 8 bits, a bound of several of them in a row is close
        to the numbers themselves if these come from products alone: there gradient and curvature
        are smaller, and momenta of factors larger.

        A run has little weight decay: a bound cannot know that decay and heavy ball cancel, and
        with much of both it would grow without use. Nor has it a curvature at which the inverse
        form of the full-matrix method runs away, as it does (P04).
        """
        first = self.corner.values(self.method)
        if self.policy.products is not None:
            first["curvature_scale"] *= _NARROW
        if self.steps == 1 or not self.corner.scheduled:
            return [first] * self.steps
        first["weight_decay"] *= RUN_DECAY
        if self.method.fixed.get("form") == "inverse":
            first["curvature_scale"] *= _STABLE
        return [
            {name: value * (1 - i / (2 * RUN_LENGTH)) for name, value in first.items()}
            | {"curvature_scale": first["curvature_scale"] * (0.5 if i % 2 else 1.0)}
            for i in range(self.steps)
        ]

    @cached_property
    def state(self) -> dict[str, Any]:
        """State mid-run by role, values of the state's dtype; empty for a fresh start."""
        if self.corner.state == "fresh":
            return {}
        form = FORMATS[self.policy.state_dtype]
        kept = {role: quantise(self._drawn(role), form) for role in self.roles}
        return {**kept, "step": STEPS_BEFORE}

    def _drawn(self, role: str) -> HostArray:
        """Return a state array as it might be mid-run."""
        name, *indices = role.split(".")
        shape, text = self.shapes[role], f"{self.label}/{role}"
        if name == "momentum":
            return normal(text, shape)
        if name == "first_moment":
            return 0.5 * normal(text, shape)
        if not self.method.matrix:
            return np.asarray(0.5 + np.abs(normal(text, shape)))
        if name in ("statistic", "root"):
            half = normal(text, shape)
            # A sum of outer products: a product of matrices has other bits on other machines.
            square: HostArray = np.zeros(shape)
            for column in half.T:
                square = square + np.outer(column, column)
            return np.asarray(square / (2 * shape[0]) + 0.5 * np.eye(shape[0]))
        axis = int(indices[0])
        space = self.structures[axis]
        draw = normal(f"{self.label}/{name}.{axis}", (space.size, space.size)) / space.size**0.5
        if name == "factor":
            reach = 0.3 if self.policy.products is None else 0.1
            parts = space.from_dense((np.eye(space.size) + reach * draw)[np.newaxis])
        else:
            calm = _CALM if self.corner.state == "calm" else 1.0
            calm *= 1.0 if self.policy.products is None else 2.0
            parts = space.project(calm * 0.25 * (draw + draw.T)[np.newaxis])
        return np.asarray(parts[int(indices[1]) if len(indices) > 1 else 0][0])

    def snapshot(self, salt: int = 0) -> Snapshot:
        """Return the state mid-run as a port loads it."""
        roles = {role: np.asarray(array, dtype=np.float64) for role, array in self.state.items()}
        if self.policy.rounding == "stochastic":
            roles["salt"] = np.asarray(float(salt))
        return Snapshot({PARAM: self.param}, {PARAM: roles}, STEPS_BEFORE, {})

    def _grad(self, index: int) -> HostArray:
        grad = normal(f"{self.label}/grad/{index}", self.shape)
        if self.corner.gradient == "zero":
            grad = np.zeros(self.shape)
        if self.policy.products is not None:
            grad = _NARROW * grad
        if self.corner.gradient == "small":
            grad = _CALM * grad
        if self.corner.gradient == "graded":
            for axis, length in enumerate(self.shape):
                reach = 2 if self.method.matrix else 5  # a matrix squares its condition
                grades = np.linspace(-reach, reach, length) / max(1, len(self.shape))
                scale = 2.0 ** np.round(grades)
                grad = grad * scale.reshape([-1 if i == axis else 1 for i in range(grad.ndim)])
        return quantise(grad, FORMATS[self.policy.dtype])


def single_steps(check: str) -> Iterator[Case]:
    """Yield every rule, corner, shape and policy."""
    for policy, method in _pairs():
        for corner in (*CORNERS, *STRUCTURED):
            wanted = corner.applies(method) and policy.meets(method, corner)
            if wanted and not _unjudged(method, corner, policy, run=False):
                for shape in _shapes(corner, policy, method):
                    yield Case(check, method, corner, shape, policy, corner.steps)


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
            corners = [*corners[:1], MIXED]
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


def unjudged() -> list[str]:
    """Return what no case is about though it could be, with reasons."""
    return [
        f"{', '.join(entry.methods)}; {', '.join(entry.corners) or 'every corner'}; "
        f"{', '.join(entry.policies) or 'every policy'}; "
        f"{'trajectories' if entry.run else 'single steps'}: {entry.reason}"
        for entry in UNJUDGED
    ]


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
    if not corner.options and not corner.without:
        return FEW
    return FEW[::2] if thorough else FEW[:1]


def _matrix_shapes(method: Method, policy: Policy) -> tuple[tuple[int, ...], ...]:
    """Return the shapes for a method that keeps matrices, the one for all corners first."""
    solves = method.name == "rf_full_matrix"
    return TINY if solves and policy.state_dtype == "bfloat16" else MATRIX_SHAPES


def _order(role: str) -> int:
    """Return the place of a role in the order of computation: momenta of factors, then factors."""
    name = role.split(".")[0]
    return _COMPUTED_FIRST.index(name) if name in _COMPUTED_FIRST else len(_COMPUTED_FIRST)
