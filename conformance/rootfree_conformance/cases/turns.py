"""Who observes when: the calendar that ports are held to, stated here and nowhere imported.

With a period of T the curvature of a parameter enters at its first step. Where parameters take
turns, those of one with the phase p come p steps before the steps T, 2 T, 3 T, ...; where they do
not, at these steps. Phases must spread equal parameters over the steps of a period.
"""

from __future__ import annotations

from collections.abc import Sequence


def takes_turn(period: int, count: int, phase: int = 0) -> bool:
    """Return whether the curvature enters at a step.

    Args:
        period: T >= 1.
        count: updates of the parameter before this step.
        phase: p in [0, T); 0 where parameters do not take turns.
    """
    first, second = 0, period - phase
    return count == first or (count >= second and (count - second) % period == 0)


def loaded_phase(member: int, period: int) -> int:
    """Return the phase that a case loads for a parameter: not the one that counting would give."""
    return (period - 1 - member) % period


def uneven(phases: Sequence[float], period: int) -> str:
    """Return what is wrong with the phases of equal parameters; nothing if they are right.

    They are whole numbers in [0, T), and no step of a period has two turns more than another.
    """
    if not all(phase in range(period) for phase in phases):
        return f"phases are whole numbers from 0 to {period - 1}, got {list(phases)}"
    turns = [sum(phase == step for phase in phases) for step in range(period)]
    if max(turns) - min(turns) > 1:
        return f"phases {list(phases)} of equal parameters give the steps of a period {turns} turns"
    return ""
