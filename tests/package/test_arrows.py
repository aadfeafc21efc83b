"""Dependencies point one way: rootfree <- adapters <- the suite (architecture 2)."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ADAPTERS = ("rootfree_array", "rootfree_cupy", "rootfree_jax", "rootfree_torch")
STANDARD = frozenset(sys.stdlib_module_names)

# What each package may import besides the standard library and itself.
ALLOWED = {
    "rootfree": {"array_api_compat"},
    "rootfree_textbook": {"numpy"},
    "rootfree_array": {"array_api_compat", "rootfree", "numpy", "ml_dtypes", "safetensors"},
    "rootfree_cupy": {"array_api_compat", "rootfree", "rootfree_array", "cupy", "ml_dtypes"},
    "rootfree_jax": {"rootfree", "rootfree_array", "jax", "optax", "numpy"},
    "rootfree_torch": {"array_api_compat", "rootfree", "rootfree_array", "torch"},
}


def files(package: str) -> list[Path]:
    """Return a package's modules, without importing it."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return sorted(Path(spec.origin).parent.glob("**/*.py"))


def imported(path: Path) -> set[str]:
    """Return the top-level names that a file imports, wherever in it, type checking included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    """The core needs the standard library and array_api_compat, the textbook NumPy, and so on."""
    assert files(package)
    foreign = {
        f"{path.name}: {name}"
        for path in files(package)
        for name in imported(path) - STANDARD - {package} - ALLOWED[package]
    }
    assert not foreign


def test_only_the_suite_brings_core_and_textbook_together() -> None:
    """The textbook is an independent derivation: no adapter may import it, nor the suite."""
    for package in ("rootfree", *ADAPTERS):
        for path in files(package):
            assert not imported(path) & {"rootfree_textbook", "rootfree_conformance"}, path


def loaded_by(package: str) -> set[str]:
    """Return the top-level names of the modules that importing a package loads."""
    program = (
        "import sys; before = set(sys.modules)\n"
        f"import {package}\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_core_loads_nothing_foreign() -> None:
    """`import rootfree` loads no module beyond the standard library and array_api_compat."""
    foreign = loaded_by("rootfree") - STANDARD - {"rootfree", "array_api_compat"}
    assert not {name for name in foreign if not name.startswith(("__editable__", "_"))}


@pytest.mark.parametrize("package", ["rootfree", "rootfree_array", "rootfree_textbook"])
def test_no_framework_is_loaded_unasked(package: str) -> None:
    """Whoever has no framework, or does not use it, does not pay for it."""
    assert not loaded_by(package) & {"torch", "jax", "jaxlib", "cupy", "optax"}
