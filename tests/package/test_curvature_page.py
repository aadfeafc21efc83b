"""`docs/curvature.md` tells the truth: its code runs and learns, its table is the catalogue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rootfree import CURVATURES, METHODS

PAGE = (Path(__file__).parents[2] / "docs/curvature.md").read_text()
BLOCKS = re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_examples_run_and_learn(title: str, code: str, capsys: pytest.CaptureFixture) -> None:
    """Each block runs as it stands, without a warning, and prints a loss that has become small."""
    exec(compile(code, f"curvature.md, {title}", "exec"), {"__name__": "__main__"})  # ours to run
    assert 0 <= float(capsys.readouterr().out) < 1e-3


def test_every_block_is_found() -> None:
    """There are two worked examples, one for JAX and one for torch."""
    assert len(BLOCKS) == PAGE.count("```python") == 2


def test_table_of_curvatures() -> None:
    """The table says of every method that takes a curvature which kinds, and of no other."""
    table = PAGE.split("<!-- curvatures:")[1].split("<!-- end of curvatures -->")[0]
    lines = re.findall(r"^\| (.+) \| (.+) \|$", table, re.MULTILINE)[1:]
    said = {
        title: tuple(kinds.split(", "))
        for titles, kinds in lines
        for title in re.split(r"; |, (?=[A-Z]|root-free S)", titles)
    }
    taken = {m.title: m.curvatures for m in METHODS.values() if m.curvatures}
    assert said == taken


def test_every_kind_is_named() -> None:
    """The first table has the classes of all kinds."""
    assert all(f"`{kind.__name__}(" in PAGE for kind in CURVATURES.values())
