"""Verdicts: what may be said of a port, from what must pass and what executed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from typing import Literal, TypeAlias

from rootfree_conformance.checks.contract import Result

Verdict: TypeAlias = Literal["CONFORMANT", "NON-CONFORMANT", "INCOMPLETE", "NOT RUN"]


class Exit(IntEnum):
    """Exit codes of the command line; the first that applies, in this order."""

    AUDIT_FAILED = 2
    NON_CONFORMANT = 1
    NOTHING_EXECUTED = 4
    REQUIRED_MISSING = 3
    CONFORMANT = 0
    USAGE = 64


def verdict(results: Iterable[Result], must_pass: Collection[str]) -> Verdict:
    """Return the verdict on a port: what must pass is compared with what executed.

    Args:
        results: of the cases that executed.
        must_pass: ids of all cases of the profile in the dtypes that the port offers.
    """
    executed = {result.id: result for result in results if result.executed}
    if not executed:
        return "NOT RUN"
    if not all(result.passed for result in executed.values()):
        return "NON-CONFORMANT"
    if set(must_pass) - set(executed):
        return "INCOMPLETE"
    return "CONFORMANT"


def exit_code(
    verdicts: Mapping[str, Verdict], required: Collection[str], *, audits_passed: bool
) -> Exit:
    """Return the exit code of a run.

    Args:
        verdicts: by port; ``core`` is among them.
        required: ports whose absence or incompleteness is a failure.
        audits_passed: whether the suite's own audits passed.
    """
    if not audits_passed:
        return Exit.AUDIT_FAILED
    if "NON-CONFORMANT" in verdicts.values():
        return Exit.NON_CONFORMANT
    judged = [verdict for name, verdict in verdicts.items() if name != "core"]
    if all(verdict == "NOT RUN" for verdict in judged):
        return Exit.NOTHING_EXECUTED
    missing = any(verdicts.get(name, "NOT RUN") != "CONFORMANT" for name in required)
    if missing or "INCOMPLETE" in verdicts.values():
        return Exit.REQUIRED_MISSING
    return Exit.CONFORMANT
