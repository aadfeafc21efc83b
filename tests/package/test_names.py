"""Every adapter offers the catalogue's methods, under its names and in its order (backends 1.5)."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest
from rootfree import METHODS, signature

CLASSES = [method.class_name for method in METHODS.values()]


def adapter(name: str) -> ModuleType:
    """Import an adapter."""
    return importlib.import_module(f"rootfree_{name}")


@pytest.mark.parametrize("name", ["torch", "array"])
def test_classes(name: str) -> None:
    """`__all__` begins with the catalogue's class names, in order."""
    assert adapter(name).__all__[: len(CLASSES)] == CLASSES


def test_functions() -> None:
    """JAX spells the class RFRMSProp as the functions rf_rmsprop and scale_by_rf_rmsprop."""
    names = adapter("jax").__all__
    assert names[: len(METHODS)] == list(METHODS)
    stages = [
        f"scale_by_{name}" for name, method in METHODS.items() if "precond_lr" in method.hyper
    ]
    assert names[len(METHODS) : len(METHODS) + len(stages)] == stages


@pytest.mark.parametrize("name", ["torch", "array", "jax"])
def test_public_names_exist_once(name: str) -> None:
    """Everything in `__all__` is there, and no method class is missing from it."""
    module = adapter(name)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, public) for public in module.__all__)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["torch", "array", "jax"])
def test_arguments(name: str, method: str) -> None:
    """The same words, order, kinds and defaults everywhere, but for the learning rate's name."""
    entry, functional = METHODS[method], name == "jax"
    came = inspect.signature(getattr(adapter(name), method if functional else entry.class_name))
    wanted = signature(entry, lr="learning_rate" if functional else "lr")
    shared = [came.parameters[key] for key in wanted.parameters]
    assert [(p.name, p.kind, p.default) for p in shared] == [
        (p.name, p.kind, p.default) for p in wanted.parameters.values()
    ]
    order = [key for key in came.parameters if key in wanted.parameters]
    assert order == list(wanted.parameters)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["torch", "array", "jax"])
def test_documentation(name: str, method: str) -> None:
    """Each class or function documents every argument it has."""
    entry = METHODS[method]
    public = getattr(adapter(name), method if name == "jax" else entry.class_name)
    text = inspect.getdoc(public) or ""
    own = {"params"} if name == "array" else set()  # its base class documents it
    missing = set(inspect.signature(public).parameters) - own
    assert not {key for key in missing if f"    {key}: " not in text}


def test_the_core_lists_what_it_has() -> None:
    """`rootfree.__all__` is sorted the way the linter wants it, complete and without repeats."""
    import rootfree

    assert len(set(rootfree.__all__)) == len(rootfree.__all__)
    assert all(hasattr(rootfree, name) for name in rootfree.__all__)
