"""Numbers for cases: SplitMix64 from a text, the same on every machine, no library's stream.

References:
    Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray


def uniform(seed: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return numbers in [0, 1), multiples of 2**-53."""
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little")
    count = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(start) + count * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def normal(seed: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return nearly normal numbers: twelve uniform ones added up, less six.

    Additions alone give the same bits everywhere, which a logarithm would not.
    """
    return np.asarray(sum(uniform(f"{seed}/{i}", shape) for i in range(12))) - 6.0
