"""Teeth: plant each fault in a copy of the packages and see its named check find it.

A port with a fault runs in its own process on the broken copy; truth and judges stay whole. The
same cases run on the whole port first: they must pass, or a kill would prove nothing.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rootfree_conformance import audits, discovery
from rootfree_conformance.cases.case import Case
from rootfree_conformance.checks import CHECKS
from rootfree_conformance.checks.contract import Check, Result
from rootfree_conformance.faults.catalogue import FAULTS, Fault
from rootfree_conformance.faults.patch import seed
from rootfree_conformance.run import judged
from rootfree_conformance.truth import Truth
from rootfree_conformance.worker import Worker

_SHAPE = (3, 5)


@dataclass(frozen=True)
class Kill:
    """What became of a fault.

    Attributes:
        fault: the fault.
        killed: whether its named check failed on the broken copy and passed on the whole one.
        value: the statistic on the case that failed first; infinite for an exception.
        case: that case, or what went wrong with the experiment.
        first_bad: the first quantity that was wrong.
    """

    fault: Fault
    killed: bool
    value: float
    case: str
    first_bad: str = ""


def kills() -> Iterator[Kill]:
    """Yield the fate of every fault."""
    truth = Truth()
    whole: dict[tuple[object, ...], list[Result]] = {}
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder)
            seed(fault, target)
            if fault.port == "suite":
                yield _audited(fault, target)
                continue
            pairs = _pairs(fault)
            key = (fault.port, fault.killer, fault.shape, fault.rules, fault.policies)
            if key not in whole:
                whole[key] = _results(fault, pairs, truth, [])
            yield _verdict(fault, pairs, whole[key], _results(fault, pairs, truth, [target]))


def _pairs(fault: Fault) -> list[tuple[Check, Case]]:
    check = CHECKS[fault.killer]
    return [
        (check, case)
        for case in check.cases(check.id)
        if case.shape == fault.shape
        and case.policy.label in fault.policies
        and (not fault.rules or case.method.name in fault.rules)
    ]


def _results(
    fault: Fault, pairs: Sequence[tuple[Check, Case]], truth: Truth, path: Sequence[Path]
) -> list[Result]:
    worker = Worker(discovery.reference(fault.port), path)
    try:
        return [] if worker.info is None else [r for _, r in judged(worker, pairs, truth)]
    finally:
        worker.close()


def _verdict(
    fault: Fault,
    pairs: Sequence[tuple[Check, Case]],
    whole: Sequence[Result],
    broken: Sequence[Result],
) -> Kill:
    if len(whole) < len(pairs) or not pairs or not all(result.passed for result in whole):
        return Kill(fault, False, math.nan, "the unbroken port does not pass the same cases")
    failed = [result for result in broken if not result.passed]
    if not failed:
        ran = f"{len(broken)} of {len(pairs)} cases ran"
        return Kill(fault, False, max((r.value for r in broken), default=math.nan), ran)
    first = failed[0]
    return Kill(fault, True, max(r.value for r in failed), first.id, first.first_bad)


def _audited(fault: Fault, target: Path) -> Kill:
    """Run the audits of a broken suite; a suite that is whole passes them."""
    healthy, failed = _failed_audits(fault, []), _failed_audits(fault, [target])
    if healthy != []:
        return Kill(fault, False, math.nan, "the unbroken suite does not pass its audits")
    killed = failed is not None and fault.killer in failed
    said = "the audits could not run" if failed is None else " ".join(failed)
    return Kill(fault, killed, math.nan if failed is None else len(failed), said)


def _failed_audits(fault: Fault, path: Sequence[Path]) -> list[str] | None:
    """Return the ids of the audits that fail in a fresh process, or ``None`` if it broke down."""
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; "
        "from rootfree_conformance import teeth; teeth.report_audits(sys.argv[1].split())"
    )
    command = [sys.executable, "-c", program, " ".join(fault.rules), *map(str, path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else None


def report_audits(rules: Sequence[str]) -> None:
    """Write the ids of the audits that fail."""
    failed = [audit.id for audit in (audits.comparator(), audits.lists()) if not audit.passed]
    check = CHECKS["L3.2"]
    cases = [
        case
        for case in check.cases(check.id)
        if case.shape == _SHAPE and case.policy.label == "float64" and case.method.name in rules
    ]
    if not all(result.passed for result in audits.agreement(cases, Truth())):
        failed.append("A0")
    sys.stdout.write(" ".join(failed))
