"""A case: what is computed, on which numbers, under which id."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import rootfree
from rootfree import Method, Precision, Rule

from rootfree_conformance.cases.draws import normal
from rootfree_conformance.cases.families import FEW, QUICK_CORNERS, SCHEDULE, Corner, Policy
from rootfree_conformance.cases.turns import loaded_phase, takes_turn
from rootfree_conformance.numeric import FORMATS, quantise
from rootfree_conformance.port import HostArray, Snapshot, Spec

PARAM: Final = "weight"
STEPS_BEFORE: Final = 5
RUN_LENGTH: Final = 20
RUN_DECAY: Final = 2.0**-6
_COMPUTED_FIRST: Final = ("factor_momentum", "factor")
_COUNTERS: Final = ("step", "salt")
_CALM: Final = 2.0**-4
_NARROW: Final = 0.5
_STABLE: Final = 2.0**-5


@dataclass(frozen=True)
class Case:
    """One case of a check. Inputs are expanded from the id's parts when they are asked for.

    An optimizer may have several equal parameters; a case has the numbers of one of them, the first
    unless `members` says another.

    Attributes:
        check: id of the check.
        method: the catalogue's entry.
        corner: hyper-parameters, options and state.
        shape: of each parameter.
        policy: the precision policy.
        steps: how many steps are taken, on new gradients each.
        member: which of the corner's parameters the numbers belong to.
        phase: when its turns come, if parameters take turns.
    """

    check: str
    method: Method
    corner: Corner
    shape: tuple[int, ...]
    policy: Policy
    steps: int = 1
    member: int = 0
    phase: int = 0

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

    @property
    def name(self) -> str:
        """Name of the parameter."""
        return PARAM if self.member == 0 else f"{PARAM}_{self.member}"

    @property
    def members(self) -> tuple[Case, ...]:
        """The same case with the numbers of each parameter, at the phases that are loaded."""
        return tuple(
            replace(self, member=i, phase=loaded_phase(i, self.period) if self.takes_turns else 0)
            for i in range(self.corner.members)
        )

    @property
    def period(self) -> int:
        """Every how many steps the curvature enters."""
        return int(self.corner.options.get("update_every", 1))

    @property
    def takes_turns(self) -> bool:
        """Whether parameters observe at steps of their own, by their phases."""
        return self.period > 1 and bool(self.corner.options["stagger"])

    @property
    def is_dealt(self) -> bool:
        """Whether the phases are those that the port deals out, and none that are loaded."""
        return self.takes_turns and self.corner.state == "fresh"

    def takes_part(self, step: int) -> bool:
        """Return whether the parameter has a gradient at a step, counted from 0."""
        return self.member not in self.corner.missing.get(step, ())

    def updates(self, steps: int, *, shared: bool = False) -> int:
        """Return the count of updates after some steps of this case.

        Args:
            steps: how many.
            shared: whether one count serves all parameters, so that every step counts.
        """
        counted = sum(shared or self.takes_part(step) for step in range(steps))
        return counted + (STEPS_BEFORE if self.state else 0)

    def observes(self, step: int, *, shared: bool = False) -> bool:
        """Return whether the curvature enters at a step, counted from 0."""
        return takes_turn(self.period, self.updates(step, shared=shared), self.phase)

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

    @property
    def settings(self) -> dict[str, Any]:
        """The options of the rule: those of the optimizer but for its schedule."""
        given = self.corner.settings(self.method)
        return {name: value for name, value in given.items() if name not in SCHEDULE}

    def rule(self, precision: Precision) -> Rule[Any]:
        """Return the core's rule in this configuration."""
        without = self.corner.unbuffered(self.method)
        return self.method.rule(precision, without=without, **self.settings)

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
        return {role: kept[role] for role in names if role not in _COUNTERS}

    @property
    def roles(self) -> tuple[str, ...]:
        """State arrays that the method keeps in this configuration, in order of computation."""
        return tuple(self.shapes)

    @cached_property
    def param(self) -> HostArray:
        """W, values of the parameter's dtype."""
        return quantise(normal(f"{self._seed}/param", self.shape), FORMATS[self.policy.dtype])

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

    def snapshot(self, salt: int = 0) -> Snapshot:
        """Return the state of all parameters mid-run as a port loads it.

        Args:
            salt: of the first parameter; each further one has the next number.
        """
        return Snapshot(
            {one.name: one.param for one in self.members},
            {one.name: one._loaded(salt + one.member) for one in self.members},
            STEPS_BEFORE,
            {},
        )

    @property
    def _seed(self) -> str:
        return self.label if self.member == 0 else f"{self.label}/{self.name}"

    def _loaded(self, salt: int) -> dict[str, HostArray]:
        roles = {role: np.asarray(array, dtype=np.float64) for role, array in self.state.items()}
        if self.policy.rounding == "stochastic":
            roles["salt"] = np.asarray(float(salt))
        if self.takes_turns:
            roles["phase"] = np.asarray(float(self.phase))
        return roles

    def _drawn(self, role: str) -> HostArray:
        """Return a state array as it might be mid-run."""
        name, *indices = role.split(".")
        shape, text = self.shapes[role], f"{self._seed}/{role}"
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
        draw = normal(f"{self._seed}/{name}.{axis}", (space.size, space.size)) / space.size**0.5
        if name == "factor":
            reach = 0.3 if self.policy.products is None else 0.1
            parts = space.from_dense((np.eye(space.size) + reach * draw)[np.newaxis])
        else:
            calm = _CALM if self.corner.state == "calm" else 1.0
            calm *= 1.0 if self.policy.products is None else 2.0
            parts = space.project(calm * 0.25 * (draw + draw.T)[np.newaxis])
        return np.asarray(parts[int(indices[1]) if len(indices) > 1 else 0][0])

    def _grad(self, index: int) -> HostArray:
        grad = normal(f"{self._seed}/grad/{index}", self.shape)
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


def _order(role: str) -> int:
    """Return the place of a role in the order of computation: momenta of factors, then factors."""
    name = role.split(".")[0]
    return _COMPUTED_FIRST.index(name) if name in _COMPUTED_FIRST else len(_COMPUTED_FIRST)
