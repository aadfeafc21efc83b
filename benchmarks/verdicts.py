"""Whether a run met the targets: a value is compared with its limit, or it is said why not.

A target is met if the value of this run, on this machine, is not above its limit. Where a peer or
a unit of the machine is missing, or the run left a race out, it is not judged.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias, TypedDict

from benchmarks.racing import Race, Result, ratios, spread
from benchmarks.targets import TARGETS, Target

Verdict: TypeAlias = Literal["met", "NOT MET", "not judged"]


class Judgement(TypedDict):
    """A target and what became of it."""

    id: str
    what: str
    where: str  # a shape set
    value: float | None  # the median over the rounds, of a time
    least: float | None  # the minimum over the rounds
    limit: float
    verdict: Verdict
    why: str  # it is not judged; or what a reader must know


class Count(TypedDict):
    """A number that is counted outside of races, with its limit."""

    id: str
    what: str
    where: str
    value: float
    least: float | None
    limit: float
    remark: str


def judge(races: Sequence[Race], counts: Iterable[Count], wanted: Sequence[str]) -> list[Judgement]:
    """Return what became of every target that was asked for, in order of their names."""
    found = {race["key"]: race for race in races}
    judged = [_compared(target, found) for target in TARGETS]
    judged += [
        _judgement(
            count["id"],
            count["what"],
            count["where"],
            count["limit"],
            why=count["remark"],
            value=count["value"],
            least=count["least"],
        )
        for count in counts
    ]
    kept = [judgement for judgement in judged if judgement["id"] in wanted]
    return sorted(kept, key=lambda judgement: int(judgement["id"][1:]))


def verdict(value: float, limit: float) -> Verdict:
    """Return whether a value is within its limit."""
    return "met" if value <= limit else "NOT MET"


def _compared(target: Target, races: Mapping[str, Race]) -> Judgement:
    """Return what became of a target that compares contestants."""
    judgement = partial(_judgement, target.id, target.what, target.where, target.limit)
    race = races.get(f"{target.event}/{target.where}")
    if race is None:
        return judgement(why="this run has no such race")
    results = {result["key"]: result for result in race["results"]}
    for key in filter(None, (target.ours, target.peer)):
        if key not in results:
            return judgement(why="this run left a contestant out")
        if results[key]["lacks"] is not None:
            return judgement(why=f"{results[key]['lacks']}")
    values = _values(target, results, race["largest_stack_bytes"])
    least = min(values) if len(values) > 1 else None
    return judgement(why=target.remark, value=statistics.median(values), least=least)


def _judgement(
    id_: str,
    what: str,
    where: str,
    limit: float,
    *,
    why: str,
    value: float | None = None,
    least: float | None = None,
) -> Judgement:
    """Return a judgement; without a value, nothing is judged."""
    return Judgement(
        id=id_,
        what=what,
        where=where,
        value=value,
        least=least,
        limit=limit,
        verdict="not judged" if value is None else verdict(value, limit),
        why=why,
    )


def _values(target: Target, results: Mapping[str, Result], stack: int) -> list[float]:
    """Return a target's value, or one a round."""
    ours = results[target.ours]
    if target.measure == "spread":
        return [spread(ours)]
    if target.measure == "temporary":
        return [(ours["temporary_bytes"] or 0) / stack]
    theirs = results[target.peer]
    if target.measure == "state":
        return [(ours["state_bytes"] or 0) / (theirs["state_bytes"] or math.nan)]
    return ratios(ours, theirs)
