"""Ratios, verdicts and the tables, on results that are made up."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.racing import ratios, spread
from benchmarks.report import markdown, race_rows, target_rows
from benchmarks.schedule import EVENTS
from benchmarks.targets import NAMES, TARGETS
from benchmarks.verdicts import judge, verdict

MACHINE = {
    "processor": "a processor",
    "architecture": "x",
    "cores": 2,
    "threads": 2,
    "bfloat16_units": False,
    "float32_products": "ieee",
    "system": "a system",
    "python": "3",
    "versions": {"torch": "2", "heavyball": None},
}


def result(key: str, milliseconds: list[float], **rest: Any) -> Any:
    """Return a result."""
    return {
        "key": key,
        "title": key.upper(),
        "mode": "eager",
        "bound": False,
        "lacks": None,
        "milliseconds": milliseconds,
        "warm_up_seconds": 1.0,
        "compile_seconds": None,
        "state_bytes": 100,
        "temporary_bytes": None,
        "operations": 7,
        **rest,
    }


def race(key: str, *results: Any, stack: int = 100) -> Any:
    """Return a race."""
    return {
        "key": key,
        "title": "A race",
        "shape_set": key.partition("/")[2],
        "shapes": [(2, 2)],
        "largest_stack_bytes": stack,
        "results": list(results),
    }


def judged(races: list[Any], name: str, where: str) -> list[Any]:
    """Return the judgements of a target on a shape set."""
    return [j for j in judge(races, [], [name]) if j["where"] == where]


def test_ratios_are_taken_round_by_round() -> None:
    """The second round was slow for both, which the ratio does not see."""
    ours, theirs = result("a", [1.0, 10.0, 1.5]), result("b", [2.0, 20.0, 2.0])
    assert ratios(ours, theirs) == [0.5, 0.5, 0.75]
    assert spread(ours) == pytest.approx(10 / 1.5)


def test_the_median_decides() -> None:
    """Rounds of 0.5, 1.04 and 9: the median is within 1.05, and the minimum is told."""
    (judgement,) = judged(
        [
            race(
                "elementwise/4x2048^2",
                result("rf_rmsprop_compiled", [0.5, 1.04, 9.0]),
                result("adamw", [1.0, 1.0, 1.0]),
            )
        ],
        "S1",
        "4x2048^2",
    )
    assert (judgement["value"], judgement["least"]) == (1.04, 0.5)
    assert judgement["verdict"] == "met"
    assert verdict(1.05, 1.05) == "met"
    assert verdict(1.0501, 1.05) == "NOT MET"


def test_what_is_missing_is_said() -> None:
    """A race that was not run, a contestant left out, a package not installed: not judged."""
    others = race("every_step/mlp3x512", result("sirf_0.001", [1.0]))
    absent = result("meta_shampoo", [], lacks="distributed_shampoo not installed")
    others["results"].append(absent)
    meta, *rest = judged([others], "S4", "mlp3x512")
    assert meta["verdict"] == "not judged"
    assert meta["why"] == "distributed_shampoo not installed"
    assert all(judgement["why"] == "this run left a contestant out" for judgement in rest)
    assert {j["why"] for j in judged([others], "S4", "gpt4x256")} == {"this run has no such race"}


def test_bytes_and_spreads_are_judged_too() -> None:
    """State over state; temporaries over the largest stack; the longest step over the median."""
    ours = result("sirf_0.001", [1.0], state_bytes=120)
    theirs = result("sirfshampoo_0.001", [1.0], state_bytes=100)
    eager = result("sirf_eager", [1.0], temporary_bytes=300)
    races = [race("every_step/mlp3x512", ours, theirs, eager)]
    (state,) = (j for j in judged(races, "S8", "mlp3x512") if j["value"] is not None)
    assert (state["value"], state["verdict"], state["least"]) == (1.2, "NOT MET", None)
    (memory,) = judged(races, "S10", "mlp3x512")
    assert (memory["value"], memory["verdict"]) == (3.0, "met")
    periodic = [race("every_10/mlp3x512", result("sirf_10", [1.0, 1.0, 1.2]))]
    (steady,) = (j for j in judged(periodic, "S5", "mlp3x512") if j["value"] is not None)
    assert (steady["value"], steady["verdict"]) == (1.2, "met")


def test_every_target_names_contestants_that_race() -> None:
    """The tables of targets and of races fit together, and every name is judged by something."""
    events = {event.key: event for event in EVENTS}
    for target in TARGETS:
        event = events[target.event]
        keys = [contestant.key for contestant in event.contestants]
        assert len(set(keys)) == len(keys)
        assert target.ours in keys, target
        assert not target.peer or target.peer in keys, target
        assert target.where in event.sets, target
        assert target.id in event.serves, target
        assert bool(target.peer) == (target.measure in ("time", "state")), target
    assert {target.id for target in TARGETS} == set(NAMES) - {"S11", "S12", "S13"}
    for event in EVENTS:
        assert set(event.quick_sets) <= set(event.sets)
        assert set(event.full_only) <= {contestant.key for contestant in event.contestants}


def test_markdown_has_a_row_for_everything() -> None:
    """Targets in order with verdict and remark; contestants that did not run say why."""
    made = race("elementwise/4x2048^2", result("adamw", [2.0, 1.0, 4.0]))
    made["results"].append(result("copy", [], lacks="no such thing"))
    count = {
        "id": "S11",
        "what": "operations",
        "where": "",
        "value": 1.0,
        "least": None,
        "limit": 1.0,
        "remark": "3 and 3",
    }
    report: Any = {
        "quick": True,
        "wanted": ["S1", "S11"],
        "machine": MACHINE,
        "races": [made],
        "series": [],
        "counts": [count],
        "judgements": judge([made], [count], ["S1", "S11"]),  # type: ignore[list-item]
    }
    lines = markdown(report).splitlines()
    assert "| ADAMW | 1 | 2 | 2.00 | 100 | - | 7 | - |" in lines
    assert "| COPY | no such thing |  |  |  |  |  |  |" in lines
    rows = [line for line in lines if line.startswith("| S")]
    assert [row.split(" | ")[0] for row in rows] == ["| S1", "| S1", "| S11"]
    assert rows[-1] == "| S11 | operations |  | 1.000 | - | <= 1 | met | 3 and 3 |"
    assert "not judged" in rows[0]
    assert any("heavyball not installed" in line for line in lines)
    assert any("QUICK" in line for line in lines)


def test_tables_are_rectangles() -> None:
    """Every row has a cell for each column of the head."""
    for head, body in (
        target_rows(judge([], [], NAMES)),
        race_rows(race("a/b", result("x", [1.0]), result("y", [], lacks="z"))),
    ):
        assert body
        assert {len(cells) for cells in body} == {len(head)}


@pytest.mark.parametrize(
    ("value", "limit", "shown"),
    [(1.000001, 1.0, "1.000001"), (0.9999, 1.0, "1.000"), (1.0, 1.0, "1.000"), (0.5, 1.0, "0.500")],
)
def test_a_number_shows_on_which_side_it_is(value: float, limit: float, shown: str) -> None:
    """Rounding never makes what misses its limit look as if it met it."""
    judgement: Any = {
        "id": "S8",
        "what": "",
        "where": "",
        "value": value,
        "least": None,
        "limit": limit,
        "verdict": verdict(value, limit),
        "why": "",
    }
    _, (row,) = target_rows([judgement])
    assert row[3] == shown


def test_a_missing_number_never_passes() -> None:
    """NaN is no number that is within a limit."""
    assert verdict(math.nan, 1.0) == "NOT MET"
