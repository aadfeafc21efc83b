"""The tables that cases are made of: precision policies, shapes, corners.

Faults hide at defaults (no damping, no decay, alpha 1, fresh state), so most corners start from
balanced numbers, at which every term of every rule is visible. A new rule needs no row here: its
corners follow from what the catalogue says it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from rootfree import Method


@dataclass(frozen=True)
class Policy:
    """A precision policy: dtype of parameters and gradients, of state, and its rounding."""

    label: str
    dtype: str
    state_dtype: str
    rounding: str = "nearest"

    @property
    def working_dtype(self) -> str:
        """Dtype of elementwise arithmetic."""
        return "float64" if self.dtype == "float64" else "float32"


POLICIES: Final[Mapping[str, Policy]] = {
    policy.label: policy
    for policy in (
        Policy("float64", "float64", "float64"),
        Policy("float32", "float32", "float32"),
        Policy("bfloat16", "bfloat16", "float32"),
        Policy("bfloat16-state", "bfloat16", "bfloat16"),
        Policy("bfloat16-stochastic", "bfloat16", "bfloat16", "stochastic"),
    )
}

SHAPES: Final = (
    (3, 5),
    (33, 17),
    (5, 4, 3),
    (),
    (7,),
    (1, 9),
    (9, 1),
    (16, 16),
    (48, 32),
    (8, 4, 3, 3),
    (0, 4),
)
FEW: Final = SHAPES[:3]
THOROUGH: Final = ("float32", "bfloat16")
"""Policies that see every shape; the others see `FEW`."""

BALANCED: Final[Mapping[str, float]] = MappingProxyType(
    {
        "lr": 0.45,
        "precond_lr": 0.3,
        "momentum": 0.6,
        "precond_momentum": 0.4,
        "damping": 0.35,
        "weight_decay": 0.7,
        "curvature_scale": 6.0,
    }
)
REPRESENTABLE: Final[Mapping[str, float]] = MappingProxyType(
    {
        "lr": 0.4375,
        "precond_lr": 0.25,
        "momentum": 0.625,
        "precond_momentum": 0.4375,
        "damping": 0.375,
        "weight_decay": 0.75,
        "curvature_scale": 4.0,
    }
)


@dataclass(frozen=True)
class Corner:
    """One way to set hyper-parameters, options and state.

    Attributes:
        name: part of the case's id.
        hyper: departures from `BALANCED`; ``None`` stands for the method's documented defaults.
        options: static configuration; ``"other"`` picks the value that is not the default.
        state: ``"balanced"`` mid-run, or ``"fresh"``.
        gradient: ``"normal"``, ``"graded"`` over 2**-5 to 2**5, or ``"zero"``.
        needs: a hyper-parameter or option without which the corner says nothing new.
        scheduled: whether the hyper-parameters change from step to step of a run.
    """

    name: str
    hyper: Mapping[str, float] | None = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    state: Literal["balanced", "fresh"] = "balanced"
    gradient: Literal["normal", "graded", "zero"] = "normal"
    needs: str = "lr"
    scheduled: bool = True

    def applies(self, method: Method) -> bool:
        """Return whether the method has what the corner varies."""
        reads = {*method.hyper, *method.options, *(["curvature_scale"] if method.scaled else [])}
        return self.needs in reads

    def values(self, method: Method) -> dict[str, float]:
        """Return all hyper-parameters."""
        if self.hyper is None:
            return {**BALANCED, **method.hyper, "curvature_scale": 1.0}
        return {**BALANCED, **self.hyper}

    def settings(self, method: Method) -> dict[str, Any]:
        """Return the options, with ``"other"`` resolved.

        A documented momentum of 0 means no buffer.
        """
        if self.hyper is None and not method.hyper["momentum"]:
            return {**self.options, "momentum": False}
        other: Mapping[Any, Any] = {0: 1, 1: 0, "coupled": "decoupled", "decoupled": "coupled"}
        return {
            name: other[method.options[name]] if value == "other" else value
            for name, value in self.options.items()
        }


CORNERS: Final = (
    Corner("balanced"),
    Corner("quiet", None, state="fresh"),
    Corner("representable", REPRESENTABLE),
    Corner("first_step", state="fresh"),
    Corner("unit_scale", {"curvature_scale": 1.0}, needs="curvature_scale"),
    Corner("scale_4", {"curvature_scale": 4.0}, needs="curvature_scale"),
    Corner("no_buffer", {"momentum": 0.0}, {"momentum": False}, needs="momentum"),
    Corner("zero_momentum", {"momentum": 0.0}, needs="momentum"),
    Corner("no_weight_decay", {"weight_decay": 0.0}, needs="weight_decay"),
    Corner("no_damping", {"damping": 0.0}, needs="damping"),
    Corner("zero_lr", {"lr": 0.0}),
    Corner("other_decay", {}, {"decay": "other"}, needs="decay"),
    Corner("other_mode", {}, {"weight_decay_mode": "other"}, needs="weight_decay_mode"),
    Corner("init_scale", {}, {"init_scale": 2.0}, "fresh", needs="init_scale"),
    Corner("graded", gradient="graded"),
    Corner("zero_gradient", gradient="zero"),
    Corner("vanishing", {"damping": 0.0}, state="fresh", gradient="zero", needs="damping"),
    Corner(
        "vanishing_free",
        {"damping": 0.0},
        {"init_scale": 0.0},
        state="fresh",
        gradient="zero",
        needs="init_scale",
    ),
)
EXACT_DECAY: Final = Corner(
    "exact_decay",
    {"precond_lr": 2.0**-10, "momentum": 0.75, "weight_decay": 0.0},
    gradient="zero",
    scheduled=False,
)
"""Decay by factors that are exact in float32, for which stored bits can be foretold."""
RUNS: Final = ("balanced", "quiet", "first_step", "no_buffer", "other_decay")
"""Corners that trajectories start from."""
RUN_SHAPES: Final = ((3, 5), (7,), (5, 4, 3))
QUICK_CORNERS: Final = ("balanced", "quiet", "exact_decay")
"""Corners of the quick profile."""
