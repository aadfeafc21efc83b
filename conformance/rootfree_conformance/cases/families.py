"""The tables that cases are made of: precision policies, shapes, corners.

Faults hide at defaults (no damping, no decay, alpha 1, fresh state), so most corners start from
balanced numbers, at which every term of every rule is visible. A new rule needs no row here: its
corners follow from what the catalogue says it reads. What is left out on purpose stands in
`left_out`, and every report repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from rootfree import Method


@dataclass(frozen=True)
class Policy:
    """A precision policy: dtype of parameters and gradients, of state, its rounding, products."""

    label: str
    dtype: str
    state_dtype: str
    rounding: str = "nearest"
    products: str | None = None  # inputs of matrix products, where they are rounded

    @property
    def working_dtype(self) -> str:
        """Dtype of elementwise arithmetic."""
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def compute_dtype(self) -> str:
        """Dtype of the inputs of matrix products."""
        return self.products or self.working_dtype

    def applies(self, method: Method) -> bool:
        """Return whether it says anything of a method: rules without products round none."""
        return method.matrix or self.products is None

    def meets(self, method: Method, corner: Corner) -> bool:
        """Return whether a corner says something new of a method under it.

        Options of methods that keep matrices are code, which every policy would meet alike: they
        are judged in float32, structures in every dtype, with rounded storage and products.
        """
        if not method.matrix or self.label == "float32":
            return True
        if self.products is not None:
            return corner in STRUCTURED or corner.name in PRODUCT_CORNERS
        if corner in STRUCTURED:
            return self.rounding == "stochastic" or self.label == "float64"
        return corner.name in PERIODS or not (corner.options or corner.without)


POLICIES: Final[Mapping[str, Policy]] = {
    policy.label: policy
    for policy in (
        Policy("float64", "float64", "float64"),
        Policy("float32", "float32", "float32"),
        Policy("bfloat16", "bfloat16", "float32"),
        Policy("bfloat16-state", "bfloat16", "bfloat16"),
        Policy("bfloat16-stochastic", "bfloat16", "bfloat16", "stochastic"),
        Policy("bfloat16-products", "bfloat16", "float32", products="bfloat16"),
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
MATRIX_SHAPES: Final = ((3, 5), (4, 3, 2), (7,), (5, 4), (), (1, 6), (0, 4))
"""Shapes for methods that keep matrices: small ones carry the sensitivity."""
TINY: Final = ((4,), (1, 3), (2, 2))
"""Shapes for solves with 8-bit state, whose bound on a larger matrix would say nothing."""
PRODUCT_CORNERS: Final = (
    "balanced",
    "first_step",
    "within_clip",
    "improved",
    "exact",
    "merged",
    "period",
)
"""Corners, besides structures, in which rounded inputs of products make a difference."""
PERIODS: Final = ("period", "turns", "turns_dealt")
"""Corners in which the curvature enters at some steps only."""
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
        without: hyper-parameters that are 0 and stay 0, whose state is left out.
        state: ``"balanced"`` mid-run, the same with ``"calm"`` momenta of factors, or ``"fresh"``.
        gradient: ``"normal"``, ``"small"``, ``"graded"`` over 2**-5 to 2**5, or ``"zero"``.
        needs: a hyper-parameter or option without which the corner says nothing new.
        scheduled: whether the hyper-parameters change from step to step of a run.
        steps: how many steps a single-step check takes.
        members: how many equal parameters the optimizer has, each with numbers of its own.
        missing: by step, counted from 0, the parameters that have no gradient then.
    """

    name: str
    hyper: Mapping[str, float] | None = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    state: Literal["balanced", "calm", "fresh"] = "balanced"
    gradient: Literal["normal", "small", "graded", "zero"] = "normal"
    needs: str = "lr"
    scheduled: bool = True
    steps: int = 1
    members: int = 1
    missing: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def applies(self, method: Method) -> bool:
        """Return whether the method has what the corner varies, and takes its numbers."""
        reads = {*method.hyper, *method.options}
        reads |= {"curvature_scale"} if method.scaled else set()
        reads |= {"update_every"} if method.matrix else set()
        hyper = self.hyper or {}
        roots = "eigh" in method.decompositions
        undamped = roots and hyper.get("damping", 1.0) == 0 and self.name not in _ANY_DAMPING
        singular = method.matrix and method.scaled and self.options.get("init_scale", 1.0) == 0
        return self.needs in reads and not undamped and not singular

    def values(self, method: Method) -> dict[str, float]:
        """Return all hyper-parameters."""
        if self.hyper is None:
            return {**BALANCED, **method.hyper, "curvature_scale": 1.0}
        values = {**BALANCED, **self.hyper}
        if "eigh" in method.decompositions and not values["damping"]:
            values["damping"] = BALANCED["damping"]
        return values

    def settings(self, method: Method) -> dict[str, Any]:
        """Return the options, with ``"other"`` resolved."""
        other: Mapping[Any, Any] = {0: 1, 1: 0, "coupled": "decoupled", "decoupled": "coupled"}
        return {
            name: other[method.options[name]] if value == "other" else value
            for name, value in self.options.items()
            if name in method.options or name in SCHEDULE
        }

    def unbuffered(self, method: Method) -> tuple[str, ...]:
        """Return the hyper-parameters whose state is left out.

        A documented momentum of 0 means no buffer.
        """
        if self.hyper is None:
            return tuple(name for name in method.buffers if not method.hyper[name])
        return tuple(name for name in self.without if name in method.buffers)


SCHEDULE: Final = ("update_every", "stagger")
"""Options that say when the curvature enters; no rule reads them."""
_TOGETHER: Final = MappingProxyType({"update_every": 2, "stagger": False})
_TURNS: Final = MappingProxyType({"update_every": 3, "stagger": True})
CORNERS: Final = (
    Corner("balanced"),
    Corner("quiet", None, state="fresh"),
    Corner("representable", REPRESENTABLE),
    Corner("first_step", state="fresh"),
    Corner("unit_scale", {"curvature_scale": 1.0}, needs="curvature_scale"),
    Corner("scale_4", {"curvature_scale": 4.0}, needs="curvature_scale"),
    Corner("no_buffer", {"momentum": 0.0}, without=("momentum",), needs="momentum"),
    Corner("zero_momentum", {"momentum": 0.0}, needs="momentum"),
    Corner("no_weight_decay", {"weight_decay": 0.0}, needs="weight_decay"),
    Corner("no_damping", {"damping": 0.0}, needs="damping"),
    Corner("zero_lr", {"lr": 0.0}),
    Corner("other_decay", {}, {"decay": "other"}, needs="decay"),
    Corner("other_mode", {}, {"weight_decay_mode": "other"}, needs="weight_decay_mode"),
    Corner("init_scale", {}, {"init_scale": 2.0}, state="fresh", needs="init_scale"),
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
    Corner("several", members=3),
    Corner("period", {}, _TOGETHER, needs="update_every", steps=3),
    Corner("turns", {}, _TURNS, needs="update_every", steps=4, members=3),
    Corner("turns_dealt", {}, _TURNS, state="fresh", needs="update_every", steps=4, members=3),
    Corner("improved", {"curvature_scale": 0.5}, {"improved": True}, needs="improved"),
    Corner("exact", {"damping": 0.0}, {"exact": True}, needs="exact"),
    Corner("unclipped", {"precond_lr": 0.2}, {"trust_clip": False}, needs="trust_clip"),
    Corner("within_clip", state="calm", gradient="small", needs="trust_clip"),
    Corner(
        "no_factor_momentum",
        {"precond_momentum": 0.0},
        without=("precond_momentum",),
        needs="precond_momentum",
    ),
    Corner("zero_factor_momentum", {"precond_momentum": 0.0}, needs="precond_momentum"),
    Corner("merged", {}, {"merge_dims": 6}, needs="merge_dims"),
    Corner("limited", {}, {"max_dim": 4}, needs="max_dim"),
)
STRUCTURES: Final = (
    "diagonal",
    "block_diagonal(2)",
    "block_diagonal(3)",
    "tril",
    "triu",
    "tril_toeplitz",
    "triu_toeplitz",
    "hierarchical(1, 1)",
    "hierarchical(2, 2)",
    "arrowhead(first_column)",
    "arrowhead(last_row)",
    "arrowhead(first_row)",
    "arrowhead(last_column)",
    ("dense", "diagonal"),
    ("block_diagonal(2)", "hierarchical(1, 1)"),
)
"""Structures of a parameter with axes of lengths 3 and 5: blocks with a rest and without one, a
hierarchical matrix with and without its middle, two structures mixed."""
STRUCTURED: Final = tuple(
    Corner(
        f"structure={name if isinstance(name, str) else '+'.join(name)}".replace(" ", ""),
        {},
        {"structure": name},
        needs="structure",
    )
    for name in STRUCTURES
)
MIXED: Final = Corner(
    "mixed",
    {},
    {"structure": STRUCTURES[-1], "update_every": 2, "stagger": True},
    needs="structure",
    steps=3,
    members=2,
)
"""Factors of several arrays each, of two parameters that take turns."""
ABSENT: Final = (
    Corner("absent", steps=3, members=3, missing={0: (1,), 1: (0, 2)}),
    Corner(
        "absent_turns",
        {},
        {"update_every": 2, "stagger": True},
        needs="update_every",
        steps=3,
        members=3,
        missing={0: (1,), 1: (0,)},
    ),
)
"""Gradients that are missing: a turn that is due then comes with the next gradient's step."""
EXACT_DECAY: Final = Corner(
    "exact_decay",
    {"precond_lr": 2.0**-10, "momentum": 0.75, "precond_momentum": 0.75, "weight_decay": 0.0}
    | {"damping": 0.0},
    {"trust_clip": False},
    gradient="zero",
    scheduled=False,
)
"""Decay by factors that are exact in float32, for which stored bits can be foretold."""
EXACT_GROWTH: Final = Corner(
    "exact_growth",
    {**(EXACT_DECAY.hyper or {}), "precond_momentum": 0.0},
    {"trust_clip": False},
    without=("precond_momentum",),
    gradient="zero",
    needs="precond_momentum",
    scheduled=False,
)
"""The same for factors, which then grow by ``1 + precond_lr / 2``."""
EXACT_MIXED: Final = Corner(
    "exact_growth_mixed",
    EXACT_GROWTH.hyper,
    {"trust_clip": False, "structure": STRUCTURES[-1]},
    without=("precond_momentum",),
    gradient="zero",
    needs="structure",
    scheduled=False,
    members=2,
)
"""The same for factors of several arrays, of two parameters."""
_ANY_DAMPING: Final = ("exact_decay",)
"""Corners in which a method that takes roots has a damping all the same."""
RUNS: Final = ("balanced", "quiet", "first_step", "no_buffer", "other_decay")
"""Corners that trajectories start from."""
MATRIX_RUNS: Final = ("balanced", "period", "turns", "turns_dealt")
"""The same for methods that keep matrices."""
RUN_SHAPES: Final = ((3, 5), (7,), (5, 4, 3))
QUICK_CORNERS: Final = (
    "balanced",
    "quiet",
    "turns",
    "turns_dealt",
    "absent",
    "exact_decay",
    "exact_growth",
)
"""Corners of the quick profile."""
