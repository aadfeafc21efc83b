"""Finding ports: by entry point (group ``rootfree.ports``) or by ``file.py:attribute``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from rootfree_conformance.port import Port

GROUP = "rootfree.ports"


class PortError(ValueError):
    """A port's name or reference is wrong; the message says what is known."""


def known() -> Mapping[str, str]:
    """Return every installed port: name to ``module:attribute``."""
    return {entry.name: entry.value for entry in sorted(entry_points(group=GROUP))}


def reference(name: str) -> str:
    """Return the reference of an installed port.

    Raises:
        PortError: if there is none of this name.
    """
    ports = known()
    if name not in ports:
        raise PortError(f"unknown backend {name!r}; installed: {', '.join(ports) or 'none'}")
    return ports[name]


def checked_path(text: str) -> str:
    """Return a ``file.py:attribute`` reference with an absolute path.

    Raises:
        PortError: if the text has another form, or there is no such file.
    """
    path, separator, attribute = text.rpartition(":")
    if not separator or not attribute.isidentifier() or not path.endswith(".py"):
        raise PortError(f"a port is given as file.py:attribute, got {text!r}")
    if not Path(path).is_file():
        raise PortError(f"no such file: {path}")
    return f"{Path(path).resolve()}:{attribute}"


def load(ref: str) -> Port:
    """Import a port from ``module:attribute`` or ``file.py:attribute``."""
    where, _, attribute = ref.rpartition(":")
    if where.endswith(".py"):
        # Its own name might be that of a library that it imports.
        name = f"rootfree_port_{Path(where).stem}"
        spec = importlib.util.spec_from_file_location(name, where)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    return cast("Port", getattr(module, attribute))
