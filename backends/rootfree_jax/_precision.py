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
from rootfree import Arguments
from rootfree_array._precision import PARAMETER_DTYPES, Policy, resolve

DTYPES: Final[Mapping[str, Any]] = MappingProxyType(
    {name: jnp.dtype(name) for name in PARAMETER_DTYPES}
)
"""Dtype objects by name: `numpy.dtype`, because a scalar type such as `jax.numpy.float32` is
callable, and optax takes whatever is callable for a schedule."""

_UNITS: Final = {"gpu": ("bfloat16", "float16"), "tpu": ("bfloat16",)}
"""16-bit dtypes whose products a platform takes natively. XLA's products on the CPU have none."""


def dtype_name(argument: str, dtype: Any) -> str | None:
    """Return the name of a dtype given by name or as an object; ``None`` passes.

    Raises:
        TypeError: if it is no dtype; the message names the argument.
    """
    if dtype is None or isinstance(dtype, str):
        return dtype
    try:
        return str(jnp.dtype(dtype).name)
    except TypeError as error:
        raise TypeError(
            f"`{argument}` must be the name of a dtype or a numpy.dtype, got "
            f"{type(dtype).__name__}: {dtype!r}"
        ) from error


def policy_of(param: str, checked: Arguments, name: str = "parameter") -> Policy:
    """Return the dtypes that a parameter's numbers have, by name.

    Args:
        param: name of its dtype.
        checked: the method's arguments, with dtypes by name.
        name: what to call it in an error.

    Raises:
        TypeError: if its dtype is not a real floating one; the message names both.
        ValueError: if state, compute or product dtype or rounding do not go with it.
    """
    return resolve(
        param,
        state=checked.state_dtype,
        compute=checked.compute_dtype,
        product=checked.product_dtype,
        rounding=checked.rounding,
        native=_native(),
        name=name,
    )


def widest_policy(checked: Arguments) -> Policy:
    """Return the policy of a float32 parameter, or of a float64 one where the arguments need that.

    Raises:
        ValueError: if no parameter goes with the arguments.
    """
    given = (checked.state_dtype, checked.compute_dtype, checked.product_dtype)
    doubled = "float64" in given
    return policy_of("float64" if doubled else "float32", checked)


def as_array(leaf: Any, name: str) -> jax.Array:
    """Return a leaf of a pytree as JAX computes with it.

    Warns where JAX narrows float64 to float32, as it does unless 64-bit numbers are enabled.

    Raises:
        TypeError: if it is not an array; the message names it.
    """
    try:
        array = jnp.asarray(leaf)
    except (TypeError, ValueError) as error:
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
    read: matrix products here are in the precision of their inputs), ``native_products`` (names of
    the 16-bit dtypes that the platform has units for) and ``stochastic_rounding``.
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
        "native_products": list(_native()),
        "stochastic_rounding": True,
    }


def _native() -> tuple[str, ...]:
    return _UNITS.get(jax.default_backend(), ())
