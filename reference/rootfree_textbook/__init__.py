"""The update rules of rootfree as a textbook states them: one parameter, float64, NumPy.

This package is a second derivation of every rule. It imports nothing of `rootfree` and is written
from the paper and the textbooks alone, so that a misreading on either side shows where the numbers
of the two are compared. Speed, stacks of parameters and low precision are the other's business: a
Kronecker product is formed, and a matrix inverted, wherever the formula says so.

* `diagonal`: SGD, AdaGrad, RMSProp, AdamW and their root-free forms, one function a method.
* `full_matrix`: full-matrix AdaGrad, and the root-free method in S, in S^-1 and in a factor of it.
* `kronecker`: Shampoo, root-free Shampoo, SIRF-Shampoo.
* `structures`: the classes of matrices that the factors of SIRF-Shampoo may belong to.
* `curvature`: what the matrix methods without a root take for the Hessian.
* `descent`: weight decay, heavy ball and learning rate, the end of every step.
* `methods`: all of them by name.
* `rounding`: what storing a number in bfloat16 does to it, to nearest and stochastically.

References:
    W. Lin, F. Dangel, R. Eschenhagen, J. Bae, R. E. Turner, A. Makhzani. Can We Remove the
    Square-Root in Adaptive Gradient Methods? A Second-Order Perspective. ICML 2024. arXiv
    2402.03496.
"""

from rootfree_textbook.descent import Array, State
from rootfree_textbook.diagonal import (
    adagrad,
    adamw,
    rf_adagrad,
    rf_adamw,
    rf_rmsprop,
    rmsprop,
    sgd,
)
from rootfree_textbook.full_matrix import (
    full_adagrad,
    rf_full_matrix,
    rf_full_matrix_factor,
    rf_full_matrix_inverse,
)
from rootfree_textbook.kronecker import rf_shampoo, shampoo, sirf_shampoo
from rootfree_textbook.methods import STEPS, init, step
from rootfree_textbook.rounding import round_stochastically, round_to_bfloat16

__all__ = [
    "STEPS",
    "Array",
    "State",
    "adagrad",
    "adamw",
    "full_adagrad",
    "init",
    "rf_adagrad",
    "rf_adamw",
    "rf_full_matrix",
    "rf_full_matrix_factor",
    "rf_full_matrix_inverse",
    "rf_rmsprop",
    "rf_shampoo",
    "rmsprop",
    "round_stochastically",
    "round_to_bfloat16",
    "sgd",
    "shampoo",
    "sirf_shampoo",
    "step",
]
