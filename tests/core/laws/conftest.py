"""What the tests of the laws share: steps of a rule for one parameter, without the stack axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from rootfree import Curvature, Hyper, Rule, add_step, observes, update


class Run(NamedTuple):
    """The parameter before each step and after the last, the steps, the last state."""

    params: np.ndarray  # (steps + 1, *shape)
    steps: np.ndarray  # (steps, *shape)
    state: Any  # with a stack axis of length 1


@pytest.fixture
def train() -> Callable[..., Run]:
    """Return a function that takes ``count`` steps of a rule."""

    def train(
        rule: Rule[Any],
        param: np.ndarray,
        gradient: Callable[[int, np.ndarray], np.ndarray],
        hyper: Hyper,
        count: int,
        *,
        state: Any = None,
        curvature: Curvature | None = None,
        every: int = 1,
    ) -> Run:
        """Run it; ``curvature`` has a stack axis, as the state has."""
        state = rule.init(param[None]) if state is None else state
        params, steps = [param], []
        for t in range(count):
            grad, now = gradient(t, param), observes(every, t)
            given = (grad[None], state, param[None], hyper, now)
            step, state = update(rule, *given, curvature=curvature)
            param = add_step(param[None], step)[0]
            params.append(param)
            steps.append(step[0])
        return Run(np.stack(params), np.stack(steps), state)

    return train
