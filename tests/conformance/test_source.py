"""The suite's own text (conformance 9 and 14.10): nothing is skipped, no limit hides in a check."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest
import rootfree_conformance
from rootfree_conformance import thresholds

ROOT = Path(rootfree_conformance.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
JUDGING = sorted([*(ROOT / "checks").glob("*.py"), *(ROOT / "judges").glob("*.py")])
FORBIDDEN = re.compile(r"pytest\.skip|importorskip|skipif|xfail|skipTest|SkipTest")
TOLERANCE = re.compile(r"\b(rtol|atol|rel_tol|abs_tol|tolerance|tol)\s*[=:]\s*[\d.]")
LIMITS = {name for name in vars(thresholds) if name.isupper()}


def code(path: Path) -> str:
    """Return a file's text without comments and strings, a token after another."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    left_out = (tokenize.COMMENT, tokenize.STRING)
    return " ".join(token.string for token in tokens if token.type not in left_out)


def name_of(path: Path) -> str:
    """Return a short name."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_skipped(path):
    """No way out of a case: not a skip, not an expected failure, not a silent import error."""
    assert not FORBIDDEN.search(path.read_text())
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            caught = ast.unparse(node.type)
            silent = all(isinstance(statement, ast.Pass) for statement in node.body)
            assert not (silent and re.search(r"Import|ModuleNotFound|\bException\b", caught))
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_tolerance_is_a_number(path):
    """No `rtol=1e-3` anywhere: the bound is the tolerance."""
    assert not TOLERANCE.search(code(path))


@pytest.mark.parametrize("path", JUDGING, ids=name_of)
def test_limits_come_from_one_file(path):
    """What is measured is compared with names from thresholds.py, and with 0; limits are names."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            judged = any(
                re.search(r"ratio|count|value|error|differ", ast.unparse(s)) for s in sides
            )
            numbers = [s.value for s in sides if isinstance(s, ast.Constant)]
            numbers = [n for n in numbers if isinstance(n, int | float) and not isinstance(n, bool)]
            assert not (judged and any(number != 0 for number in numbers)), ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Result":
            limit = node.args[4]
            assert isinstance(limit, ast.Name), ast.unparse(node)
            assert limit.id in LIMITS


def test_thresholds_are_the_published_ones():
    """The limits of the page; a change of one is a change of the suite's version."""
    assert {name: getattr(thresholds, name) for name in LIMITS} == {
        "EXACT": 0,
        "RATIO": 1.0,
        "VACUITY": 1 / 8,
        "AGREEMENT": 1e-12,
        "SUITE_ROUNDING": 2.0**-20,
    }


def test_only_thresholds_defines_them():
    """No other file gives one of these names a value."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            named = {t.id for t in targets if isinstance(t, ast.Name)} & LIMITS
            assert not named or path.name == "thresholds.py", path
