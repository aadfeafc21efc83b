"""Every method by name: its preset, what it reads, what it needs, where it comes from.

Adapters make their classes and functions from this table, and the conformance suite its cases, so a
method that is added here exists in every backend.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from rootfree.diagonal import Diagonal
from rootfree.precision import Precision


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
        momentum: what a non-zero momentum means: ``"heavy_ball"`` or ``"average"``.
        scaled: whether the curvature is multiplied by alpha: true of root-free methods.
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
    momentum: str = "heavy_ball"
    scaled: bool = False
    decompositions: tuple[str, ...] = ()

    def rule(self, precision: Precision, *, momentum: bool = True, **options: Any) -> Diagonal:
        """Return the rule.

        Args:
            precision: dtypes and rounding.
            momentum: ``False`` leaves the buffer out, for a momentum that is 0 and stays 0.
            **options: any of `options`.

        Raises:
            TypeError: if an option is unknown to this method.
            ValueError: if an option is out of its range.
        """
        self.check_options(options)
        return Diagonal(
            precision,
            momentum=self.momentum if momentum else "none",  # type: ignore[arg-type]  # checked there
            **self.fixed,
            **{**self.options, **options},
        )

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
    lr: float, *, precond_lr: float, momentum: float, damping: float, weight_decay: float = 0.0
) -> dict[str, float]:
    return {
        "lr": lr,
        "precond_lr": precond_lr,
        "momentum": momentum,
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
    ),
    Method(
        name="rmsprop",
        class_name="RMSProp",
        title="RMSProp",
        source="Tieleman, Hinton, Lecture 6.5, 2012; defaults of torch.optim.RMSprop",
        hyper=_hyper(1e-2, precond_lr=1e-2, momentum=0.0, damping=1e-8),
        options=_options(decay=1, init_scale=0.0),
        fixed={"power": 0.5},
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
