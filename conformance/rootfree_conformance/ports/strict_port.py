"""array_api_strict at its strictest, on a device that is not the default one."""

import array_api_strict as xp
import numpy as np

from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import HostArray, port_from_namespace

xp.set_array_api_strict_flags(
    api_version="2024.12",
    boolean_indexing=False,
    data_dependent_shapes=False,
    enabled_extensions=("linalg",),  # of the methods that declare decompositions
)
DEVICE = xp.Device("device1")
DTYPES = {"float64": xp.float64, "float32": xp.float32}


def _to_device(host: HostArray, dtype: str) -> object:
    return xp.asarray(host, dtype=DTYPES[dtype], device=DEVICE)


def _to_host(array: object) -> HostArray:
    on_cpu = array.to_device(xp.Device("CPU_DEVICE"))  # type: ignore[attr-defined]  # an array
    return np.array(on_cpu, dtype=np.float64)


port = port_from_namespace(
    name="array_api_strict",
    device="device1",
    xp=xp,
    dtypes=dict.fromkeys(DTYPES, NumericModel()),
    to_device=_to_device,
    to_host=_to_host,
    proof=lambda: {"array_api_strict": xp.__version__, **{k: str(v) for k, v in _flags().items()}},
)


def _flags() -> dict[str, object]:
    return dict(xp.get_array_api_strict_flags())
