"""A copy of the packages with one fault in it."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from rootfree_conformance.faults.catalogue import Fault

PACKAGES = (
    "rootfree",
    "rootfree_textbook",
    "rootfree_array",
    "rootfree_torch",
    "rootfree_jax",
    "rootfree_conformance",
)


class StaleFaultError(ValueError):
    """A fault's text does not occur exactly once: the code has moved on, and the fault must too."""


def folder(package: str) -> Path:
    """Return where a package is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def seed(fault: Fault, target: Path) -> None:
    """Copy the packages to ``target`` and break one file of the copy.

    Raises:
        StaleFaultError: if the text to replace is not there exactly once.
    """
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(folder(package), target / package, ignore=ignored)
    path = target / fault.file
    text = path.read_text()
    if not fault.old or text.count(fault.old) != 1:
        raise StaleFaultError(
            f"{fault.id}: {fault.file} has {text.count(fault.old)} places with {fault.old!r}, "
            "expected 1; bring the fault up to date"
        )
    path.write_text(text.replace(fault.old, fault.new))
