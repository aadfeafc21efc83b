"""Facts about the machine and the software that times depend on; no names, no paths."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import rootfree_torch
import torch

_DISTRIBUTIONS: Final = (
    "rootfree",
    "torch",
    "jax",
    "jaxlib",
    "optax",
    "numpy",
    "sirfshampoo",
    "pytorch-optimizer",
    "heavyball",
)


def facts() -> dict[str, Any]:
    """Return processor, cores, threads, units and versions; ``None`` for what is not installed."""
    found = rootfree_torch.capabilities("cpu")
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16_units": found["bfloat16_products"],
        "float32_products": found["float32_products"],
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _DISTRIBUTIONS},
    }


def _processor() -> str:
    """Return the processor's name as the system has it."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
