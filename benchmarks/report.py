"""The outputs of a run: what its JSON file holds, and the tables and figures made from it.

Everything that is shown is computed from the JSON file, so all of it can be made again::

    python -m benchmarks.report build/bench/bench.json
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypedDict

from rich.table import Table

from benchmarks.figures import draw
from benchmarks.racing import Race, Result, spread
from benchmarks.scaling import Series
from benchmarks.verdicts import Count, Judgement


class Report(TypedDict):
    """All of ``bench.json``."""

    quick: bool
    wanted: list[str]  # targets
    machine: dict[str, Any]
    races: list[Race]
    series: list[Series]
    counts: list[Count]
    judgements: list[Judgement]


Rows: TypeAlias = tuple[Sequence[str], list[list[str]]]
"""A table's head and body."""

_TARGETS: Final = ("", "what", "on", "median", "min", "target", "verdict", "remark")
_RACE: Final = (
    "",
    "ms min",
    "median",
    "max / median",
    "state (bytes)",
    "temporary (bytes)",
    "operations",
    "compile (s)",
)
_NOTES: Final = """\
* {processor}, {architecture}, {cores} cores, {threads} threads for torch, bfloat16 units: \
{units}; {system}, Python {python}; {versions}.
* Every round runs each contestant of a race once, and begins with the next of them in turn; a \
ratio is taken round by round. `median` and `min` of a target are those of the ratio over the \
rounds. Only ratios of one run compare: the machine may have been busy with something else.
* Met: the median is not above the target, in this run, on this machine. `not judged`: the \
remark says what is missing.
* Gradients are normal numbers with a standard deviation of 0.01, the same in all steps and for \
all of a race; the learning rate is so small that the parameters stay where they are.
* Floors are bare work: the matrix products alone, each into an array that is there already, or \
one copy of the parameters. *12 products* takes all that a dense step of a matrix can need; \
*products taken* those that rootfree really takes: K^T K is left out without damping, and K K^T \
is formed where it saves work, and kept between observations.
* Temporary: the most memory that a step needs at any time beyond what was held before it; in \
eager torch by its storages, in JAX what XLA says; not known of compiled torch. Operations: those \
that eager torch dispatches in a step.
* Compile: what the steps before the first round took longer than such steps take in it. Programs \
that this run has compiled before are found in its cache."""
_QUICK: Final = "QUICK: few rounds, and not every shape set."


def write(report: Report, folder: Path) -> list[Path]:
    """Write ``bench.json``, ``bench.md`` and the figures, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, text = folder / "bench.json", folder / "bench.md"
    numbers.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    figures = draw(report["races"], report["series"], folder, quick=report["quick"])
    text.write_text(markdown(report, figures), encoding="utf-8")
    return [text, numbers, *figures]


def tables(report: Report) -> list[Table]:
    """Return a table a race and one of the targets, for a terminal."""
    made = [_table(_title(race), race_rows(race)) for race in report["races"]]
    title = "Targets" + (f"  ({_QUICK})" if report["quick"] else "")
    return [*made, _table(title, target_rows(report["judgements"]))]


def markdown(report: Report, figures: Sequence[Path] = ()) -> str:
    """Return the report as Markdown: targets, races, series, and how the numbers were made."""
    lines = ["# Benchmarks", "", *([f"**{_QUICK}**", ""] if report["quick"] else [])]
    lines += ["## Targets", "", *_lines(target_rows(report["judgements"])), ""]
    for figure in figures:
        lines += [f"![{figure.stem}]({figure.name})", ""]
    for race in report["races"]:
        lines += [f"## {_title(race)}", "", *_lines(race_rows(race)), ""]
    for series in report["series"]:
        lines += [f"## {series['title']}: ms against {series['axis']}", ""]
        lines += [*_lines(series_rows(series)), ""]
    return "\n".join([*lines, "## How the numbers were made", "", _notes(report["machine"]), ""])


def target_rows(judgements: Sequence[Judgement]) -> Rows:
    """Return the table of targets."""
    rows = [
        [
            judgement["id"],
            judgement["what"],
            judgement["where"],
            _number(judgement["value"], judgement["limit"]),
            _number(judgement["least"]),
            f"<= {judgement['limit']:g}",
            judgement["verdict"],
            judgement["why"],
        ]
        for judgement in judgements
    ]
    return _TARGETS, rows


def race_rows(race: Race) -> Rows:
    """Return the table of a race."""
    return _RACE, [[result["title"], *_race_cells(result)] for result in race["results"]]


def series_rows(series: Series) -> Rows:
    """Return the median milliseconds of everybody at every size."""
    head = ("", *map(str, series["sizes"]))
    columns = [
        {result["title"]: _median(result) for result in race["results"]} for race in series["races"]
    ]
    return head, [[title, *(column[title] for column in columns)] for title in columns[0]]


def _race_cells(result: Result) -> list[str]:
    if result["lacks"] is not None:
        return [result["lacks"], *[""] * (len(_RACE) - 2)]
    seconds, operations = result["compile_seconds"], result["operations"]
    return [
        _time(min(result["milliseconds"])),
        _median(result),
        f"{spread(result):.2f}",
        _bytes(None if result["bound"] else result["state_bytes"]),
        _bytes(result["temporary_bytes"]),
        "-" if operations is None or result["bound"] else f"{operations:,}",
        "-" if seconds is None else f"{seconds:.1f}",
    ]


def _median(result: Result) -> str:
    if result["lacks"] is not None:
        return "-"
    return _time(statistics.median(result["milliseconds"]))


def _time(milliseconds: float) -> str:
    """Return milliseconds with three digits."""
    return f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _number(value: float | None, limit: float = math.inf) -> str:
    """Return a number with as many digits as show on which side of a limit it is."""
    if value is None:
        return "-"
    if value == int(value) and value > 1:
        return f"{value:.0f}"
    texts = (f"{value:.{digits}f}" for digits in range(3, 12))
    return next((t for t in texts if (float(t) > limit) == (value > limit)), repr(value))


def _bytes(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _title(race: Race) -> str:
    rounds = max((len(result["milliseconds"]) for result in race["results"]), default=0)
    return f"{race['title']}, {race['shape_set']}, {rounds} rounds"


def _lines(rows: Rows) -> list[str]:
    head, body = rows
    rule = ["---"] * len(head)
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]


def _table(title: str, rows: Rows) -> Table:
    head, body = rows
    words = {"", "what", "on", "verdict", "remark"}
    table = Table(title=title, title_justify="left")
    for name in head:
        table.add_column(name, justify="left" if name in words else "right")
    for cells in body:
        style = {"met": "green", "NOT MET": "red"}.get(cells[-2]) if head is _TARGETS else None
        table.add_row(*cells, style=style)
    return table


def _notes(machine: dict[str, Any]) -> str:
    versions = machine["versions"].items()
    return _NOTES.format(
        **{name: value for name, value in machine.items() if name != "versions"},
        units="yes" if machine["bfloat16_units"] else "no",
        versions=", ".join(f"{name} {number or 'not installed'}" for name, number in versions),
    )


def main() -> None:
    """Make the table and figures again, beside the JSON file that is given."""
    path = Path(sys.argv[1])
    write(json.loads(path.read_text(encoding="utf-8")), path.parent)


if __name__ == "__main__":
    main()
