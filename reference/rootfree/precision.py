"""Casts at the edges: inputs to the working dtype, state to its storage, steps into parameters.

Array libraries promote dtypes differently, so the rules leave nothing to promotion: each input is
cast once to ``working_dtype``, each new state array once to ``state_dtype``, and the step is added
to a parameter with one rounding. A 16-bit storage dtype can be rounded stochastically, with bits
that are equal in every namespace because they come from integer operations of the standard alone.

References:
    Croci, Fasi, Higham, Mary, Mikaitis, Stochastic Rounding: Implementation, Error Analysis and
    Applications, 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Final

from rootfree._typing import Array, DType, Hyper, Namespace, Rounding, Scalar, device, namespace

ROLES: Final = {"momentum": 1, "statistic": 2, "first_moment": 3, "root": 3}
"""Numbers of the state arrays in the key of their rounding bits; part of the saved state's meaning.
"""
_BY_AXIS: Final = {"factor": 4, "factor_momentum": 5, "statistic": 4, "root": 5}


def role_number(role: str) -> int:
    """Return the number of a state array in the key of its rounding bits.

    That of axis j is ``4 + 2 j`` or ``5 + 2 j``, and ``1024 i`` more for the i-th stored array of a
    structured factor.

    Args:
        role: ``"momentum"``, ``"statistic"``, ``"factor.1"``, ``"factor.1.0"``.
    """
    name, *indices = role.split(".")
    if not indices:
        return ROLES[name]
    axis, part = int(indices[0]), int(indices[1]) if len(indices) > 1 else 0
    return _BY_AXIS[name] + 2 * axis + 1024 * part


@dataclass(frozen=True)
class Precision:
    """Which dtype each kind of number has. The dtype objects come from the adapter.

    Attributes:
        working_dtype: elementwise arithmetic, norms and the step: float32, or float64.
        state_dtype: storage of the state.
        compute_dtype: inputs of matrix products; rules without products do not use it.
        product_dtype: in which the products of such inputs are taken; ``None`` for
            ``compute_dtype`` itself. A device without units for bfloat16 takes them in float32.
        rounding: how state is rounded when ``state_dtype`` is narrower than ``working_dtype``.
            ``"stochastic"`` needs bfloat16 storage and float32 arithmetic; the adapter sees to it.
        narrow_range: whether ``compute_dtype`` has fewer exponent bits than float32, as float16:
            then inputs of products are scaled so that neither they nor the results overflow.
    """

    working_dtype: DType
    state_dtype: DType
    compute_dtype: DType
    rounding: Rounding = "nearest"
    product_dtype: DType = None
    narrow_range: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown rounding."""
        if self.rounding not in ("nearest", "stochastic"):
            raise ValueError(f"`rounding` must be 'nearest' or 'stochastic', got {self.rounding!r}")

    @classmethod
    def uniform(cls, dtype: DType) -> Precision:
        """Return the policy in which everything has one dtype."""
        return cls(working_dtype=dtype, state_dtype=dtype, compute_dtype=dtype)

    def matmul(self, one: Array, other: Array) -> Array:
        """Return the matrix product of two stacks, in the working dtype.

        The inputs are rounded to ``compute_dtype`` first.
        """
        taken_in = self.compute_dtype if self.product_dtype is None else self.product_dtype
        a, b = (cast(cast(x, self.compute_dtype), taken_in) for x in (one, other))
        return cast(namespace(a, b).matmul(a, b), self.working_dtype)


def cast(x: Array, dtype: DType) -> Array:
    """Return ``x`` in ``dtype``, rounded to nearest where that is narrower."""
    return x if x.dtype == dtype else namespace(x).astype(x, dtype)


def scalars(hyper: Hyper, dtype: DType) -> Hyper:
    """Return ``hyper`` with Python floats for numbers and 0-d arrays of ``dtype`` for arrays.

    A NumPy scalar is a number here: as an array it would widen float32 arithmetic to float64.
    """

    def scalar(value: Scalar) -> Scalar:
        return float(value) if isinstance(value, Real) else cast(value, dtype)  # type: ignore[arg-type]  # a Real that is no Array

    return Hyper(*map(scalar, hyper))


def is_zero(value: Scalar) -> bool:
    """Return whether a scalar is 0 for good: a Python number can be, an array is not read."""
    return isinstance(value, Real) and float(value) == 0


def per_member(x: Array, like: Array) -> Array:
    """Return ``x`` of shape ``(n,)`` reshaped to ``(n, 1, ...)``, to broadcast over ``like``."""
    return namespace(x).reshape(x, (-1,) + (1,) * (like.ndim - 1))


def store(x: Array, precision: Precision, *, role: str, step: Array, salt: Array | None) -> Array:
    """Return the state array ``x`` as it is kept: in ``state_dtype``, rounded once.

    Args:
        x: a new state array ``(n, *shape)`` in the working dtype.
        precision: the policy.
        role: the array's name in the state, see `role_number`.
        step: updates applied before this one, ``(n,)``.
        salt: key of each member's rounding bits, ``(n,)`` int32; ``None`` with nearest rounding.
    """
    if precision.rounding == "nearest" or salt is None or x.dtype == precision.state_dtype:
        return cast(x, precision.state_dtype)
    return round_stochastically(
        x, precision.state_dtype, role=role_number(role), count=step, salt=salt
    )


def add_step(param: Array, step: Array) -> Array:
    """Return ``param + step`` in the parameter's dtype, with one rounding.

    Where the step is zero the parameter keeps every bit, the sign of a zero included.
    """
    xp = namespace(param, step)
    moved = cast(cast(param, step.dtype) + step, param.dtype)
    return xp.where(step == 0, param, moved)


def as_update(step: Array, dtype: DType) -> Array:
    """Return ``step`` rounded to ``dtype``, for frameworks that add it to the parameter themselves.

    A zero step becomes -0.0, the one number whose addition changes no bit of a parameter.
    """
    xp = namespace(step)
    return cast(xp.where(step == 0, -xp.zeros_like(step), step), dtype)


def round_stochastically(x: Array, dtype: DType, *, role: int, count: Array, salt: Array) -> Array:
    """Round float32 to bfloat16, up with the probability that makes the mean exact.

    With ``f`` the distance of ``|x|`` to the bfloat16 number below it, in units of the spacing,
    the result is the number above if ``r < f`` and the number below otherwise, where ``r`` has 16
    random bits in [0, 1). The bits are a hash of the element's row-major index inside its member,
    the member's count and salt, and the role: they do not depend on the stack, the step's order of
    execution or the library. Numbers that bfloat16 can hold never change.

    Args:
        x: ``(n, *shape)``, float32.
        dtype: the namespace's bfloat16.
        role: a value of `ROLES`.
        count: updates applied to each member before this one, ``(n,)``.
        salt: each member's key, ``(n,)`` int32.
    """
    xp = namespace(x)
    r = cast(_random_bits(x, role=role, count=count, salt=salt, xp=xp), x.dtype) * 2.0**-16
    magnitude = xp.abs(x)
    largest = float(xp.finfo(x.dtype).max)
    # NOTE: below 2^-103 a device that flushes subnormals loses the spacing; the largest has none.
    usable = (magnitude > _NO_SPACING) & (magnitude < largest)
    magnitude = xp.where(usable, magnitude, xp.ones_like(x))
    # NOTE: nextafter gives float32's spacing; bfloat16 keeps 16 bits fewer, hence 2^16 times that.
    above = xp.nextafter(magnitude, xp.full_like(x, math.inf))
    spacing = (above - magnitude) * 65536.0
    units = magnitude / spacing
    below = xp.floor(units)
    rounded = (below + cast(r < units - below, x.dtype)) * spacing
    rounded = xp.where(x < 0, -rounded, rounded)
    return cast(xp.where(usable, rounded, x), dtype)


def _random_bits(x: Array, *, role: int, count: Array, salt: Array, xp: Namespace) -> Array:
    """Return 16 random bits for each element of ``x`` as int32 in [0, 65536)."""
    member = x.shape[1:]
    count_up = xp.arange(0, math.prod(member), dtype=xp.int32, device=device(x))
    # NOTE: the mask changes nothing. Without it torch's compiler takes the product below for
    # another arange, whose step overflows, undefined in C++: tails of vectors were not written.
    index = xp.reshape(xp.bitwise_and(count_up, 2**31 - 1), (1, *member))
    key = _mix(per_member(salt, x) + _int32(role * _C1), xp=xp)
    clock = cast(per_member(count, x), xp.int32) * _int32(_C2)
    return xp.bitwise_and(_mix(index * _int32(_C1) + clock + key, xp=xp), 0xFFFF)


def _mix(x: Array, *, xp: Namespace) -> Array:
    """Return the finaliser of MurmurHash3 on int32, with wrap-around products."""
    x = xp.bitwise_xor(x, _shift_right(x, 16, xp=xp)) * _int32(0x85EBCA6B)
    x = xp.bitwise_xor(x, _shift_right(x, 13, xp=xp)) * _int32(0xC2B2AE35)
    return xp.bitwise_xor(x, _shift_right(x, 16, xp=xp))


def _shift_right(x: Array, bits: int, *, xp: Namespace) -> Array:
    """Return the logical shift, made of the arithmetic one of signed integers and a mask."""
    return xp.bitwise_and(xp.bitwise_right_shift(x, bits), 2 ** (32 - bits) - 1)


_NO_SPACING: Final = 2.0**-103 * (1 - 2.0**-24)  # the float32 number before 2^-103
_C1: Final = 0x9E3779B9
_C2: Final = 0x7F4A7C15


def _int32(constant: int) -> int:
    """Return the signed 32-bit number with the low 32 bits of ``constant``."""
    return (constant + 2**31) % 2**32 - 2**31
