"""The rules' text names no framework (architecture 3)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import rootfree

FILES = sorted(Path(rootfree.__file__).parent.glob("**/*.py"))
FOREIGN = re.compile(r"torch|jax|cupy|numpy|tensorflow|mlx|ml_dtypes|b?float16", re.IGNORECASE)


def identifiers(tree: ast.AST) -> set[str]:
    """Return every name that the code, not its documentation, uses."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.alias):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_framework_is_named(path):
    """No identifier of the core is a framework's, nor a dtype that only some have."""
    assert not {name for name in identifiers(ast.parse(path.read_text())) if FOREIGN.search(name)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_written_in_place(path):
    """No assignment to an element of an array anywhere in the core."""
    tree = ast.parse(path.read_text())
    targets = [t for node in ast.walk(tree) if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in ast.walk(tree) if isinstance(node, ast.AugAssign)]
    assert not [ast.unparse(t) for t in targets if isinstance(t, ast.Subscript)]
