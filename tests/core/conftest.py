"""What the tests of the core share: the float64 policy and a loop over steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from rootfree import DiagonalCurvature, Hyper, Precision, Rule, add_step, update


class Trajectory(NamedTuple):
    """The parameters before each step and after the last, the steps, the last state."""

    params: np.ndarray  # (steps + 1, n, *shape)
    steps: np.ndarray  # (steps, n, *shape)
    state: Any


@pytest.fixture
def float64() -> Precision:
    """Everything in NumPy's float64: rounding is then 1e-16, and properties are exact to it."""
    return Precision.uniform(np.dtype("float64"))


@pytest.fixture
def march() -> Callable[..., Trajectory]:
    """Return a function that takes ``count`` steps of a rule."""

    def march(
        rule: Rule[Any],
        param: Any,
        gradient: Callable[[int, Any], Any],
        hyper: Hyper,
        count: int,
        *,
        state: Any = None,
        curvature: DiagonalCurvature | None = None,
    ) -> Trajectory:
        state = rule.init(param) if state is None else state
        params, steps = [param], []
        for t in range(count):
            step, state = update(rule, gradient(t, param), state, param, hyper, curvature=curvature)
            param = add_step(param, step)
            params.append(param)
            steps.append(step)
        return Trajectory(np.stack(params), np.stack(steps), state)

    return march
