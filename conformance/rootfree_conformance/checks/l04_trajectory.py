"""L4, trajectories: twenty steps on given gradients, never reloaded, schedules changing each step.

The gradients are given and not fed back, so the running bound stays useful to the end: averages
forget their errors, and the parameters add them up. What reloading would hide (counters, caches, a
hyper-parameter read once) shows here.
"""

from __future__ import annotations

from rootfree_conformance.cases.expand import runs
from rootfree_conformance.checks.contract import Check
from rootfree_conformance.checks.l03_step import step_by_step, within_bound

OPEN_LOOP = Check(
    "L4.0",
    "twenty steps stay within the bound, state and parameters, with changing hyper-parameters",
    runs,
    step_by_step,
    within_bound,
)
