"""torch's dtype objects by name, and what the device does natively.

The policy itself, by name, is shared by the adapters: `rootfree_array._precision`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import torch
from rootfree import check_choice
from rootfree_array._precision import PARAMETER_DTYPES, Policy, resolve

DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {name: getattr(torch, name) for name in PARAMETER_DTYPES}
)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype object, ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")


def named_dtype(argument: str, given: torch.dtype | str | None) -> str | None:
    """Return the name under which a dtype is kept in a group, so that it can be saved.

    Args:
        argument: what it was given as, ``"state_dtype"``.
        given: a dtype, its name, or ``None`` for the default.

    Raises:
        TypeError: if it is neither a name, a dtype nor ``None``.
        ValueError: if rootfree has no use for it.
    """
    if given is None:
        return None
    name = dtype_name(given) if isinstance(given, torch.dtype) else given
    if not isinstance(name, str):
        raise TypeError(
            f"`{argument}` must be a dtype or its name, got {type(given).__name__}: {given!r}"
        )
    check_choice(argument, name, PARAMETER_DTYPES)
    return name


def policy_of(param: torch.Tensor, group: Mapping[str, Any]) -> Policy:
    """Return the dtypes of a parameter's numbers, as its group and its device stand now.

    Raises:
        TypeError: if the parameter is not of a real floating dtype.
        ValueError: if the group's dtypes or `rounding` do not go with it.
    """
    return _policy(
        dtype_name(param.dtype),
        group["state_dtype"],
        group.get("compute_dtype"),
        group.get("product_dtype"),
        group["rounding"],
        param.device,
    )


@lru_cache(maxsize=256)
def _policy(
    param: str,
    state: str | None,
    compute: str | None,
    product: str | None,
    rounding: str,
    device: torch.device,
) -> Policy:
    return resolve(
        param,
        state=state,
        compute=compute,
        product=product,
        rounding=rounding,
        native=native(device),
        name="it",
    )


@lru_cache(maxsize=64)
def native(device: torch.device) -> tuple[str, ...]:
    """Return the 16-bit dtypes that the device has units for, asked once."""
    bfloat16 = ("bfloat16",) if _has_bfloat16_units(device) else ()
    return (*bfloat16, "float16") if device.type == "cuda" else bfloat16


def without_autocast(devices: Iterable[torch.device]) -> AbstractContextManager[object]:
    """Return a context in which products are taken in the dtypes that the core asks for."""
    casting = [
        kind
        for kind in dict.fromkeys(device.type for device in devices)
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    ]
    if not casting:
        return nullcontext()
    context = ExitStack()
    for kind in casting:
        context.enter_context(torch.autocast(kind, enabled=False))
    return context


def capabilities(device: torch.device | str | None = None) -> dict[str, Any]:
    """Return what torch offers on a device, as plain data. Nothing is set, only read.

    Args:
        device: by default torch's default device.

    Returns:
        ``namespace`` and ``version`` of the framework, ``device``, ``dtypes`` (names),
        ``stochastic_rounding``, ``bfloat16_products`` (whether the device has native units for
        them) and ``float32_products``: ``"ieee"`` if float32 matrix products are true float32,
        else what torch was told to put in their place, ``"tf32"`` or ``"bf16"``.
    """
    device = torch.get_default_device() if device is None else torch.device(device)
    return {
        "namespace": "torch",
        "version": str(torch.__version__),
        "device": str(device),
        "dtypes": list(DTYPES),
        "stochastic_rounding": True,
        "bfloat16_products": "bfloat16" in native(device),
        "float32_products": _float32_products(device),
    }


def _has_bfloat16_units(device: torch.device) -> bool:
    """Return a property of the device: a timing would make runs irreproducible."""
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    if device.type == "cuda" and torch.cuda.is_available():
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return False


def _float32_products(device: torch.device) -> str:
    """Return how the process-wide switches say that float32 matrix products are taken."""
    cuda = device.type == "cuda"
    backend = torch.backends.cuda if cuda else torch.backends.mkldnn
    told = getattr(getattr(backend, "matmul", None), "fp32_precision", None)  # since torch 2.9
    if told is None:
        words = {"highest": "ieee", "high": "tf32", "medium": "tf32" if cuda else "bf16"}
        return words[torch.get_float32_matmul_precision()]
    return "ieee" if told == "none" else str(told)
