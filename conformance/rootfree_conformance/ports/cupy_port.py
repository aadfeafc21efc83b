"""CuPy on the current CUDA device; without one the port cannot be loaded, and says so."""

import array_api_compat.cupy as xp
import cupy
import numpy as np
import rootfree_cupy

from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import HostArray, NamespacePort

DTYPES = dict(rootfree_cupy.platform().dtypes)
DTYPES.pop("float16")


def _to_device(host: HostArray, dtype: str) -> "cupy.ndarray":
    return cupy.asarray(host).astype(DTYPES[dtype])


def _proof() -> dict[str, str]:
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {
        "cupy": cupy.__version__,
        "device": properties["name"].decode(),
        "capability": cupy.cuda.Device().compute_capability,
        "driver": str(cupy.cuda.runtime.driverGetVersion()),
    }


port = NamespacePort(
    name="cupy",
    device=f"cuda:{cupy.cuda.Device().id}",
    xp=xp,
    dtypes={
        name: NumericModel(native_products=name == "bfloat16", matmul_bits=None) for name in DTYPES
    },
    to_device=_to_device,
    to_host=lambda array: np.array(array.astype(cupy.float64).get()),
    sync=lambda: cupy.cuda.Device().synchronize(),
    proof=_proof,
    adapter="rootfree_cupy",
)
