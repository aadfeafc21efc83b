"""docs/validate-a-port.md tells the truth: its ports run and conform, its tables are the code's."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from rootfree_conformance import NumericModel
from rootfree_conformance.checks import CHECKS

PAGE = (Path(__file__).parents[2] / "docs" / "validate-a-port.md").read_text()
BLOCKS = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def test_every_block_is_found():
    """Two ports, and no Python code outside them."""
    assert list(BLOCKS) == ["acme_port.py", "box_port.py"]
    assert PAGE.count("```python") == 2


@pytest.mark.parametrize(
    ("name", "kind", "longest", "claim"),
    [
        ("acme_port.py", "white", 20, "float64, float32"),
        ("box_port.py", "black", 49, "float64"),
    ],
)
def test_documented_ports_conform(name, kind, longest, claim, port_file, command, tmp_path):
    """A third party's port, as on the page, is short and CONFORMANT (conformance 14.4, 14.5)."""
    assert len(BLOCKS[name].strip().splitlines()) <= longest
    ref = port_file(BLOCKS[name], name)
    code, screen = command("--port", ref, "--profile", "quick", "--report", tmp_path / "report")
    assert code == 0, screen
    assert re.search(rf"^{name} +CONFORMANT +\d+ cases  {claim}$", screen, re.MULTILINE)
    assert f'"kind": "{kind}"' in (tmp_path / "report" / "report.json").read_text()


def test_the_failure_shown_is_real(port_file, command):
    """The page's example of a failure is what a `precond_lr` that is 1 % too large shows."""
    source = """
        from rootfree_conformance.ports.numpy_port import port

        step = port.step

        def tilted(handle, grads, hyper):
            return step(handle, grads, {**hyper, "precond_lr": 1.01 * hyper["precond_lr"]})

        port.step = tilted
    """
    (shown,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    selection = ("--profile", "quick", "--dtype", "float32", "--rule", "rf_rmsprop")
    code, screen = command("--port", port_file(source, "acme_port.py"), *selection)
    assert code == 1
    assert shown in screen


def test_the_entry_point_is_the_group_that_is_searched():
    """The page's table is the one that `discovery` reads."""
    from rootfree_conformance.discovery import GROUP

    assert f'[project.entry-points."{GROUP}"]\nacme = "acme_port:port"' in PAGE


def test_every_field_of_the_model_is_explained():
    """The table of declarations has each field of `NumericModel`, with its default."""
    table = PAGE.split("| field | default |")[1].split("\n\n")[0]
    for field in fields(NumericModel):
        (row,) = [line for line in table.splitlines() if f"`{field.name}`" in line.split("|")[1]]
        default = row.split("|")[2]
        number = isinstance(field.default, int | float) and not isinstance(field.default, bool)
        shown = f"{field.default:g}" if number else field.default
        assert shown is None or str(shown) in default


def test_every_check_is_named():
    """What the page says is checked are the checks."""
    named = PAGE.split("## What the suite checks")[1]
    assert set(re.findall(r"`(L\d\.\d)`", named)) == set(CHECKS)


def test_every_command_is_understood(command, tmp_path, monkeypatch):
    """Each command line parses: the port's file is missing, and nothing else is wrong."""
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^python -m rootfree_conformance (.*)$", PAGE, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        code, said = command(*line.split())
        assert code == 64
        assert "no such file: acme_port.py" in said
