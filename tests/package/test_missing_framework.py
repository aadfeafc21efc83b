"""Importing an adapter without its framework says what to install (backends 1.6)."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {framework!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
try:
    import {adapter}
except ModuleNotFoundError as error:
    print(error.name, error, sep="\\n")
"""

BROKEN = PROGRAM.replace(
    'raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)', "raise {error}"
)


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, with warnings as errors."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("adapter", "framework", "title", "extra"),
    [
        ("rootfree_torch", "torch", "PyTorch", "torch"),
        ("rootfree_jax", "jax", "JAX", "jax"),
        ("rootfree_jax", "optax", "optax", "jax"),
        ("rootfree_cupy", "cupy", "CuPy", "cupy"),
    ],
)
def test_missing(adapter: str, framework: str, title: str, extra: str) -> None:
    """The error names adapter, framework and extra, and keeps the module's name."""
    done = run(PROGRAM.format(adapter=adapter, framework=framework))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        framework,
        f'{adapter} needs {title}: pip install "rootfree[{extra}]"',
    ]


@pytest.mark.parametrize(
    ("adapter", "framework"), [("rootfree_torch", "torch"), ("rootfree_jax", "jax")]
)
@pytest.mark.parametrize(
    "error",
    ["ImportError('libcudart.so.12: cannot open')", "ModuleNotFoundError('no it', name='other')"],
)
def test_present_but_broken(adapter: str, framework: str, error: str) -> None:
    """A framework that is there but broken keeps its own error: nobody is told to install it."""
    done = run(BROKEN.format(adapter=adapter, framework=framework, error=error))
    assert "pip install" not in done.stdout + done.stderr
    assert "libcudart" in done.stderr or "no it" in done.stdout
