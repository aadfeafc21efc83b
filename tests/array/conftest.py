"""What the tests of the plain adapter share: arrays of several shapes, and what must not change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import rootfree
import rootfree_array
from rootfree import METHODS

SHAPES = {"bias": (7,), "weight": (3, 5), "temperature": (), "kernel": (2, 3, 2, 2)}


@pytest.fixture(params=[method.class_name for method in METHODS.values()])
def cls(request: pytest.FixtureRequest) -> type[rootfree_array.Optimizer]:
    """Each optimizer in turn."""
    return getattr(rootfree_array, request.param)


@pytest.fixture
def normal() -> Callable[..., dict[str, np.ndarray]]:
    """Return a function that draws an array of each shape."""

    def normal(
        seed: int = 0, dtype: Any = np.float64, shapes: Any = SHAPES
    ) -> dict[str, np.ndarray]:
        draws = np.random.default_rng(seed)
        return {n: np.asarray(draws.normal(size=shape), dtype) for n, shape in shapes.items()}

    return normal


@pytest.fixture
def take_steps(normal: Any) -> Callable[..., None]:
    """Return a function that takes steps on gradients that depend on the step's number alone."""

    def take_steps(optimizer: Any, *numbers: int) -> None:
        for number in numbers:
            shapes = {name: param.shape for name, param in optimizer.params.items()}
            dtype = next(iter(optimizer.params.values())).dtype
            optimizer.step(normal(1000 + number, dtype, shapes))

    return take_steps


@pytest.fixture
def same_bits() -> Callable[[Any, Any], bool]:
    """Return a function that compares arrays, or dicts of them: dtype, shape and every bit."""
    return same


@pytest.fixture
def unchanged() -> Callable[[Any], Any]:
    """Return a context in which an optimizer must not change: values, arrays, state, settings."""

    @contextmanager
    def unchanged(optimizer: Any) -> Iterator[None]:
        arrays = dict(optimizer.params)
        before = {name: np.array(param, copy=True) for name, param in arrays.items()}
        state, saved = optimizer.state, optimizer.state_dict()
        yield
        assert all(optimizer.params[name] is array for name, array in arrays.items())
        assert same({name: np.asarray(param) for name, param in arrays.items()}, before)
        assert same(optimizer.state, state)
        assert {**optimizer.state_dict(), "state": 0} == {**saved, "state": 0}

    return unchanged


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return how often the core has been called, by function; a call goes through."""
    counts: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    for name in ("observed", "advanced", "update", "add_step"):
        monkeypatch.setattr(rootfree, name, counted(name, getattr(rootfree, name)))
    return counts


@pytest.fixture
def phases() -> Callable[[Any], dict[str, int]]:
    """Return a function that reads the phases off an optimizer's state."""

    def phases(optimizer: Any) -> dict[str, int]:
        return {n: int(roles["phase"]) for n, roles in optimizer.state.items() if "phase" in roles}

    return phases


@pytest.fixture
def turns(normal: Any) -> Callable[[Any, int], list[set[str]]]:
    """Return a function that takes steps and says whose preconditioner has changed in each."""

    def kept(roles: dict[str, np.ndarray]) -> np.ndarray:
        return next(a for r, a in roles.items() if r.startswith(("factor.", "statistic")))

    def turns(optimizer: Any, steps: int) -> list[set[str]]:
        found = []
        shapes = {name: param.shape for name, param in optimizer.params.items()}
        dtype = next(iter(optimizer.params.values())).dtype
        for number in range(steps):
            before = optimizer.state
            optimizer.step(normal(100 + number, dtype, shapes))
            after = optimizer.state
            changed = {n for n in after if not same(kept(before[n]), kept(after[n]))}
            found.append(changed)
        return found

    return turns


def same(x: Any, y: Any) -> bool:
    """Compare signs of zeros too, and NaN as NaN."""
    if isinstance(x, dict):
        return list(x) == list(y) and all(same(x[key], y[key]) for key in x)
    x, y = np.asarray(x), np.asarray(y)
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
