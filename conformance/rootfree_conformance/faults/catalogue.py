"""Seeded faults, as data: a text in a file, what replaces it, and the check that must find it.

The text must occur exactly once in its file: faults follow the code, or ``teeth`` fails. Numbers
are never reused.
"""

from __future__ import annotations

from typing import Final

from rootfree_conformance.faults._fault import Fault
from rootfree_conformance.faults.general import GENERAL
from rootfree_conformance.faults.matrix import MATRIX
from rootfree_conformance.faults.together import TOGETHER

FAULTS: Final = (*GENERAL, *MATRIX, *TOGETHER)

__all__ = ["FAULTS", "Fault"]
