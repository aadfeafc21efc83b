"""From tables to cases: what is computed, on which numbers, under which id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from rootfree import METHODS, Method

from rootfree_conformance.cases.draws import normal
from rootfree_conformance.cases.families import (
    CORNERS,
    FEW,
    POLICIES,
    QUICK_CORNERS,
    RUN_SHAPES,
    RUNS,
    SHAPES,
    THOROUGH,
    Corner,
    Policy,
)
from rootfree_conformance.numeric import FORMATS, quantise
from rootfree_conformance.port import HostArray, Snapshot, Spec

PARAM: Final = "weight"
STEPS_BEFORE: Final = 5
RUN_LENGTH: Final = 20
SHORT_RUN: Final = 6
RUN_DECAY: Final = 2.0**-6


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
            self.policy.working_dtype,
            self.policy.rounding,
        )

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

        A run has little weight decay: a bound cannot know that decay and heavy ball cancel, and
        with much of both it would grow without use.
        """
        first = self.corner.values(self.method)
        if self.steps == 1 or not self.corner.scheduled:
            return [first] * self.steps
        first["weight_decay"] *= RUN_DECAY
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
        draws = {
            "statistic": lambda: 0.5 + np.abs(normal(f"{self.label}/statistic", self.shape)),
            "first_moment": lambda: 0.5 * normal(f"{self.label}/first_moment", self.shape),
            "momentum": lambda: normal(f"{self.label}/momentum", self.shape),
        }
        form = FORMATS[self.policy.state_dtype]
        kept = {role: quantise(draws[role](), form) for role in self.roles}
        return {**kept, "step": STEPS_BEFORE}

    @property
    def roles(self) -> tuple[str, ...]:
        """State arrays that the method keeps in this configuration, in order of computation."""
        buffer = self.corner.settings(self.method).get("momentum", True)
        average = self.method.momentum == "average"
        present = {
            "statistic": self.method.fixed["power"] != 0,
            "first_moment": buffer and average,
            "momentum": buffer and not average,
        }
        return tuple(role for role, kept in present.items() if kept)

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
        if self.corner.gradient == "graded":
            for axis, length in enumerate(self.shape):
                scale = 2.0 ** np.round(np.linspace(-5, 5, length) / max(1, len(self.shape)))
                grad = grad * scale.reshape([-1 if i == axis else 1 for i in range(grad.ndim)])
        return quantise(grad, FORMATS[self.policy.dtype])


def single_steps(check: str) -> Iterator[Case]:
    """Yield every rule, corner, shape and policy."""
    for policy in POLICIES.values():
        for method in METHODS.values():
            for corner in CORNERS:
                if not corner.applies(method):
                    continue
                for shape in _shapes(corner, policy):
                    yield Case(check, method, corner, shape, policy)


def runs(check: str) -> Iterator[Case]:
    """Yield trajectories of every rule and policy.

    They are short where the state is bfloat16: a slow average of eight bits adds up its roundings,
    and the worst case of twenty steps would bound nothing.
    """
    for policy in POLICIES.values():
        length = SHORT_RUN if policy.state_dtype == "bfloat16" else RUN_LENGTH
        for method in METHODS.values():
            for corner in CORNERS:
                if corner.name in RUNS and corner.applies(method):
                    for shape in RUN_SHAPES if policy.label in THOROUGH else RUN_SHAPES[:1]:
                        yield Case(check, method, corner, shape, policy, length)


def balanced(check: str, shape: tuple[int, ...] = (3, 5), steps: int = 1) -> Iterator[Case]:
    """Yield one balanced case for every rule and policy."""
    for policy in POLICIES.values():
        for method in METHODS.values():
            yield Case(check, method, CORNERS[0], shape, policy, steps)


def _shapes(corner: Corner, policy: Policy) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a corner: options are code, which every shape would meet alike."""
    thorough = policy.label in THOROUGH
    if corner.name == "balanced" and thorough:
        return SHAPES
    if not corner.options:
        return FEW
    return FEW[::2] if thorough else FEW[:1]
