"""A race: every round runs each contestant once, so that all meet the same noise.

Times of a shared machine mean little alone. What is compared is the ratio of two contestants in
the same round; its median over the rounds is judged, and its minimum stands beside it.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypedDict

from benchmarks.contestants import Contestant, Mode, Racer
from benchmarks.counting import counted
from benchmarks.shape_sets import Shape, Shapes, largest_stack

LEAST_ROUNDS: Final = 3
"""Rounds of a race, if as many are asked for, however long they take."""


class Result(TypedDict):
    """What a contestant did in a race; without times if it did not run."""

    key: str
    title: str
    mode: Mode
    bound: bool
    lacks: str | None  # why it did not run
    milliseconds: list[float]  # one a round
    warm_up_seconds: float  # all steps before the rounds, compilation included
    compile_seconds: float | None  # what they took longer than such steps take in the rounds
    state_bytes: int | None
    temporary_bytes: int | None  # peak of a step beyond what was there before it
    operations: int | None  # dispatched in a step


class Race(TypedDict):
    """A race on one shape set."""

    key: str
    title: str
    shape_set: str
    shapes: list[Shape]
    largest_stack_bytes: int
    results: list[Result]


def race(
    key: str,
    title: str,
    shape_set: str,
    shapes: Shapes,
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    seconds: float = math.inf,
    seed: int = 0,
) -> Race:
    """Run a race.

    Args:
        key: its name in the results.
        title: its name for readers.
        shape_set: the name of the shapes.
        shapes: of the parameters.
        contestants: who takes part; those who cannot are in the results without times.
        rounds: how often each steps.
        seconds: after which no further round begins, once there were `LEAST_ROUNDS`.
        seed: of parameters and gradients, the same for all.
    """
    results, racers = {}, {}
    for contestant in contestants:
        result = _entry(contestant)
        results[contestant.key] = result
        if result["lacks"] is None:
            racer = contestant.enter(shapes, seed)
            result["warm_up_seconds"] = _seconds(racer.step, contestant.warm_up)
            racers[contestant.key] = racer
    with _without_collection():
        for key_, milliseconds in _rounds(racers, rounds, seconds):
            results[key_]["milliseconds"].append(milliseconds)
    for contestant in contestants:
        if contestant.key in racers:
            _measure(results[contestant.key], contestant, racers[contestant.key])
    return Race(
        key=key,
        title=title,
        shape_set=shape_set,
        shapes=list(shapes),
        largest_stack_bytes=largest_stack(shapes),
        results=list(results.values()),
    )


def ratios(ours: Result, theirs: Result) -> list[float]:
    """Return how many times as long one contestant took as another, round by round."""
    pairs = zip(ours["milliseconds"], theirs["milliseconds"], strict=True)
    return [mine / other for mine, other in pairs]


def spread(result: Result) -> float:
    """Return the longest step of all rounds over the median one."""
    return max(result["milliseconds"]) / statistics.median(result["milliseconds"])


def _entry(contestant: Contestant) -> Result:
    return Result(
        key=contestant.key,
        title=contestant.title,
        mode=contestant.mode,
        bound=contestant.bound,
        lacks=contestant.lacks(),
        milliseconds=[],
        warm_up_seconds=0.0,
        compile_seconds=None,
        state_bytes=None,
        temporary_bytes=None,
        operations=None,
    )


def _rounds(racers: dict[str, Racer], rounds: int, seconds: float) -> Iterator[tuple[str, float]]:
    """Yield every step's contestant and milliseconds; each round begins with the next in turn."""
    order, end = list(racers), time.perf_counter() + seconds
    for first in range(rounds):
        if first >= LEAST_ROUNDS and time.perf_counter() > end:
            return
        turn = first % max(len(order), 1)
        for key in (*order[turn:], *order[:turn]):
            yield key, 1e3 * _seconds(racers[key].step)


def _measure(result: Result, contestant: Contestant, racer: Racer) -> None:
    """Write down what is counted and not timed."""
    result["state_bytes"] = racer.state_bytes()
    result["temporary_bytes"] = racer.temporary_bytes()
    if contestant.mode == "eager":
        counts = counted(racer.step)
        result["temporary_bytes"], result["operations"] = counts.peak_bytes, counts.operations
    elif result["milliseconds"]:
        usual = contestant.warm_up * statistics.median(result["milliseconds"]) / 1e3
        result["compile_seconds"] = max(0.0, result["warm_up_seconds"] - usual)


def _seconds(step: Callable[[], object], times: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(times):
        step()
    return time.perf_counter() - start


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the rounds."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
