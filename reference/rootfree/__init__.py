"""Root-free adaptive optimizers: every update rule once, over the Python array API standard.

This package is the core and imports no framework; the adapters ``rootfree_torch``,
``rootfree_jax``, ``rootfree_cupy`` and ``rootfree_array`` bind it to one.

References:
    Lin, Dangel, Eschenhagen, Bae, Turner, Makhzani, Can We Remove the Square-Root in Adaptive
    Gradient Methods? A Second-Order Perspective, ICML 2024, arXiv 2402.03496.
"""

from rootfree._typing import Array, Hyper, Namespace, Rule, Scalar, State, curvature_scale
from rootfree._update import advanced, observed, update
from rootfree.catalogue import METHODS, Method, method
from rootfree.curvature import (
    CURVATURES,
    Curvature,
    DiagonalCurvature,
    KroneckerCurvature,
    MatrixCurvature,
    OuterProductCurvature,
    as_curvature,
    check_curvature,
    mapped,
)
from rootfree.descent import descend
from rootfree.diagonal import Diagonal, DiagonalState
from rootfree.full_matrix import FullMatrix, FullMatrixState
from rootfree.plan import Plan, PlanRow, plan
from rootfree.precision import Precision, add_step, as_update, cast, is_zero, scalars, store
from rootfree.schedule import observes, phases, slices
from rootfree.shampoo import Shampoo, ShampooState
from rootfree.signature import (
    Arguments,
    arguments,
    check_hypers,
    check_together,
    docstring,
    signature,
)
from rootfree.sirf_shampoo import SIRFShampoo, SIRFShampooState
from rootfree.state import roles, with_roles
from rootfree.validation import check_choice, check_gradient, check_hyper, check_number

__version__ = "0.1.0"

__all__ = [
    "CURVATURES",
    "METHODS",
    "Arguments",
    "Array",
    "Curvature",
    "Diagonal",
    "DiagonalCurvature",
    "DiagonalState",
    "FullMatrix",
    "FullMatrixState",
    "Hyper",
    "KroneckerCurvature",
    "MatrixCurvature",
    "Method",
    "Namespace",
    "OuterProductCurvature",
    "Plan",
    "PlanRow",
    "Precision",
    "Rule",
    "SIRFShampoo",
    "SIRFShampooState",
    "Scalar",
    "Shampoo",
    "ShampooState",
    "State",
    "add_step",
    "advanced",
    "arguments",
    "as_curvature",
    "as_update",
    "cast",
    "check_choice",
    "check_curvature",
    "check_gradient",
    "check_hyper",
    "check_hypers",
    "check_number",
    "check_together",
    "curvature_scale",
    "descend",
    "docstring",
    "is_zero",
    "mapped",
    "method",
    "observed",
    "observes",
    "phases",
    "plan",
    "roles",
    "scalars",
    "signature",
    "slices",
    "store",
    "update",
    "with_roles",
]
