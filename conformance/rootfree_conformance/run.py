"""A run: audits first, then the core, then every port in a process of its own, two at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from rootfree_conformance import audits
from rootfree_conformance.audits import Audit
from rootfree_conformance.cases.case import Case
from rootfree_conformance.cases.families import POLICIES
from rootfree_conformance.cases.left_out import SCOPES
from rootfree_conformance.checks import CHECKS
from rootfree_conformance.checks.contract import Check, Result, failed_to_run
from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.script import Answer
from rootfree_conformance.truth import Truth
from rootfree_conformance.verdict import Verdict, verdict
from rootfree_conformance.worker import Worker

_AT_ONCE: Final = 2  # ports, each with one thread: the suite wants no more than two cores


@dataclass(frozen=True)
class Selection:
    """What to run. A selection by rule or level runs less than must pass: at best INCOMPLETE.

    Attributes:
        quick: the short profile, with a must-pass list of its own.
        dtypes: narrows the claim: precision policies of these parameter dtypes; empty for all.
        rules: only these; empty for all.
        levels: only checks whose ids start with one of these; empty for all.
    """

    quick: bool = False
    dtypes: Collection[str] = ()
    rules: Collection[str] = ()
    levels: Collection[str] = ()

    def claimed(self, dtypes: Collection[str], scope: str = "whole") -> list[tuple[Check, Case]]:
        """Return every case that must pass for a port that offers ``dtypes``, in its scope."""
        offered = set(dtypes) & set(self.dtypes) if self.dtypes else set(dtypes)
        return [
            (check, case)
            for check in CHECKS.values()
            for case in check.cases(check.id)
            if case.policy.dtype in offered and (case.quick or not self.quick)
            if SCOPES[scope].holds(case)
        ]

    def picks(self, case: Case) -> bool:
        """Return whether the case is to be executed."""
        by_rule = not self.rules or case.method.name in self.rules
        return by_rule and (not self.levels or case.check.startswith(tuple(self.levels)))


@dataclass
class Subject:
    """A port, or the core, with its results."""

    name: str
    device: str = ""
    kind: str = ""
    scope: str = "whole"
    reason: str = ""
    dtypes: Mapping[str, NumericModel] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    verdict: Verdict = "NOT RUN"
    seconds: float = 0.0


@dataclass
class Run:
    """Everything that a run found."""

    audits: list[Audit]
    subjects: list[Subject]

    @property
    def audits_passed(self) -> bool:
        """Whether the suite may judge at all."""
        return all(audit.passed for audit in self.audits)

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdicts by subject."""
        return {subject.name: subject.verdict for subject in self.subjects}

    @property
    def scopes(self) -> dict[str, str]:
        """Scopes by subject."""
        return {subject.name: subject.scope for subject in self.subjects}


Progress = Callable[[str, int, int, Sequence[Result]], None]
"""Told a subject's name, cases done, cases in all, and the results so far."""


def run(ports: Mapping[str, str], selection: Selection, progress: Progress) -> Run:
    """Run the selected cases on ports given by name and reference."""
    examined = Run([audits.comparator(), audits.lists()], [])
    if not examined.audits_passed:
        examined.subjects = [Subject("core"), *map(Subject, ports)]
        return examined
    truth = Truth()
    core = _core(selection, truth, progress)
    disputed = {_rule(result.id) for result in core.results if not result.passed}
    examined.subjects.append(core)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        begun = [
            pool.submit(_port, name, ref, selection, truth, disputed, progress)
            for name, ref in ports.items()
        ]
        examined.subjects += [one.result() for one in begun]
    return examined


def judged(
    worker: Worker, pairs: Sequence[tuple[Check, Case]], truth: Truth
) -> Iterator[tuple[Case, Result]]:
    """Yield the result of each case as the port's process answers it."""
    assert worker.info is not None
    outcomes = worker.run([check.script(case) for check, case in pairs])
    for (check, case), outcome in zip(pairs, outcomes, strict=False):
        if outcome.error is not None:
            yield case, failed_to_run(case, outcome.error)
        else:
            yield case, _judged(check, case, outcome.answers, worker.info, truth)


def _judged(
    check: Check, case: Case, answers: Sequence[Answer], info: Mapping[str, Any], truth: Truth
) -> Result:
    """Return the result of a case; answers that are not even numbers fail it."""
    model = info["dtypes"][case.policy.dtype]
    for one in case.members:
        truth(one, model)  # an error of the suite's own is not the port's
    try:
        return check.judge(case, answers, model, truth)
    except Exception as error:  # a port may answer anything
        what = f"{type(error).__name__}: {error}"
        return failed_to_run(case, f"what the port answered cannot be judged: {what}")


def _core(selection: Selection, truth: Truth, progress: Progress) -> Subject:
    start = time.perf_counter()
    dtypes = {policy.dtype for policy in POLICIES.values()}
    claimed = [case for check, case in selection.claimed(dtypes) if check.id in audits.CORE_CHECKS]
    cases = [case for case in claimed if not selection.rules or case.method.name in selection.rules]
    core = Subject("core", "cpu", "core", dtypes={"float64": NumericModel()})
    for result in audits.agreement(cases, truth):
        core.results.append(result)
        progress("core", len(core.results), len(cases), core.results)
    core.verdict = verdict(core.results, [])
    if core.verdict == "CONFORMANT" and len(cases) < len(claimed):
        core.verdict = "INCOMPLETE"
    core.seconds = time.perf_counter() - start
    return core


def _port(
    name: str,
    ref: str,
    selection: Selection,
    truth: Truth,
    disputed: Collection[str],
    progress: Progress,
) -> Subject:
    start = time.perf_counter()
    subject = Subject(name)
    worker = Worker(ref)
    try:
        if worker.info is None:
            subject.reason = worker.absence
            return subject
        info = worker.info
        subject.device, subject.kind = info["device"], info["kind"]
        subject.proof, subject.scope = info["proof"], info["scope"]
        subject.dtypes = {
            name: model
            for name, model in info["dtypes"].items()
            if not selection.dtypes or name in selection.dtypes
        }
        claimed = selection.claimed(subject.dtypes, subject.scope)
        pairs = [
            (check, case)
            for check, case in claimed
            if selection.picks(case) and case.method.name not in disputed
        ]
        for _, result in judged(worker, pairs, truth):
            subject.results.append(result)
            progress(name, len(subject.results), len(pairs), subject.results)
        if len(subject.results) < len(pairs):
            subject.reason = worker.absence
        elif disputed:
            subject.reason = (
                f"not judged on {', '.join(sorted(disputed))}: core and textbook differ"
            )
        subject.verdict = verdict(subject.results, [case.id for _, case in claimed])
    finally:
        worker.close()
        subject.seconds = time.perf_counter() - start
    return subject


def _rule(case_id: str) -> str:
    return case_id.split("/")[1]
