"""The sets of parameter shapes that are raced on, and numbers to fill them with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = tuple[Shape, ...]

GRADIENT_SCALE: Final = 1e-2
"""Standard deviation of the gradients."""
PARAMETER_SCALE: Final = 2e-2
"""Standard deviation of the parameters."""


def _convolution(channels_out: int, channels_in: int) -> Shapes:
    return ((channels_out, channels_in, 3, 3), (channels_out,))


SETS: Final[dict[str, Shapes]] = {
    # Four large matrices: a step is memory traffic and nothing else.
    "4x2048^2": 4 * ((2048, 2048),),
    # Four blocks of a transformer of width 256: attention, projection, perceptron; norms.
    "gpt4x256": 4 * ((768, 256), (256, 256), (1024, 256), (256, 1024)) + 16 * ((256,),),
    # Square layers with biases.
    "mlp3x512": 6 * ((512, 512), (512,)),
    # A small convolutional network.
    "conv": (
        *_convolution(64, 3),
        *4 * _convolution(64, 64),
        *_convolution(128, 64),
        *3 * _convolution(128, 128),
    ),
    # A smoke test's: everything that happens on the others happens here, in no time.
    "tiny": 2 * ((6, 4), (4, 6), (4,)) + ((4, 3, 2, 2),),
}
"""Shapes by the names that the results have for them."""


@lru_cache(maxsize=2)  # all of a race have the same parameters and gradients
def normal(shapes: Shapes, seed: int, scale: float) -> tuple[NDArray[np.float32], ...]:
    """Return a float32 array of normal numbers for each shape, for the caller to copy.

    Args:
        shapes: of the arrays.
        seed: of the numbers; the same seed gives the same numbers.
        scale: their standard deviation.
    """
    generator = np.random.default_rng(seed)
    unit = np.float32(scale)
    return tuple(unit * generator.standard_normal(shape, np.float32) for shape in shapes)


def largest_stack(shapes: Sequence[Shape]) -> int:
    """Return the float32 bytes of all parameters of one shape, for the shape with the most."""
    return max(4 * count * prod(shape) for shape, count in Counter(shapes).items())
