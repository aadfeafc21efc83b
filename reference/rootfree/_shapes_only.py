"""A namespace whose arrays have a shape and a dtype but no numbers, and which counts operations.

A rule that is called with such arrays says what it would allocate and compute. Nothing is
allocated, and nothing depends on values: an array that is asked for its truth refuses. What is
counted, by kind:

    products         2 m n k for an (m, n) by (n, k) product
    elementwise      1 for each number of the result, whatever the function and the dtype
    sums             1 for each number that a sum or a maximum is taken over
    decompositions   solve: 2/3 n^3 for the factors L and U, 2 n^2 for each right-hand side;
                     eigh: 9 n^3, the symmetric QR algorithm with eigenvectors

Casts, copies, transposes and constants count nothing.

References:
    Golub, Van Loan, Matrix Computations, 4th edition, 2013: sections 3.1 and 3.2 (solve), 8.3
    (eigh); leading terms.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from rootfree._typing import DType

Shape: TypeAlias = tuple[int, ...]
Operand: TypeAlias = "ShapeArray | float"


class ShapeArray:
    """An array without numbers, of a `ShapesOnly` namespace."""

    device = None

    def __init__(self, xp: ShapesOnly, shape: Shape, dtype: DType) -> None:
        self._xp = xp
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of numbers."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the numbers would take."""
        return self.size * itemsize(self.dtype)

    def __array_namespace__(self, *, api_version: str | None = None) -> ShapesOnly:
        return self._xp

    def __add__(self, other: Operand, /) -> ShapeArray:
        return self._xp.elementwise(self, other)

    __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __add__
    __and__ = __add__

    def __neg__(self) -> ShapeArray:
        return self._xp.elementwise(self)

    def __lt__(self, other: Operand, /) -> ShapeArray:
        return self._xp.elementwise(self, other, dtype=_BOOL)

    def __eq__(self, other: Any, /) -> ShapeArray:  # type: ignore[override]  # elementwise
        return self._xp.elementwise(self, other, dtype=_BOOL)

    __gt__ = __lt__
    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def __bool__(self) -> bool:
        raise TypeError("an array without numbers has no truth: no rule may branch on a value")

    def __getitem__(self, key: Any, /) -> ShapeArray:
        keys = key if isinstance(key, tuple) else (key,)
        place = keys.index(...) if ... in keys else len(keys)
        whole = (slice(None),) * (self.ndim - len(keys) + (... in keys))
        keys = (*keys[:place], *whole, *keys[place + 1 :])
        picked = [range(length)[entry] for length, entry in zip(self.shape, keys, strict=True)]
        shape = [len(entry) for entry in picked if isinstance(entry, range)]
        return self._xp.array(shape, self.dtype)


class _DType(NamedTuple):
    """A dtype that the namespace has of its own; all others come from the rule."""

    name: str
    itemsize: int


class _FInfo(NamedTuple):
    """Stands for the numbers of a floating-point dtype: shapes do not depend on them."""

    bits: int
    eps: float = 1.0
    max: float = 1.0
    smallest_normal: float = 1.0


_BOOL = _DType("bool", 1)


class ShapesOnly:
    """A namespace of the array API standard, as far as the rules use it, for `ShapeArray`.

    Attributes:
        flops: operations so far by kind, see the module. An array's operations are counted by the
            namespace that made it.
    """

    __name__ = __name__
    int32 = _DType("int32", 4)
    float32 = _DType("float32", 4)

    def __init__(self) -> None:
        self.flops: Counter[str] = Counter()
        self.linalg = _Linalg(self)

    def array(self, shape: Sequence[int], dtype: DType, **flops: int) -> ShapeArray:
        """Return an array, the result of so many operations: every array is made here."""
        self.flops.update(flops)
        return ShapeArray(self, tuple(shape), dtype)

    def elementwise(self, *operands: Operand, dtype: DType = None) -> ShapeArray:
        """Return the result of a function of corresponding numbers, with broadcasting.

        Raises:
            TypeError: if dtypes differ, for the rules never rely on promotion.
            ValueError: if shapes do not broadcast.
        """
        arrays = [x for x in operands if isinstance(x, ShapeArray)]
        if any(x.dtype != arrays[0].dtype for x in arrays):
            raise TypeError(f"dtypes differ: {', '.join(str(x.dtype) for x in arrays)}")
        shape = _broadcast(*(x.shape for x in arrays))
        result = arrays[0].dtype if dtype is None else dtype
        return self.array(shape, result, elementwise=math.prod(shape))

    def abs(self, x: ShapeArray, /) -> ShapeArray:
        return self.elementwise(x)

    expm1 = floor = log1p = sqrt = abs

    def maximum(self, x: Operand, y: Operand, /) -> ShapeArray:
        return self.elementwise(x, y)

    pow = nextafter = bitwise_and = bitwise_right_shift = bitwise_xor = maximum

    def where(self, condition: ShapeArray, x: ShapeArray, y: Operand, /) -> ShapeArray:
        return self.elementwise(ShapeArray(self, condition.shape, x.dtype), x, y)

    def sum(self, x: ShapeArray, /, *, axis: int | None = None) -> ShapeArray:
        left = [length for i, length in enumerate(x.shape) if i != _axis(axis, x.ndim)]
        return self.array(left if axis is not None else (), x.dtype, sums=x.size)

    max = sum

    def matmul(self, x: ShapeArray, y: ShapeArray, /) -> ShapeArray:
        (*outer, m, n), (*other, k, p) = x.shape, y.shape
        if n != k or x.dtype != y.dtype:
            raise ValueError(f"no product of {x.shape} {x.dtype} and {y.shape} {y.dtype}")
        shape = (*_broadcast(tuple(outer), tuple(other)), m, p)
        return self.array(shape, x.dtype, products=2 * n * math.prod(shape))

    def full(
        self, shape: Sequence[int], value: float, *, dtype: DType, device: None = None
    ) -> ShapeArray:
        return self.array(shape, dtype)

    def zeros(self, shape: Sequence[int], *, dtype: DType, device: None = None) -> ShapeArray:
        return self.array(shape, dtype)

    def eye(self, n_rows: int, /, *, dtype: DType, device: None = None) -> ShapeArray:
        return self.array((n_rows, n_rows), dtype)

    def arange(self, start: int, /, stop: int, *, dtype: DType, device: None = None) -> ShapeArray:
        return self.array((len(range(start, stop)),), dtype)

    def full_like(self, x: ShapeArray, value: float, /, *, dtype: DType = None) -> ShapeArray:
        return self.array(x.shape, x.dtype if dtype is None else dtype)

    def zeros_like(self, x: ShapeArray, /, *, dtype: DType = None) -> ShapeArray:
        return self.full_like(x, 0, dtype=dtype)

    ones_like = zeros_like

    def astype(self, x: ShapeArray, dtype: DType, /, *, copy: bool = True) -> ShapeArray:
        return self.array(x.shape, dtype)

    def tril(self, x: ShapeArray, /, *, k: int = 0) -> ShapeArray:
        return self.array(x.shape, x.dtype)

    triu = tril

    def flip(self, x: ShapeArray, /, *, axis: int | None = None) -> ShapeArray:
        return self.array(x.shape, x.dtype)

    def matrix_transpose(self, x: ShapeArray, /) -> ShapeArray:
        (*outer, m, n) = x.shape
        return self.array((*outer, n, m), x.dtype)

    def permute_dims(self, x: ShapeArray, axes: Shape, /) -> ShapeArray:
        if sorted(axes) != list(range(x.ndim)):
            raise ValueError(f"axes of {x.shape} cannot be permuted to {axes}")
        return self.array([x.shape[axis] for axis in axes], x.dtype)

    def reshape(self, x: ShapeArray, shape: Shape, /) -> ShapeArray:
        known = math.prod(length for length in shape if length != -1)
        full = [x.size // max(known, 1) if length == -1 else length for length in shape]
        if math.prod(full) != x.size:
            raise ValueError(f"{x.shape} cannot be reshaped to {shape}")
        return self.array(full, x.dtype)

    def expand_dims(self, x: ShapeArray, /, *, axis: int) -> ShapeArray:
        place = _axis(axis, x.ndim + 1)
        return self.array((*x.shape[:place], 1, *x.shape[place:]), x.dtype)

    def broadcast_to(self, x: ShapeArray, /, shape: Shape) -> ShapeArray:
        if _broadcast(x.shape, shape) != shape:
            raise ValueError(f"{x.shape} cannot be broadcast to {shape}")
        return self.array(shape, x.dtype)

    def concat(self, arrays: Sequence[ShapeArray], /, *, axis: int = 0) -> ShapeArray:
        place = _axis(axis, arrays[0].ndim)
        (before, after), *others = {(x.shape[:place], x.shape[place + 1 :]) for x in arrays}
        if others or any(x.dtype != arrays[0].dtype for x in arrays):
            raise ValueError(f"{[x.shape for x in arrays]} cannot be joined on axis {axis}")
        return self.array((*before, sum(x.shape[place] for x in arrays), *after), arrays[0].dtype)

    def stack(self, arrays: Sequence[ShapeArray], /, *, axis: int = 0) -> ShapeArray:
        return self.concat([self.expand_dims(x, axis=axis) for x in arrays], axis=axis)

    def take(self, x: ShapeArray, indices: ShapeArray, /, *, axis: int) -> ShapeArray:
        place = _axis(axis, x.ndim)
        return self.array((*x.shape[:place], *indices.shape, *x.shape[place + 1 :]), x.dtype)

    def finfo(self, dtype: DType, /) -> _FInfo:
        return _FInfo(8 * itemsize(dtype))


class _Linalg:
    """The decompositions of the namespace."""

    def __init__(self, xp: ShapesOnly) -> None:
        self._xp = xp

    def eigh(self, x: ShapeArray, /) -> tuple[ShapeArray, ShapeArray]:
        n = x.shape[-1]
        values = self._xp.array(x.shape[:-1], x.dtype)
        return values, self._xp.array(x.shape, x.dtype, decompositions=9 * n * x.size)

    def solve(self, x1: ShapeArray, x2: ShapeArray, /) -> ShapeArray:
        n = x1.shape[-1]
        if x2.shape[-2] != n or x1.dtype != x2.dtype:
            raise ValueError(f"no solution of {x1.shape} {x1.dtype} and {x2.shape} {x2.dtype}")
        flops = 2 * n * x1.size // 3 + 2 * n * x2.size
        return self._xp.array(x2.shape, x2.dtype, decompositions=flops)


def itemsize(dtype: DType) -> int:
    """Return the bytes of a number, from the dtype itself or from the bits in its name.

    Raises:
        TypeError: if it has neither.
    """
    size = getattr(dtype, "itemsize", None)
    if isinstance(size, int):
        return size
    found = re.search(r"(?:int|float|complex)(\d+)", str(dtype))
    if found is None:
        raise TypeError(f"a dtype must have an `itemsize` or bits in its name, got {dtype!r}")
    return int(found[1]) // 8


def _axis(axis: int | None, ndim: int) -> int:
    return range(ndim)[0 if axis is None else axis]


def _broadcast(*shapes: Shape) -> Shape:
    """Return the common shape."""
    ndim = max(map(len, shapes))
    padded = [(1,) * (ndim - len(shape)) + shape for shape in shapes]
    lengths = [set(column) - {1} or {1} for column in zip(*padded, strict=True)]
    if any(len(column) > 1 for column in lengths):
        raise ValueError(f"shapes do not broadcast: {', '.join(map(str, shapes))}")
    return tuple(length for (length,) in lengths)
