"""Root-free adaptive optimizers: every update rule once, over the Python array API standard.

This package is the core and imports no framework; the adapters ``rootfree_torch``,
``rootfree_jax``, ``rootfree_cupy`` and ``rootfree_array`` bind it to one.

References:
    Lin, Dangel, Eschenhagen, Bae, Turner, Makhzani, Can We Remove the Square-Root in Adaptive
    Gradient Methods? A Second-Order Perspective, ICML 2024, arXiv 2402.03496.
"""

from rootfree._typing import Array, Hyper, Namespace, Rule, Scalar, State, curvature_scale
from rootfree._update import update
from rootfree.catalogue import METHODS, Method, method
from rootfree.curvature import DiagonalCurvature
from rootfree.descent import descend
from rootfree.diagonal import Diagonal, DiagonalState
from rootfree.precision import Precision, add_step, as_update, cast, scalars, store
from rootfree.signature import Arguments, arguments, check_hypers, docstring, signature
from rootfree.validation import check_choice, check_gradient, check_hyper, check_number

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "Arguments",
    "Array",
    "Diagonal",
    "DiagonalCurvature",
    "DiagonalState",
    "Hyper",
    "Method",
    "Namespace",
    "Precision",
    "Rule",
    "Scalar",
    "State",
    "add_step",
    "arguments",
    "as_update",
    "cast",
    "check_choice",
    "check_gradient",
    "check_hyper",
    "check_hypers",
    "check_number",
    "curvature_scale",
    "descend",
    "docstring",
    "method",
    "scalars",
    "signature",
    "store",
    "update",
]
