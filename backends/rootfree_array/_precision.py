"""Which dtypes a parameter's numbers have, by name: the policy that every adapter shares.

An adapter turns the names into dtype objects of its framework. Parameters of 16 bits are computed
on and stored in float32; 16-bit state is on request, and wants stochastic rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final
from zlib import crc32

from rootfree import Method, Precision, Rule, check_choice

PARAMETER_DTYPES: Final = ("float64", "float32", "bfloat16", "float16")
_STATE_DTYPES: Final = {"float64": ("float64",), "float32": ("float32", "bfloat16")}
_COMPUTE_DTYPES: Final = {
    "float64": ("float64",),
    "float32": ("float32", "bfloat16", "float16"),
}
_BFLOAT16_UNIT: Final = 2.0**-8


class StalledStateWarning(UserWarning):
    """Nearest rounding keeps bfloat16 state where it is at the given `precond_lr`."""


@dataclass(frozen=True)
class Policy:
    """Dtypes by name, and the rounding of the state.

    Attributes:
        working: elementwise arithmetic.
        state: storage.
        compute: inputs of matrix products.
        product: in which products of these inputs are taken.
        rounding: ``"nearest"`` or ``"stochastic"``.
    """

    working: str
    state: str
    compute: str
    product: str
    rounding: str

    def precision(self, dtypes: Mapping[str, Any]) -> Precision:
        """Return the core's record, with dtype objects from ``dtypes``.

        Raises:
            ValueError: if one of them is missing there.
        """
        if missing := {self.working, self.state, self.compute, self.product} - set(dtypes):
            raise ValueError(
                f"the array library has no {', '.join(sorted(missing))}; it has {', '.join(dtypes)}"
            )
        return Precision(
            working_dtype=dtypes[self.working],
            state_dtype=dtypes[self.state],
            compute_dtype=dtypes[self.compute],
            rounding=self.rounding,  # type: ignore[arg-type]  # checked by resolve
            product_dtype=dtypes[self.product],
            narrow_range=self.compute == "float16",
        )


def resolve(
    param: str,
    *,
    state: str | None = None,
    compute: str | None = None,
    product: str | None = None,
    rounding: str = "nearest",
    native: Collection[str] = (),
    name: str = "parameter",
) -> Policy:
    """Return the policy for a parameter.

    Args:
        param: dtype name of the parameter.
        state: dtype name of the state, or ``None`` for the default.
        compute: dtype name of the inputs of matrix products, or ``None`` for the default: bfloat16
            for bfloat16 parameters on a device with units for it, else the working dtype.
        product: dtype name in which products of these inputs are taken, or ``None`` for the
            default: ``compute`` on a device with units for it, else the working dtype.
        rounding: how narrower state is rounded.
        native: names of the 16-bit dtypes that the device has units for; inputs of the others are
            rounded to them, and their products taken in float32.
        name: what to call the parameter in an error.

    Raises:
        TypeError: if the parameter is not of a real floating dtype that rootfree knows.
        ValueError: if state dtype, compute dtype, product dtype or rounding do not go with it.
    """
    if param not in PARAMETER_DTYPES:
        raise TypeError(
            f"{name} has dtype {param}; rootfree optimizes real floating-point parameters "
            f"({', '.join(PARAMETER_DTYPES)}): convert it, or leave it out"
        )
    working = "float64" if param == "float64" else "float32"
    state = working if state is None else state
    if state not in _STATE_DTYPES[working]:
        raise ValueError(
            f"`state_dtype` of a {param} parameter must be one of "
            f"{', '.join(map(repr, _STATE_DTYPES[working]))}; got {state!r}"
        )
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    if rounding == "stochastic" and state != "bfloat16":
        raise ValueError(
            f"`rounding='stochastic'` needs `state_dtype='bfloat16'`, got {state!r}: wider state "
            "has nothing to round"
        )
    if compute is None:
        compute = param if param == "bfloat16" and param in native else working
    if compute not in _COMPUTE_DTYPES[working]:
        raise ValueError(
            f"`compute_dtype` of a {param} parameter must be one of "
            f"{', '.join(map(repr, _COMPUTE_DTYPES[working]))}; got {compute!r}"
        )
    if product is None:
        product = compute if compute in native else working
    elif product not in (compute, working):
        raise ValueError(
            f"`product_dtype` must be {' or '.join(dict.fromkeys((repr(compute), repr(working))))} "
            f"for a {param} parameter with inputs in {compute}; got {product!r}"
        )
    return Policy(working, state, compute, product, rounding)


def salt(name: str) -> int:
    """Return the key of a parameter's rounding bits: the CRC-32 of its name, as int32."""
    key = crc32(name.encode())
    return key - 2**32 if key >= 2**31 else key


def warn_if_stalled(
    policy: Policy,
    method: Method,
    rule: Rule[Any],
    shapes: Iterable[tuple[int, ...]],
    precond_lr: Any,
    *,
    stacklevel: int = 3,
) -> None:
    """Warn if nearest-rounded bfloat16 state cannot follow at the given `precond_lr`.

    With 8 significant bits, ``s * (1 - precond_lr)`` rounds back to ``s`` unless ``precond_lr``
    exceeds 2^-9 to 2^-8, depending on s; a factor of SIRF-Shampoo stays at the identity below
    ``2^-8 max(2, sqrt(d))``. A 0-d array passes unread.

    Args:
        policy: dtypes and rounding.
        method: what the state belongs to.
        rule: the method's rule; says what state needs to move.
        shapes: of the parameters with this policy.
        precond_lr: weight of the new curvature.
        stacklevel: which caller the warning points to; 3 is the caller's caller.
    """
    nearest = policy.state == "bfloat16" and policy.rounding == "nearest"
    if not nearest or "precond_lr" not in method.hyper or not isinstance(precond_lr, Real):
        return
    least = max((rule.least_rate(shape, _BFLOAT16_UNIT) for shape in shapes), default=0.0)
    if 0 < float(precond_lr) < least:
        warnings.warn(
            f"bfloat16 state with rounding='nearest' stands still at precond_lr={precond_lr:g}: "
            f"below {least:g} a change of {method.title}'s state rounds back to where it was; use "
            "rounding='stochastic', or state_dtype='float32'",
            StalledStateWarning,
            stacklevel=stacklevel,
        )
