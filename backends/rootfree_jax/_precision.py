"""Dtypes: objects by name and back, arrays as JAX takes them, and what JAX offers here.

Which dtype each kind of number has is decided by name, once for every adapter; this file gives the
names their objects.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from rootfree import Precision
from rootfree_array._precision import PARAMETER_DTYPES, resolve

DTYPES: Final[Mapping[str, Any]] = MappingProxyType(
    {name: jnp.dtype(name) for name in PARAMETER_DTYPES}
)
"""Dtype objects by name: `numpy.dtype`, because a scalar type such as `jax.numpy.float32` is
callable, and optax takes whatever is callable for a schedule."""


def dtype_name(dtype: Any) -> str | None:
    """Return the name of a dtype given by name or as an object; ``None`` passes.

    Raises:
        TypeError: if it is no dtype.
    """
    if dtype is None or isinstance(dtype, str):
        return dtype
    try:
        return str(jnp.dtype(dtype).name)
    except TypeError as error:
        raise TypeError(
            "`state_dtype` must be the name of a dtype or a numpy.dtype, got "
            f"{type(dtype).__name__}: {dtype!r}"
        ) from error


def precision(
    param: jax.Array, *, state_dtype: str | None, rounding: str, name: str = "parameter"
) -> Precision:
    """Return the precision that a parameter's numbers have.

    Args:
        param: the parameter or its gradient; only its dtype is read.
        state_dtype: name of the storage dtype, ``None`` for the default.
        rounding: ``"nearest"`` or ``"stochastic"``.
        name: what to call the parameter in an error.

    Raises:
        TypeError: if its dtype is not a real floating one; the message names both.
        ValueError: if ``state_dtype`` or ``rounding`` do not go with it.
    """
    policy = resolve(str(param.dtype), state=state_dtype, rounding=rounding, name=name)
    return policy.precision(DTYPES)


def as_array(leaf: Any, name: str) -> jax.Array:
    """Return a leaf of a pytree as JAX computes with it.

    Warns where JAX narrows float64 to float32, as it does unless 64-bit numbers are enabled.

    Raises:
        TypeError: if it is not an array; the message names it.
    """
    try:
        array = jnp.asarray(leaf)
    except TypeError as error:
        raise TypeError(
            f"{name} must be an array, got {type(leaf).__name__}; leave it out, for example with "
            "optax.masked or None in its place"
        ) from error
    if isinstance(leaf, np.ndarray) and leaf.dtype == np.float64 and array.dtype != leaf.dtype:
        warnings.warn(
            f"{name} is float64, but JAX computes with it in {array.dtype}: enable 64-bit numbers "
            "with jax.config.update('jax_enable_x64', True), or pass float32",
            UserWarning,
            stacklevel=2,
        )
    return array


def capabilities() -> dict[str, Any]:
    """Return what JAX offers in this process, as plain data.

    The keys are ``namespace``, ``version``, ``device`` (kind of the default one), ``platform``
    (``"cpu"``, ``"gpu"``, ``"tpu"``), ``device_count``, ``dtypes`` (names that arrays can have),
    ``x64`` (whether float64 is among them), ``matmul_precision`` (JAX's own default, which is only
    read) and ``stochastic_rounding``.
    """
    device = jax.devices()[0]
    matmul = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]  # made at run time
    x64 = jnp.asarray(np.zeros((), np.float64)).dtype == np.float64
    return {
        "namespace": jnp.__name__,
        "version": jax.__version__,
        "device": str(device.device_kind),
        "platform": str(device.platform),
        "device_count": jax.device_count(),
        "dtypes": [name for name in DTYPES if x64 or name != "float64"],
        "x64": bool(x64),
        "matmul_precision": matmul,
        "stochastic_rounding": True,
    }
