"""Importing without the framework (backends 1.6)."""

from __future__ import annotations

import importlib
import sys
from importlib.abc import MetaPathFinder

import pytest


@pytest.fixture
def reload(monkeypatch):
    """Return a function that imports the package anew, as if nothing of it had been imported."""

    def reload():
        for name in [n for n in sys.modules if n.split(".")[0] == "rootfree_jax"]:
            monkeypatch.delitem(sys.modules, name)
        return importlib.import_module("rootfree_jax")

    return reload


@pytest.mark.parametrize(("framework", "title"), [("jax", "JAX"), ("optax", "optax")])
def test_a_missing_framework_is_named(monkeypatch, reload, framework, title):
    """The error says what to install, and keeps the framework's name for those who look for it."""
    monkeypatch.setitem(sys.modules, framework, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf'needs {title}: pip install "rootfree\[jax\]"'
    ) as e:
        reload()
    assert e.value.name == framework


@pytest.mark.parametrize("framework", ["jax", "optax"])
def test_a_broken_framework_keeps_its_own_error(monkeypatch, reload, framework):
    """A missing part of an installed framework is not the framework missing."""

    class Broken(MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name == framework:
                raise ModuleNotFoundError("No module named 'partof'", name="partof")

    monkeypatch.delitem(sys.modules, framework)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="No module named 'partof'"):
        reload()
