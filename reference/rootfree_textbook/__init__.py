"""The update rules of rootfree as a textbook states them: one parameter, float64, NumPy.

This package is a second derivation of every rule. It imports nothing of `rootfree` and is written
from the paper and the textbooks alone, so that a misreading on either side shows where the numbers
of the two are compared. Speed, stacks of parameters and low precision are the other's business.

* `diagonal`: SGD, AdaGrad, RMSProp, AdamW and their root-free forms, one function a method.
* `rounding`: what storing a number in bfloat16 does to it, to nearest and stochastically.

References:
    W. Lin, F. Dangel, R. Eschenhagen, J. Bae, R. E. Turner, A. Makhzani. Can We Remove the
    Square-Root in Adaptive Gradient Methods? A Second-Order Perspective. ICML 2024. arXiv
    2402.03496.
"""

from rootfree_textbook.diagonal import (
    STEPS,
    Array,
    State,
    adagrad,
    adamw,
    init,
    rf_adagrad,
    rf_adamw,
    rf_rmsprop,
    rmsprop,
    sgd,
    step,
)
from rootfree_textbook.rounding import round_stochastically, round_to_bfloat16

__all__ = [
    "STEPS",
    "Array",
    "State",
    "adagrad",
    "adamw",
    "init",
    "rf_adagrad",
    "rf_adamw",
    "rf_rmsprop",
    "rmsprop",
    "round_stochastically",
    "round_to_bfloat16",
    "sgd",
    "step",
]
