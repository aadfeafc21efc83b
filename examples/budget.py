"""The same budget for every variant: a search for its learning rate, and processes to do the runs.

The first learning rates are a grid around a centre. While the best of all tried lies on an edge,
the grid grows by one step on that side, up to a limit that is the same for all.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from rich.progress import Progress

J = TypeVar("J")
S = TypeVar("S")
R = TypeVar("R", bound=Mapping[str, Any])
"""A run: something with its learning rate under the key ``"lr"``."""


class Grid(NamedTuple):
    """Learning rates to try.

    Attributes:
        size: of the first grid, an odd number.
        step: each rate divided by the one before.
        extensions: how often the grid may grow by a step.
    """

    size: int
    step: float
    extensions: int


def search(
    centre: float, grid: Grid, do: Callable[[list[float]], list[R]], merit: Callable[[R], Any]
) -> list[R]:
    """Return a run for each learning rate tried, in ascending order.

    Args:
        centre: the middle of the first grid.
        grid: how many rates, and how far apart.
        do: returns a run for each rate.
        merit: what is larger for a better run.
    """
    half = grid.size // 2
    runs = do([centre * grid.step**power for power in range(-half, half + 1)])
    for _ in range(grid.extensions):
        side = edge(runs, merit)
        if side is None:
            break
        factor = grid.step if side == "highest" else 1 / grid.step
        runs = sorted(runs + do([best(runs, merit)["lr"] * factor]), key=itemgetter("lr"))
    return runs


def best(runs: list[R], merit: Callable[[R], Any]) -> R:
    """Return the best run of a search."""
    return max(runs, key=merit)


def edge(runs: list[R], merit: Callable[[R], Any]) -> str | None:
    """Say whether the best run of a search is that of its lowest or highest rate."""
    return {0: "lowest", len(runs) - 1: "highest"}.get(runs.index(best(runs, merit)))


def conduct(
    jobs: list[J],
    study: Callable[[J, Callable[[list[J]], list[R]]], S],
    train: Callable[[J], R],
    *,
    most: int,
    workers: int,
    progress: Progress,
) -> Iterator[S]:
    """Do the studies that the jobs begin, all at once, and yield each when it is done.

    Runs are done by processes of one thread each, which is faster for small models than to share
    a run between threads. A study is a thread that waits for its runs.

    Args:
        jobs: one a study.
        study: is given a job and what does jobs, in any order, and returns their runs in order.
        train: does a job, in a process of its own.
        most: runs that a study may do; the progress is told of those it left out.
        workers: processes.
        progress: is shown the runs.
    """
    task = progress.add_task("training runs", total=most * len(jobs))

    def counted(job: J) -> S:
        done = 0

        def do(jobs: list[J]) -> list[R]:
            nonlocal done
            runs = []
            for run in processes.map(train, jobs):
                progress.advance(task)
                done += 1
                runs.append(run)
            return runs

        result = study(job, do)
        progress.advance(task, most - done)
        return result

    with (
        ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as processes,
        ThreadPoolExecutor(len(jobs)) as threads,
    ):
        for finished in as_completed([threads.submit(counted, job) for job in jobs]):
            yield finished.result()


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """Return the command line that every example has: where to write, how much to do."""
    made = argparse.ArgumentParser(description=description, epilog=f"example: {example}")
    made.add_argument(
        "--out", type=Path, default=Path("build/demo"), help="folder to write to (%(default)s)"
    )
    made.add_argument(
        "--quick", action="store_true", help="a smoke test: too little training to mean anything"
    )
    made.add_argument(
        "--workers",
        type=int,
        default=min(os.cpu_count() or 1, 8),
        help="processes, which change how long it takes but no loss (%(default)s here)",
    )
    return made
