"""Floating-point formats, and the arithmetic that a port declares.

All host-side numbers of the suite are float64, which holds every value of the narrower formats
exactly; a format here says which float64 numbers are its own and how one is rounded into it.

References:
    Higham, Accuracy and Stability of Numerical Algorithms, 2002, chapter 2. The OpenCL 3.0
    Specification, 7.4 (relative error as ulps), for log1p and expm1, which IEEE 754 leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from rootfree import check_choice, check_number


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes:
        name: dtype name.
        bits: significant bits, the hidden one included.
        min_exponent: the smallest normal number is ``2**min_exponent``.
        max_exponent: the largest power of two is ``2**max_exponent``.
        stochastic: whether numbers are rounded into it stochastically; the error of one rounding
            is then below the spacing, and not half of it.
    """

    name: str
    bits: int
    min_exponent: int
    max_exponent: int
    stochastic: bool = False

    @property
    def unit(self) -> float:
        """Unit roundoff: the largest relative error of one rounding of a normal number."""
        return 2.0 ** (1 - self.bits if self.stochastic else -self.bits)

    @property
    def smallest_normal(self) -> float:
        """The smallest positive normal number."""
        return 2.0**self.min_exponent

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive number."""
        return 2.0 ** (self.min_exponent - self.bits + 1)


FORMATS: Final[Mapping[str, Format]] = {
    "float64": Format("float64", 53, -1022, 1023),
    "float32": Format("float32", 24, -126, 127),
    "bfloat16": Format("bfloat16", 8, -126, 127),
    "float16": Format("float16", 11, -14, 15),
}


UNDERFLOW: Final = FORMATS["float32"].smallest_normal ** 0.5
"""Below it the square of a float32 number is subnormal: sizes that no case is about."""


def quantise(values: Any, form: Format) -> NDArray[np.float64]:
    """Round float64 numbers to the nearest of ``form``, ties to the even one."""
    x: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if form.bits == FORMATS["float64"].bits:
        return x
    _, exponent = np.frexp(x)
    last = np.maximum(exponent, form.min_exponent + 1) - form.bits
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.ldexp(np.rint(np.ldexp(x, -last)), last)
    within = np.abs(rounded) < 2.0 ** (form.max_exponent + 1)
    return np.where(within | np.isnan(x), rounded, np.copysign(np.inf, x))


@dataclass(frozen=True)
class NumericModel:
    """The arithmetic that a port declares for parameters of one dtype; IEEE 754 by default.

    Attributes:
        bits: significant bits of elementwise arithmetic; ``None`` for those of its dtype.
        matmul_bits: significant bits that a matrix product keeps of its inputs; ``None`` for all.
        accumulator_bits: significant bits of the sums inside a matrix product.
        accumulator_rounding: how these sums are rounded. In float64 they have its 53 bits.
        native_products: whether the product of 16-bit inputs has their dtype, as on devices with
            units for it; else it is taken in float32.
        div, sqrt: largest error of these, in ulps (1/2 is correct rounding).
        log1p, expm1, pow: the same; the defaults are OpenCL's full profile.
        eigh: backward error of the symmetric eigenvalue solver, and how far its eigenvectors are
            from orthonormal ones, in units of ``d u`` times the matrix's norm, d its side.
        subnormals: whether results below the smallest normal number are kept or become zero.
        write: ``"fused"`` if the step is added to the parameter in the working dtype and rounded
            once; ``"returned"`` if it is rounded to the parameter's dtype and then added in it, as
            where the framework adds it.
        count: ``"own"`` if every parameter counts the steps in which it had a gradient;
            ``"shared"`` if one count serves all of them, as where the framework keeps one.
    """

    bits: int | None = None
    matmul_bits: int | None = None
    accumulator_bits: int = 24
    accumulator_rounding: Literal["nearest", "truncate"] = "nearest"
    native_products: bool = False
    div: float = 0.5
    sqrt: float = 0.5
    log1p: float = 2.0
    expm1: float = 3.0
    pow: float = 16.0
    eigh: float = 8.0
    subnormals: Literal["kept", "flushed"] = "kept"
    write: Literal["fused", "returned"] = "fused"
    count: Literal["own", "shared"] = "own"

    def __post_init__(self) -> None:
        """Refuse what is no arithmetic.

        Raises:
            ValueError: for a number of bits or ulps that is none, or an unknown word.
        """
        for name in ("bits", "matmul_bits", "accumulator_bits"):
            bits = getattr(self, name)
            if bits is not None and not bits >= 1:
                raise ValueError(f"`{name}` must be at least 1, got {bits!r}")
        for name in ("div", "sqrt", "log1p", "expm1", "pow", "eigh"):
            check_number(name, getattr(self, name), low=0, static=True)
        check_choice("subnormals", self.subnormals, ("kept", "flushed"))
        check_choice("write", self.write, ("fused", "returned"))
        check_choice("count", self.count, ("own", "shared"))
        check_choice("accumulator_rounding", self.accumulator_rounding, ("nearest", "truncate"))

    def working(self, name: str) -> Format:
        """Return the format of elementwise arithmetic in a dtype, with the bits declared."""
        form = FORMATS[name]
        return form if self.bits is None else replace(form, bits=min(self.bits, form.bits))
