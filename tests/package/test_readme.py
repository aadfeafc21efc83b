"""The README tells the truth: its code runs, its table is the catalogue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rootfree import METHODS, Method, Precision

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^### (.+?)\n.*?^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_every_block_is_found() -> None:
    """Three quick starts, and no Python code outside them."""
    assert len(BLOCKS) == 3
    assert README.count("```python") == 3


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_quick_starts_run_and_learn(title: str, code: str, capsys: pytest.CaptureFixture) -> None:
    """Each block runs as it stands, without a warning, and prints a loss that has become small."""
    exec(compile(code, f"README.md, {title}", "exec"), {"__name__": "__main__"})  # ours to run
    assert 0 <= float(capsys.readouterr().out) < 0.05


def row(method: Method) -> str:
    """Return a method's line of the table."""
    rule = method.rule(Precision("float64", "float64", "float64"))
    statistic = {
        0: "none",
        0.5: f"{'average' if rule.decay else 'sum'} of G²",
        1: f"{'average' if rule.decay else 'sum'} of batch size · G², from {rule.init_scale:g}",
    }[rule.power]
    return (
        f"| {method.title} | `{method.class_name}` | `{method.name}` "
        f"| {'yes' if rule.power == 0.5 else 'no'} | {statistic} "
        f"| {'yes' if method.scaled else 'no'} | {method.source} |"
    )


def test_table_of_methods() -> None:
    """One line per method of the catalogue, in its order, each as `row` makes it."""
    table = README.split("<!-- methods:")[1].split("<!-- end of methods -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    wanted = [row(method) for method in METHODS.values()]
    assert lines == wanted, "\n".join(["the lines should be", *wanted])


def test_verdicts_are_those_of_the_suite() -> None:
    """The four words of the suite, and no fifth (conformance 1)."""
    table = README.split("| verdict | means |")[1].split("##")[0]
    words = re.findall(r"^\| ([A-Z -]+) \|", table, re.MULTILINE)
    assert words == ["CONFORMANT", "NON-CONFORMANT", "INCOMPLETE", "NOT RUN"]


def test_commands_are_sessions() -> None:
    """Every `nox -s` of README and .ci/run names sessions that exist; CI runs all of them."""
    noxfile = (ROOT / "noxfile.py").read_text()
    sessions = set(re.findall(r"@nox\.session[^\n]*\ndef (\w+)", noxfile))
    named = set(re.findall(r"nox -s ([a-z ]*[a-z])", README))
    ci = set(re.findall(r"^run -s ([a-z ]+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert {name for line in named | ci for name in line.split()} <= sessions
    assert {name for line in ci for name in line.split()} == sessions - {"environment"}


def test_links_lead_somewhere() -> None:
    """Every relative link, and every test file that a claim points to, exists."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    targets += re.findall(r"`(tests/[\w/.]+)`", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets)
