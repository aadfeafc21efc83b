"""Arrays that carry a bound: a value, and what any arithmetic of a declared model may add to it.

The core runs on these arrays unchanged. ``value`` is float64; ``error`` bounds the distance of what
a correct port computes from it. One rounding of a result v that already carries e costs
``u (|v| + e) + eta``, u the unit roundoff of the result's format and eta its underflow threshold.
Fusing operations only leaves roundings out, so it stays inside the bound.

References:
    Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.3 (running error).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rootfree_conformance.numeric import FORMATS, Format, NumericModel, quantise


@dataclass(frozen=True)
class Kind:
    """A dtype without rounding: ``int32`` or ``bool``."""

    name: str


INT32, BOOL = Kind("int32"), Kind("bool")


class BoundArray:
    """A value with an error bound. For a bool, an error above 0 says that it is not certain."""

    __slots__ = ("dtype", "error", "value", "xp")
    __array_ufunc__ = None

    def __init__(self, value: Any, error: Any, dtype: Format | Kind, xp: BoundNamespace) -> None:
        self.value: NDArray[Any] = np.asarray(value)
        self.error: NDArray[np.float64] = np.broadcast_to(error, self.value.shape)
        self.dtype = dtype
        self.xp = xp

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.value.ndim

    @property
    def device(self) -> str:
        """There is one."""
        return "cpu"

    def __array_namespace__(self, *, api_version: str | None = None) -> BoundNamespace:
        return self.xp

    def _lift(self, other: Any) -> BoundArray:
        if isinstance(other, BoundArray):
            if other.dtype != self.dtype:
                raise TypeError(f"{self.dtype} and {other.dtype} are mixed in one operation")
            return other
        if isinstance(self.dtype, Kind):
            return BoundArray(np.asarray(other), 0.0, self.dtype, self.xp)
        return self.xp.scalar(float(other), self.dtype)

    def __add__(self, other: Any) -> BoundArray:
        other = self._lift(other)
        total = self.value + other.value
        part = total - self.value  # Knuth's TwoSum: what the addition in float64 has lost
        lost = (self.value - (total - part)) + (other.value - part)
        return self.xp.rounded(total, self.error + other.error, self.dtype, exact=lost == 0)

    __radd__ = __add__

    def __neg__(self) -> BoundArray:
        return BoundArray(-self.value, self.error, self.dtype, self.xp)

    def __sub__(self, other: Any) -> BoundArray:
        return self + -self._lift(other)

    def __rsub__(self, other: Any) -> BoundArray:
        return self._lift(other) + -self

    def __mul__(self, other: Any) -> BoundArray:
        other = self._lift(other)
        with np.errstate(invalid="ignore"):  # 0 times an infinite bound
            error = (
                np.abs(self.value) * other.error
                + np.abs(other.value) * self.error
                + self.error * other.error
            )
        value = self.value * other.value
        exact: Any = True  # twice 24 bits fit in float64's 53
        if self.dtype == self.xp.float64:
            powers = [np.abs(np.frexp(x.value)[0]) == 0.5 for x in (self, other)]
            exact = (value == 0) | powers[0] | powers[1]
        return self.xp.rounded(value, error, self.dtype, exact=exact)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> BoundArray:
        other = self._lift(other)
        with np.errstate(all="ignore"):
            value = self.value / other.value
            room = np.abs(other.value) - other.error
            error = np.where(room > 0, (self.error + np.abs(value) * other.error) / room, math.inf)
        return self.xp.rounded(value, error, self.dtype, ulps=self.xp.model.div, exact=value == 0)

    def __rtruediv__(self, other: Any) -> BoundArray:
        return self._lift(other) / self

    def _compare(self, other: Any, holds: Any) -> BoundArray:
        other = self._lift(other)
        reach = self.error + other.error
        doubt = (reach > 0) & (np.abs(self.value - other.value) <= reach)
        return BoundArray(holds(self.value, other.value), doubt.astype(float), BOOL, self.xp)

    def __lt__(self, other: Any) -> BoundArray:
        return self._compare(other, np.less)

    def __gt__(self, other: Any) -> BoundArray:
        return self._compare(other, np.greater)

    def __eq__(self, other: object) -> BoundArray:  # type: ignore[override]  # elementwise
        return self._compare(other, np.equal)

    __hash__ = None  # type: ignore[assignment]  # elementwise equality

    def __and__(self, other: BoundArray) -> BoundArray:
        doubt = np.maximum(self.error, other.error)
        return BoundArray(self.value & other.value, doubt, BOOL, self.xp)


class BoundNamespace:
    """The functions of the array API standard that elementwise rules use, with bounds.

    A function that is missing has no bound: a rule that calls it raises `AttributeError`.

    Args:
        model: the arithmetic that the bound is for.
    """

    __name__ = "rootfree_conformance.namespaces.bound"
    int32 = INT32

    def __init__(self, model: NumericModel) -> None:
        self.model = model
        self.float64, self.float32 = FORMATS["float64"], FORMATS["float32"]

    def scalar(self, value: float, dtype: Format) -> BoundArray:
        """Return a 0-d array; a number that the format does not hold carries its rounding."""
        return self.rounded(np.float64(value), 0.0, dtype)

    def rounded(
        self,
        value: Any,
        error: Any,
        dtype: Format | Kind,
        *,
        ulps: float = 0.5,
        exact: Any = True,
    ) -> BoundArray:
        """Return a result with the cost of its rounding.

        Where the value is the ``exact`` result of operands without error, and the format holds it,
        it costs nothing: correct rounding returns it.
        """
        if isinstance(dtype, Kind):
            return BoundArray(value, 0.0, dtype, self)
        error = np.where(np.isnan(error), math.inf, error)  # what is not known is not bounded
        flushed = self.model.subnormals == "flushed"
        half = 1.0 if dtype.stochastic else 0.5
        eta = dtype.smallest_normal if flushed else dtype.smallest_subnormal * half
        with np.errstate(over="ignore", invalid="ignore"):
            cost = 2 * ulps * dtype.unit * (np.abs(value) + error) + eta
        held = quantise(value, dtype) == value
        if flushed:
            held = held & ((np.abs(value) >= dtype.smallest_normal) | (np.asarray(value) == 0))
        free = exact & held & (np.asarray(error) == 0)
        return BoundArray(value, np.where(free, 0.0, error + cost), dtype, self)

    def astype(self, x: BoundArray, dtype: Format | Kind, /) -> BoundArray:
        """Round to a narrower format; widening costs nothing."""
        if isinstance(dtype, Kind):
            return BoundArray(x.value.astype(np.int64), 0.0, dtype, self)
        value = x.value.astype(np.float64)
        if isinstance(x.dtype, Format) and x.dtype.bits <= dtype.bits:
            return BoundArray(value, x.error, dtype, self)
        return self.rounded(value, x.error, dtype)

    def where(self, condition: BoundArray, x: BoundArray, y: BoundArray, /) -> BoundArray:
        """Choose; where the condition is not certain the bound covers both branches."""
        value = np.where(condition.value, x.value, y.value)
        error = np.where(condition.value, x.error, y.error)
        other = np.where(condition.value, y.value, x.value)
        reach = np.abs(other - value) + np.where(condition.value, y.error, x.error)
        return BoundArray(
            value, np.where(condition.error > 0, np.maximum(error, reach), error), x.dtype, self
        )

    def maximum(self, x: BoundArray, y: BoundArray, /) -> BoundArray:
        """Rounds nothing."""
        return BoundArray(np.maximum(x.value, y.value), np.maximum(x.error, y.error), x.dtype, self)

    def abs(self, x: BoundArray, /) -> BoundArray:
        """Rounds nothing."""
        return BoundArray(np.abs(x.value), x.error, x.dtype, self)

    def sqrt(self, x: BoundArray, /) -> BoundArray:
        """The error is divided by the root, and never above its own root."""
        value = np.sqrt(x.value)
        low = np.sqrt(np.maximum(x.value - x.error, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(x.error > 0, x.error / (value + low), 0.0)
        error = np.minimum(slope, np.sqrt(x.error))
        return self.rounded(value, error, x.dtype, ulps=self.model.sqrt, exact=value == 0)

    def log1p(self, x: BoundArray, /) -> BoundArray:
        """The error is divided by the smallest argument of the logarithm."""
        room = 1 + x.value - x.error
        with np.errstate(divide="ignore"):
            error = np.where(room > 0, x.error / room, math.inf)
        return self.rounded(np.log1p(x.value), error, x.dtype, ulps=self.model.log1p, exact=False)

    def expm1(self, x: BoundArray, /) -> BoundArray:
        """The error is multiplied by the largest slope."""
        error = np.exp(x.value + x.error) * x.error
        return self.rounded(np.expm1(x.value), error, x.dtype, ulps=self.model.expm1, exact=False)

    def reshape(self, x: BoundArray, shape: tuple[int, ...], /) -> BoundArray:
        """The bound moves along."""
        return BoundArray(np.reshape(x.value, shape), np.reshape(x.error, shape), x.dtype, self)

    def full(
        self, shape: tuple[int, ...], value: float, *, dtype: Any, device: Any = None
    ) -> BoundArray:
        """Return an array of one number, rounded to its format."""
        kind = np.int64 if dtype == INT32 else np.float64
        return self.rounded(np.full(shape, value, dtype=kind), 0.0, dtype)

    def zeros(self, shape: tuple[int, ...], *, dtype: Any, device: Any = None) -> BoundArray:
        """Return zeros."""
        return self.full(shape, 0, dtype=dtype, device=device)

    def full_like(self, x: BoundArray, value: float, /, *, dtype: Any = None) -> BoundArray:
        """Return an array of one number like another."""
        return self.full(x.shape, value, dtype=dtype or x.dtype)

    def zeros_like(self, x: BoundArray, /) -> BoundArray:
        """Return zeros like an array."""
        return self.full_like(x, 0)

    def ones_like(self, x: BoundArray, /) -> BoundArray:
        """Return ones like an array."""
        return self.full_like(x, 1)

    def finfo(self, dtype: Format, /) -> SimpleNamespace:
        """Return the smallest normal number, all that the rules ask for."""
        return SimpleNamespace(smallest_normal=dtype.smallest_normal)
