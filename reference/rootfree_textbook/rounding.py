"""Storing numbers in bfloat16, by the bit pattern of the float32 that holds them.

A bfloat16 is the upper half of a float32: the sign, the same 8 exponent bits and the first 7 of
the 23 fraction bits. Read as an integer, the pattern of a float32 numbers the magnitudes in their
order, across powers of two and down through the subnormal numbers. Rounding is therefore integer
arithmetic: add a number of 16 bits to the pattern and clear its lower half.

    to nearest, ties to even    add 2^15 - 1, and 1 more if the upper half is odd
    stochastically              add a number drawn evenly from 0 ... 2^16 - 1

Both functions take and return float64 arrays, which hold every float32 and bfloat16 exactly.

References:
    M. Croci, M. Fasi, N. J. Higham, T. Mary, M. Mikaitis. Stochastic Rounding: Implementation,
    Error Analysis and Applications. 2022. The hash ends as MurmurHash3 (A. Appleby, 32 bits) does.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

LOW_32: Final = 0xFFFFFFFF
LOW_16: Final = 0x0000FFFF
HIGH_16: Final = 0xFFFF0000
C1: Final = 0x9E3779B9
C2: Final = 0x7F4A7C15
SMALLEST_SPACED: Final = 2.0**-103
FLOAT32_MAX: Final = float(np.finfo(np.float32).max)


def round_to_bfloat16(x: Array) -> Array:
    """Round to the nearest bfloat16, of two equally near ones to the even one.

    Args:
        x: float32 values, any shape. A value that is no float32 is rounded to one first.

    Returns:
        bfloat16 values, shape of `x`. Magnitudes from 2^128 - 2^119 on become infinite. Infinities,
        NaN and the sign of a zero are kept.

    Example:
        >>> round_to_bfloat16(np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8]))
        array([1.      , 1.      , 1.015625])
    """
    rounded = [(bits + 0x7FFF + ((bits >> 16) & 1)) & HIGH_16 for bits in _bit_patterns(x)]
    # The largest patterns are NaN: adding to them may end beyond them.
    return np.where(np.isnan(x), np.nan, _values(rounded, x.shape))


def round_stochastically(x: Array, *, role: int, count: int, salt: int) -> Array:
    """Round to one of the two neighbouring bfloat16 numbers, so that the mean is kept.

    Let k be the 16 random bits of an entry and f in [0, 1) the distance of its magnitude from the
    lower neighbour, in units of the spacing. The magnitude is rounded up where k 2^-16 < f. Both
    sides are multiples of 2^-16, so this is the carry out of the lower half of the pattern when
    65535 - k is added, and the probability of rounding up is f exactly. A bfloat16 number has f = 0
    and never changes.

        fmix(z)   z ^= z >> 16;  z *= 0x85EBCA6B;  z ^= z >> 13;  z *= 0xC2B2AE35;  z ^= z >> 16
        key       fmix(salt + role C1)
        k         lower 16 bits of fmix(entry C1 + count C2 + key)

    all modulo 2^32; the entries of the parameter are numbered in row-major order from 0.

    Args:
        x: float32 values of one array of the state of one parameter, any shape. A value that is no
            float32 is rounded to one first.
        role: which array of the state: 1 heavy ball, 2 statistic, 3 average of gradients.
        count: updates applied to the parameter.
        salt: the parameter's own key, any integer.

    Returns:
        bfloat16 values, shape of `x`. Below 2^-103, and where there is no spacing (at the largest
        float32, infinities and NaN), they are rounded to nearest.

    Example:
        >>> round_stochastically(np.full(4, 1 + 2**-8), role=2, count=1, salt=0)
        array([1.0078125, 1.       , 1.       , 1.       ])
    """
    # NOTE: hardware that flushes subnormal numbers to zero loses the spacing of magnitudes below
    # 2^-103. They are rounded to nearest everywhere, so that the bits do not depend on it.
    key = _fmix(salt + role * C1)
    drawn = []
    for entry, bits in enumerate(_bit_patterns(x)):
        k = _fmix(entry * C1 + count * C2 + key) & LOW_16
        drawn.append((bits + LOW_16 - k) & HIGH_16)
    magnitude = np.abs(x.astype(np.float32))
    spaced = (magnitude >= SMALLEST_SPACED) & (magnitude < FLOAT32_MAX)
    return np.where(spaced, _values(drawn, x.shape), round_to_bfloat16(x))


def _fmix(z: int) -> int:
    """Scramble an integer modulo 2^32."""
    z &= LOW_32
    z ^= z >> 16
    z = (z * 0x85EBCA6B) & LOW_32
    z ^= z >> 13
    z = (z * 0xC2B2AE35) & LOW_32
    return z ^ (z >> 16)


def _bit_patterns(x: Array) -> list[int]:
    """The 32 bits of every number as a float32, in row-major order."""
    return [int(bits) for bits in x.astype(np.float32).ravel().view(np.uint32)]


def _values(patterns: list[int], shape: tuple[int, ...]) -> Array:
    """The numbers with these 32 bits."""
    single = np.array(patterns, dtype=np.uint32).view(np.float32)
    return single.astype(np.float64).reshape(shape)
