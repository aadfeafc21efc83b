"""All checks, by id. A check that is added here is collected, listed and must pass."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from rootfree_conformance.checks.contract import Check
from rootfree_conformance.checks.l03_step import BOUND
from rootfree_conformance.checks.l04_trajectory import OPEN_LOOP
from rootfree_conformance.checks.l05_state import RESUME
from rootfree_conformance.checks.l06_precision import DTYPES, ROUNDING
from rootfree_conformance.checks.l08_misuse import ABSENCE, REJECTION

CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {check.id: check for check in (BOUND, OPEN_LOOP, RESUME, DTYPES, ROUNDING, ABSENCE, REJECTION)}
)
