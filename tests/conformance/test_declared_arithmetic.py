"""What the built-in ports declare of log1p and expm1, measured."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from rootfree_conformance import NumericModel
from rootfree_conformance.ports import jax_port, numpy_port, torch_port

DTYPES = {"float32": np.float32, "float64": np.float64}


def in_jax(name: str, x: np.ndarray) -> np.ndarray:
    """Return a jitted function of jax.numpy at ``x``, in its precision."""
    with jax.enable_x64(x.dtype == np.float64):
        return np.asarray(jax.jit(getattr(jnp, name))(x))


LIBRARIES: dict[str, tuple[object, Callable[[str, np.ndarray], np.ndarray]]] = {
    "jax": (jax_port.port, in_jax),
    "numpy": (numpy_port.port, lambda name, x: getattr(np, name)(x)),
    "torch": (torch_port.port, lambda name, x: getattr(torch, name)(torch.tensor(x)).numpy()),
}


def arguments(name: str, dtype: type[np.floating]) -> np.ndarray:
    """Return the range that bias correction uses: -w for log1p, t log(1 - w) for expm1."""
    rng = np.random.default_rng(1)
    w = np.concatenate([rng.uniform(0, 1, 50_000), 10.0 ** rng.uniform(-8, 0, 50_000) * 0.999])
    return (-w if name == "log1p" else -20 * w).astype(dtype)


@pytest.mark.parametrize("name", ["log1p", "expm1"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", LIBRARIES)
def test_is_as_accurate_as_declared(library: str, dtype: str, name: str) -> None:
    """The largest error in ulps, against extended precision, is at most the declared one."""
    port, function = LIBRARIES[library]
    model: NumericModel = port.dtypes[dtype]  # type: ignore[attr-defined]
    x = arguments(name, DTYPES[dtype])
    exact = getattr(np, name)(x.astype(np.longdouble))
    assert np.finfo(np.longdouble).nmant > 60, "extended precision is needed to measure float64"
    spacing = np.spacing(np.abs(exact.astype(DTYPES[dtype]))).astype(np.longdouble)
    ulps = np.abs(function(name, x).astype(np.longdouble) - exact) / spacing
    assert float(ulps.max()) <= getattr(model, name)
