"""The optimizers of `rootfree_array`, in place and on a CUDA device."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import array_api_compat.cupy as xp
import cupy
import ml_dtypes
from rootfree_array import Optimizer, Platform


def platform() -> Platform:
    """Return CuPy on the current device, with bfloat16 from ml_dtypes.

    Raises:
        RuntimeError: if there is no CUDA device.
    """
    if not cupy.cuda.is_available():
        raise RuntimeError("no CUDA device; rootfree_array runs the same rules on NumPy")
    dtypes = {
        "float64": cupy.dtype("float64"),
        "float32": cupy.dtype("float32"),
        "bfloat16": cupy.dtype(ml_dtypes.bfloat16),
        "float16": cupy.dtype("float16"),
    }
    return Platform(xp, MappingProxyType(dtypes), cupy.cuda.Device(), ("bfloat16", "float16"))


class _InPlace:
    """Writes into the parameters given, so that their pointers stay; needs a device."""

    def __init__(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        chosen = {"platform": platform(), "in_place": True, **kwargs}
        super().__init__(params, *args, **chosen)  # type: ignore[call-arg]  # Optimizer comes next


class SGD(_InPlace, Optimizer, method="sgd"):
    """SGD."""


class AdaGrad(_InPlace, Optimizer, method="adagrad"):
    """AdaGrad."""


class RMSProp(_InPlace, Optimizer, method="rmsprop"):
    """RMSProp."""


class AdamW(_InPlace, Optimizer, method="adamw"):
    """AdamW."""


class RFAdaGrad(_InPlace, Optimizer, method="rf_adagrad"):
    """RF-AdaGrad."""


class RFRMSProp(_InPlace, Optimizer, method="rf_rmsprop"):
    """RF-RMSProp."""


class RFAdamW(_InPlace, Optimizer, method="rf_adamw"):
    """RF-AdamW."""


class FullAdaGrad(_InPlace, Optimizer, method="full_adagrad"):
    """Full-matrix AdaGrad."""


class RFFullMatrix(_InPlace, Optimizer, method="rf_full_matrix"):
    """Root-free full-matrix, inverse covariance."""


class RFFullMatrixInverse(_InPlace, Optimizer, method="rf_full_matrix_inverse"):
    """Root-free full-matrix, covariance."""


class RFFullMatrixFactor(_InPlace, Optimizer, method="rf_full_matrix_factor"):
    """Root-free full-matrix, factor of the covariance."""


class Shampoo(_InPlace, Optimizer, method="shampoo"):
    """Shampoo."""


class RFShampoo(_InPlace, Optimizer, method="rf_shampoo"):
    """Root-free Shampoo."""


class SIRFShampoo(_InPlace, Optimizer, method="sirf_shampoo"):
    """SIRF-Shampoo."""
