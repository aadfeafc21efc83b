"""What a run shows on a terminal: one redrawn line while it works, then one screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from rootfree import METHODS

from rootfree_conformance.cases.families import POLICIES
from rootfree_conformance.cases.left_out import unjudged
from rootfree_conformance.checks.contract import Result
from rootfree_conformance.run import Run, Subject
from rootfree_conformance.verdict import Exit, Verdict

_BAR = 24
_COLOURS = {"CONFORMANT": "32", "NON-CONFORMANT": "31", "INCOMPLETE": "33", "NOT RUN": "33"}
_SHOWN_WRONGS = 8


class ProgressLine:
    """A progress bar: a redrawn line on a terminal, a line per subject elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._redraw = self._stream.isatty()

    def __call__(self, name: str, done: int, total: int, results: Sequence[Result]) -> None:
        """Show how far a subject is."""
        if not self._redraw and done < total:
            return
        if self._redraw and done < total and done % 10:
            return
        full = _BAR * done // max(total, 1)
        bar = f"[{'#' * full}{'.' * (_BAR - full)}]"
        failed = sum(not result.passed for result in results)
        line = f"{name:<18}{bar} {done:>5}/{total}   {failed} failed"
        self._stream.write(f"\r{line}" if self._redraw else f"{line}\n")
        if self._redraw and done == total:
            self._stream.write("\r" + " " * len(line) + "\r")
        self._stream.flush()


def screen(run: Run, code: Exit) -> str:
    """Return backends by rule and by policy, what is not judged, the failures, the verdicts."""
    judged = [*_tables(run), _unjudged(run)] if run.audits_passed else []
    parts = [*judged, *_failures(run), *_audits(run), _verdicts(run, code)]
    return "\n".join(part for part in parts if part) + "\n"


FAULT_HEADING = (
    "Each fault is planted in a copy; its named check must fail there and pass without it.\n"
    "fault          check    value  what was broken (value: error over bound, or a count)\n"
)


def fault_line(row: tuple[str, str, str, str, bool]) -> str:
    """Return a fault's line: id, the check that found it, how far it was off, what was broken."""
    name, title, killer, value, killed = row
    return f"{name:<5}{'killed by' if killed else 'MISSED by':<10}{killer:<5}{value:>9}  {title}\n"


def _tables(run: Run) -> list[str]:
    """Return two tables of ports: by rule, and by precision policy."""
    subjects = [subject for subject in run.subjects if subject.results]
    if not subjects:
        return []
    by_rule = {name: lambda one, name=name: one.split("/")[1] == name for name in METHODS}
    by_policy = {
        label: lambda one, label=label: one.split("@")[1].split("#")[0] == label
        for label in POLICIES
    }
    legend = (
        "ok and the largest ratio of error to bound (at most 1); core: relative, at most 1e-12\n"
        "times the condition number of what a case solves with or decomposes\n"
    )
    return [_table(subjects, by_rule), _table(subjects, by_policy) + "\n" + legend]


def _table(subjects: Sequence[Subject], rows: Mapping[str, Callable[[str], bool]]) -> str:
    widths = [max(17, len(subject.name) + 2) for subject in subjects]
    names = zip(subjects, widths, strict=True)
    lines = [f"{'':<23}" + "".join(f"{subject.name:>{width}}" for subject, width in names)]
    for name, belongs in rows.items():
        cells = [_cell(subject, belongs) for subject in subjects]
        if any(cell != "-" for cell in cells):
            shown = zip(cells, widths, strict=True)
            lines.append(f"{name:<23}" + "".join(f"{cell:>{width}}" for cell, width in shown))
    return "\n".join([*lines, ""])


def _cell(subject: Subject, belongs: Callable[[str], bool]) -> str:
    results = [result for result in subject.results if belongs(result.id)]
    failed = sum(not result.passed for result in results)
    if not results:
        return "-"
    if failed:
        return f"FAIL {failed}/{len(results)}"
    worst = max((r.value for r in results if r.statistic != "differing"), default=0.0)
    return f"ok {worst:.0e}" if subject.name == "core" else f"ok {worst:.2f}"


def _unjudged(run: Run) -> str:
    return "\n".join(["not judged:", *(f"  {text}" for text in unjudged(run.scopes)), ""])


def _failures(run: Run) -> list[str]:
    lines = []
    for subject in run.subjects:
        failures = [result for result in subject.results if not result.passed]
        by_rule = {result.id.split("/")[1]: result for result in reversed(failures)}
        for rule in (name for name in METHODS if name in by_rule):
            result = by_rule[rule]
            lines.append(f"FAIL {subject.name} {result.id}")
            lines.append(f"  rule: {rule}; first bad quantity: {result.first_bad}")
            lines.append(f"  {result.message}")
        if len(failures) > len(by_rule):
            more = len(failures) - len(by_rule)
            lines.append(f"  ... and {more} more failures of {subject.name}, in the report")
    return [*lines, ""] if lines else []


def _audits(run: Run) -> list[str]:
    lines = []
    for audit in run.audits:
        if not audit.passed:
            lines.append(f"AUDIT FAILED {audit.id} {audit.title}: nobody is judged")
            lines += [f"  {text}" for text in audit.wrong[:_SHOWN_WRONGS]]
    return lines


def _verdicts(run: Run, code: Exit) -> str:
    lines = []
    for subject in run.subjects:
        said = _coloured(subject.verdict)
        count = sum(result.executed for result in subject.results)
        detail = f"{count} cases" if count else ""
        reason = f" ({subject.reason})" if subject.reason else ""
        dtypes = ", ".join(subject.dtypes) if subject.name != "core" else "against the textbook"
        dtypes += "" if subject.scope == "whole" else f"; {subject.scope} cases"
        lines.append(f"{subject.name:<17}{said} {detail:>11}  {dtypes}{reason}")
    return "\n".join([*lines, f"exit {int(code)}"])


def _coloured(verdict: Verdict) -> str:
    padded = f"{verdict:<15}"
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return padded
    return f"\x1b[{_COLOURS[verdict]}m{padded}\x1b[0m"
