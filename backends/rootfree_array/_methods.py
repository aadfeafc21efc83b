"""One class for each method of the catalogue; all that differs comes from there."""

from __future__ import annotations

from rootfree_array._optimizer import Optimizer


class SGD(Optimizer, method="sgd"):
    """SGD."""


class AdaGrad(Optimizer, method="adagrad"):
    """AdaGrad."""


class RMSProp(Optimizer, method="rmsprop"):
    """RMSProp."""


class AdamW(Optimizer, method="adamw"):
    """AdamW."""


class RFAdaGrad(Optimizer, method="rf_adagrad"):
    """RF-AdaGrad."""


class RFRMSProp(Optimizer, method="rf_rmsprop"):
    """RF-RMSProp."""


class RFAdamW(Optimizer, method="rf_adamw"):
    """RF-AdamW."""


class FullAdaGrad(Optimizer, method="full_adagrad"):
    """Full-matrix AdaGrad."""


class RFFullMatrix(Optimizer, method="rf_full_matrix"):
    """Root-free full-matrix, inverse covariance."""


class RFFullMatrixInverse(Optimizer, method="rf_full_matrix_inverse"):
    """Root-free full-matrix, covariance."""


class RFFullMatrixFactor(Optimizer, method="rf_full_matrix_factor"):
    """Root-free full-matrix, factor of the covariance."""


class Shampoo(Optimizer, method="shampoo"):
    """Shampoo."""


class RFShampoo(Optimizer, method="rf_shampoo"):
    """Root-free Shampoo."""


class SIRFShampoo(Optimizer, method="sirf_shampoo"):
    """SIRF-Shampoo."""
