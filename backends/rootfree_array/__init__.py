"""The plain adapter: rootfree's methods on any namespace of the Python array API standard.

NumPy in float64 through it is the first port that the conformance suite judges; a new array library
needs no adapter of its own.

Example:
    >>> import numpy as np
    >>> from rootfree_array import RFRMSProp
    >>> optimizer = RFRMSProp({"w": np.ones(2)}, lr=0.5, momentum=0.0)
    >>> optimizer.step({"w": np.asarray([1.0, -1.0])}, batch_size=8)
    >>> optimizer.params["w"].round(3).tolist()
    [0.561, 1.439]
"""

from rootfree_array._functional import init, update
from rootfree_array._methods import (
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
)
from rootfree_array._optimizer import Optimizer
from rootfree_array._platform import Platform, capabilities
from rootfree_array._precision import StalledStateWarning

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
    "Optimizer",
    "Platform",
    "StalledStateWarning",
    "capabilities",
    "init",
    "update",
]
