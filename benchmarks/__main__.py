"""The command line: run the races, print and write what came of them.

A benchmark is no timed test: the exit code says whether it ran, never how fast.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.counts import counts
from benchmarks.machine import facts
from benchmarks.report import Report, tables, write
from benchmarks.scaling import series
from benchmarks.schedule import races
from benchmarks.targets import NAMES
from benchmarks.verdicts import judge

_WIDTH: Final = 150
"""Columns of the tables where there is no terminal to be asked."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Race rootfree against its peers and judge the targets S1 to S13.",
        epilog="example: python -m benchmarks --quick --only S3,S5",
    )
    made.add_argument(
        "--out", type=Path, default=Path("build/bench"), help="folder to write to (%(default)s)"
    )
    made.add_argument(
        "--quick", action="store_true", help="few rounds, and not every shape set; no growth"
    )
    made.add_argument(
        "--only",
        type=_names,
        default=NAMES,
        metavar="S1,S2",
        help="targets to judge; nothing that only others need is run",
    )
    made.add_argument("--rounds", type=_positive, help="rounds of every race, in place of its own")
    return made


def run(arguments: argparse.Namespace, console: Console) -> Report:
    """Run what the arguments ask for."""
    start = time.perf_counter()

    def tell(what: str) -> None:
        console.print(f"{time.perf_counter() - start:4.0f} s  {what}", highlight=False)

    wanted: Sequence[str] = arguments.only
    raced = races(wanted, quick=arguments.quick, rounds=arguments.rounds, tell=tell)
    grown = []
    if not arguments.quick and tuple(wanted) == NAMES:
        grown = series(rounds=arguments.rounds or 7, tell=tell)
    counted = counts(wanted, tell=tell)
    tell("done")
    return Report(
        quick=arguments.quick,
        wanted=list(wanted),
        machine=facts(),
        races=raced,
        series=grown,
        counts=counted,
        judgements=judge(raced, counted, wanted),
    )


def main(given: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = parser().parse_args(given)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    # What torch's compiler warns of is its own affair, and would hide the tables.
    warnings.filterwarnings("ignore", module="torch")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # what a run compiles is new to it
        report = run(arguments, console)
    for table in tables(report):
        console.print(table)
    for path in write(report, arguments.out):
        console.print(f"wrote {path}", highlight=False)


def _names(text: str) -> tuple[str, ...]:
    """Return the targets that a list names, in order."""
    given = {name.strip().upper() for name in text.split(",") if name.strip()}
    if unknown := sorted(given - set(NAMES)):
        raise argparse.ArgumentTypeError(
            f"unknown {', '.join(unknown)}; there are {NAMES[0]} to {NAMES[-1]}"
        )
    return tuple(name for name in NAMES if name in given)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {number}")
    return number


if __name__ == "__main__":
    main()
