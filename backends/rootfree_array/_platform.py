"""What the adapter must know of an array library: namespace, device and dtypes by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final

import array_api_compat
from rootfree import Array

from rootfree_array._precision import PARAMETER_DTYPES

_CACHED: Final = 2**18  # numbers: 1 MB in float32, measured to be best between 2**15 and 2**19


@dataclass(frozen=True)
class Platform:
    """An array library on a device.

    Args:
        xp: namespace of the array API standard.
        dtypes: its dtype objects by name, of `float64, float32, bfloat16, float16` those it has.
        device: where new arrays go, in the library's own terms; ``None`` for its default.
        native: names of the 16-bit dtypes whose matrix products the device takes with float32
            accumulation; products of others are taken in float32.
    """

    xp: Any
    dtypes: Mapping[str, Any]
    device: Any = None
    native: Collection[str] = ()

    @classmethod
    def of(cls, arrays: Iterable[Array]) -> Platform:
        """Return the platform that ``arrays`` belong to, with the dtypes its namespace names.

        NumPy's bfloat16 is that of ml_dtypes, where it is installed.

        Raises:
            TypeError: if they are not arrays of one library.
        """
        arrays = list(arrays)
        xp = array_api_compat.array_namespace(*arrays)
        dtypes = {name: getattr(xp, name) for name in PARAMETER_DTYPES if hasattr(xp, name)}
        if array_api_compat.is_numpy_namespace(xp) and find_spec("ml_dtypes") is not None:
            import ml_dtypes

            dtypes["bfloat16"] = xp.dtype(ml_dtypes.bfloat16)
        device = array_api_compat.device(arrays[0]) if arrays else None
        return cls(xp, MappingProxyType(dtypes), device)

    def dtype_name(self, dtype: Any) -> Any:
        """Return the name of a dtype object; names and ``None`` pass, others give their text."""
        if dtype is None or isinstance(dtype, str):
            return dtype
        return next((name for name, known in self.dtypes.items() if known == dtype), str(dtype))


def capabilities(platform: Platform) -> dict[str, Any]:
    """Return what the platform offers, as plain data.

    The keys are ``namespace`` (its name), ``device``, ``dtypes`` (names), ``native_products``
    (names of the 16-bit dtypes that the device has units for), and ``stochastic_rounding``, whether
    it has the integer functions that this rounding needs.
    """
    needed = ("bitwise_and", "bitwise_right_shift", "bitwise_xor", "nextafter")
    return {
        "namespace": platform.xp.__name__,
        "device": str(platform.device),
        "dtypes": list(platform.dtypes),
        "native_products": list(platform.native),
        "stochastic_rounding": all(hasattr(platform.xp, name) for name in needed),
    }


def cached(array: Any) -> int | None:
    """Return how many numbers an elementwise step should take at a time, ``None`` for all.

    A library that runs every operation at once, on the host, goes through memory as often as the
    step has operations, unless the numbers stay in cache; parts of a result can be written there.
    On a device the launches of more operations cost more than that saves, and other libraries
    write no part of an array.
    """
    on_host = array_api_compat.is_numpy_array(array) or (
        array_api_compat.is_torch_array(array) and str(array_api_compat.device(array)) == "cpu"
    )
    return _CACHED if on_host else None
