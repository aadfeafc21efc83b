"""Every limit of the suite. None was chosen by looking at a port's errors, and none is a knob.

    exact      0       numbers that every correct arithmetic gives alike
    ratio      1       error over its bound: the rounding model, a theorem
    vacuity    1/8     bound over the largest number: above, a significant digit would be lost
    agreement  1e-12   core against textbook in float64: the rounding of a few dozen operations,
                       times the condition number of what a case solves with or decomposes

The ratio's denominator is enlarged by 2**-20 for the float64 arithmetic of the suite itself.
"""

from typing import Final

EXACT: Final = 0
RATIO: Final = 1.0
VACUITY: Final = 1 / 8
AGREEMENT: Final = 1e-12
SUITE_ROUNDING: Final = 2.0**-20
