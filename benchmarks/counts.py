"""The targets that are counts: operations, recompilations, and what importing the core loads."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any, Final

import rootfree_torch
import torch
from torch import nn

from benchmarks.counting import counted
from benchmarks.torch_entries import rf_rmsprop, sirf_shampoo
from benchmarks.verdicts import Count

_LAYERS: Final = 3
_STEPS: Final = 200
_IMPORTS: Final = 7
_FRAMEWORKS: Final = ("torch", "jax", "jaxlib", "cupy", "optax")
_IMPORT: Final = f"""
import sys, time
start = time.perf_counter()
import rootfree
print(time.perf_counter() - start, len(set(sys.modules) & set({_FRAMEWORKS!r})))
"""


def counts(wanted: Sequence[str], *, tell: Callable[[str], None] = lambda _: None) -> list[Count]:
    """Return the counts of the targets that are asked for.

    Args:
        wanted: the targets.
        tell: is told what is being done.
    """
    takers = {"S11": _operations, "S12": _recompilations, "S13": _import}
    done: list[Count] = []
    for name, take in takers.items():
        if name in wanted:
            tell(f"{name}, a count")
            done += take()
    return done


def _count(
    id_: str,
    what: str,
    where: str,
    value: float,
    limit: float,
    remark: str = "",
    least: float | None = None,
) -> Count:
    return Count(
        id=id_, what=what, where=where, value=value, least=least, limit=limit, remark=remark
    )


def _operations() -> Iterator[Count]:
    """Yield by how much four times as many equal layers change the number of operations."""
    for contestant in (
        rf_rmsprop(compiled=False),
        sirf_shampoo("eager", "every step", compiled=False),
    ):
        taken = []
        for layers in (_LAYERS, 4 * _LAYERS):
            racer = contestant.enter(layers * ((64, 64),), 0)
            racer.step()
            taken.append(counted(racer.step).operations)
        few, many = taken
        yield _count(
            "S11",
            f"operations of {contestant.title}, {4 * _LAYERS} layers / {_LAYERS}",
            "(64, 64)",
            many / few,
            1.0,
            f"{few} and {many}",
        )


def _recompilations() -> Iterator[Count]:
    """Yield how many programs are compiled while hyper-parameters change at every step."""
    kinds: dict[str, Callable[[list[nn.Parameter]], rootfree_torch.RFRMSProp | Any]] = {
        "RF-RMSProp": lambda p: rootfree_torch.RFRMSProp(p, compile=True),
        "SIRF-Shampoo": lambda p: rootfree_torch.SIRFShampoo(p, compile=True),
    }
    for title, make in kinds.items():
        parameters = [nn.Parameter(torch.ones(4, 3)) for _ in range(2)]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer = make(parameters)
        optimizer.step()
        before = _compiled()
        (group,) = optimizer.param_groups
        for step, share in zip(range(_STEPS - 1), cycle((0.9, 0.7, 0.5)), strict=False):
            group["lr"] = 1e-4 * share / (1 + step)
            group["damping"] = 1e-3 * share
            group["precond_lr"] = 1e-2 * share
            optimizer.set_batch_size(1 + step)
            optimizer.step()
        yield _count(
            "S12",
            f"recompilations of {title} over {_STEPS} steps",
            "2 x (4, 3)",
            _compiled() - before,
            0,
            "learning rate, batch size, damping and precond_lr change at every step",
        )


def _compiled() -> int:
    """Return how many graphs torch has compiled."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _import() -> Iterator[Count]:
    """Yield how long importing the core takes in a fresh interpreter, and what comes with it."""
    seconds, frameworks = [], 0
    for _ in range(_IMPORTS):
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True
        )
        taken, loaded = done.stdout.split()
        seconds.append(float(taken))
        frameworks += int(loaded)
    middle, least = statistics.median(seconds), min(seconds)
    yield _count("S13", "seconds to import rootfree", "", middle, 0.2, least=least)
    yield _count("S13", "frameworks that it loads", "", frameworks, 0)
