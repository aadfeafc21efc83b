"""What a run shows on a terminal: one redrawn line while it works, then one screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from rootfree import METHODS

from rootfree_conformance.cases.families import POLICIES
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
    """Return the matrix of backend and dtype by rule, the failures and the verdicts."""
    parts = [_matrix(run), *_failures(run), *_audits(run), _verdicts(run, code)]
    return "\n".join(part for part in parts if part) + "\n"


FAULT_HEADING = (
    "Each fault is planted in a copy; its named check must fail there and pass without it.\n"
    "fault          check    value  what was broken (value: error over bound, or a count)\n"
)


def fault_line(row: tuple[str, str, str, str, bool]) -> str:
    """Return a fault's line: id, the check that found it, how far it was off, what was broken."""
    name, title, killer, value, killed = row
    return f"{name:<5}{'killed by' if killed else 'MISSED by':<10}{killer:<5}{value:>9}  {title}\n"


def _matrix(run: Run) -> str:
    columns = list(METHODS)
    lines = [f"{'':<17}{'':<20}" + "".join(f"{name:>11}" for name in columns)]
    for subject in run.subjects:
        if not subject.results:
            continue
        for label in POLICIES:
            cells = [_cell(subject, name, label) for name in columns]
            if any(cell != "-" for cell in cells):
                lines.append(
                    f"{subject.name:<17}{label:<20}" + "".join(f"{cell:>11}" for cell in cells)
                )
    if len(lines) == 1:
        return ""
    legend = "ok and the largest ratio of error to bound (at most 1); core: relative, at most 1e-12"
    return "\n".join([*lines, legend, ""])


def _cell(subject: Subject, rule: str, label: str) -> str:
    results = [
        result
        for result in subject.results
        if result.id.split("/")[1] == rule and result.id.split("@")[1].split("#")[0] == label
    ]
    failed = sum(not result.passed for result in results)
    if not results:
        return "-"
    if failed:
        return f"FAIL {failed}/{len(results)}"
    worst = max((r.value for r in results if r.statistic != "differing"), default=0.0)
    return f"ok {worst:.0e}" if subject.name == "core" else f"ok {worst:.2f}"


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
        lines.append(f"{subject.name:<17}{said} {detail:>11}  {dtypes}{reason}")
    return "\n".join([*lines, f"exit {int(code)}"])


def _coloured(verdict: Verdict) -> str:
    padded = f"{verdict:<15}"
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return padded
    return f"\x1b[{_COLOURS[verdict]}m{padded}\x1b[0m"
