"""Examples in docstrings are run (style 17)."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# rootfree_cupy's examples need a GPU.
FOLDERS = [
    "reference/rootfree",
    "reference/rootfree_textbook",
    "backends/rootfree_array",
    "backends/rootfree_jax",
    "backends/rootfree_torch",
]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts[1:]).removesuffix(".__init__")
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("**/*.py"))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    """Every example of a module gives what it says."""
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples() -> None:
    """The core's rule and every finished adapter show how they are used."""
    for name in ("rootfree.diagonal", "rootfree_array", "rootfree_jax", "rootfree_torch"):
        finder = doctest.DocTestFinder()
        assert any(test.examples for test in finder.find(importlib.import_module(name)))
