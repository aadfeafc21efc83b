"""rootfree's methods for CuPy arrays: in place, on the parameters' device.

Not yet verified on a device: the code runs the rules that the conformance suite proves on other
namespaces, but no report of a GPU run exists. Importing works without a GPU; making an optimizer
without one raises `RuntimeError`.
"""

try:
    import cupy  # noqa: F401  # only to say what is missing
except ModuleNotFoundError as error:
    if error.name != "cupy":
        raise
    raise ModuleNotFoundError(
        'rootfree_cupy needs CuPy: pip install "rootfree[cupy]"', name="cupy"
    ) from None

try:
    import ml_dtypes  # noqa: F401  # without it CuPy has no bfloat16 loops, and does not say so
except ModuleNotFoundError as error:
    if error.name != "ml_dtypes":
        raise
    raise ModuleNotFoundError(
        'rootfree_cupy needs ml_dtypes: pip install "rootfree[cupy]"', name="ml_dtypes"
    ) from None

from rootfree_array import StalledStateWarning, capabilities

from rootfree_cupy._optimizer import (
    SGD,
    AdaGrad,
    AdamW,
    FullAdaGrad,
    RFAdaGrad,
    RFAdamW,
    RFFullMatrix,
    RFFullMatrixFactor,
    RFFullMatrixInverse,
    RFRMSProp,
    RFShampoo,
    RMSProp,
    Shampoo,
    SIRFShampoo,
    platform,
)

__all__ = [  # noqa: RUF022  # the catalogue's order
    "SGD",
    "AdaGrad",
    "RMSProp",
    "AdamW",
    "RFAdaGrad",
    "RFRMSProp",
    "RFAdamW",
    "FullAdaGrad",
    "RFFullMatrix",
    "RFFullMatrixInverse",
    "RFFullMatrixFactor",
    "Shampoo",
    "RFShampoo",
    "SIRFShampoo",
    "StalledStateWarning",
    "capabilities",
    "platform",
]
