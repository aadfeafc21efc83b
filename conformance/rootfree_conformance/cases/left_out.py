"""What is left out on purpose, with reasons: every report repeats it.

`UNJUDGED` holds for every port. A scope is a shorter list of cases for ports that differ from one
that is judged on all of them in one way only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from rootfree import METHODS, Method

from rootfree_conformance.cases.case import Case
from rootfree_conformance.cases.families import STRUCTURED, Corner, Policy


@dataclass(frozen=True)
class Unjudged:
    """What the suite does not judge, and why.

    Attributes:
        methods: names of methods.
        corners: names of corners; empty for all.
        policies: labels of policies; empty for all.
        reason: why.
        run: whether it concerns trajectories, and not single steps.
    """

    methods: tuple[str, ...]
    corners: tuple[str, ...]
    policies: tuple[str, ...]
    reason: str
    run: bool = False

    def holds(self, method: Method, corner: Corner, policy: Policy) -> bool:
        """Return whether it concerns a case."""
        return (
            method.name in self.methods
            and (not self.corners or corner.name in self.corners)
            and (not self.policies or policy.label in self.policies)
        )


_MATRIX: Final = tuple(method.name for method in METHODS.values() if method.matrix)
_NARROW: Final = ("float32", "bfloat16", "bfloat16-state", "bfloat16-stochastic")
UNJUDGED: Final = (
    Unjudged(
        ("full_adagrad", "shampoo"),
        ("quiet",),
        (*_NARROW, "bfloat16-products"),
        "at the documented damping of 1e-8 the root of a first, singular statistic is made of "
        "float32's rounding; judged in float64",
    ),
    Unjudged(
        ("rf_full_matrix_inverse",),
        ("quiet",),
        ("bfloat16-state", "bfloat16-stochastic"),
        "Sigma - b2 Sigma H Sigma cancels at the documented defaults, more than 8 bits can hold; "
        "judged in wider state",
    ),
    Unjudged(
        ("sirf_shampoo",),
        ("structure=hierarchical(1,1)", "structure=hierarchical(2,2)"),
        ("bfloat16-products",),
        "a block of one number is smaller than what 8-bit inputs of products may do to it; judged "
        "in every other policy",
    ),
    Unjudged(
        _MATRIX,
        ("turns", "turns_dealt", "absent", "absent_turns"),
        ("bfloat16-state", "bfloat16-stochastic"),
        "errors of several steps, stored in 8 bits, add up to more than the numbers; judged in "
        "wider state, and a plain schedule in these",
    ),
    Unjudged(
        _MATRIX,
        ("turns", "turns_dealt"),
        ("bfloat16-state",),
        "as in single steps",
        run=True,
    ),
    Unjudged(
        _MATRIX,
        (),
        ("bfloat16-products", "bfloat16-stochastic"),
        "worst cases of 8-bit products, or of spacings of 8 bits, add up to more than the numbers; "
        "single steps and the rounding's bits are judged",
        run=True,
    ),
)
"""Every entry is printed in each report."""


def unjudged(scopes: Mapping[str, str]) -> list[str]:
    """Return what no case is about though it could be, with reasons.

    Args:
        scopes: by port; what these leave out comes last.
    """
    everywhere = [
        f"{', '.join(entry.methods)}; {', '.join(entry.corners) or 'every corner'}; "
        f"{', '.join(entry.policies) or 'every policy'}; "
        f"{'trajectories' if entry.run else 'single steps'}: {entry.reason}"
        for entry in UNJUDGED
    ]
    narrowed = {name: SCOPES[scope] for name, scope in scopes.items() if SCOPES[scope].reason}
    return everywhere + [
        f"on {name} all but {scope.judged}: {scope.reason}" for name, scope in narrowed.items()
    ]


@dataclass(frozen=True)
class Share:
    """Some cases: those that every attribute allows; one that is empty allows all.

    Attributes:
        checks: ids of checks.
        corners: names of corners.
        policies: labels of policies.
        methods: names of methods.
        shapes: of parameters.
    """

    checks: tuple[str, ...] = ()
    corners: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()

    def holds(self, case: Case) -> bool:
        """Return whether a case is among them."""
        pairs: tuple[tuple[tuple[object, ...], object], ...] = (
            (self.checks, case.check),
            (self.corners, case.corner.name),
            (self.policies, case.policy.label),
            (self.methods, case.method.name),
            (self.shapes, case.shape),
        )
        return all(not allowed or value in allowed for allowed, value in pairs)


@dataclass(frozen=True)
class Scope:
    """Which cases a port is judged on.

    Attributes:
        shares: the cases, each in one of these at least.
        judged: what that is, in words.
        reason: why no more.
    """

    shares: tuple[Share, ...]
    judged: str = ""
    reason: str = ""

    def holds(self, case: Case) -> bool:
        """Return whether a port of this scope is judged on a case."""
        return any(share.holds(case) for share in self.shares)


_MAIN: Final = ("adamw", "rf_rmsprop", "sirf_shampoo")
_PLAIN: Final = ("float64", "float32", "bfloat16")
_SCHEDULED: Final = ("period", "turns", "turns_dealt", "mixed", "absent_turns")
_SEVERAL: Final = ("several", "turns", "turns_dealt", "mixed", "absent", "absent_turns")
_SMALL: Final = ((3, 5),)
SCOPES: Final[Mapping[str, Scope]] = MappingProxyType(
    {
        "whole": Scope((Share(),)),
        "compiled": Scope(
            (
                Share(("L3.2",), ("balanced",), _PLAIN, shapes=_SMALL),
                Share(("L3.2",), ("balanced",), ("float32",), _MAIN[:2], ((33, 17),)),
                Share(("L3.2",), ("balanced",), methods=_MAIN[1:], shapes=_SMALL),
                Share(("L3.2",), tuple(c.name for c in STRUCTURED), ("float32",)),
                Share(("L3.2", "L8.2"), _SEVERAL, ("float32",), _MAIN[1:]),
                Share(("L3.2",), _SCHEDULED, ("float32",), ("sirf_shampoo",)),
                Share(("L4.0",), ("balanced", *_SCHEDULED), ("float32",), _MAIN, _SMALL),
                Share(("L5.1", "L6.1", "L8.3"), policies=("float32",), methods=_MAIN),
                Share(("L6.4",), methods=_MAIN),
            ),
            "every method in float64, float32 and bfloat16, every structure, schedules and several "
            f"parameters, and with {', '.join(_MAIN)} state, its rounding and trajectories",
            "to compile takes seconds for each of them, and what is compiled is what the port "
            "without it runs",
        ),
        "stacked": Scope(
            (
                Share(corners=_SEVERAL),
                Share(corners=("exact_growth_mixed",)),
                Share(("L3.2",), ("balanced",)),
            ),
            "several parameters, everywhere, and a balanced step of one",
            "a stack of one parameter is what the port without stacks steps",
        ),
    }
)
"""Scopes by name. A report names the one that a port was judged in."""
