"""Every method by name: its preset, what it reads, what it needs, where it comes from.

Adapters make their classes and functions from this table, and the conformance suite its cases, so a
method that is added here exists in every backend.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from rootfree._typing import Rule
from rootfree.diagonal import Diagonal
from rootfree.full_matrix import FullMatrix
from rootfree.precision import Precision
from rootfree.shampoo import Shampoo
from rootfree.sirf_shampoo import SIRFShampoo


@dataclass(frozen=True)
class Method:
    """A named preset of a rule.

    Attributes:
        name: key in `METHODS` and name of the function in JAX, ``"rf_rmsprop"``.
        class_name: name of the class in the other adapters, ``"RFRMSProp"``.
        title: name in prose, ``"RF-RMSProp"``.
        hyper: the fields of `rootfree.Hyper` that it reads, with their defaults. Reads the batch
            size too if ``scaled``.
        options: static configuration a user may change, with defaults.
        fixed: static configuration that makes the method what it is.
        family: the class of its rule, called with the precision and static configuration.
        momentum: what a non-zero momentum means: ``"heavy_ball"`` or ``"average"``.
        scaled: whether the curvature is multiplied by alpha: true of root-free methods.
        matrix: whether it keeps matrices and takes their products: then `observe` may be periodic,
            and products have a dtype of their own.
        curvatures: the kinds of curvature that a caller may pass in place of the gradient outer
            product, keys of `rootfree.CURVATURES`.
        decompositions: matrix decompositions that it calls, none for root- and inverse-free ones.
        source: where it comes from.
    """

    name: str
    class_name: str
    title: str
    source: str
    hyper: Mapping[str, float]
    options: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    family: Callable[..., Rule[Any]] = Diagonal
    momentum: str = "heavy_ball"
    scaled: bool = False
    matrix: bool = False
    curvatures: tuple[str, ...] = ()
    decompositions: tuple[str, ...] = ()

    @property
    def buffers(self) -> dict[str, str]:
        """The hyper-parameters that need state while they are not 0, with the field they need."""
        fields = {
            "momentum": "first_moment" if self.momentum == "average" else "momentum",
            "precond_momentum": "factor_momentum",
        }
        return {name: role for name, role in fields.items() if name in self.hyper}

    @property
    def shared(self) -> dict[str, Any]:
        """The arguments of its kind, scaled or with matrices, with their defaults."""
        scale = {"batch_size": 1, "loss_reduction": "mean"} if self.scaled else {}
        products = {"compute_dtype": None, "product_dtype": None}
        return {
            **scale,
            **({"update_every": 1, "stagger": True, **products} if self.matrix else {}),
        }

    def absent(self, roles: Collection[str]) -> tuple[str, ...]:
        """Return the keys of `buffers` that have no array among the roles of a state."""
        fields = {role.partition(".")[0] for role in roles}
        return tuple(name for name, field in self.buffers.items() if field not in fields)

    def rule(
        self, precision: Precision, *, without: Collection[str] = (), **options: Any
    ) -> Rule[Any]:
        """Return the rule.

        Args:
            precision: dtypes and rounding.
            without: keys of `buffers` that are 0 and stay 0: their state is left out.
            **options: any of `options`.

        Raises:
            TypeError: if an option is unknown to this method.
            ValueError: if an option is out of its range.
        """
        self.check_options(options)
        averaged = "precond_momentum" in self.hyper
        buffered = {"precond_momentum": "precond_momentum" not in without} if averaged else {}
        return self.family(
            precision,
            momentum="none" if "momentum" in without else self.momentum,
            **buffered,
            **self.fixed,
            **{**self.options, **options},
        )

    def takes(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the `curvatures` that it takes with these options: an exact inverse has none."""
        return () if options.get("exact") else self.curvatures

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise `TypeError` if an option is unknown to this method."""
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            raise TypeError(
                f"{self.title} has no option {', '.join(map(repr, unknown))}; "
                f"it has {', '.join(map(repr, self.options))}"
            )


_LIN = "Lin et al., 2024, arXiv 2402.03496"


def _hyper(
    lr: float,
    *,
    precond_lr: float,
    momentum: float,
    damping: float,
    weight_decay: float = 0.0,
    precond_momentum: float | None = None,
) -> dict[str, float]:
    averaged = {} if precond_momentum is None else {"precond_momentum": precond_momentum}
    return {
        "lr": lr,
        "precond_lr": precond_lr,
        "momentum": momentum,
        **averaged,
        "damping": damping,
        "weight_decay": weight_decay,
    }


def _options(*, decay: int, init_scale: float, mode: str = "coupled") -> dict[str, Any]:
    return {"decay": decay, "init_scale": init_scale, "weight_decay_mode": mode}


_METHODS: Final = (
    Method(
        name="sgd",
        class_name="SGD",
        title="SGD",
        source="Polyak, 1964 (heavy ball); defaults of torch.optim.SGD",
        hyper={"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0},
        options={"weight_decay_mode": "coupled"},
        fixed={"power": 0},
    ),
    Method(
        name="adagrad",
        class_name="AdaGrad",
        title="AdaGrad",
        source="Duchi, Hazan, Singer, JMLR 2011; defaults of torch.optim.Adagrad",
        hyper=_hyper(1e-2, precond_lr=1.0, momentum=0.0, damping=1e-10),
        options=_options(decay=0, init_scale=0.0),
        fixed={"power": 0.5},
        curvatures=("diagonal",),
    ),
    Method(
        name="rmsprop",
        class_name="RMSProp",
        title="RMSProp",
        source="Tieleman, Hinton, Lecture 6.5, 2012; defaults of torch.optim.RMSprop",
        hyper=_hyper(1e-2, precond_lr=1e-2, momentum=0.0, damping=1e-8),
        options=_options(decay=1, init_scale=0.0),
        fixed={"power": 0.5},
        curvatures=("diagonal",),
    ),
    Method(
        name="adamw",
        class_name="AdamW",
        title="AdamW",
        source="Loshchilov, Hutter, 2017, arXiv 1711.05101; defaults of torch.optim.AdamW",
        hyper=_hyper(1e-3, precond_lr=1e-3, momentum=0.9, damping=1e-8, weight_decay=1e-2),
        options={"weight_decay_mode": "decoupled"},
        fixed={"power": 0.5, "init_scale": 0.0, "bias_correction": True},
        momentum="average",
        curvatures=("diagonal",),
    ),
    Method(
        name="rf_adagrad",
        class_name="RFAdaGrad",
        title="RF-AdaGrad",
        source=f"{_LIN}, RF-AdaGrad",
        hyper=_hyper(1e-1, precond_lr=1.0, momentum=0.9, damping=1e-4),
        options=_options(decay=0, init_scale=1.0),
        fixed={"power": 1},
        scaled=True,
        curvatures=("diagonal",),
    ),
    Method(
        name="rf_rmsprop",
        class_name="RFRMSProp",
        title="RF-RMSProp",
        source=f"{_LIN}, RF-RmsProp",
        hyper=_hyper(1e-3, precond_lr=2e-2, momentum=0.9, damping=1e-4),
        options=_options(decay=1, init_scale=1.0),
        fixed={"power": 1},
        scaled=True,
        curvatures=("diagonal",),
    ),
    Method(
        name="rf_adamw",
        class_name="RFAdamW",
        title="RF-AdamW",
        source=f"{_LIN}, as in the released code: no bias correction",
        hyper=_hyper(1e-2, precond_lr=2e-2, momentum=0.9, damping=1e-4),
        options=_options(decay=1, init_scale=1.0, mode="decoupled"),
        fixed={"power": 1},
        momentum="average",
        scaled=True,
        curvatures=("diagonal",),
    ),
    Method(
        name="full_adagrad",
        class_name="FullAdaGrad",
        title="full-matrix AdaGrad",
        source="Duchi, Hazan, Singer, JMLR 2011, full-matrix form",
        hyper=_hyper(1e-2, precond_lr=1.0, momentum=0.0, damping=1e-8),
        options=_options(decay=0, init_scale=0.0),
        fixed={"form": "root"},
        family=FullMatrix,
        matrix=True,
        decompositions=("eigh",),
    ),
    Method(
        name="rf_full_matrix",
        class_name="RFFullMatrix",
        title="root-free full-matrix, inverse covariance",
        source=f"{_LIN}; `improved`: Lin, Schmidt, Khan, 2020, arXiv 2002.10060",
        hyper=_hyper(1e-3, precond_lr=5e-2, momentum=0.9, damping=1e-4),
        options={**_options(decay=1, init_scale=1.0), "improved": False},
        fixed={"form": "solve"},
        family=FullMatrix,
        scaled=True,
        matrix=True,
        curvatures=("diagonal", "vectors", "matrix"),
        decompositions=("solve",),
    ),
    Method(
        name="rf_full_matrix_inverse",
        class_name="RFFullMatrixInverse",
        title="root-free full-matrix, covariance",
        source=f"{_LIN}, parameterisation by the inverse",
        hyper=_hyper(1e-3, precond_lr=5e-2, momentum=0.9, damping=1e-4),
        options={**_options(decay=1, init_scale=1.0), "exact": False},
        fixed={"form": "inverse"},
        family=FullMatrix,
        scaled=True,
        matrix=True,
        curvatures=("diagonal", "vectors", "matrix"),
    ),
    Method(
        name="rf_full_matrix_factor",
        class_name="RFFullMatrixFactor",
        title="root-free full-matrix, factor of the covariance",
        source=f"{_LIN}, parameterisation by a factor",
        hyper=_hyper(1e-3, precond_lr=5e-2, momentum=0.9, damping=1e-4, precond_momentum=0.5),
        options={**_options(decay=1, init_scale=1.0), "trust_clip": True},
        fixed={"structure": "dense", "max_dim": None, "flatten": True},
        family=SIRFShampoo,
        scaled=True,
        matrix=True,
        curvatures=("diagonal", "vectors", "matrix"),
    ),
    Method(
        name="shampoo",
        class_name="Shampoo",
        title="Shampoo",
        source="Gupta, Koren, Singer, 2018, arXiv 1802.09568, as a moving average",
        hyper=_hyper(5e-3, precond_lr=1e-2, momentum=0.9, damping=1e-8),
        options={**_options(decay=1, init_scale=0.0), "merge_dims": None},
        fixed={"root": True},
        family=Shampoo,
        matrix=True,
        decompositions=("eigh",),
    ),
    Method(
        name="rf_shampoo",
        class_name="RFShampoo",
        title="root-free Shampoo",
        source=f"{_LIN}, in the space of the inverse covariance",
        hyper=_hyper(1e-3, precond_lr=5e-2, momentum=0.9, damping=1e-4),
        options={**_options(decay=1, init_scale=1.0), "merge_dims": None},
        fixed={"root": False},
        family=Shampoo,
        scaled=True,
        matrix=True,
        curvatures=("diagonal", "vectors", "matrix", "factors"),
        decompositions=("solve",),
    ),
    Method(
        name="sirf_shampoo",
        class_name="SIRFShampoo",
        title="SIRF-Shampoo",
        source=f"{_LIN}, IF-Shampoo; structures: Lin et al., 2024, arXiv 2312.05705",
        hyper=_hyper(3e-3, precond_lr=0.1, momentum=0.9, damping=1e-3, precond_momentum=0.5),
        options={
            "structure": "dense",
            "max_dim": 4096,
            "merge_dims": None,
            "trust_clip": True,
            **_options(decay=1, init_scale=1.0),
        },
        family=SIRFShampoo,
        scaled=True,
        matrix=True,
        curvatures=("diagonal", "vectors", "matrix", "factors"),
    ),
)

METHODS: Final[Mapping[str, Method]] = MappingProxyType({m.name: m for m in _METHODS})
"""Every method by name, simple before complex, root-based before root-free."""


def method(name: str) -> Method:
    """Return the method called ``name``.

    Raises:
        ValueError: if there is none; the message lists the names and the nearest one.
    """
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(str(name), METHODS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown method {name!r}; {hint}known: {', '.join(METHODS)}")
