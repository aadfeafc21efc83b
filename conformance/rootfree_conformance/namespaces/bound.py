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
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rootfree_conformance.namespaces import products, spectral
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
        nothing = [(x.value == 0) & (x.error == 0) for x in (self, other)]
        error = self.error + other.error
        return self.xp.rounded(
            total, error, self.dtype, exact=lost == 0, kept=nothing[0] | nothing[1]
        )

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
        powers = [(np.abs(np.frexp(x.value)[0]) == 0.5) & (x.error == 0) for x in (self, other)]
        scaled = powers[0] | powers[1]  # by a power of two: no digit is lost above underflow
        large = np.abs(value) - error >= self.xp.float32.smallest_normal
        exact: Any = True  # twice 24 bits fit in float64's 53
        if self.dtype == self.xp.float64:
            exact = (value == 0) | scaled
        return self.xp.rounded(value, error, self.dtype, exact=exact, kept=scaled & large)

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

    def __getitem__(self, key: Any) -> BoundArray:
        return BoundArray(self.value[key], self.error[key], self.dtype, self.xp)


class BoundNamespace:
    """The functions of the array API standard that the rules use, with bounds.

    A function that is missing has no bound: a rule that calls it raises `AttributeError`.

    Args:
        model: the arithmetic that the bound is for.

    Attributes:
        linalg: solves and eigenvalues, see `products` and `spectral`.
        condition: the largest condition number of a matrix that was solved with or decomposed;
            1 if none was.
    """

    __name__ = "rootfree_conformance.namespaces.bound"
    int32 = INT32

    def __init__(self, model: NumericModel) -> None:
        self.model = model
        self.float64, self.float32 = FORMATS["float64"], FORMATS["float32"]
        self.linalg = SimpleNamespace(solve=self._solve, eigh=self._eigh)
        self.condition = 1.0

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
        kept: Any = False,
    ) -> BoundArray:
        """Return a result with the cost of its rounding.

        Where the value is the ``exact`` result of operands without error, and the format holds it,
        it costs nothing: correct rounding returns it. Nor does it where the result is ``kept``:
        whatever number of the format an operand was, the result is one too.
        """
        if isinstance(dtype, Kind):
            return BoundArray(value, 0.0, dtype, self)
        error = np.where(np.isnan(error), math.inf, error)  # what is not known is not bounded
        flushed = self.model.subnormals == "flushed"
        eta = self.underflow(dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            cost = 2 * ulps * dtype.unit * (np.abs(value) + error) + eta
        held = quantise(value, dtype) == value
        if flushed:
            held = held & ((np.abs(value) >= dtype.smallest_normal) | (np.asarray(value) == 0))
        free = exact & held & (np.asarray(error) == 0)
        return BoundArray(value, error + np.where(free | kept, 0.0, cost), dtype, self)

    def underflow(self, dtype: Format) -> float:
        """Return the largest absolute error of rounding a number below the normal ones."""
        if self.model.subnormals == "flushed":
            return dtype.smallest_normal
        return dtype.smallest_subnormal * (1.0 if dtype.stochastic else 0.5)

    def accumulator(self, dtype: Format) -> float:
        """Return the unit roundoff of the sums inside a matrix product."""
        bits = self.model.accumulator_bits
        if dtype == self.float64:
            bits = dtype.bits
        return 2.0 ** (1 - bits if self.model.accumulator_rounding == "truncate" else -bits)

    def astype(self, x: Any, dtype: Any, /, *, copy: bool = True) -> Any:
        """Round to a narrower format; widening costs nothing."""
        if isinstance(x, spectral.Part):
            return x.astype(dtype)
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

    def maximum(self, x: Any, y: BoundArray, /) -> Any:
        """Rounds nothing."""
        if isinstance(x, spectral.Part):
            return x.maximum(y)
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

    def pow(self, x: spectral.Part, exponent: BoundArray, /) -> spectral.Part:
        """Of eigenvalues only."""
        return x.power(exponent)

    def sum(self, x: BoundArray, /, *, axis: int | None = None) -> BoundArray:
        """Any order of adding up; what is 0 for certain rounds nothing."""
        value, error = products.total(x.value, x.error, axis, _format(x).unit)
        return BoundArray(value, np.where(np.isnan(error), math.inf, error), x.dtype, self)

    def max(self, x: BoundArray, /, *, axis: int | None = None) -> BoundArray:
        """Rounds nothing."""
        return BoundArray(np.max(x.value, axis=axis), np.max(x.error, axis=axis), x.dtype, self)

    def matmul(self, x: Any, y: Any, /) -> BoundArray:
        """Any order of adding up, in the accumulator declared, of inputs in the bits declared."""
        if isinstance(x, spectral.Part):
            made: BoundArray = x.matmul(y)
            return made
        if x.dtype != y.dtype:
            raise TypeError(f"{x.dtype} and {y.dtype} are mixed in one product")
        bits = self.model.matmul_bits
        narrowed = 0.0 if bits is None or bits >= x.dtype.bits else 2.0**-bits
        loss = [narrowed * (np.abs(a.value) + a.error) if narrowed else 0.0 for a in (x, y)]
        value, error, terms = products.product(
            *((a.value, a.error + more) for a, more in zip((x, y), loss, strict=True)),
            unit=self.accumulator(x.dtype),
            underflow=self.underflow(x.dtype),
        )
        return self.rounded(value, error, x.dtype, exact=terms == 0)

    def _solve(self, a: BoundArray, b: BoundArray, /) -> BoundArray:
        """By elimination; see `products.solution`."""
        value, error, condition = products.solution(
            (a.value, a.error), (b.value, b.error), _format(a).unit, self.underflow(_format(a))
        )
        self.condition = max(self.condition, condition)
        return self.rounded(value, error, a.dtype, exact=error == 0)

    def _eigh(self, a: BoundArray, /) -> tuple[spectral.Part, spectral.Part]:
        """Return eigenvalues and eigenvectors, of which functions of the matrix can be made."""
        return spectral.eigh(a)

    def reshape(self, x: BoundArray, shape: tuple[int, ...], /) -> BoundArray:
        """The bound moves along."""
        return self._moved(np.reshape, x, shape)

    def permute_dims(self, x: BoundArray, axes: tuple[int, ...], /) -> BoundArray:
        """The bound moves along."""
        return self._moved(np.transpose, x, axes)

    def matrix_transpose(self, x: Any, /) -> Any:
        """The bound moves along."""
        return x.turned() if isinstance(x, spectral.Part) else self._moved(np.swapaxes, x, -1, -2)

    def expand_dims(self, x: Any, /, *, axis: int) -> Any:
        """The bound moves along."""
        return x if isinstance(x, spectral.Part) else self._moved(np.expand_dims, x, axis)

    def broadcast_to(self, x: BoundArray, /, shape: tuple[int, ...]) -> BoundArray:
        """The bound moves along."""
        return self._moved(np.broadcast_to, x, shape)

    def flip(self, x: BoundArray, /, *, axis: int | None = None) -> BoundArray:
        """The bound moves along."""
        return self._moved(np.flip, x, axis)

    def tril(self, x: BoundArray, /, *, k: int = 0) -> BoundArray:
        """What is cut off is 0 without error."""
        return self._moved(np.tril, x, k)

    def triu(self, x: BoundArray, /, *, k: int = 0) -> BoundArray:
        """What is cut off is 0 without error."""
        return self._moved(np.triu, x, k)

    def concat(self, arrays: Sequence[BoundArray], /, *, axis: int = 0) -> BoundArray:
        """The bounds move along."""
        return self._joined(np.concatenate, arrays, axis)

    def stack(self, arrays: Sequence[BoundArray], /, *, axis: int = 0) -> BoundArray:
        """The bounds move along."""
        return self._joined(np.stack, arrays, axis)

    def _moved(self, function: Any, x: BoundArray, *args: Any) -> BoundArray:
        return BoundArray(function(x.value, *args), function(x.error, *args), x.dtype, self)

    def _joined(self, function: Any, arrays: Sequence[BoundArray], axis: int) -> BoundArray:
        first, *rest = arrays
        if any(x.dtype != first.dtype for x in rest):
            raise TypeError(f"{[x.dtype for x in arrays]} are mixed in one array")
        value, error = (
            function([getattr(x, part) for x in arrays], axis=axis) for part in ("value", "error")
        )
        return BoundArray(value, error, first.dtype, self)

    def arange(self, start: int, /, stop: int, *, dtype: Any, device: Any = None) -> BoundArray:
        """Return integers."""
        return self.rounded(np.arange(start, stop, dtype=np.float64), 0.0, dtype)

    def eye(self, size: int, /, *, dtype: Any, device: Any = None) -> BoundArray:
        """Return the identity."""
        return self.rounded(np.eye(size), 0.0, dtype)

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

    def zeros_like(self, x: BoundArray, /, *, dtype: Any = None) -> BoundArray:
        """Return zeros like an array."""
        return self.full_like(x, 0, dtype=dtype)

    def ones_like(self, x: BoundArray, /) -> BoundArray:
        """Return ones like an array."""
        return self.full_like(x, 1)

    def finfo(self, dtype: Format, /) -> SimpleNamespace:
        """Return the smallest normal number, all that the rules ask for."""
        return SimpleNamespace(smallest_normal=dtype.smallest_normal)


def _format(x: BoundArray) -> Format:
    """Return the format of an array of real numbers."""
    if not isinstance(x.dtype, Format):
        raise TypeError(f"an array of {x.dtype} has no rounding")
    return x.dtype
