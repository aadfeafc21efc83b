"""NumPy through the plain adapter; bfloat16 is storage by ml_dtypes, arithmetic is float32."""

import array_api_compat.numpy as xp
import ml_dtypes
import numpy as np

from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import HostArray, port_from_namespace

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def _to_device(host: HostArray, dtype: str) -> np.ndarray:
    return host.astype(DTYPES[dtype])


port = port_from_namespace(
    name="numpy",
    device="cpu",
    xp=xp,
    dtypes=dict.fromkeys(DTYPES, NumericModel()),
    to_device=_to_device,
    to_host=lambda array: array.astype(np.float64),
    proof=lambda: {"numpy": np.__version__, "ml_dtypes": ml_dtypes.__version__},
)
