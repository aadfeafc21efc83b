"""The README tells the truth: its code runs, its table is the catalogue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rootfree import METHODS, Method, Precision

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^##+ (.+?)\n.*?^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_every_block_is_found() -> None:
    """Three quick starts and a matrix method, and no Python code outside them."""
    assert len(BLOCKS) == 4
    assert README.count("```python") == 4


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_quick_starts_run_and_learn(title: str, code: str, capsys: pytest.CaptureFixture) -> None:
    """Each block runs as it stands, without a warning, and prints a loss that has become small."""
    exec(compile(code, f"README.md, {title}", "exec"), {"__name__": "__main__"})  # ours to run
    assert 0 <= float(capsys.readouterr().out) < 0.05


KEPT = {
    "full_adagrad": "sum of G Gᵀ, its root",
    "rf_full_matrix": "S: average of batch size · G Gᵀ, from I",
    "rf_full_matrix_inverse": "S⁻¹",
    "rf_full_matrix_factor": "B, S⁻¹ = B Bᵀ",
    "shampoo": "average of G Gᵀ for each axis, its root",
    "rf_shampoo": "S for each axis",
    "sirf_shampoo": "K for each axis, S⁻¹ = K Kᵀ, structured",
}


def row(method: Method) -> str:
    """Return a method's line of the table."""
    rule = method.rule(Precision("float64", "float64", "float64"))
    if method.matrix:
        kept, root = KEPT[method.name], "eigh" in method.decompositions
        needs = ", ".join(method.decompositions) or "products"
    else:
        kept = {
            0: "nothing",
            0.5: f"{'average' if rule.decay else 'sum'} of G²",
            1: f"{'average' if rule.decay else 'sum'} of batch size · G², from {rule.init_scale:g}",
        }[rule.power]
        root, needs = rule.power == 0.5, "entrywise"
    return (
        f"| {method.title} | `{method.class_name}` | `{method.name}` "
        f"| {'yes' if root else 'no'} | {kept} | {needs} "
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
    ci = set(re.findall(r"^run -s ([a-z ]*[a-z])", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert {name for line in named | ci for name in line.split()} <= sessions
    assert {name for line in ci for name in line.split()} == sessions - {"environment"}


def test_links_lead_somewhere() -> None:
    """Every relative link, and every test file that a claim points to, exists."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    targets += re.findall(r"`(tests/[\w/.]+)`", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets)
